"""Files that tell whether they are as they were written: every way of damaging them is noticed where they are read."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdjax.errors import UserError
from pdjax.io import sealed
from pdjax.io.sealed import Journal, read_json, read_lines, write_json, write_lines

RECORDS = [{"step": step, "loss": [step / 3, 4.0], "note": "é" if step else None} for step in range(3)]


def test_write_json_makes_directories_and_reads_back(tmp_path):
    path = tmp_path / "a" / "b" / "value.json"
    value = {"x": [1, 2.5, None], "y": {"z": "é"}}
    sealed.write_json(path, value)
    assert sealed.read_json(path) == value
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_write_json_replaces(tmp_path):
    path = tmp_path / "value.json"
    sealed.write_json(path, {"long": list(range(100))})
    sealed.write_json(path, {})
    assert sealed.read_json(path) == {}
    assert "long" not in path.read_text()


def test_write_json_of_what_has_no_json_form_touches_nothing(tmp_path):
    path = tmp_path / "value.json"
    sealed.write_json(path, {"old": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        sealed.write_json(path, {"fine": 1, "not": {1, 2}})
    assert sealed.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_write_json_is_on_disk_as_a_whole_before_a_reader_sees_it(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    sealed.write_json(path, {"old": 1})
    synced, replaced = [], []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def watched_replace(source, target):
        replaced.append((sealed.read_json(source), sealed.read_json(target), source.stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    sealed.write_json(path, {"new": 2})
    assert replaced == [({"new": 2}, {"old": 1}, synced[0])]
    assert sealed.read_json(path) == {"new": 2}


def test_write_json_stopped_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    sealed.write_json(path, {"old": 1})

    def killed(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            sealed.write_json(path, {"new": 2})
    assert sealed.read_json(path) == {"old": 1}
    sealed.write_json(path, {"new": 3})
    assert sealed.read_json(path) == {"new": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_the_digest_is_no_part_of_the_value(tmp_path):
    write_json(tmp_path / "a.json", {"x": (1, 2)})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2]}
    assert set(json.loads((tmp_path / "a.json").read_text())) == {"x", "sha256"}


def test_indentation_and_order_are_no_part_of_an_object(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1, "y": 2})
    value = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(value.items()))))
    assert read_json(path) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", r"no JSON \(JSONDecodeError\)"),
        (b"{", r"no JSON"),
        (b"\xff\xfe{}", r"no JSON"),
        (b"[" * 100_000, r"no JSON \(RecursionError\)"),
        (b"[]", "none, as earlier versions wrote it, or others; go on with the version that wrote it, or remove"),
        (b"{}", "none, as earlier versions"),
        (b'{"x": 1, "sha256": 3}', "another SHA-256 for it; put the right one back, or remove"),
    ],
)
def test_what_is_no_such_object(tmp_path, content, found):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^expected {path} .*; found {found}") as caught:
        read_json(path)
    assert str(caught.value).endswith(f"remove {path} and run the same command again, which makes it anew")


def test_an_object_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=f"found no such file; .* remove {tmp_path} and run"):
        read_json(tmp_path / "a.json", made_again=tmp_path)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_of_a_file_is_noticed_or_changes_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "a"
    lines = data.draw(st.booleans())
    write_lines(path, RECORDS) if lines else write_json(path, {"records": RECORDS})

    def read():
        return read_lines(path, seal=seal).records if lines else read_json(path)["records"]

    seal = read_lines(path).seal if lines else None
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["changed", "lost", "added", "cut off"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "changed":
        content[place] ^= data.draw(st.integers(1, 255))
    elif kind == "lost":
        del content[place]
    elif kind == "added":
        content.insert(place, data.draw(st.integers(0, 255)))
    else:
        del content[place:]
    path.write_bytes(content)
    try:
        found = read()
    except UserError as error:
        found = str(error)
    assert found == RECORDS or (isinstance(found, str) and "\n" not in found)


def test_records_grow_and_are_the_same_in_one_go(tmp_path):
    journal = Journal(tmp_path / "grown", RECORDS[:1])
    for record in RECORDS[1:]:
        journal.add(record)
    journal.close()
    seal = write_lines(tmp_path / "at_once", RECORDS)
    assert (tmp_path / "grown").read_bytes() == (tmp_path / "at_once").read_bytes()
    assert journal.seal == seal
    assert read_lines(tmp_path / "grown", seal=seal) == (RECORDS, seal)
    assert read_lines(tmp_path / "missing") == ([], "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [*lines, lines[2]],
        lambda lines: [lines[0], "\n", *lines[1:]],
        lambda lines: [line.replace("4.0", "5.0") for line in lines],
    ],
)
def test_lines_that_are_lost_moved_repeated_or_changed_within(tmp_path, damage):
    path = tmp_path / "records"
    write_lines(path, RECORDS)
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    with pytest.raises(UserError, match=r"found another digest for line \d; put the right one back, or remove"):
        read_lines(path)


def test_half_a_line_at_the_end_is_no_record_yet(tmp_path):
    path = tmp_path / "records"
    seal = write_lines(path, RECORDS[:2])
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    assert read_lines(path, seal=seal).records == RECORDS[:2]


def test_a_journal_does_not_begin_with_other_records_than_are_known(tmp_path):
    path = tmp_path / "records"
    write_lines(path, RECORDS)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"other records than were written \(of these, 1 are there\)"):
        Journal(path, RECORDS[:1], seal=read_lines(path).seal)
    assert path.read_bytes() == before
