"""Tensors in files: any layout, precision and byte order; one at a time."""

import ml_dtypes
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.stored import DTYPES, stored_tensor


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights"


def write(file, array):
    file.write_bytes(b"12345" + array.tobytes())  # at an odd place: nothing need be aligned
    return 5


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_exact(file, dtype, byteorder):
    values = np.array([[0, 1, 2], [100, 1, 3]]).astype(DTYPES[dtype])
    bits = values.view(f"u{values.itemsize}")
    offset = write(file, bits.astype(bits.dtype.newbyteorder(byteorder)))
    tensor = stored_tensor("w", file, dtype, (2, 3), offset, byteorder=byteorder)
    assert (tensor.name, tensor.shape, tensor.dtype, tensor.file) == ("w", (2, 3), dtype, file)
    read = tensor.read()
    assert read.dtype == (np.float32 if "float" in dtype else dtype)
    np.testing.assert_array_equal(read, values.astype(read.dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_all_finite_halves(file, dtype):
    bits = np.arange(2**16, dtype=np.uint16)
    mantissa = 10 if dtype == "float16" else 7
    exponent = (bits >> mantissa) & (2 ** (15 - mantissa) - 1)
    bits = bits[exponent < 2 ** (15 - mantissa) - 1]  # the largest exponent is infinity and NaN
    exponent = ((bits & 0x7FFF) >> mantissa).astype(int)
    fraction = (bits & (2**mantissa - 1)) / 2.0**mantissa
    bias = 2 ** (14 - mantissa) - 1
    magnitude = np.where(exponent > 0, 1 + fraction, fraction) * 2.0 ** (np.maximum(exponent, 1) - bias)
    expected = np.where(bits >> 15, -magnitude, magnitude)
    read = stored_tensor("w", file, dtype, bits.shape, write(file, bits)).read()
    np.testing.assert_array_equal(read.astype(np.float64), expected)  # float32 holds every one of them
    np.testing.assert_array_equal(np.signbit(read), bits >> 15 == 1)


@pytest.mark.parametrize(
    ("shape", "offset", "strides"),
    [
        ((3, 4), 0, (4, 1)),
        ((4, 3), 0, (1, 4)),  # transposed
        ((2, 2), 5, (4, 2)),  # every second of some rows
        ((3, 4), 7, (0, 1)),  # one row, repeated
        ((), 11, ()),
        ((0, 4), 12, (4, 1)),
        ((2, 1, 3), 1, (4, 99, 1)),  # the stride along an axis of length 1 leads nowhere
    ],
)
def test_strides(file, shape, offset, strides):
    values = np.arange(12, dtype=np.float32)
    start = write(file, values)
    read = stored_tensor("w", file, "float32", shape, start + 4 * offset, strides).read()
    expected = np.empty(shape, np.float32)
    for place in np.ndindex(shape):
        expected[place] = values[offset + sum(i * stride for i, stride in zip(place, strides, strict=True))]
    np.testing.assert_array_equal(read, expected)
    assert read.flags.c_contiguous


def test_what_is_read_is_the_callers_own(file):
    tensor = stored_tensor("w", file, "float32", (3,), write(file, np.ones(3, np.float32)))
    read = tensor.read()
    read[:] = 2
    np.testing.assert_array_equal(tensor.read(), np.ones(3))
    file.write_bytes(b"")
    np.testing.assert_array_equal(read, np.full(3, 2))


def test_nothing_is_read_before(tmp_path):
    tensor = stored_tensor("w", tmp_path / "later", "float32", (3,), 5)
    write(tensor.file, np.ones(3, np.float32))
    np.testing.assert_array_equal(tensor.read(), np.ones(3))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[1, np.nan], [np.inf, 0]], np.float32), "2 of 4 that are not, the first nan at (0, 1)"),
        (np.array([[1, 0], [-np.inf, 0]], np.float16), "1 of 4 that are not, the first -inf at (1, 0)"),
        (np.array([[1, 0], [0, np.nan]], ml_dtypes.bfloat16), "1 of 4 that are not, the first nan at (1, 1)"),
        (np.array([[1e300, 0], [0, 0]]), "1 of 4 that are not, the first inf at (0, 0)"),
    ],
    ids=str,
)
def test_values_that_are_not_finite(file, values, found):
    tensor = stored_tensor("w", file, values.dtype.name, (2, 2), write(file, values))
    with pytest.raises(UserError) as error:
        tensor.read()
    remedy = "leave this checkpoint out: its training diverged or it is damaged"
    assert str(error.value) == f"expected finite float32 values in w of {file}; found {found}; {remedy}"


@pytest.mark.parametrize("left", [16, 0, None])
def test_a_file_that_became_shorter(file, left):
    tensor = stored_tensor("w", file, "float32", (3,), write(file, np.ones(3, np.float32)))
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError) as error:
        tensor.read()
    assert str(error.value) == (
        f"expected {file} as it was when it was opened; found {left or 0} bytes, at least 17 of them before; "
        "copy or download the file again"
    )


def test_more_axes_than_an_array_has(file):
    offset = write(file, np.ones(1, np.float32))
    assert stored_tensor("w", file, "float32", (1,) * 64, offset).read().shape == (1,) * 64
    with pytest.raises(UserError, match=rf"at most 64 axes of w of {file}; found 65; copy or download"):
        stored_tensor("w", file, "float32", (1,) * 65, offset)
