"""Tokenizers beside the weights: the task's tokens, others, and damaged files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wild.case import Case, Group
from wild.models import GPT2, check, write

TOKENS = GPT2.task.tokens or ()
_IDS = {token: number for number, token in enumerate(TOKENS)}


def _whole(vocabulary: Any, added: Any = ()) -> dict[str, Any]:
    entries = [{"content": token, "id": number} for token, number in dict(added).items()]
    return {"model": {"vocab": vocabulary}, "added_tokens": entries}


_SAME: dict[str, dict[str, Any]] = {
    "`tokenizer.json` with ids": {"tokenizer.json": _whole(_IDS)},
    "`tokenizer.json` with scores": {"tokenizer.json": _whole([[token, -1.0] for token in TOKENS])},
    "`tokenizer.json` whose special tokens are added ones": {
        "tokenizer.json": _whole(
            {token: i for token, i in _IDS.items() if i < 3}, {t: i for t, i in _IDS.items() if i > 2}
        )
    },
    "`vocab.txt`": {"vocab.txt": "\n".join(TOKENS)},
    "`vocab.json`": {"vocab.json": _IDS},
    "`vocab.json` and `added_tokens.json`": {
        "vocab.json": {token: i for token, i in _IDS.items() if i < 3},
        "added_tokens.json": {token: i for token, i in _IDS.items() if i > 2},
    },
    "`tokenizer.json` beside a `vocab.txt` of other tokens": {"tokenizer.json": _whole(_IDS), "vocab.txt": "a\nb"},
    "no tokenizer: the number of rows is the task's": {},
}
_SWAPPED = ("2", "1", *TOKENS[2:])
_REFUSED: dict[str, dict[str, Any]] = {
    "other tokens": {"vocab.txt": "\n".join("abcdefg")},
    "the same tokens with two ids exchanged": {"vocab.txt": "\n".join(_SWAPPED)},
    "a token more than rows": {"vocab.txt": "\n".join((*TOKENS, "x"))},
    "a token less": {"vocab.txt": "\n".join(TOKENS[:-1])},
    "an id without a token": {"vocab.json": {"1": 0, "2": 2}},
    "two tokens of one id": {"vocab.json": {"1": 0, "2": 0}},
    "two ids of one token": {"tokenizer.json": _whole({"1": 0}, {"1": 1})},
    "a token on two lines": {"vocab.txt": "1\n2\n1"},
    "an empty line": {"vocab.txt": "1\n\n2"},
    "a token that contradicts the added ones": {"vocab.json": _IDS, "added_tokens.json": {"x": 3}},
    "ids that are text": {"vocab.json": {"1": "0"}},
    "negative ids": {"vocab.json": {"1": -1}},
    "ids that are lists": {"vocab.json": {"1": [0]}},
    "no tokens": {"vocab.json": {}},
    "`tokenizer.json` without a model": {"tokenizer.json": {"added_tokens": []}},
    "`tokenizer.json` whose model is null": {"tokenizer.json": {"model": None}},
    "`tokenizer.json` whose vocab is a number": {"tokenizer.json": _whole(5)},
    "`tokenizer.json` whose added tokens are numbers": {"tokenizer.json": _whole(_IDS) | {"added_tokens": [5]}},
    "`tokenizer.json` cut": {"tokenizer.json": json.dumps(_whole(_IDS))[:40]},
    "`tokenizer.json` that is a list": {"tokenizer.json": "[]"},
    "one name twice": {"vocab.json": '{"1": 0, "1": 1}'},
    "an empty file": {"vocab.txt": ""},
    "a pointer of git LFS": {
        "tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 42\n"
    },
    "a web page": {"tokenizer.json": "<html></html>"},
    "bytes that are no text": {"vocab.txt": b"1\n\xff\xfe"},
    "bytes that are no text in JSON": {"vocab.json": b'{"\xff": 0}'},
    "a model of SentencePiece alone": {"tokenizer.model": b"\x0a"},
}


def group() -> Group:
    """Returns all cases."""
    return Group("Tokenizers", "Beside whole weights of GPT-2, for a task of 7 tokens.", list(_cases()))


def _cases() -> Iterator[Case]:
    for refused, table in ((False, _SAME), (True, _REFUSED)):
        for what, contents in table.items():
            yield Case(what, lambda folder, contents=contents: _act(folder, contents), refused)
    yield Case("a link that leads nowhere", _broken, refused=True)
    yield Case("a folder in place of `vocab.txt`", _folder, refused=True)


def _act(folder: Path, contents: dict[str, Any]) -> str:
    write(folder, GPT2)
    for name, content in contents.items():
        raw = (
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
        (folder / name).write_bytes(raw)
    return check(folder, GPT2)


def _broken(folder: Path) -> str:
    write(folder, GPT2)
    (folder / "tokenizer.json").symlink_to("../blobs/5")
    return check(folder, GPT2)


def _folder(folder: Path) -> str:
    write(folder, GPT2)
    (folder / "vocab.txt").mkdir()
    return check(folder, GPT2)
