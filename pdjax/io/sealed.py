"""JSON files that tell whether they are as they were written.

A file of one object holds the SHA-256 of the rest of it. In a file of records every line has a digest of itself and of
all lines before it: what was changed, lost or moved is noticed where it is read, and what is missing at the end by
whoever has noted the last digest.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdjax.errors import UserError
from pdjax.experiment import digest_of
from pdjax.io.processes import is_first

SEAL = "sha256"
"""The name of the digest among an object's or a record's own."""

_LINE = re.compile(r'(.*), "sha256": "([0-9a-f]{16})"\}\n')


class Lines(NamedTuple):
    """The records of a file, and the digest of all of them."""

    records: list[dict[str, Any]]
    seal: str = ""


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes an object so that a reader never sees half of it; of several processes, the first writes."""
    plain = json.loads(json.dumps(value))  # before anything is touched: not every value has a JSON form
    if is_first():
        _write(path, json.dumps({**plain, SEAL: digest_of(plain)}, indent=2) + "\n")


def read_json(path: Path, made_again: Path | None = None) -> dict[str, Any]:
    """Reads an object.

    Args:
      path: of its file.
      made_again: what the same command makes again once it is removed; None: the file alone.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _damage(path, "no such file", made_again) from None
    except (ValueError, RecursionError) as error:
        raise _damage(path, f"no JSON ({type(error).__name__})", made_again) from error
    seal = value.pop(SEAL, None) if isinstance(value, dict) else None
    if seal is None:
        raise UserError(
            f"{path} with its SHA-256",
            "none, as earlier versions wrote it, or others",
            f"go on with the version that wrote it, or {_remedy(path, made_again)}",
        )
    if seal != digest_of(value):
        raise _damage(path, "another SHA-256 for it", made_again)
    return value


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> str:
    """Writes a file of records, of which a reader never sees half; returns the digest of all of them."""
    # Called by the first process alone.
    text, seal = _lines(records)
    _write(path, text)
    return seal


def read_lines(path: Path, made_again: Path | None = None, seal: str | None = None) -> Lines:
    """Reads a file of records; a missing file has none.

    A last line without its end, which a process that is writing or was killed may leave, is no record yet.

    Args:
      path: of the file.
      made_again: what the same command makes again once it is removed; None: the file alone.
      seal: of all records, if they are known to be complete.

    Raises:
      UserError: a line is damaged, or some are missing.
    """
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        lines = []
    except UnicodeDecodeError as error:
        raise _damage(path, f"what is no text ({type(error).__name__})", made_again) from error
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    records, last = [], ""
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] != _chained(f"{match[1]}}}", last):
            raise _damage(path, f"another digest for line {number}", made_again)
        last = match[2]
        records.append(json.loads(f"{match[1]}}}"))
    if seal is not None and last != seal:
        raise _damage(path, f"other records than were written ({len(records)} are there)", made_again)
    return Lines(records, last)


class Journal:
    """A file of records that grows.

    Args:
      path: of the file, which holds ``kept`` from here on and nothing else.
      kept: records that it begins with.
      seal: of these, if it is known.
      made_again: what the same command makes again once it is removed; None: the file alone.

    Raises:
      UserError: these are not the records that were there.
    """

    def __init__(
        self,
        path: Path,
        kept: Sequence[Mapping[str, Any]] = (),
        seal: str | None = None,
        made_again: Path | None = None,
    ):
        text, self.seal = _lines(kept)
        if seal is not None and self.seal != seal:
            raise _damage(path, f"other records than were written (of these, {len(kept)} are there)", made_again)
        self._path = path
        # Killed before it is there, the records are the old ones.
        _write(path, text)
        self._file = open(path, "a")  # noqa: SIM115 (closed by close())

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a record."""
        line, self.seal = _line(record, self.seal)
        with _naming(self._path):
            self._file.write(line)

    def flush(self) -> None:
        """Makes all records durable."""
        with _naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Makes them durable, and releases the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def _lines(records: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Returns the lines of records, and the digest of all of them."""
    lines, seal = [], ""
    for record in records:
        line, seal = _line(record, seal)
        lines.append(line)
    return "".join(lines), seal


def _line(record: Mapping[str, Any], before: str) -> tuple[str, str]:
    """Returns the line of a record behind others, and the digest of all of them."""
    text = json.dumps(record)  # JSON holds every bit of a float64
    seal = _chained(text, before)
    return f'{text[:-1]}, "{SEAL}": "{seal}"}}\n', seal


def _chained(text: str, before: str) -> str:
    # Against accidents a quarter of the digest is enough, and a run has thousands of lines.
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The new file takes the old one's name in one step. It is on disk before: a crash could leave the name without
    # the content else.
    partial = path.with_name(path.name + ".partial")
    with _naming(path), open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has errors of writing say which file it was: those of open files do not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _damage(path: Path, found: str, made_again: Path | None) -> UserError:
    return UserError(f"{path} as it was written", found, f"put the right one back, or {_remedy(path, made_again)}")


def _remedy(path: Path, made_again: Path | None) -> str:
    what = path if made_again is None else made_again
    return f"remove {what} and run the same command again, which makes it anew"
