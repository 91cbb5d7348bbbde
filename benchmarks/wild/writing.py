"""Files of weights byte by byte, whole and damaged: as safetensors and torch write them, without either.

The tests of ``pdjax.weights`` write theirs with it too.
"""

import json
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CODES = {
    **{f"float{bits}": f"F{bits}" for bits in (64, 32, 16)},
    **{f"int{bits}": f"I{bits}" for bits in (64, 32, 8)},
    "bfloat16": "BF16",
    "uint8": "U8",
    "bool": "BOOL",
}
STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "uint8": "Byte",
    "bool": "Bool",
}
SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"

Arrays = Mapping[str, np.ndarray]


def header_of(tensors: Arrays) -> dict[str, Any]:
    """Returns the header of a safetensors file."""
    header, begin = {}, 0
    for name, array in tensors.items():
        end = begin + array.nbytes
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    return header


def write_safetensors(file: Path, tensors: Arrays, header: dict[str, Any] | str | None = None) -> None:
    """Writes arrays by name; ``header`` is one in place of theirs, as JSON or as its text."""
    header = header_of(tensors) if header is None else header
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


class Named(NamedTuple):
    """Something that a pickle imports."""

    module: str
    name: str


class Call(NamedTuple):
    """Something that a pickle calls."""

    function: Named
    arguments: tuple


class Persistent(NamedTuple):
    """A reference to something outside of the pickle."""

    value: tuple


class Code(NamedTuple):
    """Instructions."""

    content: bytes


def pickled(value: Any) -> bytes:
    """Returns a value's instructions, of protocol 2."""
    match value:
        case Code(content):
            return content
        case Named(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return pickled(function) + pickled(arguments) + b"R"
        case Persistent(inner):
            return pickled(inner) + b"Q"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return struct.pack("<ci", b"J", value)
        case str():
            return struct.pack("<ci", b"X", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case dict():
            return b"}(" + b"".join(pickled(key) + pickled(value[key]) for key in value) + b"u"
    raise TypeError(value)


ORDERED = Named("collections", "OrderedDict")


def view(key: str, kind: str, length: int, offset: int, shape: tuple, strides: tuple, *metadata: Any) -> Call:
    """Returns a tensor as torch pickles it: a view of ``length`` elements of the storage ``key``."""
    storage = Persistent(("storage", Named("torch", f"{kind}Storage"), key, "cpu", length))
    function = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, offset, shape, strides, False, Call(ORDERED, ()), *metadata))


def parameter(tensor: Call) -> Call:
    """Returns a parameter as torch pickles it."""
    return Call(Named("torch._utils", "_rebuild_parameter"), (tensor, True, Call(ORDERED, ())))


def state_of(tensors: Arrays, names: Iterable[str] | None = None) -> dict[str, Call]:
    """Returns a state dict of arrays, the storage of each being called by its number."""
    return {
        name: view(str(key), STORAGES[a.dtype.name], a.size, 0, a.shape, tuple(s // a.itemsize for s in a.strides))
        for key, (name, a) in enumerate(tensors.items())
        if names is None or name in names
    }


def storages_of(tensors: Arrays) -> dict[str, bytes]:
    """Returns the contents of the storages of ``state_of``."""
    return {str(key): array.tobytes() for key, array in enumerate(tensors.values())}


def write_zip(file: Path, entries: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    """Writes a zip file of any entries."""
    with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)


def entries_of(
    tensors: Arrays, state: Any = None, byteorder: bytes | None = b"little", root: str = "archive/"
) -> list[tuple[str, bytes]]:
    """Returns the entries of what torch.save writes; ``state`` is in place of that of the arrays."""
    pickle = b"\x80\x02" + pickled(state_of(tensors) if state is None else state) + b"."
    order = [] if byteorder is None else [(f"{root}byteorder", byteorder)]
    data = [(f"{root}data/{key}", content) for key, content in storages_of(tensors).items()]
    return [(f"{root}data.pkl", pickle), *order, *data]


def write_bin(file: Path, tensors: Arrays, state: Any = None) -> None:
    """Writes what torch.save would."""
    write_zip(file, entries_of(tensors, state))


WRITERS = {SAFETENSORS: write_safetensors, BIN: write_bin}


def shard_names(form: str) -> tuple[str, str]:
    """Returns the names of two shards."""
    stem, suffix = form.rsplit(".", 1)
    return f"{stem}-00001-of-00002.{suffix}", f"{stem}-00002-of-00002.{suffix}"


def write_shards(folder: Path, tensors: Arrays, form: str = SAFETENSORS) -> dict[str, str]:
    """Writes two shards and their index, and returns what it says."""
    names, half = list(tensors), len(tensors) // 2
    shards, weight_map = shard_names(form), {}
    for shard, members in zip(shards, (names[:half], names[half:]), strict=True):
        WRITERS[form](folder / shard, {name: tensors[name] for name in members})
        weight_map |= dict.fromkeys(members, shard)
    write_index(folder, weight_map, form)
    return weight_map


def write_index(folder: Path, weight_map: Any, form: str = SAFETENSORS) -> None:
    """Writes the index of shards."""
    (folder / f"{form}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
