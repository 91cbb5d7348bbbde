"""What becomes a document, of which files, and what is refused."""

import gzip
import json

import pytest

from pdjax.errors import UserError
from pdjax.text.sources import Source, file_record, list_files, read


def documents(path, longest=10_000, **fields):
    source = Source("prose", str(path), **fields)
    return list(read(source, list_files(source), longest, lambda file: None, lambda count: None))


def refused(path, **fields):
    with pytest.raises(UserError) as error:
        documents(path, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_document_is_a_file_or_stands_between_blank_lines(folder):
    path = folder("texts", {"b.txt": "\n\none\r\ntwo\n \n\nthree", "a/c.txt": "\ufefffour\n"})
    assert documents(path) == ["four\n", "\n\none\r\ntwo\n \n\nthree"]  # by their paths
    assert documents(path, documents="blank") == ["four\n", "one\r\ntwo\n", "three"]


def test_all_kinds_of_files_give_the_same_documents(folder, packed, lines_of, tfds_of, made_up, tmp_path):
    texts = made_up(7)
    in_lines = lines_of(texts).encode()
    for kind, compress in packed.items():
        # Several frames behind each other are one file, as compressors that work in parallel leave it.
        halves = (in_lines[:500], in_lines[500:])
        for content in (compress(in_lines), b"".join(map(compress, halves))):
            assert documents(folder(f"{kind}{len(content)}", {f"a.jsonl.{kind}": content})) == texts
        files = {f"{number}.txt.{kind}": compress(text.encode()) for number, text in enumerate(texts)}
        assert documents(folder(f"txt{kind}", files)) == texts
    assert documents(folder("plain", {"a.jsonl": in_lines + b"\n"})) == texts
    assert documents(folder("named", {"a.jsonl": lines_of(texts, "body")}), field="body") == texts
    assert documents(tfds_of(tmp_path / "tfds", texts)) == texts
    assert documents(tfds_of(tmp_path / "books", texts, feature="book"), field="book") == texts


def test_files_of_other_kinds_are_named(folder):
    files = {"a.txt": "text", "b.pdf": "no text", "c.txt.bz2": "neither", "d.gz": "nor this", ".e/f.txt": "old"}
    listing = list_files(Source("prose", folder("texts", files)))
    assert listing.names == ("a.txt",)
    assert listing.others == (".e/f.txt", "b.pdf", "c.txt.bz2", "d.gz")


def test_a_record_is_of_the_bytes_that_lie_there(folder, packed):
    path = folder("texts", {"a.txt.gz": packed["gz"](b"text" * 10_000), "b.jsonl": '{"text": "x"}\n'})
    source, notes, counted = Source("prose", path), [], []
    listing = list_files(source)
    assert len(list(read(source, listing, 10**6, notes.append, counted.append))) == 2
    assert notes == [file_record(listing.root / name, name) for name in ("a.txt.gz", "b.jsonl")]
    assert sum(counted) == listing.size == sum(record.size for record in notes)


def test_nothing_to_read_is_refused(folder, tmp_path, tfds_of):
    assert "nothing there" in refused(tmp_path / "absent")
    assert "2 files of other kinds (a.pdf, b.md)" in refused(folder("others", {"a.pdf": "", "b.md": ""}))
    assert "another one" in refused(folder("one", {"a.pdf": ""}) + "/a.pdf")
    tfds_of(tmp_path / "root", ["a text"])
    assert f"name {tmp_path}/root/wiki/1.0.0, a data set of TFDS" in refused(tmp_path / "root")


def test_another_encoding_is_refused_with_its_line(folder):
    latin = folder("latin", {"a.txt": b"first\nna\xefve\n"})
    assert "byte 0xef on line 2" in refused(latin)
    assert "a.txt" in refused(latin)
    assert "byte 0xff on line 1" in refused(folder("utf16", {"a.jsonl": "text".encode("utf-16")}))


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_broken_compression_is_refused(kind, folder, packed):
    whole = packed[kind](b"some text and more of it, and more\n" * 50)
    broken = {"cut": whole[:-5], "other": b"no archive at all", "empty": b"", "behind": whole + b"rubbish"}
    for name, content in broken.items():
        message = refused(folder(name, {f"a.txt.{kind}": content}))
        assert f"{name}/a.txt.{kind}" in message
    assert documents(folder("whole", {f"a.txt.{kind}": whole}))[0].startswith("some text")


def test_a_changed_byte_in_a_compressed_file_is_refused(folder):
    whole = bytearray(gzip.compress(b"text " * 100))
    whole[-6] ^= 1  # of the checksum
    assert "CRC" in refused(folder("changed", {"a.txt.gz": bytes(whole)}))


def test_json_lines_that_are_none_are_refused(folder):
    good = json.dumps({"text": "x"}) + "\n"
    for number, (line, found) in enumerate(
        {
            "{text: x}": "no JSON",
            '{"body": "x", "id": 1}': "the fields body, id",
            '{"text": 3}': "'text' of type int",
            '"x"': "JSON of another kind (str)",
            "[" * 100_000: "too deep",
            '{"text": "\\ud800"}': "surrogate",
        }.items()
    ):
        message = refused(folder(f"lines{number}", {"a.jsonl": f"{good}\n{line}\n"}), longest=10**6)
        assert found in message
        assert "on line 3 of" in message


def test_a_document_that_does_not_end_is_refused_before_it_fills_the_memory(folder, lines_of):
    many = folder("many", {"a.txt": "word\n" * 100})
    assert "--documents blank" in refused(many, longest=400)
    assert documents(many, longest=500) == ["word\n" * 100]
    assert "raise --longest" in refused(many, longest=400, documents="blank")
    one = folder("one", {"a.txt": "word " * 10_000})
    assert "line 1" in refused(one, longest=400)
    assert "a.jsonl" in refused(folder("json", {"a.jsonl": lines_of(["word " * 100])}), longest=400)
    assert "a.jsonl" in refused(folder("long", {"a.jsonl": lines_of(["word " * 10_000])}), longest=400)


def test_data_sets_of_tfds_that_do_not_fit_are_refused(tfds_of, tmp_path):
    texts = ["a text", "another"]
    path = tfds_of(tmp_path / "a", texts)
    assert "the features number, text" in refused(path, field="body")
    assert "as Tensor" in refused(path, field="number")
    assert "--field" in refused(path, field="body")
    assert "7 in example 1" in refused(path, longest=6)
    assert "a split 'train'" in refused(tfds_of(tmp_path / "b", texts, split="test"))
    information = tmp_path / "a/wiki/1.0.0/dataset_info.json"
    content = information.read_text()
    information.write_text(content.replace("array_record", "tfrecord"))
    assert "found tfrecord" in refused(path)
    assert "--file_format=array_record" in refused(path)
    information.write_text(content[:-20])
    assert "dataset_info.json" in refused(path)


def test_a_damaged_data_set_of_tfds_is_refused(tfds_of, tmp_path, made_up):
    path = tfds_of(tmp_path, made_up(20))
    (file,) = (tmp_path / "wiki/1.0.0").glob("*array_record*")
    content = bytearray(file.read_bytes())
    content[1000] ^= 8
    file.write_bytes(content)
    assert path in refused(path)


def test_names_are_names(tmp_path):
    for name in ("", "Books", "a-b", "1st"):
        with pytest.raises(ValueError, match="source's name"):
            Source(name, str(tmp_path))
    with pytest.raises(ValueError, match="a path of the source wiki"):
        Source("wiki", "")
