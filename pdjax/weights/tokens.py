"""The tokens that a model's ids stand for, from the files of its tokenizer, which travel with its weights.

Rows of a matrix say little about a vocabulary: they may be padded, and two of one size may differ in every token.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pdjax.errors import UserError, require
from pdjax.weights.files import check_is_there, unique_json
from pdjax.weights.stored import AGAIN, listed

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
"""What transformers keeps of a tokenizer."""

_BERT: Mapping[str, dict[str, Any]] = {
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"},
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}
"""The settings in tokenizer.json with which text is split as ``pdjax.text`` does."""

_UNREADABLE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def tokens_of(folder: Path) -> tuple[str, ...] | None:
    """Returns the token of every id, or None where a folder has no tokenizer.

    From tokenizer.json, else from vocab.txt, as BERT's, else from vocab.json, as GPT-2's, both with added_tokens.json.

    Raises:
      UserError: a file is damaged, an id has no token or two, a token has two ids, or the tokenizer cannot be read.
    """
    for name, read in (("tokenizer.json", _whole), ("vocab.txt", _lines), ("vocab.json", _ids)):
        file = folder / name
        if os.path.lexists(file):
            check_is_there(file)
            pairs = list(read(file))
            added = folder / "added_tokens.json"
            if name != "tokenizer.json" and os.path.lexists(added):
                check_is_there(added)
                pairs += _ids(added)
            return _by_id(pairs, file)
    unreadable = [name for name in _UNREADABLE if os.path.lexists(folder / name)]
    require(
        not unreadable,
        f"tokenizer.json, vocab.txt or vocab.json in {folder}",
        f"{listed(unreadable)} alone",
        "have transformers convert it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    )
    return None


def lowercases(folder: Path) -> bool:
    """Whether a BERT's tokenizer lowercases text and takes its accents away, or does neither.

    By tokenizer.json, else by tokenizer_config.json, else by the vocabulary: one with a word in capital letters is of
    text that is left as it is.

    Raises:
      UserError: a file is damaged, or it splits text in another way than BERT's and ``pdjax.text``.
    """
    whole, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if os.path.lexists(whole):
        content = unique_json(whole.read_bytes(), str(whole))
        parts = {part: content.get(part) for part in _BERT}
        return _as_bert(whole, {part: said if isinstance(said, dict) else {} for part, said in parts.items()})
    if os.path.lexists(config):
        check_is_there(config)
        content = unique_json(config.read_bytes(), str(config))
        lowercase, chinese = content.get("do_lower_case", True), content.get("tokenize_chinese_chars", True)
        accents = content.get("strip_accents")
        said = {"lowercase": lowercase, "handle_chinese_chars": chinese, "strip_accents": accents}
        return _as_bert(config, {**_BERT, "normalizer": _BERT["normalizer"] | said})
    return not _has_capital_words(tokens_of(folder) or ())


def check_tokens(theirs: tuple[str, ...], ours: tuple[str, ...], what: str) -> None:
    """Raises a ``UserError`` unless ids stand for the same tokens.

    Tokens alone are compared: how a tokenizer splits text into them is not.

    Args:
      theirs: what was found.
      ours: what it is to be.
      what: whose they are, in words such as "FOLDER and PcfgTask".
    """
    shared = min(len(theirs), len(ours))
    differing = [i for i in range(shared) if theirs[i] != ours[i]]
    surplus = max(len(theirs), len(ours)) - shared
    if not differing and not surplus:
        return
    first = differing[0] if differing else shared
    there, here = (repr(tokens[first]) if first < len(tokens) else "none" for tokens in (theirs, ours))
    raise UserError(
        f"the same {len(ours)} tokens in {what}",
        f"{len(theirs)}; {len(differing) + surplus} differ, the first that of id {first}: {there} instead of {here}",
        "teacher and student share one vocabulary: take the tokenizer and the task that the teacher was trained with",
    )


def copy_tokenizer(folder: Path, into: Path) -> tuple[str, ...]:
    """Copies a tokenizer's files, the content of links, and returns their names; without any, nothing is made.

    Raises:
      UserError: a file is not there but by its name, or ``into`` has another in its place; then none is copied.
    """
    names = tuple(name for name in TOKENIZER_FILES if os.path.lexists(folder / name))
    for name in names:
        check_is_there(folder / name)
        require(
            not os.path.lexists(into / name) or _same(folder / name, into / name),
            f"no other {name} in {into} than that of {folder}",
            "one that differs",
            "choose an empty folder, or remove it",
        )
    for name in names:
        into.mkdir(parents=True, exist_ok=True)
        if not (into / name).exists():
            shutil.copyfile(folder / name, into / name)
    return names


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _has_capital_words(tokens: Iterable[str]) -> bool:
    """Whether one of a vocabulary's words, or parts of them, has a capital letter; special tokens are no words."""
    return any(part.isalpha() and part != part.lower() for part in (token.removeprefix("##") for token in tokens))


def _as_bert(file: Path, said: Mapping[str, dict[str, Any]]) -> bool:
    """Returns whether settings lowercase, after a look at whether they are a BERT's otherwise."""
    lowercase = said["normalizer"].get("lowercase", True)
    accents = said["normalizer"].get("strip_accents")
    differing = [
        f"{part}.{name} {said[part].get(name)!r}"
        for part, settings in _BERT.items()
        for name, value in settings.items()
        if said[part].get(name) != value
    ]
    differing += [] if accents in (None, lowercase) else [f"strip_accents {accents} with lowercase {lowercase}"]
    require(
        not differing,
        f"a tokenizer that splits text as BERT's in {file}",
        ", ".join(differing),
        "take the checkpoints of another model: text is not split like that here",
    )
    return bool(lowercase)


def _whole(file: Path) -> Iterable[tuple[Any, Any]]:
    """Yields the tokens and ids of tokenizer.json: a model's, then added ones, which may repeat it."""
    content = unique_json(file.read_bytes(), str(file))
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):  # WordPiece, BPE, WordLevel
        yield from vocabulary.items()
    elif isinstance(vocabulary, list) and all(isinstance(entry, list) and entry for entry in vocabulary):  # Unigram
        yield from ((entry[0], number) for number, entry in enumerate(vocabulary))
    else:
        raise UserError(f"a vocab of its model in {file}", type(vocabulary).__name__, AGAIN)
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise UserError(f"added_tokens as JSON objects in {file}", type(added).__name__, AGAIN)
    yield from ((entry.get("content"), entry.get("id")) for entry in added)


def _lines(file: Path) -> Iterable[tuple[Any, Any]]:
    """Yields the tokens of vocab.txt: the id is the number of the line, counted from 0."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"UTF-8 in {file}", str(error), AGAIN) from error
    # Not splitlines: a token may be another of Unicode's ends of lines.
    lines = text.removesuffix("\n").split("\n")
    for number, token in enumerate(lines):
        require(token != "", f"a token on every line of {file}", f"none on line {number + 1}", AGAIN)
        yield token, number


def _ids(file: Path) -> Iterable[tuple[Any, Any]]:
    """Yields the tokens and ids of vocab.json or added_tokens.json."""
    yield from unique_json(file.read_bytes(), str(file)).items()


def _by_id(pairs: Iterable[tuple[Any, Any]], file: Path) -> tuple[str, ...]:
    """Returns tokens in the order of their ids, which are to be 0, 1, 2, ... and each token's own."""
    token_of: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for token, number in pairs:
        if not isinstance(token, str) or type(number) is not int or number < 0:
            raise UserError(f"tokens and their ids in {file}", f"{token!r} with the id {number!r}", AGAIN)
        other, its_id = token_of.setdefault(number, token), id_of.setdefault(token, number)
        require(other == token, f"one token of id {number} in {file}", f"{other!r} and {token!r}", AGAIN)
        require(its_id == number, f"one id of token {token!r} in {file}", f"{its_id} and {number}", AGAIN)
    require(len(token_of) > 0, f"tokens in {file}", "none", AGAIN)
    missing = [number for number in range(len(token_of)) if number not in token_of]
    if missing:
        raise UserError(f"a token of every id up to {max(token_of)} in {file}", f"none of id {missing[0]}", AGAIN)
    return tuple(token_of[number] for number in range(len(token_of)))
