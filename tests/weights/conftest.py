"""Files of weights, byte by byte, as safetensors and torch write them: neither is needed here."""

import json
import struct
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pdjax.weights.stored import stored_tensor

# The script of benchmarks/ that tries spellings and damages writes the same.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from wild.writing import Call, Named, header_of, parameter, pickled, view


def write_safetensors(file, tensors, header=None, data=None):
    """Writes arrays by name; with another header (what JSON says, or its text) and other data, a damaged file."""
    header = header_of(tensors) if header is None else header
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    data = b"".join(array.tobytes() for array in tensors.values()) if data is None else data
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


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
