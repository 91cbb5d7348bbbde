"""The vocabulary: token ids of a corpus, from a file or learned from the text, and how text becomes ids.

Text is normalised, split into words and these into pieces as in BERT: as Hugging Face's ``BertTokenizerFast`` does with
the same vocab.txt, but for one thing. Text that reads ``[MASK]`` is three tokens, and never the special one.
"""

import hashlib
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pdjax.errors import UserError, require

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What no text becomes; a learned vocabulary begins with them."""

LEAST_FREQUENCY = 2
"""How often two pieces stand beside each other before they become one."""

MOST_CHARACTERS = 1000
"""Characters of a learned vocabulary, the most frequent; at most a half of it, as each is there as ``##c`` too."""

LONGEST_WORD = 100
"""Characters: a longer word is unknown."""

_CHUNK = 2**15
"""Characters that are tokenised at once: the library needs hundreds of bytes for each."""


def read_vocabulary(path: Path, lowercase: bool) -> tuple[str, ...]:
    """Returns the tokens of a vocab.txt by their ids, the numbers of the lines from 0.

    Raises:
      UserError: it is missing, damaged, lacks a special token, or is of text that is not lowercased.
    """
    require(path.is_file(), "a vocabulary: a size, or a vocab.txt", f"{path}, which is no file", "correct it")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"UTF-8 in {path}", str(error), "take another vocab.txt") from None
    # Not splitlines: a token may be another of Unicode's ends of lines.
    tokens = tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    remedy = "take a vocab.txt of BERT's kind"
    if "" in tokens:
        raise UserError(f"a token on every line of {path}", f"none on line {tokens.index('') + 1}", remedy)
    repeated = [token for token, count in Counter(tokens).items() if count > 1]
    require(not repeated, f"distinct tokens in {path}", f"{' '.join(repeated[:3])} more than once", remedy)
    missing = [token for token in SPECIAL if token not in tokens]
    require(not missing, f"{' '.join(SPECIAL)} in {path}", f"no {' '.join(missing)}", remedy)
    cased = [token for token in tokens if token.removeprefix("##").isalpha() and token != token.lower()]
    require(
        not (lowercase and cased),
        f"no capital letters in {path}, as text is lowercased",
        f"{len(cased)} tokens with some, such as {' '.join(cased[:3])}",
        "write --no-lowercase, or take an uncased vocabulary",
    )
    return tokens


def write_vocabulary(path: Path, tokens: Sequence[str]) -> None:
    """Writes a vocab.txt."""
    path.write_bytes("".join(f"{token}\n" for token in tokens).encode())


def vocabulary_digest(tokens: Sequence[str]) -> str:
    """Returns the SHA-256 of tokens and their ids."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def count_characters(text: str, lowercase: bool) -> Counter[str]:
    """Returns how often the characters of words stand in a text as the vocabulary sees it."""
    normalizer, counts = _normalizer(lowercase), Counter()
    for chunk in _chunks(text):
        counts.update(normalizer.normalize_str(chunk))
    return Counter({character: count for character, count in counts.items() if not character.isspace()})


def learn_vocabulary(
    texts: Iterable[str], characters: Counter[str], size: int, lowercase: bool
) -> tuple[tuple[str, ...], int]:
    """Learns WordPiece tokens from texts: the same ones whenever, and with however many threads.

    Args:
      texts: documents.
      characters: how often each stands in them.
      size: tokens, the special ones included.
      lowercase: whether they are lowercased.

    Returns:
      ``size`` tokens by their ids, and how many of them fill it up as ``[unused<n>]``, which no text becomes.

    Raises:
      UserError: the size has no room for the letters.
    """
    from tokenizers.trainers import WordPieceTrainer

    room = min(MOST_CHARACTERS, (size - len(SPECIAL)) // 4)
    letters = len(string.ascii_lowercase)
    require(
        room >= letters,
        f"a vocabulary of at least {4 * letters + len(SPECIAL)} tokens",
        size,
        "raise --vocabulary",
    )
    kept = sorted(sorted(characters), key=lambda character: -characters[character])[:room]
    kept.sort()
    # The trainer numbers what it meets in the order of a hash map, and breaks ties by numbers. Here it meets nothing
    # that has none yet: all characters are in already, in front of a word and inside of it.
    known = [*SPECIAL, *kept, *(f"##{character}" for character in kept)]
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=known,
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        show_progress=False,
    )
    tokenizer = _tokenizer({}, lowercase)
    tokenizer.train_from_iterator((chunk for text in texts for chunk in _chunks(text)), trainer)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    unused = size - len(tokens)
    return (*tokens, *(f"[unused{number}]" for number in range(unused))), unused


class Tokenizer:
    """Turns text into ids.

    Args:
      tokens: the vocabulary, by ids.
      lowercase: whether text is lowercased, and loses its accents.
    """

    def __init__(self, tokens: Sequence[str], lowercase: bool):
        self._tokenizer = _tokenizer({token: number for number, token in enumerate(tokens)}, lowercase)

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, "T"]]:
        """Returns the ids of every text, without any special tokens."""
        chunks, counts = [], []
        for text in texts:
            before = len(chunks)
            chunks += _chunks(text)
            counts.append(len(chunks) - before)
        encoded = iter(self._tokenizer.encode_batch_fast(chunks, add_special_tokens=False))
        return [
            np.concatenate([np.zeros(0, np.int32), *(np.array(next(encoded).ids, np.int32) for _ in range(count))])
            for count in counts
        ]


def _tokenizer(vocabulary: dict[str, int], lowercase: bool) -> Any:
    import tokenizers
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer

    made = tokenizers.Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    made.normalizer = _normalizer(lowercase)
    made.pre_tokenizer = BertPreTokenizer()
    return made


def _normalizer(lowercase: bool) -> Any:
    from tokenizers.normalizers import BertNormalizer

    return BertNormalizer(lowercase=lowercase)


def _chunks(text: str) -> Iterator[str]:
    """Yields a text in parts that end at white space, which no word reaches across."""
    start = 0
    while start < len(text):
        end = start + _CHUNK
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            later = [place for place in (text.find(" ", end), text.find("\n", end)) if place >= 0]
            end = space + 1 if space >= start else min(later, default=len(text)) + 1
        yield text[start:end]
        start = end
