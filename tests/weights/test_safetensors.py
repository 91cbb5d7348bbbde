"""Safetensors files: what is in them, and every damage by its one line."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pdjax.errors import UserError
from pdjax.weights.safetensors import open_safetensors

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


DAMAGES = {
    "json": lambda _: '{"a": ',
    "list": lambda _: [1],
    "entry": lambda h: {**h, "b": [1, 2]},
    "twice": lambda h: json.dumps(h)[:-1] + f', "a": {json.dumps(h["b"])}}}',
    "shape": edit(a={"shape": [-2, -3]}),
    "true": edit(c={"shape": [True]}),
    "offsets": edit(a={"data_offsets": [0]}),
    "size": edit(a={"shape": [2, 4]}),
    "backwards": edit(a={"data_offsets": [24, 0]}),
    "overlap": edit(b={"data_offsets": [22, 28]}),
    "gap": edit(b={"data_offsets": [26, 32]}),
    "outside": edit(c={"data_offsets": [1000, 1008]}),
    "name": lambda h: {**h, "b\n": {**h["b"], "data_offsets": [22, 28]}},
}


def opening(file):
    with pytest.raises(UserError) as error:
        open_safetensors(file)
    return str(error.value)


def check_line(message, file, said="Error while deserializing header"):
    """One line names the file, has the library's words, and says what to do."""
    assert message.startswith(f"expected a whole safetensors file in {file}; found ")
    assert said in message
    assert message.endswith(f"; {AGAIN}")
    assert message.isprintable()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_headers(tmp_path, written, damage):
    file, header = tmp_path / "model.safetensors", written.header_of(TENSORS)
    written.write_safetensors(file, TENSORS, DAMAGES[damage](header))
    check_line(opening(file), file)


def test_types_that_cannot_be_read(tmp_path, written):
    file = tmp_path / "model.safetensors"
    written.write_safetensors(file, TENSORS, edit(b={"dtype": "F8_E4M3", "shape": [6]})(written.header_of(TENSORS)))
    known = "BF16, F64, F32, F16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"
    assert opening(file) == f"expected one of {known} for b of {file}; found F8_E4M3; store it as one of these"


@pytest.mark.parametrize("length", [0, 7, 30, -1, -20, 1])
def test_truncated_and_too_long(tmp_path, written, length):
    file = written.write_safetensors(tmp_path / "model.safetensors", TENSORS)
    whole = file.read_bytes()
    file.write_bytes(whole + b"x" if length == 1 else whole[:length])
    check_line(opening(file), file)


def test_names_stay_within_their_line(tmp_path, written):
    header = {"a\nb": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    file = written.write_safetensors(tmp_path / "model.safetensors", {}, header, bytes(2))
    assert f"for 'a\\nb' of {file}; found F8_E4M3" in opening(file)


@pytest.fixture
def tensor(tmp_path, written):
    """A tensor of 6 numbers in a file of more than a page, so that a map of it would outlive its end."""
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.zeros(10_000, np.float32)}
    return open_safetensors(written.write_safetensors(tmp_path / "model.safetensors", arrays))["b"]


def reading(tensor):
    with pytest.raises(UserError) as error:
        tensor.read()
    return str(error.value)


@pytest.mark.parametrize("left", [30_000, 10, 0])
def test_a_file_that_becomes_shorter(tensor, left):
    """It ends neither the process nor what was read before."""
    before = tensor.read()
    os.truncate(tensor.file, left)
    check_line(reading(tensor), tensor.file)
    assert not before.any()


def test_a_file_that_is_gone(tensor):
    tensor.file.unlink()
    check_line(reading(tensor), tensor.file, "No such file")


def test_a_file_in_its_place(tensor, written):
    written.write_safetensors(tensor.file, {"a": np.zeros(3, np.float32)})
    check_line(reading(tensor), tensor.file, "does not contain tensor b")
    written.write_safetensors(tensor.file, {"b": np.zeros((2, 3), np.float16)})
    assert reading(tensor) == (
        f"expected b of {tensor.file} as it was when it was opened, F32 of shape (10000,); found F16 of shape (2, 3); "
        f"{AGAIN}"
    )


def test_what_is_read_is_the_callers_own(tensor):
    read = tensor.read()
    read[:] = 2
    assert not tensor.read().any()


def test_values_that_are_not_finite(tmp_path, written):
    file = written.write_safetensors(tmp_path / "model.safetensors", {"w": np.array([1, np.nan], np.float16)})
    assert f"expected finite float32 values in w of {file}; found 1 of 2" in reading(open_safetensors(file)["w"])


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
