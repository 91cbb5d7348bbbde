"""Preparing a corpus: documents of several sources become rows of token ids, once, and the same ones every time."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from tqdm import tqdm

from pdjax.errors import UserError, require
from pdjax.settings import Aside, ByName, Count, Seed, determining, named, settings
from pdjax.text.corpus import (
    FORMAT,
    RECORD,
    ROWS,
    VOCABULARY,
    Corpus,
    open_corpus,
    read_record,
    record_digest,
    side_of,
    split_of,
    token_dtype,
)
from pdjax.text.packing import Packer
from pdjax.text.packing import Rows as Packed
from pdjax.text.sources import FileRecord, Listing, Source, file_record, list_files, read
from pdjax.text.vocabulary import (
    SPECIAL,
    Tokenizer,
    count_characters,
    learn_vocabulary,
    read_vocabulary,
    vocabulary_digest,
    write_vocabulary,
)

logger = logging.getLogger("pdjax")

PARTIAL = "incomplete"
"""Where a corpus lies within its directory until it is whole."""

_BATCH = 2**20
"""Characters of documents that are tokenised together."""

_SIDES = (False, True)  # held out from training, or not


@settings
class Preparation:
    """What a corpus is made of, and how."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1), ByName()]
    """Where documents come from; their order does not matter."""
    vocabulary: Annotated[int | str, Aside()]  # of a file its content counts, not its path
    """A number of tokens, which are learned from the training documents, or the path of a vocab.txt."""
    length: Annotated[int, Field(ge=8)]
    """Places of a row, [CLS] and [SEP] included."""
    lowercase: bool = True
    """Whether text is lowercased and loses its accents, as for BERT's uncased models."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share of documents that training never sees."""
    seed: Seed = 0
    """Which documents these are."""
    longest: Annotated[Count, Aside()] = 8_000_000
    """Characters of a document; one that does not end there is an error."""

    def __post_init__(self):
        named(self.sources)


def prepare(directory: Path | str, preparation: Preparation) -> Corpus:
    """Prepares a corpus, or opens it where this very one has been prepared.

    It is written into a part of ``directory`` that is taken for nothing until it is whole. What a killed process left
    is removed, and made again with the same bits.

    Args:
      directory: of the corpus; new, empty, or with this corpus.
      preparation: what it is made of.

    Raises:
      UserError: something is wrong with a source or the vocabulary; the directory holds something else, or another
        corpus.
    """
    directory = Path(directory)
    sources = sorted(preparation.sources, key=lambda source: source.name)
    listings = {source.name: list_files(source) for source in sources}
    for source in sources:
        require(
            not directory.resolve().is_relative_to(Path(source.path).resolve()),
            f"a directory outside of the source {source.path}",
            f"{directory}, which would be a part of it",
            "choose another",
        )
    given = None
    if isinstance(preparation.vocabulary, str):
        given = read_vocabulary(Path(preparation.vocabulary), preparation.lowercase)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        record = read_record(directory)
        if record is None:
            _Making(directory, preparation, sources, listings).run(given)
        else:
            _check_same(directory, record, preparation, listings, given)
    return open_corpus(directory)


def is_held_out(text: str, seed: int, share: float) -> bool:
    """Whether a document is held out: a function of its words, so that copies of it are all on one side."""
    words = " ".join(text.split())
    digest = hashlib.sha256(f"{seed}\n{words}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclasses.dataclass
class _Survey:
    """What a first look at a source finds."""

    files: list[FileRecord] = dataclasses.field(default_factory=list)
    documents: Counter[bool] = dataclasses.field(default_factory=Counter)  # with text, by whether they are held out
    characters: Counter[bool] = dataclasses.field(default_factory=Counter)
    empty: int = 0


class _Making:
    """One preparation of a corpus."""

    def __init__(
        self, directory: Path, preparation: Preparation, sources: list[Source], listings: Mapping[str, Listing]
    ):
        self._directory, self._preparation = directory, preparation
        self._sources, self._listings = sources, listings
        self._size = sum(listing.size for listing in listings.values())
        self._hashes: dict[str, tuple[Any, Any]] = {}  # of the tokens and segments of a split

    def run(self, given: tuple[str, ...] | None) -> None:
        """Makes the corpus; with a given vocabulary, or else a learned one."""
        partial = _clear(self._directory)
        surveys, characters = self._survey(learns=given is None)
        tokens, unused = (given, 0) if given is not None else self._learn(characters)
        write_vocabulary(partial / VOCABULARY, tokens)
        counts, empty = self._write(partial, tokens, surveys)
        sources = [
            {
                "name": source.name,
                "path": source.path,
                "files": [file._asdict() for file in surveys[source.name].files],
                "others": {"count": len(others), "names": others[:20]},
                "empty": empty[source.name],
                "counts": counts[source.name],
            }
            for source in self._sources
            for others in [self._listings[source.name].others]
        ]
        record = {
            "format": FORMAT,
            "digest": self._digest(tokens),
            "settings": determining(self._preparation, defaults=True),
            "vocabulary": {
                "asked": _asked(self._preparation),
                "size": len(tokens),
                "unused": unused,
                "sha256": vocabulary_digest(tokens),
            },
            "sources": sources,
            "files": [_kept(file, partial)._asdict() for file in sorted((partial / ROWS).rglob("*")) if file.is_file()],
        }
        _finish(self._directory, partial, record | {"sha256": record_digest(record)})

    def _survey(self, learns: bool) -> tuple[dict[str, _Survey], Counter[str]]:
        """Reads everything once: whatever is wrong with it is found before anything takes long."""
        characters: Counter[str] = Counter()
        surveys = {}
        with _bar("reading", self._size) as bar:
            for source in self._sources:
                survey = surveys[source.name] = _Survey()
                for text in self._documents(source, survey.files.append, bar.update):
                    if not text.strip():
                        survey.empty += 1
                        continue
                    held_out = self._is_held_out(text)
                    survey.documents[held_out] += 1
                    survey.characters[held_out] += len(text)
                    if learns and not held_out:
                        characters += count_characters(text, self._preparation.lowercase)
                self._check_sides(source, survey.documents)
        return surveys, characters

    def _learn(self, characters: Counter[str]) -> tuple[tuple[str, ...], int]:
        size, lowercase = self._preparation.vocabulary, self._preparation.lowercase
        assert isinstance(size, int)

        def texts() -> Iterator[str]:
            for source in self._sources:
                for text in self._documents(source, lambda file: None, bar.update):
                    if text.strip() and not self._is_held_out(text):
                        yield text

        with _bar("learning the vocabulary", self._size) as bar:
            return learn_vocabulary(texts(), characters, size, lowercase)

    def _write(
        self, partial: Path, tokens: tuple[str, ...], surveys: Mapping[str, _Survey]
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Writes all rows; returns counts by source and side, and the number of empty documents by source."""
        from pdjax.text.builder import Write, write_rows

        length, dtype = self._preparation.length, token_dtype(len(tokens))
        tokenizer = Tokenizer(tokens, self._preparation.lowercase)
        pad, unknown, cls, sep = (tokens.index(token) for token in SPECIAL[:4])
        counts, empty = {}, {}

        def fill(writes: Mapping[str, Write]) -> None:
            for source in self._sources:
                packers = {side: Packer(length, (pad, unknown, cls, sep), dtype) for side in _SIDES}
                keep = {side: self._keeping(split_of(source.name, side), writes) for side in _SIDES}
                files: list[FileRecord] = []
                dropped = 0
                for texts in _batches(self._documents(source, files.append, bar.update)):
                    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
                        side = self._is_held_out(text)
                        if not len(ids):
                            dropped += 1
                            continue
                        for rows in packers[side].add(ids):
                            keep[side](rows)
                for side in _SIDES:
                    for rows in packers[side].flush():
                        keep[side](rows)
                survey = surveys[source.name]
                _check_unchanged(source, survey.files, files)
                self._check_sides(source, {side: packers[side].counts.documents for side in _SIDES})
                empty[source.name] = dropped
                counts[source.name] = {
                    side_of(side): {"characters": survey.characters[side]} | dataclasses.asdict(packers[side].counts)
                    for side in _SIDES
                }

        splits = [split_of(source.name, side) for source in self._sources for side in _SIDES]
        with _bar("packing", self._size) as bar:
            write_rows(partial, length, dtype, splits, fill)
        return counts, empty

    def _keeping(self, split: str, writes: Mapping[str, Any]) -> Callable[[Packed], None]:
        """Returns what writes a split's rows, and hashes them."""
        hashes = self._hashes[split] = hashlib.sha256(), hashlib.sha256()

        def keep(rows: Packed) -> None:
            writes[split](*rows)
            for part, its_hash in zip(rows, hashes, strict=True):
                its_hash.update(np.ascontiguousarray(part).data)

        return keep

    def _digest(self, tokens: tuple[str, ...]) -> str:
        splits = {split: [part.hexdigest() for part in hashes] for split, hashes in sorted(self._hashes.items())}
        content = [FORMAT, self._preparation.length, vocabulary_digest(tokens), splits]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _documents(
        self, source: Source, note: Callable[[FileRecord], None], advance: Callable[[int], Any]
    ) -> Iterator[str]:
        return read(source, self._listings[source.name], self._preparation.longest, note, advance)

    def _is_held_out(self, text: str) -> bool:
        return is_held_out(text, self._preparation.seed, self._preparation.held_out)

    def _check_sides(self, source: Source, documents: Mapping[bool, int]) -> None:
        train, held_out = documents[False], documents[True]
        require(train + held_out > 0, f"text in the source {source.name} at {source.path}", "none", "name another")
        blank = "" if source.documents == "blank" else f", split files with --documents {source.name}=blank"
        require(
            train > 0 and held_out > 0,
            f"documents of {source.name} on both sides (--held_out {self._preparation.held_out})",
            f"{train} in training and {held_out} held out",
            f"choose another --held_out or --seed{blank}, or add documents",
        )


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Yields documents that are tokenised together."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bar(what: str, size: int) -> tqdm:
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=not sys.stderr.isatty())


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Waits until no other process prepares a directory; the system forgets the lock of one that is killed.

    Of the processes of one run, whose configuration prepares what is missing, one does it and the others find it done.
    """
    import fcntl  # of POSIX alone: who only reads corpora need not have it

    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process prepares %s: waiting for it", directory)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear(directory: Path) -> Path:
    """Removes what a killed process left, and returns the place of what is not whole."""
    partial = directory / PARTIAL
    if partial.is_dir():
        # It was made in an empty directory: what these names stand for is what it moved there.
        shutil.rmtree(directory / ROWS, ignore_errors=True)
        (directory / VOCABULARY).unlink(missing_ok=True)
        shutil.rmtree(partial)
    found = sorted(path.name for path in directory.iterdir())
    require(
        not found,
        f"a new or empty directory, or one with a {RECORD}, at {directory}",
        f"{', '.join(found[:3])} in it",
        "choose another",
    )
    partial.mkdir()
    return partial


def _finish(directory: Path, partial: Path, record: Mapping[str, Any]) -> None:
    """Moves a corpus to its place; its record comes last, and makes it one."""
    with open(partial / RECORD, "w") as file:
        file.write(json.dumps(record, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    for name in (ROWS, VOCABULARY, RECORD):
        os.replace(partial / name, directory / name)
    shutil.rmtree(partial)


def _kept(file: Path, root: Path) -> FileRecord:
    """Returns the record of a file that is on disk for sure."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
    return file_record(file, file.relative_to(root).as_posix())


def _asked(preparation: Preparation) -> int | str:
    return preparation.vocabulary if isinstance(preparation.vocabulary, int) else "file"


def _check_unchanged(source: Source, before: list[FileRecord], after: list[FileRecord]) -> None:
    for one, other in zip(before, after, strict=True):
        require(
            one == other,
            f"{one.name} of {source.path} to stay as it was ({one.sha256[:12]})",
            f"another content while it was read again ({other.sha256[:12]})",
            "wait until nothing writes it, and start again",
        )


def _check_same(
    directory: Path,
    record: Mapping[str, Any],
    preparation: Preparation,
    listings: Mapping[str, Listing],
    given: tuple[str, ...] | None,
) -> None:
    """Raises a ``UserError`` unless a corpus is the one that would be prepared."""
    remedy = "nothing was changed: choose another directory, or remove this one"
    asked = record["vocabulary"]["asked"]
    there = record["settings"] | {"vocabulary": asked}
    here = json.loads(json.dumps(determining(preparation, defaults=True))) | {"vocabulary": _asked(preparation)}
    differing = [f"{name} {there.get(name)} there, {here[name]} here" for name in here if there.get(name) != here[name]]
    require(not differing, f"the settings of {directory}", "; ".join(differing), remedy)
    if given is not None:
        recorded, found = record["vocabulary"]["sha256"], vocabulary_digest(given)
        expected = f"the vocabulary of {directory} ({recorded[:12]})"
        require(recorded == found, expected, f"another one in {preparation.vocabulary} ({found[:12]})", remedy)
    with _bar("comparing sources", sum(listing.size for listing in listings.values())) as bar:
        for source in record["sources"]:
            listing = listings[source["name"]]
            recorded = {file["name"]: file["sha256"] for file in source["files"]}
            for name in sorted({*recorded, *listing.names}):
                expected = f"{listing.root / name} as {directory} was made of it"
                if name not in listing.names:
                    raise UserError(f"{expected} ({recorded[name][:12]})", "no such file", remedy)
                if name not in recorded:
                    raise UserError(f"the files that {directory} was made of", f"{listing.root / name} too", remedy)
                found = file_record(listing.root / name, name, bar.update).sha256
                require(
                    found == recorded[name],
                    f"{expected} ({recorded[name][:12]})",
                    f"another content ({found[:12]})",
                    remedy,
                )
