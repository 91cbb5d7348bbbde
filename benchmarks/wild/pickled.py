"""Pickles that do more than describe tensors. Each would leave a mark if it were run, and none may."""

import os
import pickle
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wild.case import Case, Group
from wild.formats import torch_module
from wild.models import GPT2, check, weights, write_config
from wild.writing import BIN, Code, Named, entries_of, pickled, state_of, write_bin, write_zip

_MARK = "RAN"
_COMMAND = f"touch {_MARK}"
_OPENS = f"open('{_MARK}', 'w')"


class Runs:
    """What calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


_DUMPED: dict[str, Any] = {
    "os.system, by pickle.dumps": Runs(os.system, _COMMAND),
    "eval, by pickle.dumps": Runs(eval, _OPENS),
    "exec, by pickle.dumps": Runs(exec, _OPENS),
    "getattr of a module, by pickle.dumps": Runs(getattr, Path, "touch"),
    "an array of numpy (reconstruct), by pickle.dumps": np.zeros(2),
    "a set, by pickle.dumps": {1, 2},
    "bytes, by pickle.dumps": b"x",
    "a slice in a list, by pickle.dumps": [slice(1)],
}
_TEXT = pickled(_COMMAND)
_DEEP = b")" + b"\x85" * 100_000
_LAUGHS = b"\x8c\x01x" + b"q\x00h\x00\x86" * 60  # doubles 60 times where it is written out
_INSTRUCTIONS: dict[str, bytes] = {
    "os.system by GLOBAL and REDUCE": b"cos\nsystem\n" + _TEXT + b"\x85R",
    "posix.system by GLOBAL": b"cposix\nsystem\n" + _TEXT + b"\x85R",
    "posix.system by STACK_GLOBAL": b"\x8c\x05posix\x8c\x06system\x93" + _TEXT + b"\x85R",
    "posix.system whose name is memoised": b"\x8c\x05posixq\x010\x8c\x06systemq\x020h\x01h\x02\x93" + _TEXT + b"\x85R",
    "builtins.eval by INST": b"(" + pickled(_OPENS) + b"ibuiltins\neval\n",
    "builtins.eval by OBJ": b"(cbuiltins\neval\n" + pickled(_OPENS) + b"o",
    "OBJ of what may be named": b"(ccollections\nOrderedDict\no",
    "NEWOBJ of what may be named": b"ccollections\nOrderedDict\n)\x81",
    "NEWOBJ_EX of what may be named": b"ccollections\nOrderedDict\n)}\x92",
    "an extension by its number": b"\x82\x01",
    "a buffer outside of the pickle": b"\x97",
    "a persistent id in text": b"Pstorage\n",
    "BUILD that changes what a name means": b"ccollections\nOrderedDict\n}X\x07\x00\x00\x00__new__cos\nsystem\nsb",
    "REDUCE with arguments that are none of a tensor's": b"ccollections\nOrderedDict\n(K\x01tR",
    "REDUCE of a number": b"K\x01)R",
    "torch.storage._load_from_bytes, which unpickles again": b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R",
    "torch.hub.load": b"ctorch.hub\nload\n" + _TEXT + b"\x85R",
    "a class inside of a module": b"ctorch\nnn.Linear\n",
    "a name that begins like one that is allowed": b"ccollections\nOrderedDict.fromkeys\n",
    "a name with a space": b"ccollections\nOrderedDict \n",
    "a name with an escape of terminals": b"cos\x1b[2J\nsystem\n",
    "names that are no text": b"K\x01K\x02\x93",
    "a name of 100,000 nested tuples": _DEEP + b"\x8c\x01x\x93",
    "a name that doubles 60 times": _LAUGHS + b"\x8c\x01x\x93",
    "a memo that is not there": b"h\x05",
    "more is taken from the stack than there is": b"R",
    "a dict that is its own value": b"}q\x01X\x01\x00\x00\x00ah\x01s",
    "a text of 2 to the power of 60 bytes": b"\x8d" + (2**60).to_bytes(8, "little"),
    "an instruction that there is not": b"\xff",
    "no end": b"",
}


def group() -> Group:
    """Returns all cases."""
    about = "Each as the data.pkl of a `pytorch_model.bin`, with a command that would leave a file behind: none did."
    cases = [
        _case(what, b"\x80\x02" + code + (b"" if what == "no end" else b".")) for what, code in _INSTRUCTIONS.items()
    ]
    # In protocol 2, and without the frames of later ones: the same bytes in every version of Python.
    cases += [_case(what, pickle.dumps({"w": value}, protocol=2)) for what, value in _DUMPED.items()]
    cases += [
        _wanted("a pickle without a zip file around it", _raw),
        _wanted("among whole tensors, os.system", _among),
        _wanted("a second data.pkl, in a folder of its own", _second),
        _wanted("a whole module, by torch", _by_torch(lambda torch: torch.nn.Linear(2, 2))),
        _wanted("sparse tensors, by torch", _by_torch(lambda torch: {"w": torch.eye(2).to_sparse()})),
        _wanted("quantised tensors, by torch", _by_torch(_quantised)),
        _wanted("an optimizer's state, by torch", _by_torch(_optimizer)),
        _wanted("complex numbers, by torch", _by_torch(lambda torch: {"w": torch.ones(2, dtype=torch.complex64)})),
    ]
    return Group("Pickles that do more", about, cases)


def _case(what: str, content: bytes) -> Case:
    def write(folder: Path) -> None:
        entries = dict(entries_of(weights(GPT2))) | {"archive/data.pkl": content}
        write_zip(folder / BIN, entries.items())

    return _wanted(what, write)


def _wanted(what: str, write: Callable[[Path], object]) -> Case:
    """A case that is to be refused, and to leave nothing behind."""

    def act(folder: Path) -> str:
        write_config(folder, GPT2)
        write(folder)
        before, here = set(folder.iterdir()), Path.cwd()
        os.chdir(folder)  # where a command would leave its mark
        try:
            return check(folder, GPT2)
        finally:
            os.chdir(here)
            assert set(folder.iterdir()) == before, "it was run"

    return Case(what, act, refused=True)


def _raw(folder: Path) -> None:
    (folder / BIN).write_bytes(pickle.dumps(Runs(os.system, _COMMAND), protocol=2))


def _among(folder: Path) -> None:
    call = Code(b"cos\nsystem\n" + _TEXT + b"\x85R")
    write_bin(folder / BIN, weights(GPT2), state_of(weights(GPT2)) | {"x": call})


def _second(folder: Path) -> None:
    content = b"\x80\x02" + pickled(Named("os", "system")) + b"."
    assert any(operation.name == "GLOBAL" for operation, _, _ in pickletools.genops(content))
    write_zip(folder / BIN, [*entries_of(weights(GPT2)), ("archive/data/data.pkl", content)])


def _by_torch(make: Callable[[ModuleType], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        torch = torch_module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(make(torch), folder / BIN)

    return write


def _quantised(torch: ModuleType) -> Any:
    return {"w": torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)}


def _optimizer(torch: ModuleType) -> Any:
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
