"""The formats of files and the layouts of folders that weights are met in."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.numpy

from pdjax.weights.files import open_weights
from pdjax.weights.series import series_of
from wild.case import AbsentError, Case, Group
from wild.models import GPT2, MODELS, Model, changed, check, weights, write, write_config
from wild.writing import (
    BIN,
    ORDERED,
    SAFETENSORS,
    STORAGES,
    Call,
    Code,
    Named,
    entries_of,
    header_of,
    parameter,
    pickled,
    state_of,
    view,
    write_bin,
    write_safetensors,
    write_shards,
    write_zip,
)

Writer = Callable[[Path, Model], object]


def torch_module() -> ModuleType:
    """Returns torch.

    Raises:
      AbsentError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise AbsentError("torch") from error
    return torch


def group() -> Group:
    """Returns all cases."""
    same = [_case(what, write, model) for what, write in _SAME.items() for model in MODELS]
    same += [_case(what, write, GPT2) for what, write in _SAME_ONCE.items()]
    same.append(Case("the hub's cache: a snapshot, whose files are links", _read_snapshot, of=GPT2.name))
    same.append(Case("the hub's cache: the folder of a model", _read_model, of=GPT2.name))
    refused = [_case(what, write, GPT2, refused=True) for what, write in _REFUSED.items()]
    refused.append(
        Case("the hub's cache: the folder of a model, two revisions of it", _read_revisions, True, GPT2.name)
    )
    about = "A tiny model of each family in every format. What is not read says so, and how to make of it what is."
    return Group("Formats of files", about, [*same, *refused])


def _case(what: str, write: Writer, model: Model, refused: bool = False) -> Case:
    def act(folder: Path) -> str:
        write_config(folder, model)
        write(folder, model)
        return check(folder, model)

    return Case(what, act, refused, model.name)


# Read


def _cached(folder: Path, revisions: int = 1) -> Path:
    """Writes a model in the hub's cache, blobs and snapshots of links to them, and returns its folder."""
    cache = folder / "models--owner--name-step_5"
    for part in ("blobs", "refs", "snapshots"):
        (cache / part).mkdir(parents=True)
    (cache / "refs" / "main").write_text(f"{0:040x}")
    write(cache / "blobs", GPT2)
    for revision in range(revisions):
        snapshot = cache / "snapshots" / f"{revision:040x}"
        snapshot.mkdir()
        for file in sorted((cache / "blobs").iterdir()):
            (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    return cache


def _read_snapshot(folder: Path) -> str:
    return check(_cached(folder) / "snapshots" / f"{0:040x}", GPT2)


def _read_model(folder: Path) -> str:
    (checkpoint,) = series_of(_cached(folder))
    return check(checkpoint.folder, GPT2)


def _read_revisions(folder: Path) -> str:
    return f"{len(open_weights(_cached(folder, 2)))} tensors"


def _big_endian(folder: Path, model: Model) -> None:
    arrays = weights(model)
    entries = entries_of(
        {name: array.view("u4").byteswap().view("f4") for name, array in arrays.items()}, byteorder=b"big"
    )
    write_zip(folder / BIN, entries)


def _one_storage(folder: Path, model: Model) -> None:
    """Writes all tensors as views of one storage."""
    arrays, state, offset = weights(model), {}, 0
    total = sum(array.size for array in arrays.values())
    for name, array in arrays.items():
        state[name] = view("0", "Float", total, offset, array.shape, tuple(s // 4 for s in array.strides))
        offset += array.size
    whole = np.concatenate([array.ravel() for array in arrays.values()])
    write_bin(folder / BIN, {"whole": whole}, state)


def _transposed(folder: Path, model: Model) -> None:
    """Writes the transposed of every matrix, and pickles a view that turns it back."""
    arrays, state = weights(model), {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(reversed(np.ascontiguousarray(array.T).strides))
        state[name] = view(str(key), "Float", array.size, 0, array.shape, tuple(s // 4 for s in strides))
    write_bin(folder / BIN, {name: np.ascontiguousarray(array.T) for name, array in arrays.items()}, state)


def _ordered(folder: Path, model: Model) -> None:
    """Writes an OrderedDict with its attribute _metadata, as module.state_dict() is one."""
    items = pickled(state_of(weights(model)))[1:]
    metadata = pickled({"_metadata": {"": {"version": 1}}})
    write_bin(folder / BIN, weights(model), Code(pickled(Call(ORDERED, ())) + items + metadata + b"b"))


def _protocol_4(folder: Path, model: Model) -> None:
    """Writes names that come from the stack and are memoised."""
    name = b"\x8c\x05torch\x94\x8c\x0cFloatStorage\x94\x93\x94"
    content = pickled(state_of(weights(model))).replace(pickled(Named("torch", f"{STORAGES['float32']}Storage")), name)
    entries = dict(entries_of(weights(model)))
    write_zip(folder / BIN, (entries | {"archive/data.pkl": b"\x80\x04" + content + b"."}).items())


def _without_checksums(folder: Path, model: Model) -> None:
    write_bin(folder / BIN, weights(model))
    content = bytearray((folder / BIN).read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 16 : place + 20] = bytes(4)
        place = content.find(b"PK\x01\x02", place + 1)
    (folder / BIN).write_bytes(content)


def _with_torch(save: Callable[[ModuleType, dict[str, Any], Path], None]) -> Writer:
    def write(folder: Path, model: Model) -> None:
        torch = torch_module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions that will be gone
            save(torch, {name: torch.from_numpy(array) for name, array in weights(model).items()}, folder / BIN)

    return write


def _tied_in_torch(torch: ModuleType, state: dict[str, Any], file: Path) -> None:
    torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, file)


_SAME: dict[str, Writer] = {
    "`model.safetensors`": lambda folder, model: write_safetensors(folder / SAFETENSORS, weights(model)),
    "`pytorch_model.bin`, as torch.save writes it": lambda folder, model: write_bin(folder / BIN, weights(model)),
    "two shards and `model.safetensors.index.json`": lambda folder, model: write_shards(folder, weights(model)),
    "two shards and `pytorch_model.bin.index.json`": lambda folder, model: write_shards(folder, weights(model), BIN),
    "torch.save of a state dict, by torch": _with_torch(lambda torch, state, file: torch.save(state, file)),
}
_SAME_ONCE: dict[str, Writer] = {
    "the safetensors package's own writer": lambda folder, model: safetensors.numpy.save_file(
        weights(model), folder / SAFETENSORS, {"format": "pt"}
    ),
    "safetensors beside a `.bin` of other numbers": lambda folder, model: (
        write_safetensors(folder / SAFETENSORS, weights(model)),
        write_bin(folder / BIN, weights(model, seed=1)),
    ),
    "`.bin` in the other byte order": _big_endian,
    "`.bin` without an entry for the byte order (torch before 2.1)": lambda folder, model: write_zip(
        folder / BIN, entries_of(weights(model), byteorder=None)
    ),
    "`.bin` without checksums": _without_checksums,
    "`.bin` whose tensors are views of one storage": _one_storage,
    "`.bin` whose tensors are transposed views": _transposed,
    "`.bin` of parameters in place of tensors": lambda folder, model: write_bin(
        folder / BIN, weights(model), {name: parameter(tensor) for name, tensor in state_of(weights(model)).items()}
    ),
    "`.bin` of an OrderedDict with `_metadata`": _ordered,
    "`.bin` of pickle protocol 4": _protocol_4,
    "torch.save with protocol 4, by torch": _with_torch(
        lambda torch, state, file: torch.save(state, file, pickle_protocol=4)
    ),
    "torch.save of parameters, by torch": _with_torch(
        lambda torch, state, file: torch.save({n: torch.nn.Parameter(t) for n, t in state.items()}, file)
    ),
    "torch.save of a head that shares its embedding's storage, by torch": _with_torch(_tied_in_torch),
}


# Refused


def _beside(name: str, content: bytes = b"\x00") -> Writer:
    return lambda folder, model: (folder / name).write_bytes(content)


def _tar(folder: Path, model: Model) -> None:
    with tarfile.open(folder / BIN, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def _npz(folder: Path, model: Model) -> None:
    with (folder / BIN).open("wb") as file:
        np.savez(file, *weights(model).values())


def _quantised(folder: Path, model: Model) -> None:
    arrays = {name: (array * 50).astype(np.int8) if "mlp" in name else array for name, array in weights(model).items()}
    write_safetensors(folder / SAFETENSORS, arrays)


def _float8(folder: Path, model: Model) -> None:
    small = {name: values.astype(np.uint8) for name, values in weights(model).items()}
    header = {name: entry | {"dtype": "F8_E4M3"} for name, entry in header_of(small).items()}
    write_safetensors(folder / SAFETENSORS, small, header)


def _script(torch: ModuleType, state: dict[str, Any], file: Path) -> None:
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x + self.weight

    torch.jit.trace(Module(), torch.zeros(2)).save(file)


_HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(56)

_REFUSED: dict[str, Writer] = {
    "`pytorch_model.bin` of torch before 1.6: no zip file": _beside(
        BIN, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    ),
    "the same, by torch": _with_torch(
        lambda torch, state, file: torch.save(state, file, _use_new_zipfile_serialization=False)
    ),
    "`pytorch_model.bin` of torch before 0.2: a tar file": _tar,
    "`pytorch_model.bin` that is a compressed zip file": lambda folder, model: write_zip(
        folder / BIN, entries_of(weights(model)), zipfile.ZIP_DEFLATED
    ),
    "`pytorch_model.bin` that is HDF5": _beside(BIN, _HDF5),
    "`pytorch_model.bin` that is numpy's npz": _npz,
    "`pytorch_model.bin` that is safetensors": lambda folder, model: write_safetensors(folder / BIN, weights(model)),
    "`model.safetensors` that is torch.save's": lambda folder, model: write_bin(folder / SAFETENSORS, weights(model)),
    "`model.safetensors` that is HDF5": _beside(SAFETENSORS, _HDF5),
    "TorchScript, by torch": _with_torch(_script),
    "`tf_model.h5` alone (TensorFlow)": _beside("tf_model.h5", _HDF5),
    "`flax_model.msgpack` alone (Flax)": _beside("flax_model.msgpack"),
    "`bert_model.ckpt.index` alone (TensorFlow 1)": _beside("bert_model.ckpt.index"),
    "`rust_model.ot` alone": _beside("rust_model.ot"),
    "`model.gguf` alone (llama.cpp)": _beside("model.gguf", b"GGUF"),
    "`model.onnx` alone": _beside("model.onnx"),
    "`model.pt` alone": _beside("model.pt"),
    "`model.fp16.safetensors` alone (a variant)": _beside("model.fp16.safetensors"),
    "`adapter_model.safetensors` alone (PEFT)": _beside("adapter_model.safetensors"),
    "`__0_0.distcp` alone (torch.distributed.checkpoint)": _beside("__0_0.distcp"),
    "`mp_rank_00_model_states.pt` alone (DeepSpeed)": _beside("mp_rank_00_model_states.pt"),
    "kernels of 8-bit integers": _quantised,
    "float8": _float8,
    "an untied head in a folder that says it is tied": lambda folder, model: write_safetensors(
        folder / SAFETENSORS, weights(changed(model, tied_head=False))
    ),
}
