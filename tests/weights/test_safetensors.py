"""Safetensors files: what is in them, and every damage by its one line."""

import copy
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pdjax.errors import UserError
from pdjax.weights.safetensors import open_safetensors, unique_json

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(3).astype(ml_dtypes.bfloat16),
    "c": np.array(7),
    "d": np.empty((0, 5), np.float16),
}


def check(tensors):
    assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
        name: (array.shape, array.dtype.name) for name, array in TENSORS.items()
    }
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.read(), TENSORS[name].astype(np.float64))


def test_what_is_read(tmp_path, written):
    tensors = open_safetensors(written.write_safetensors(tmp_path / "model.safetensors", TENSORS))
    check(tensors)
    assert list(tensors) == list(TENSORS)


def test_files_of_the_safetensors_library(tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, file, metadata={"format": "pt"})
    check(open_safetensors(file))


def test_no_tensors(tmp_path, written):
    assert open_safetensors(written.write_safetensors(tmp_path / "model.safetensors", {})) == {}


AGAIN = "copy or download the file again"


def edit(**changes):
    """Returns a damage: other entries of the header, by name."""
    return lambda header: {name: {**entry, **changes.get(name, {})} for name, entry in header.items()}


HEADERS = {
    "json": (lambda _: '{"a": ', "JSON in the header of FILE; found Expecting value: line 1 column 7 (char 6)"),
    "list": (lambda _: [1], "a JSON object in the header of FILE; found list"),
    "entry": (lambda h: {**h, "b": [1, 2]}, "dtype, shape and data_offsets of b of FILE; found [1, 2]"),
    "twice": (
        lambda h: json.dumps(h)[:-1] + f', "b": {json.dumps(h["b"])}}}',
        "every name once in the header of FILE; found b more than once",
    ),
    "shape": (edit(a={"shape": [-2, -3]}), "a shape of a of FILE; found [-2, -3]"),
    "true": (edit(c={"shape": [True]}), "a shape of c of FILE; found [true]"),
    "offsets": (edit(a={"data_offsets": [0]}), "where a of FILE begins and ends; found [0]"),
    "size": (edit(a={"shape": [2, 4]}), "32 bytes for a of FILE: F32 of shape (2, 4); found 24, from 0 to 24"),
    "backwards": (
        edit(a={"data_offsets": [24, 0]}),
        "24 bytes for a of FILE: F32 of shape (2, 3); found -24, from 24 to 0",
    ),
    "overlap": (
        edit(b={"data_offsets": [22, 28]}),
        "b of FILE to begin at 24, where a ends; found 22, where a overlaps it",
    ),
    "gap": (
        edit(b={"data_offsets": [26, 32]}),
        "b of FILE to begin at 24, where a ends; found 26, behind bytes of no tensor",
    ),
    "outside": (
        edit(c={"data_offsets": [1000, 1008]}),
        "1008 bytes behind the header for c of FILE; found 38: the file is truncated",
    ),
}


def opening(file):
    with pytest.raises(UserError) as error:
        open_safetensors(file)
    return str(error.value)


@pytest.mark.parametrize("damage", HEADERS)
def test_damaged_headers(tmp_path, written, damage):
    change, line = HEADERS[damage]
    file = tmp_path / "model.safetensors"
    written.write_safetensors(file, TENSORS, change(copy.deepcopy(written.header_of(TENSORS))))
    assert opening(file) == f"expected {line.replace('FILE', str(file))}; {AGAIN}"


def test_types_that_cannot_be_read(tmp_path, written):
    file = tmp_path / "model.safetensors"
    written.write_safetensors(file, TENSORS, edit(b={"dtype": "F8_E4M3"})(written.header_of(TENSORS)))
    known = "BF16, F64, F32, F16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"
    assert opening(file) == f"expected one of {known} for b of {file}; found F8_E4M3; store it as one of these"


LENGTHS = {
    0: "a safetensors file in FILE; found 0 bytes, of which the header alone would take 8",
    7: "a safetensors file in FILE; found 7 bytes, of which the header alone would take HEADER",
    30: "a safetensors file in FILE; found 30 bytes, of which the header alone would take HEADER",
    -1: "38 bytes behind the header for c of FILE; found 37: the file is truncated",
    -20: "24 bytes behind the header for a of FILE; found 18: the file is truncated",
    1: "FILE to end with its last tensor, d; found 1 bytes behind it",
}


@pytest.mark.parametrize("length", LENGTHS)
def test_truncated_and_too_long(tmp_path, written, length):
    file = written.write_safetensors(tmp_path / "model.safetensors", TENSORS)
    whole = file.read_bytes()
    header = len(whole) - sum(array.nbytes for array in TENSORS.values())
    file.write_bytes(whole + b"x" if length == 1 else whole[:length])
    line = LENGTHS[length].replace("FILE", str(file)).replace("HEADER", str(header))
    assert opening(file) == f"expected {line}; {AGAIN}"


def test_names_stay_within_their_line(tmp_path, written):
    file = tmp_path / "model.safetensors"
    written.write_safetensors(file, {}, {"a\nb": 1})
    assert opening(file) == f"expected dtype, shape and data_offsets of 'a\\nb' of {file}; found 1; {AGAIN}"


def test_nested_beyond_measure():
    with pytest.raises(UserError, match="JSON in it"):
        unique_json(b"[" * 100_000, "it")


def test_any_one_byte_may_be_damaged(tmp_path, written):
    """A byte of the header that changes is noticed, or changes what the header says; nothing else goes wrong."""
    file = written.write_safetensors(tmp_path / "model.safetensors", TENSORS)
    whole, noticed = bytearray(file.read_bytes()), 0
    header = len(whole) - sum(array.nbytes for array in TENSORS.values())
    for place in range(header):
        damaged = whole.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        try:
            for tensor in open_safetensors(file).values():
                tensor.read()
        except UserError:
            noticed += 1
    assert noticed > 0.7 * header
