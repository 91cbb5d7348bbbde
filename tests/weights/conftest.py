"""Files of weights, byte by byte, as safetensors and torch write them: neither is needed here."""

import json
import struct
import types
import zipfile
from typing import NamedTuple

import numpy as np
import pytest

from pdjax.weights.stored import stored_tensor

CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "bool": "BOOL"}


def header_of(tensors):
    """Returns the header of a safetensors file, as what JSON says."""
    header, begin = {}, 0
    for name, array in tensors.items():
        end = begin + array.nbytes
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    return header


def write_safetensors(file, tensors, header=None, data=None):
    """Writes arrays by name; with another header (what JSON says, or its text) and other data, a damaged file."""
    header = header_of(tensors) if header is None else header
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    data = b"".join(array.tobytes() for array in tensors.values()) if data is None else data
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


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


def pickled(value):
    """Returns a value's instructions, of protocol 2."""
    match value:
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


HOOKS = Call(Named("collections", "OrderedDict"), ())


def view(key, kind, length, offset, shape, strides, *metadata):
    """Returns a tensor as torch pickles it: a view of ``length`` elements of the storage ``key``."""
    storage = Persistent(("storage", Named("torch", f"{kind}Storage"), key, "cpu", length))
    function = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, offset, shape, strides, False, HOOKS, *metadata))


def parameter(tensor):
    """Returns a parameter as torch pickles it."""
    return Call(Named("torch._utils", "_rebuild_parameter"), (tensor, True, HOOKS))


def write_pickle(file, state, storages, byteorder="little", pickle=None, root="archive/", compression=None):
    """Writes what torch.save would; ``state`` is a value for ``pickled``, ``storages`` are arrays by key."""
    with zipfile.ZipFile(file, "w", compression or zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}data.pkl", b"\x80\x02" + pickled(state) + b"." if pickle is None else pickle)
        if byteorder is not None:
            archive.writestr(f"{root}byteorder", byteorder)
        for key, array in storages.items():
            archive.writestr(f"{root}data/{key}", array.tobytes())
    return file


@pytest.fixture(scope="session")
def written():
    """Functions that write files of weights, and what they take."""
    functions = (header_of, write_safetensors, pickled, view, parameter, write_pickle, Named, Call)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def stored(tmp_path):
    """Returns tensors in a file of float32 arrays by name."""

    def store(arrays):
        file, tensors, offset = tmp_path / "arrays", {}, 0
        file.write_bytes(b"".join(array.astype("<f4").tobytes() for array in arrays.values()))
        for name, array in arrays.items():
            tensors[name] = stored_tensor(name, file, "float32", array.shape, offset)
            offset += 4 * np.size(array)
        return tensors

    return store
