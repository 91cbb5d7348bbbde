"""Reading safetensors files, by the library of that name.

It maps a file for as long as it is open, and a map of a file that becomes shorter ends the process: the file is opened
anew for every tensor, which checks its header against its length again.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pdjax.errors import UserError, require
from pdjax.weights.stored import AGAIN, StoredTensor, check_axes, converted, shown

_DTYPES = {
    "BF16": "bfloat16",
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
    "BOOL": "bool",
}


def open_safetensors(file: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file by name.

    Raises:
      UserError: the file is damaged.
    """
    with _opened(file) as opened:
        return {name: _tensor(opened, name, file) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(file, framework="np") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise UserError(f"a whole safetensors file in {file}", shown(str(error)), AGAIN) from error


def _tensor(opened: safe_open, name: str, file: Path) -> StoredTensor:
    """Returns a tensor of an open file; reading it opens the file again."""
    what, (dtype, shape) = f"{shown(name)} of {file}", _form(opened, name)
    check_axes(shape, what)
    require(dtype in _DTYPES, f"one of {', '.join(_DTYPES)} for {what}", shown(dtype), "store it as one of these")

    def read() -> np.ndarray:
        with _opened(file) as again:
            now = _form(again, name)
            expected = f"{what} as it was when it was opened, {dtype} of shape {shape}"
            require(now == (dtype, shape), expected, f"{now[0]} of shape {now[1]}", AGAIN)
            values = again.get_tensor(name)
        # Behind the `with`: the file's pages are gone from memory before there is a second copy.
        return converted(values, what)

    return StoredTensor(name, shape, _DTYPES[dtype], file, read)


def _form(opened: safe_open, name: str) -> tuple[str, tuple[int, ...]]:
    """Returns the type, as the file calls it, and the shape."""
    part = opened.get_slice(name)
    return str(part.get_dtype()), tuple(part.get_shape())
