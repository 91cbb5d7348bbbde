"""Reading safetensors files: a header of names, types, shapes and places, then the tensors one after another."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdjax.errors import UserError, require
from pdjax.weights.stored import AGAIN, DTYPES, StoredTensor, listed, shown, stored_tensor

_DTYPES = {
    "BF16": "bfloat16",
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
    "BOOL": "bool",
}
_LENGTH = 8
"""Bytes of the header's length at the beginning, little-endian."""


def open_safetensors(file: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file by name.

    Raises:
      UserError: the file is damaged: everything that its header says is checked, and against its length.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH), "little")
        start = _LENGTH + length
        require(
            start <= size,
            f"a safetensors file in {file}",
            f"{size} bytes, of which the header alone would take {start}",
            AGAIN,
        )
        header = unique_json(opened.read(length), f"the header of {file}")
    header.pop("__metadata__", None)
    places = {name: _place(entry, f"{shown(name)} of {file}") for name, entry in header.items()}
    _check_places(places, size - start, file)
    return {
        name: stored_tensor(name, file, _DTYPES[entry["dtype"]], entry["shape"], start + places[name][0])
        for name, entry in header.items()
    }


def unique_json(text: bytes, what: str) -> dict[str, Any]:
    """Returns a JSON object; ``UserError`` for anything else, and for a name that it has twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        require(not twice, f"every name once in {what}", f"{listed(twice)} more than once", AGAIN)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"JSON in {what}", str(error), AGAIN) from error
    require(isinstance(value, dict), f"a JSON object in {what}", type(value).__name__, AGAIN)
    return value


def _place(entry: Any, what: str) -> tuple[int, int]:
    """Returns where a tensor begins and ends in bytes, counted from the end of the header."""
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"dtype, shape and data_offsets of {what}", json.dumps(entry), AGAIN)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    require(
        isinstance(dtype, str) and dtype in _DTYPES,
        f"one of {', '.join(_DTYPES)} for {what}",
        shown(str(dtype)),
        "store it as one of these",
    )
    require(_are_counts(shape), f"a shape of {what}", json.dumps(shape), AGAIN)
    require(_are_counts(offsets) and len(offsets) == 2, f"where {what} begins and ends", json.dumps(offsets), AGAIN)
    needed = math.prod(shape) * DTYPES[_DTYPES[dtype]].itemsize
    begin, end = offsets
    require(
        end - begin == needed,
        f"{needed} bytes for {what}: {dtype} of shape {tuple(shape)}",
        f"{end - begin}, from {begin} to {end}",
        AGAIN,
    )
    return begin, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_places(places: Mapping[str, tuple[int, int]], size: int, file: Path) -> None:
    """Raises a ``UserError`` unless the tensors fill the file: each byte belongs to one of them."""
    in_order = sorted(places.items(), key=lambda item: item[1])
    for name, (_, end) in in_order:
        needed = f"{end} bytes behind the header for {shown(name)} of {file}"
        require(end <= size, needed, f"{size}: the file is truncated", AGAIN)
    before, reached = "the header", 0
    for name, (begin, end) in in_order:
        what = f"{shown(name)} of {file}"
        found = f"{begin}, where {before} overlaps it" if begin < reached else f"{begin}, behind bytes of no tensor"
        require(begin == reached, f"{what} to begin at {reached}, where {before} ends", found, AGAIN)
        before, reached = shown(name), end
    require(
        reached == size, f"{file} to end with its last tensor, {before}", f"{size - reached} bytes behind it", AGAIN
    )
