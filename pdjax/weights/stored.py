"""Tensors where they lie in a file: nothing of them is read before it is asked for."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import ml_dtypes
import numpy as np

from pdjax.errors import UserError, require

AGAIN = "copy or download the file again"
"""What to do about a damaged file."""

DTYPES = {
    **{name: np.dtype(name) for name in ("float64", "float32", "float16")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(name) for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")},
    "bool": np.dtype(bool),
}
"""What can be read, by name."""


_AXES = 64
"""As many as an array of numpy may have."""


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str  # in the file: a name of ``DTYPES``
    file: Path
    read: Callable[[], np.ndarray]
    """Returns the caller's own copy: float32 for floats of any precision, integers as they are.

    Raises ``UserError`` where the file has changed since it was opened, or a value is not finite.
    """


def stored_tensor(
    name: str,
    file: Path,
    dtype: str,
    shape: Sequence[int],
    offset: int,
    strides: Sequence[int] | None = None,
    byteorder: Literal["<", ">"] = "<",
    check: Callable[[], None] = lambda: None,
) -> StoredTensor:
    """Returns a tensor that lies uncompressed in a file.

    Args:
      name: the tensor's name in the file.
      file: where it is.
      dtype: a name of ``DTYPES``.
      shape: of the tensor.
      offset: in bytes, of its first element.
      strides: in elements, not negative; by default those of a contiguous array.
      byteorder: of its elements.
      check: called before every reading; raises a ``UserError`` where the content is damaged.

    Raises:
      UserError: it has more axes than an array can.
    """
    check_axes(shape, f"{shown(name)} of {file}")
    if strides is None:
        strides = [int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape))]
    bits = np.dtype(f"{byteorder}u{DTYPES[dtype].itemsize}")
    copy = functools.partial(_copy, file, bits, tuple(shape), offset, tuple(strides))

    def read() -> np.ndarray:
        check()
        values = copy().view(DTYPES[dtype])  # bfloat16 knows no byte order, hence the way through bits
        return converted(values, f"{shown(name)} of {file}")

    return StoredTensor(name, tuple(shape), dtype, file, read)


def _copy(file: Path, bits: np.dtype, shape: tuple[int, ...], offset: int, strides: tuple[int, ...]) -> np.ndarray:
    """Returns a contiguous copy in this machine's byte order.

    A map of these bytes alone, gone as soon as they are copied: a map that stays would show whatever the file becomes,
    and end the process where it becomes shorter.
    """
    if 0 in shape:
        return np.empty(shape, bits.newbyteorder("="))
    extent = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    end, size = offset + extent * bits.itemsize, file.stat().st_size if file.exists() else 0
    require(end <= size, f"{file} as it was when it was opened", f"{size} bytes, at least {end} of them before", AGAIN)
    mapped = np.memmap(file, np.uint8, "r", offset, (extent * bits.itemsize,)).view(bits)
    steps = [stride * bits.itemsize for stride in strides]
    return np.array(np.lib.stride_tricks.as_strided(mapped, shape, steps), bits.newbyteorder("="), order="C")


def converted(values: np.ndarray, what: str) -> np.ndarray:
    """Returns floats of any precision as float32, and integers as they are.

    Raises:
      UserError: a value is not finite.
    """
    if "float" not in values.dtype.name:
        return values
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is noticed below
        values = values.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise UserError(
            f"finite float32 values in {what}",
            f"{np.count_nonzero(~finite)} of {values.size} that are not, the first {values[first]} at {first}",
            "leave this checkpoint out: its training diverged or it is damaged",
        )
    return values


def check_axes(shape: Sequence[int], what: str) -> None:
    """Raises a ``UserError`` for a tensor of more axes than an array can have."""
    require(len(shape) <= _AXES, f"at most {_AXES} axes of {what}", len(shape), AGAIN)


def shown(name: str) -> str:
    """Returns a name from a file so that it stays within its line."""
    return name if name.isprintable() else repr(name)


def listed(names: Iterable[str], most: int = 8) -> str:
    """Returns names with commas, and how many are left out."""
    names = [shown(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
