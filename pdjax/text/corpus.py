"""A prepared corpus: rows of token ids by source, held out or not, read by number or as endless streams.

::

    corpus.json     settings, sources with the SHA-256 of their files, counts, digests; its presence means it is whole
    vocab.txt       the tokens by ids
    rows/1.0.0/     a TFDS data set in array_record: the splits <source>_train and <source>_held_out

Example i of a stream is a function of the stream's name, the seed and i: nothing remembers where it was.
"""

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from pdjax.errors import UserError, require
from pdjax.text.vocabulary import vocabulary_digest

FORMAT = 1
"""Of what is written; another one is refused."""

RECORD = "corpus.json"
VOCABULARY = "vocab.txt"
ROWS = "rows"

VERIFIED_BYTES = 2**30
"""Rows of up to so many bytes are verified when a corpus is opened, in a second or two; see ``Corpus.check``."""

_AGAIN = "remove the directory and prepare it again"


class Rows(NamedTuple):
    """Rows of a corpus."""

    tokens: Int[np.ndarray, "N L"]
    segments: UInt8[np.ndarray, "N L"]  # 0: padding; 1, 2, ...: the documents of a row, in their order


class Corpus:
    """A corpus that was prepared; ``open_corpus`` makes it.

    Args:
      directory: where it lies.
      record: what its corpus.json says.
    """

    def __init__(self, directory: Path, record: Mapping[str, Any]):
        self.directory = directory
        self.record = record

    @property
    def digest(self) -> str:
        """The SHA-256 of all rows, their order, the vocabulary and the length, wherever the corpus lies."""
        return self.record["digest"]

    @property
    def length(self) -> int:
        """Places of a row."""
        return self.record["settings"]["length"]

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of what its documents come from."""
        return tuple(source["name"] for source in self.record["sources"])

    @functools.cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens by ids."""
        return _tokens(self.directory, self.record)

    def num_rows(self, held_out: bool) -> dict[str, int]:
        """Returns the number of rows of every source, in training or held out from it."""
        side = side_of(held_out)
        return {source["name"]: source["counts"][side]["rows"] for source in self.record["sources"]}

    @property
    def unknown_share(self) -> float:
        """The share of [UNK] among the tokens, held out ones included."""
        counts = [counts for source in self.record["sources"] for counts in source["counts"].values()]
        return sum(each["unknown"] for each in counts) / sum(each["tokens"] for each in counts)

    def read(
        self,
        stream: str,
        seed: int,
        indices: Sequence[int],
        held_out: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns examples of an endless stream.

        Without weights the rows of all sources are one sequence, in another order in every epoch, and n rows in a row
        that begin with a multiple of their number are all of them once. With weights the sources take turns in these
        proportions, each in its own order.

        Args:
          stream: its name; streams of other names have other orders.
          seed: of the order.
          indices: of examples, from 0.
          held_out: whether it is of the documents that are held out from training.
          weights: by source, above 0, of any sum; a source without one is left out.

        Returns:
          ``tokens`` [n, L] (as stored: uint16, or uint32 with more than 65,536 tokens) and ``segments`` [n, L] (uint8).

        Raises:
          UserError: a weight is wrong, or a file is damaged.
        """
        order = self._order(stream, seed, held_out, None if weights is None else tuple(sorted(weights.items())))
        rows = np.array([order[int(index)] for index in indices], np.int64)
        found = self.rows(rows, held_out)
        return {"tokens": found.tokens, "segments": found.segments}

    def check_weights(self, weights: Mapping[str, float] | None) -> None:
        """Raises a ``UserError`` unless weights are of sources that there are, and above 0; None is always right."""
        if weights is None:
            return
        unknown = [name for name in weights if name not in self.sources]
        require(
            not unknown, f"weights of {', '.join(self.sources)}", f"one of {', '.join(unknown)}", "correct the name"
        )
        require(
            len(weights) > 0 and all(0 < weight < float("inf") for weight in weights.values()),
            "weights above 0",
            ", ".join(f"{name} {weight}" for name, weight in weights.items()) or "none",
            "leave out a source that is not to be read",
        )

    def rows(self, numbers: Sequence[int] | np.ndarray, held_out: bool) -> Rows:
        """Returns rows by their numbers: those of the first source from 0, then those of the next, and so on.

        Raises:
          UserError: a file is damaged.
        """
        numbers = np.asarray(numbers, np.int64)
        ends = np.cumsum(list(self.num_rows(held_out).values()))
        tokens = np.zeros((len(numbers), self.length), self.dtype)
        segments = np.zeros((len(numbers), self.length), np.uint8)
        of = np.searchsorted(ends, numbers, side="right")
        for i in np.unique(of):
            name, places = self.sources[i], np.flatnonzero(of == i)
            first = 0 if i == 0 else ends[i - 1]
            split = split_of(name, held_out)
            try:
                tokens[places], segments[places] = self._reader.read(split, (numbers[places] - first).tolist())
            except (UserError, RuntimeError, ValueError, IndexError) as error:
                self.check()  # which names the file
                raise UserError(f"whole rows of {split} in {self.directory}", str(error), _AGAIN) from error
        return Rows(tokens, segments)

    @property
    def dtype(self) -> np.dtype:
        """The type of the token ids on disk."""
        return token_dtype(self.record["vocabulary"]["size"])

    def check(self) -> None:
        """Compares all files with their SHA-256.

        ``open_corpus`` does so up to ``VERIFIED_BYTES``. Of a larger corpus it compares sizes, and rows are verified as
        they are read, by array_record's own checksums.

        Raises:
          UserError: one differs.
        """
        _check_files(self.directory, self.record, contents=True)

    @functools.cached_property
    def _reader(self) -> Any:
        from pdjax.text.builder import RowReader

        return RowReader(self.directory, self.length, self.dtype)

    @functools.lru_cache(maxsize=32)  # noqa: B019 (a process opens a few corpora, and keeps them)
    def _order(self, stream: str, seed: int, held_out: bool, weights: tuple[tuple[str, float], ...] | None) -> Any:
        """Returns an endless sequence of row numbers."""
        import grain

        sizes = self.num_rows(held_out)
        if weights is None:
            return _shuffled(grain.MapDataset.range(sum(sizes.values())), stream, seed, "")
        self.check_weights(dict(weights))
        names = [name for name, _ in weights]
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        parts = [
            _shuffled(grain.MapDataset.range(ends[name] - sizes[name], ends[name]), stream, seed, name)
            for name in names
        ]
        return grain.MapDataset.mix(parts, weights=[weight for _, weight in weights])


def _shuffled(rows: Any, stream: str, seed: int, source: str) -> Any:
    """Returns rows in another order in every epoch, without end."""
    # grain seeds with 32 bits.
    digest = hashlib.sha256(json.dumps([stream, seed, source]).encode()).digest()
    return rows.seed(int.from_bytes(digest[:4], "little")).shuffle().repeat(None)


def check_installed() -> None:
    """Raises a ``UserError`` unless the packages that corpora need are there."""
    modules = ("grain", "tensorflow_datasets", "tokenizers", "zstandard")
    absent = [name.replace("_", "-") for name in modules if importlib.util.find_spec(name) is None]
    require(
        not absent,
        "the packages for natural language",
        f"no {', '.join(absent)}",
        "install pdjax with its extra: pip install -e '.[text]'",
    )


def open_corpus(directory: Path | str) -> Corpus:
    """Opens what was prepared.

    Raises:
      UserError: there is no corpus, its preparation was not finished, or a file of it is missing, changed or damaged.
    """
    check_installed()
    directory = Path(directory)
    record = read_record(directory)
    require(
        record is not None,
        f"a corpus in {directory}",
        f"no {RECORD}" if directory.is_dir() else "no such directory",
        "prepare it with python -m pdjax.text",
    )
    assert record is not None
    _tokens(directory, record)
    size = sum(file["size"] for file in record["files"])
    _check_files(directory, record, contents=size <= VERIFIED_BYTES)
    return Corpus(directory, record)


def read_record(directory: Path) -> dict[str, Any] | None:
    """Returns what a corpus.json says; None where there is none.

    Raises:
      UserError: it is damaged, was edited, or is of another version.
    """
    path = directory / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_bytes())
        recorded, found = record["sha256"], record_digest(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"the record of a corpus in {path}", "a damaged file", _AGAIN) from None
    require(recorded == found, f"{path} as it was written ({recorded[:12]})", f"another content ({found[:12]})", _AGAIN)
    require(record["format"] == FORMAT, f"a corpus of format {FORMAT} in {directory}", record["format"], _AGAIN)
    return record


def record_digest(record: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a corpus.json says beside it."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def token_dtype(size: int) -> np.dtype:
    """Returns the smallest type for the ids of a vocabulary."""
    return np.dtype(np.uint16 if size <= 2**16 else np.uint32)


def side_of(held_out: bool) -> str:
    """Returns the side of documents that training sees, or does not."""
    return "held_out" if held_out else "train"


def split_of(source: str, held_out: bool) -> str:
    """Returns the name of a split."""
    return f"{source}_{side_of(held_out)}"


def _tokens(directory: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    path, recorded = directory / VOCABULARY, record["vocabulary"]["sha256"]
    require(path.is_file(), f"the vocabulary {path}", "no such file", _AGAIN)
    tokens = tuple(path.read_bytes().decode("utf-8", errors="replace").removesuffix("\n").split("\n"))
    found = vocabulary_digest(tokens)
    require(recorded == found, f"{path} as it was written ({recorded[:12]})", f"another content ({found[:12]})", _AGAIN)
    return tokens


def _check_files(directory: Path, record: Mapping[str, Any], contents: bool) -> None:
    for file in record["files"]:
        path = directory / file["name"]
        require(path.is_file(), f"the file {path}", "no such file", _AGAIN)
        size = os.path.getsize(path)
        require(size == file["size"], f"{file['size']} bytes in {path}", size, _AGAIN)
        if contents:
            with open(path, "rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            recorded = file["sha256"]
            require(found == recorded, f"{path} as it was written ({recorded[:12]})", f"damage ({found[:12]})", _AGAIN)
