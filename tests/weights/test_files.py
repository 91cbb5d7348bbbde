"""Folders of weights: which files are read, and every way in which they may be incomplete, by its one line."""

import json
import logging
import shutil
import zipfile

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.files import open_weights, unique_json

A, B, C = (np.arange(n, dtype=np.float32) for n in (3, 4, 5))
SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
SHARDS = {SAFETENSORS: "model-0000{}-of-00002.safetensors", BIN: "pytorch_model-0000{}-of-00002.bin"}
AGAIN = "copy or download the file again"


@pytest.fixture
def write(written):
    """Writes arrays of one dimension in either format."""

    def write_file(file, tensors):
        if file.suffix == ".safetensors":
            return written.write_safetensors(file, tensors)
        state = {name: written.view(name, "Float", a.size, 0, (a.size,), (1,)) for name, a in tensors.items()}
        return written.write_pickle(file, state, tensors)

    return write_file


@pytest.fixture
def shards(write):
    """Writes two shards and their index into a folder."""

    def write_shards(folder, form=SAFETENSORS, **weight_map):
        one, two = (SHARDS[form].format(i) for i in (1, 2))
        folder.mkdir(exist_ok=True)
        write(folder / one, {"a": A, "b": B})
        write(folder / two, {"c": C})
        index = {"metadata": {"total_size": 48}, "weight_map": {"c": two, "a": one, "b": one, **weight_map}}
        (folder / f"{form}.index.json").write_text(json.dumps(index))
        return folder

    return write_shards


def check(tensors, expected):
    assert list(tensors) == list(expected)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.read(), expected[name])


@pytest.mark.parametrize("form", [SAFETENSORS, BIN])
def test_one_file(tmp_path, write, form):
    write(tmp_path / form, {"a": A, "b": B})
    tensors = open_weights(tmp_path)
    check(tensors, {"a": A, "b": B})
    assert {tensor.file for tensor in tensors.values()} == {tmp_path / form}


@pytest.mark.parametrize("form", [SAFETENSORS, BIN])
def test_shards(tmp_path, shards, form):
    tensors = open_weights(shards(tmp_path, form))
    check(tensors, {"c": C, "a": A, "b": B})  # in the order of the index
    assert [tensor.file.name for tensor in tensors.values()] == [SHARDS[form].format(i) for i in (2, 1, 1)]


def test_of_several_the_first_is_read_and_said(tmp_path, write, shards, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    shards(tmp_path, BIN)
    check(open_weights(tmp_path), {"c": C, "a": A, "b": B})
    assert not caplog.messages
    others = [f"{BIN}.index.json"]
    for name in (BIN, f"{SAFETENSORS}.index.json", SAFETENSORS):
        if name.endswith(".json"):
            shards(tmp_path)
        else:
            write(tmp_path / name, {"x": A})
        open_weights(tmp_path)
        assert caplog.messages[-1] == f"Reading {name} of {tmp_path}, not {' and '.join(others)} beside it"
        others = [name, *others]
    check(open_weights(tmp_path), {"x": A})


@pytest.fixture
def cache(tmp_path, write):
    """A model in the hub's cache, of one revision: files are links into the blobs."""
    model = tmp_path / "models--someone--something"
    for folder in ("blobs", "refs", "snapshots/abc"):
        (model / folder).mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    write(tmp_path / SAFETENSORS, {"a": A}).rename(model / "blobs" / "123")
    (model / "snapshots" / "abc" / SAFETENSORS).symlink_to("../../blobs/123")
    return model


def test_the_hubs_cache(cache):
    check(open_weights(cache / "snapshots" / "abc"), {"a": A})
    check(open_weights(cache), {"a": A})


def opening(folder):
    with pytest.raises(UserError) as error:
        open_weights(folder)
    return str(error.value)


def test_several_revisions(cache):
    shutil.copytree(cache / "snapshots" / "abc", cache / "snapshots" / "def")
    assert opening(cache) == (
        f"expected one revision in {cache / 'snapshots'}; found 2: abc, def; name the folder of one of them"
    )


@pytest.mark.parametrize("incomplete", [False, True])
def test_a_link_that_leads_nowhere(cache, incomplete):
    (cache / "blobs" / "123").unlink()
    if incomplete:
        (cache / "blobs" / "123.incomplete").touch()
    assert opening(cache) == (
        f"expected the file {cache / 'snapshots' / 'abc' / SAFETENSORS}; found a link to ../../blobs/123, which is not "
        f"there{' (and an unfinished download: 123.incomplete)' if incomplete else ''}; "
        "the download is incomplete: download it again"
    )


NAMES = "model.safetensors or model.safetensors.index.json or pytorch_model.bin or pytorch_model.bin.index.json"
COMPLETE = "name the folder that holds them, complete the download, or have transformers write them (save_pretrained)"


def test_a_snapshot_whose_weights_are_still_downloaded(cache):
    snapshot = cache / "snapshots" / "abc"
    (snapshot / SAFETENSORS).unlink()
    (cache / "blobs" / "123").rename(cache / "blobs" / "123.incomplete")
    found = "none of them (and an unfinished download: 123.incomplete)"
    assert opening(snapshot) == f"expected {NAMES} in {snapshot}; found {found}; {COMPLETE}"


def test_another_download_that_is_not_finished(cache):
    """Of another revision, or of other files."""
    (cache / "blobs" / "456.incomplete").touch()
    check(open_weights(cache), {"a": A})


def test_a_download_into_the_folder_that_is_not_finished(tmp_path, write):
    write(tmp_path / SAFETENSORS, {"a": A})
    (tmp_path / f"{SAFETENSORS}.incomplete").touch()
    assert opening(tmp_path) == (
        f"expected a whole download in {tmp_path}; found model.safetensors.incomplete; "
        "download it again, or remove these files"
    )


def test_a_download_beside_the_folder_that_is_not_finished(tmp_path):
    download = tmp_path / ".cache" / "huggingface" / "download"
    download.mkdir(parents=True)
    (download / "x.incomplete").touch()
    found = "none of them (and an unfinished download: x.incomplete)"
    assert opening(tmp_path) == f"expected {NAMES} in {tmp_path}; found {found}; {COMPLETE}"


def test_no_weights(tmp_path):
    assert opening(tmp_path) == f"expected {NAMES} in {tmp_path}; found none of them; {COMPLETE}"
    for name in ("tf_model.h5", "flax_model.msgpack", "config.json"):
        (tmp_path / name).touch()
    assert opening(tmp_path) == f"expected {NAMES} in {tmp_path}; found flax_model.msgpack, tf_model.h5; {COMPLETE}"


def test_no_folder(tmp_path):
    for path in (tmp_path / "nothing", tmp_path / SAFETENSORS):
        if path.name == SAFETENSORS:
            path.touch()
        assert opening(path) == (
            f"expected a folder of a checkpoint; found {path}, which is none; name the folder of the weights"
        )


# What lies in place of weights


IN_PLACE = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 42\n",
        "the content of FILE; found a pointer to it of git LFS; run git lfs pull in the repository that it is from",
    ),
    "page": (
        b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
        "the content of FILE; found a web page, such as a server sends in place of a file; "
        "download it again, with leave to read it",
    ),
    "xml": (
        b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
        "the content of FILE; found a web page, such as a server sends in place of a file; "
        "download it again, with leave to read it",
    ),
    "text": (b"Entry not found\n", f"weights in FILE; found text: 'Entry not found'; {AGAIN}"),
    "json": (b'{"error": "no"}', f"""weights in FILE; found text: '{{"error": "no"}}'; {AGAIN}"""),
    "empty": (b"", f"content in FILE; found an empty file; {AGAIN}"),
}


@pytest.mark.parametrize("place", [SAFETENSORS, BIN, SHARDS[SAFETENSORS].format(2), SHARDS[BIN].format(1)])
@pytest.mark.parametrize("what", IN_PLACE)
def test_in_place_of_weights(tmp_path, shards, what, place):
    if place not in (SAFETENSORS, BIN):
        shards(tmp_path, SAFETENSORS if "safetensors" in place else BIN)
    content, line = IN_PLACE[what]
    (tmp_path / place).write_bytes(content)
    assert opening(tmp_path) == f"expected {line.replace('FILE', str(tmp_path / place))}"


@pytest.mark.parametrize("what", ["pointer", "page", "empty"])
def test_in_place_of_an_index(tmp_path, what):
    content, line = IN_PLACE[what]
    index = tmp_path / f"{SAFETENSORS}.index.json"
    index.write_bytes(content)
    assert opening(tmp_path) == f"expected {line.replace('FILE', str(index))}"


# Shards and their index


@pytest.mark.parametrize("form", [SAFETENSORS, BIN])
def test_missing_shards(tmp_path, shards, form):
    shards(tmp_path, form)
    one, two = (SHARDS[form].format(i) for i in (1, 2))
    index = tmp_path / f"{form}.index.json"
    (tmp_path / two).unlink()
    remedy = "download or copy these too"
    assert opening(tmp_path) == f"expected the 2 shards of {index}; found 1 missing: {two}; {remedy}"
    (tmp_path / one).unlink()
    assert opening(tmp_path) == f"expected the 2 shards of {index}; found 2 missing: {one}, {two}; {remedy}"


def test_a_shard_whose_link_leads_nowhere(tmp_path, shards):
    file = shards(tmp_path) / SHARDS[SAFETENSORS].format(1)
    file.unlink()
    file.symlink_to("../../blobs/1")
    found = "a link to ../../blobs/1, which is not there"
    assert opening(tmp_path) == (
        f"expected the file {file}; found {found}; the download is incomplete: download it again"
    )


SAID = "expected the tensors in FOLDER/{} that model.safetensors.index.json says; found it {}; "
REVISION = "download or copy all files of one revision again"


@pytest.mark.parametrize(
    ("weight_map", "shard", "found"),
    [
        ({"d": 1, "e": 1}, 1, "without d, e"),
        ({"a": 2}, 1, "with also a"),
        ({"c": 1}, 1, "without c"),
    ],
)
def test_shards_with_other_tensors_than_the_index_says(tmp_path, shards, weight_map, shard, found):
    form = SHARDS[SAFETENSORS]
    shards(tmp_path, **{name: form.format(number) for name, number in weight_map.items()})
    assert opening(tmp_path) == SAID.format(form.format(shard), found).replace("FOLDER", str(tmp_path)) + REVISION


def test_one_name_in_two_shards(tmp_path, shards, write):
    shards(tmp_path)
    second = write(tmp_path / SHARDS[SAFETENSORS].format(2), {"c": C, "a": A})
    line = SAID.format(second.name, "with also a").replace("FOLDER", str(tmp_path))
    assert opening(tmp_path) == line + REVISION


INDICES = {
    "json": ("{", "JSON in INDEX; found Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "list": ("[]", "a JSON object in INDEX; found list"),
    "no map": ("{}", "a weight_map from tensors to files beside it in INDEX; found none"),
    "empty": ('{"weight_map": {}}', "a weight_map from tensors to files beside it in INDEX; found none"),
    "number": ('{"weight_map": {"a": 1}}', "a weight_map from tensors to files beside it in INDEX; found none"),
    "elsewhere": ('{"weight_map": {"a": "../x"}}', "a weight_map from tensors to files beside it in INDEX; found none"),
    "twice": ('{"weight_map": {"a": "x", "a": "y"}}', "every name once in INDEX; found a more than once"),
}


@pytest.mark.parametrize("damage", INDICES)
def test_damaged_indices(tmp_path, damage):
    text, line = INDICES[damage]
    index = tmp_path / f"{SAFETENSORS}.index.json"
    index.write_text(text)
    assert opening(tmp_path) == f"expected {line.replace('INDEX', str(index))}; {AGAIN}"


def test_nested_beyond_measure():
    with pytest.raises(UserError, match="JSON in it"):
        unique_json(b"[" * 100_000, "it")


def test_damaged_weights_are_not_replaced_by_others(tmp_path, shards, write):
    """Nothing is read silently instead."""
    write(tmp_path / BIN, {"a": A})
    (shards(tmp_path) / SHARDS[SAFETENSORS].format(1)).unlink()
    assert "found 1 missing" in opening(tmp_path)


def test_a_compressed_shard(tmp_path, shards, written):
    shards(tmp_path, BIN)
    file = tmp_path / SHARDS[BIN].format(2)
    written.write_pickle(file, {}, {}, compression=zipfile.ZIP_DEFLATED)
    assert f"NEW_FOLDER/{file.name}" in opening(tmp_path)
