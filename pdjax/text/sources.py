"""Where documents come from: files of text or JSON lines, plain or compressed, or a data set of TFDS.

Whatever is read is read as a stream: memory holds one document, and none longer than a limit. A file's SHA-256 is that
of its bytes as they lie there, and comes with the reading.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import zstandard

from pdjax.errors import UserError, require
from pdjax.settings import Aside, Place, settings

SUFFIXES = (".txt", ".jsonl")
"""Of files that are read; behind them may stand one of a compression."""

COMPRESSIONS = (".gz", ".zst")

_NAME = re.compile("[a-z][a-z0-9_]*")
_BYTES_PER_CHARACTER = 8
"""Of a line, at most: 4 in UTF-8, 6 as an escape of JSON; other fields of a record find room too."""

_AGAIN = "download or copy it again"


@settings
class Source:
    """Documents of one kind: a folder or file, or the directory of a TFDS data set."""

    name: str
    """What its rows are called, in reports and in weights."""
    path: Annotated[Place, Aside()]
    """A folder, which is searched through, a file, or what TFDS prepared: the directory with its dataset_info.json."""
    documents: Literal["file", "blank"] = "file"
    """Of .txt: a document is a file, or blank lines stand between documents."""
    field: str = "text"
    """Of JSON lines and TFDS: what holds the text."""

    def __post_init__(self):
        require(self.path != "", f"a path of the source {self.name}", "none", "write --source NAME=PATH")
        require(
            _NAME.fullmatch(self.name) is not None,
            "a source's name of small letters, digits and _, a letter first",
            repr(self.name),
            "write --source NAME=PATH",
        )


class FileRecord(NamedTuple):
    """A file as it was when it was read."""

    name: str  # its path within the source
    size: int  # bytes
    sha256: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a source."""

    root: Path
    names: tuple[str, ...]  # of those that are read, within root, in order
    others: tuple[str, ...]  # of those that are not
    is_dataset: bool  # of TFDS

    @functools.cached_property
    def size(self) -> int:
        """Bytes of the files that are read."""
        return sum((self.root / name).stat().st_size for name in self.names)


def list_files(source: Source) -> Listing:
    """Returns the files of a source, in the order of their paths.

    Raises:
      UserError: there is none that could be read.
    """
    path = Path(source.path)
    require(path.exists(), f"the source {source.name} at {path}", "nothing there", "correct its path")
    if path.is_file():
        require(_is_read(path.name), _expected_files(path), "another one", "rename it, or convert it")
        return Listing(path.parent, (path.name,), (), is_dataset=False)
    found = _walk(path)
    if "dataset_info.json" in found and "features.json" in found:
        _check_format(path)
        return Listing(path, tuple(found), (), is_dataset=True)
    names = tuple(name for name in found if _is_read(name))
    others = tuple(name for name in found if not _is_read(name))
    inner = [name for name in found if name.endswith("/dataset_info.json")]
    hint = f"name {(path / inner[0]).parent}, a data set of TFDS" if inner else "name another folder, or convert them"
    require(len(names) > 0, _expected_files(path), f"{len(others)} files of other kinds{_first(others)}", hint)
    return Listing(path, names, others, is_dataset=False)


def read(
    source: Source,
    listing: Listing,
    longest: int,
    note: Callable[[FileRecord], None],
    advance: Callable[[int], Any],
) -> Iterator[str]:
    """Yields the documents of a source in order, empty ones too.

    Args:
      source: what is read.
      listing: its files.
      longest: characters that a document may have.
      note: takes every file's record, once it has been read to its end.
      advance: takes the numbers of bytes that have been read since.

    Raises:
      UserError: a file is damaged, in another encoding or format, or has a document that is too long.
    """
    if listing.is_dataset:
        yield from _read_dataset(source, listing, longest, note, advance)
        return
    for name in listing.names:
        file = listing.root / name
        with open(file, "rb", buffering=0) as opened:
            raw = _Hashed(opened, advance)
            stream = io.BufferedReader(_decompressed(raw, file), 2**16)
            lines = _Lines(stream, file, longest)
            yield from _records(lines, source.field) if ".jsonl" in _suffixes(name) else _texts(lines, source.documents)
            # Of compressed files what stands behind their end has been read as well, or else was refused.
            while raw.read(2**20):
                pass
            note(raw.record(name))


def file_record(file: Path, name: str, advance: Callable[[int], Any] = lambda count: None) -> FileRecord:
    """Returns the record of a file, of which nothing else is read."""
    with open(file, "rb", buffering=0) as opened:
        raw = _Hashed(opened, advance)
        while raw.read(2**20):
            pass
        return raw.record(name)


class _Hashed(io.RawIOBase):
    """Reads a file and keeps the SHA-256 of what it has read."""

    def __init__(self, file: io.FileIO, advance: Callable[[int], Any]):
        self._file, self._advance, self._size, self._hash = file, advance, 0, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._hash.update(memoryview(buffer)[:count])
        self._size += count
        self._advance(count)
        return count

    def record(self, name: str) -> FileRecord:
        return FileRecord(name, self._size, self._hash.hexdigest())


class _Zstd(io.RawIOBase):
    """Reads Zstandard frames; a truncated one is an error, which zstandard's own reader takes for the end."""

    def __init__(self, raw: io.RawIOBase):
        self._raw, self._decompressor, self._ready = raw, None, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._raw.read(2**16)
            if not data:
                if self._decompressor is not None:
                    raise EOFError("its end is missing")
                return 0
            parts = []
            while data:
                if self._decompressor is None:
                    self._decompressor = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
                parts.append(self._decompressor.decompress(data))
                data = self._decompressor.unused_data if self._decompressor.eof else b""
                if self._decompressor.eof:
                    self._decompressor = None
            self._ready = b"".join(parts)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class _Decompressed(io.RawIOBase):
    """Names the file when its compression is broken."""

    def __init__(self, stream: Any, file: Path):
        self._stream, self._file, self._any = stream, file, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._stream.readinto(buffer)
            if count == 0 and not self._any and os.path.getsize(self._file) == 0:
                raise EOFError("an empty file")
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            kind = self._file.suffix.removeprefix(".")
            raise UserError(f"a whole {kind} file {self._file}", str(error) or type(error).__name__, _AGAIN) from None
        self._any = self._any or count > 0
        return count


class _Lines:
    """The lines of a file, decoded, with their numbers."""

    def __init__(self, stream: Any, file: Path, longest: int):
        self._stream, self.file, self.longest, self.number = stream, file, longest, 0

    def __iter__(self) -> Iterator[str]:
        most = self.longest * _BYTES_PER_CHARACTER
        while line := self._stream.readline(most):
            self.number += 1
            if len(line) == most and not line.endswith(b"\n"):
                raise self.too_long(f"raise --longest (now {self.longest}), or break its lines")
            try:
                # A byte order mark in front is none of the text.
                yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"UTF-8 in {self.file}",
                    f"byte {line[error.start]:#04x} on line {self.number}",
                    "convert it: iconv -f LATIN1 -t UTF-8, or what it is",
                ) from None

    def too_long(self, remedy: str) -> UserError:
        """Returns the error of a document that does not end."""
        return UserError(
            f"documents of at most {self.longest} characters in {self.file}",
            f"a longer one, up to line {self.number}",
            remedy,
        )


def _decompressed(raw: io.RawIOBase, file: Path) -> io.RawIOBase:
    match file.suffix:
        case ".gz":
            return _Decompressed(gzip.GzipFile(fileobj=raw), file)  # pyright: ignore
        case ".zst":
            return _Decompressed(_Zstd(raw), file)
    return raw


def _texts(lines: _Lines, documents: str) -> Iterator[str]:
    """Yields the documents of a text file."""
    by_blank = documents == "blank"
    split = (
        "raise --longest" if by_blank else "write --documents blank, which splits at blank lines, or raise --longest"
    )
    parts, size = [], 0
    for line in lines:
        if by_blank and not line.strip():
            if parts:
                yield "".join(parts)
            parts, size = [], 0
            continue
        parts.append(line)
        size += len(line)
        if size > lines.longest:
            raise lines.too_long(f"{split} (now {lines.longest})")
    if parts or not by_blank:
        yield "".join(parts)


def _records(lines: _Lines, field: str) -> Iterator[str]:
    """Yields the texts of JSON lines; blank lines hold none."""
    for line in lines:
        if not line.strip():
            continue
        expected = f"a JSON object with the text in {field!r} on line {lines.number} of {lines.file}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(expected, f"no JSON ({error})", "correct the line, or leave it out") from None
        except RecursionError:
            raise UserError(expected, "JSON too deep to read", "correct the line, or leave it out") from None
        if not isinstance(record, dict):
            raise UserError(expected, f"JSON of another kind ({type(record).__name__})", "correct the line")
        text = record.get(field)
        if not isinstance(text, str):
            found = f"{field!r} of type {type(text).__name__}" if field in record else f"the fields {_shown(record)}"
            raise UserError(expected, found, "name the field with --field NAME")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(expected, "half of a surrogate pair, which is no text", "write the file again") from None
        if len(text) > lines.longest:
            raise lines.too_long(f"split it, or raise --longest (now {lines.longest})")
        yield text


def _read_dataset(
    source: Source,
    listing: Listing,
    longest: int,
    note: Callable[[FileRecord], None],
    advance: Callable[[int], Any],
) -> Iterator[str]:
    """Yields the documents of a TFDS data set's ``train`` split, in its order."""
    # Its files are hashed apart, and first: array_record reads where it likes.
    for name in listing.names:
        note(file_record(listing.root / name, name, advance))
    rows = _open_dataset(source, listing.root)
    for start in range(0, len(rows), 64):
        try:
            examples = rows.__getitems__(list(range(start, min(start + 64, len(rows)))))
        except Exception as error:  # of whatever kind array_record, protobuf and TFDS raise for damage
            raise UserError(
                f"a TFDS data set in {listing.root}", f"an example from {start} on that is unreadable ({error})", _AGAIN
            ) from error
        for number, example in enumerate(examples, start):
            where = f"example {number} of {listing.root}"
            try:
                text = example[source.field].decode()
            except UnicodeDecodeError as error:
                raise UserError(f"UTF-8 in {where}", str(error), "prepare the data set again") from None
            if len(text) > longest:
                raise UserError(
                    f"documents of at most {longest} characters in {listing.root}",
                    f"{len(text)} in example {number}",
                    f"raise --longest (now {longest})",
                )
            yield text


def _check_format(path: Path) -> None:
    """Refuses a data set that only TensorFlow could read."""
    try:
        information = json.loads((path / "dataset_info.json").read_text())
        file_format = information.get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        raise UserError(f"a TFDS data set in {path}", f"a damaged dataset_info.json ({error})", _AGAIN) from None
    require(
        file_format == "array_record",
        f"a TFDS data set of the format array_record in {path}",
        file_format,
        "prepare it with tfds build --file_format=array_record (docs/text.md)",
    )


def _open_dataset(source: Source, path: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(path)
        splits, features = sorted(builder.info.splits), dict(builder.info.features or {})
        rows = builder.as_data_source(split="train") if "train" in splits else None
    except Exception as error:  # of whatever kind: TFDS reads files that may be anything
        raise UserError(f"a TFDS data set in {path}", f"none that opens ({error})", _AGAIN) from error
    require(rows is not None, f"a split 'train' in {path}", _shown(splits), "name another data set")
    feature = features.get(source.field)
    require(
        isinstance(feature, tfds.features.Text),
        f"a text feature {source.field!r} in {path}",
        f"the features {_shown(sorted(features))}" if feature is None else f"it as {type(feature).__name__}",
        "name the feature with --field NAME",
    )
    return rows


def _walk(path: Path) -> list[str]:
    """Returns all files below a folder; links to folders, which are not followed, among them."""
    found = []
    for folder, folders, files in os.walk(path):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [(Path(folder) / name).relative_to(path).as_posix() for name in (*files, *links)]
    return sorted(found)


def _suffixes(name: str) -> tuple[str, ...]:
    """Returns the suffix of what a file holds, and behind it that of its compression."""
    suffixes = Path(name).suffixes
    return tuple(suffixes[-2:] if suffixes and suffixes[-1] in COMPRESSIONS else suffixes[-1:])


def _is_read(name: str) -> bool:
    """Whether a file is one of text; none is hidden, or in a hidden folder: editors keep older versions there."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and any(suffix in SUFFIXES for suffix in _suffixes(name)[:1])


def _expected_files(path: Path) -> str:
    return f"files {', '.join(SUFFIXES)} (or with {', '.join(COMPRESSIONS)}), or a TFDS data set, at {path}"


def _first(names: tuple[str, ...]) -> str:
    return f" ({_shown(names)})" if names else ""


def _shown(names: Any) -> str:
    """Returns a few names, and how many more there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
