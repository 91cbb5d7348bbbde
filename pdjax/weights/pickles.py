"""Reading what torch.save writes, without torch: a zip file of a pickle and of the tensors' storages.

A pickle is a program, and loading it as usual imports and calls whatever it names. Here its few instructions that
state dicts of plain tensors need are followed and nothing is imported or called: the names that it may use stand for
descriptions of tensors. Everything else is refused by name.
"""

import functools
import pickletools
import shlex
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pdjax.errors import UserError, require
from pdjax.weights.stored import AGAIN, DTYPES, StoredTensor, listed, shown, stored_tensor

_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_ORDERED_DICT = "collections.OrderedDict"
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_NAMES = {_REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT, *_STORAGES}
"""All that a pickle may name."""

_BYTE_ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
_HEADER = struct.Struct("<26xHH")
"""Of an entry in a zip file: lengths of its name and of what else comes before its content."""
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch.save wrote before version 1.6."""

_REWRITE = (
    "where torch is installed, write a new one: "
    'python -c "import sys, torch; '
    "torch.save(torch.load(sys.argv[1], map_location='cpu', weights_only=True), sys.argv[2])\" {file} NEW_FOLDER/{name}"
)
"""What to do about a file that torch reads and this module does not; tests/peer runs it."""


def open_pickle(file: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a state dict by name, as torch.save has written it.

    Raises:
      UserError: the file is damaged, in torch's format before 1.6, compressed, or holds anything but a dict of plain
        tensors by name.
    """
    archive = _Archive(file)
    state = _Pickle(archive.content("data.pkl"), file).value
    if not isinstance(state, dict):
        raise UserError(f"a state dict in {file}", type(state).__name__.strip("_"), "save model.state_dict()")
    others = [name for name, value in state.items() if not isinstance(name, str) or not isinstance(value, _Tensor)]
    require(
        not others,
        f"tensors by name, and nothing else, in {file}",
        listed(f"{name!r}: {type(state[name]).__name__.strip('_')}" for name in others),
        "save model.state_dict() alone",
    )
    return {name: archive.tensor(name, tensor) for name, tensor in state.items()}


class _Global(NamedTuple):
    """Something that a pickle names, not imported."""

    name: str


class _Storage(NamedTuple):
    """Elements that tensors are views of."""

    key: str
    dtype: str
    length: int  # in elements


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# The zip file


class _Entry(NamedTuple):
    """Where the content of a zip file's entry lies, in bytes; its checksum, 0 if torch computed none."""

    offset: int
    size: int
    checksum: int


class _Archive:
    """The entries of a zip file as torch.save writes it: in a folder of their own, uncompressed."""

    def __init__(self, file: Path):
        self._file = file
        entries = _entries(file)
        folders = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        require(len(folders) == 1, f"one data.pkl in {file}", len(folders), "have torch.save write it")
        self._entries = {name.removeprefix(folders[0]): entry for name, entry in entries.items()}
        # Files of torch before 2.1 do not say, and machines of the other order have hardly written any.
        order = self.content("byteorder") if "byteorder" in self._entries else b"little"
        require(order in _BYTE_ORDERS, f"byte order little or big in {file}", order, AGAIN)
        self._byteorder: Literal["<", ">"] = _BYTE_ORDERS[order]
        self._checks: dict[str, Callable[[], None]] = {}

    def content(self, name: str) -> bytes:
        """Returns the content of a small entry."""
        entry = self._entries[name]
        _check_content(self._file, name, entry)
        with self._file.open("rb") as opened:
            opened.seek(entry.offset)
            return opened.read(entry.size)

    def tensor(self, name: str, tensor: _Tensor) -> StoredTensor:
        """Returns a tensor of the pickle, whose storage is an entry; ``UserError`` if it has no room there."""
        storage, what = tensor.storage, f"{shown(name)} of {self._file}"
        entry, key = self._entries.get(f"data/{storage.key}"), shown(f"data/{storage.key}")
        if entry is None:
            raise UserError(f"the storage {key} for {what}", "no such entry", AGAIN)
        itemsize = DTYPES[storage.dtype].itemsize
        needed = storage.length * itemsize
        require(entry.size == needed, f"{needed} bytes in {key} for {what}", entry.size, AGAIN)
        reach = [(length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)]
        end = tensor.offset + (0 if 0 in tensor.shape else 1 + sum(reach))
        require(end <= storage.length, f"{end} elements in {key} for {what}", storage.length, AGAIN)
        # Once for all tensors that share it.
        check = functools.cache(functools.partial(_check_content, self._file, key, entry))
        return stored_tensor(
            name,
            self._file,
            storage.dtype,
            tensor.shape,
            entry.offset + tensor.offset * itemsize,
            tensor.strides,
            self._byteorder,
            self._checks.setdefault(key, check),
        )


def _entries(file: Path) -> dict[str, _Entry]:
    """Returns the entries of a zip file by name."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(len(_LEGACY))
        remedy = _REWRITE.format(file=shlex.quote(str(file)), name=file.name)
        require(start != _LEGACY, f"torch's zip format in {file}", "its format before version 1.6", remedy)
        require(start[:2] == b"PK", f"torch's zip format in {file}", f"a file that begins with {start[:8]!r}", AGAIN)
        try:
            with zipfile.ZipFile(opened) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError) as error:
            found = f"{size} bytes that are truncated or damaged ({error})"
            raise UserError(f"a whole zip file in {file}", found, AGAIN) from error
        entries = {}
        for info in infos:
            what = f"{shown(info.filename)} in {file}"
            require(info.filename not in entries, f"one entry {what}", "two", AGAIN)
            plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
            require(plain, f"{what} as torch.save stores it", "a compressed or encrypted entry", remedy)
            offset = _content_offset(opened, info)
            if offset is None or offset + info.file_size > size:
                found = "another place than the zip file's directory says"
                raise UserError(f"{info.file_size} bytes of {what}", found, AGAIN)
            entries[info.filename] = _Entry(offset, info.file_size, info.CRC)
    return entries


def _content_offset(opened: BinaryIO, info: zipfile.ZipInfo) -> int | None:
    """Returns where an entry's content begins, which only its own header says; None if that is not there."""
    if info.header_offset < 0:
        return None
    opened.seek(info.header_offset)
    header = opened.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(b"PK\x03\x04"):
        return None
    return opened.tell() + sum(_HEADER.unpack(header))


def _check_content(file: Path, name: str, entry: _Entry) -> None:
    """Raises a ``UserError`` where an entry's content has not the checksum that it was written with."""
    if entry.checksum == 0:
        return
    found, left = 0, entry.size
    with file.open("rb") as opened:
        opened.seek(entry.offset)
        while left > 0 and (block := opened.read(min(left, 1 << 20))):
            found, left = zlib.crc32(block, found), left - len(block)
    require(found == entry.checksum, f"CRC {entry.checksum:08x} of {name} in {file}", f"{found:08x}", AGAIN)


# The pickle

_MARK = object()
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LITERALS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_MALFORMED = (ValueError, IndexError, KeyError, TypeError)
"""What following the instructions of a damaged pickle runs into."""


class _Pickle:
    """Follows a pickle of protocol 2 to 5: ``value`` is what it describes."""

    def __init__(self, content: bytes, file: Path):
        self._file = file
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in names, which are refused by name
                for operation, argument, _ in pickletools.genops(content):
                    self._follow(operation.name, argument)
            (self.value,) = self._stack
        except UserError:
            raise
        except _MALFORMED as error:
            raise UserError(
                f"a whole pickle of tensors in {file}", f"{error or type(error).__name__}", AGAIN
            ) from error

    def _follow(self, operation: str, argument: Any) -> None:
        stack = self._stack
        match operation:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "APPEND":
                self._append([stack.pop()])
            case "APPENDS":
                self._append(self._since_mark())
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._since_mark())
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                self._name(*self._pop(2))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                stack.append(self._call(*self._pop(2)))
            case "BUILD":  # attributes, such as a state dict's _metadata: versions of modules
                stack.pop()
            case _ if operation in _LITERALS:
                stack.append(argument)
            case _ if operation in _CONSTANTS:
                stack.append(_CONSTANTS[operation])
            case _ if operation in _TUPLES:
                stack.append(tuple(self._pop(_TUPLES[operation])))
            case _:
                raise self._refused(f"the instruction {operation}")

    def _refused(self, found: str) -> UserError:
        return UserError(
            f"a state dict of plain tensors in {self._file}",
            f"{found} in its pickle, which is not run here",
            "trust this file only if you know its author; save model.state_dict() as plain tensors",
        )

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("its stack is empty")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise TypeError("it appends to what is no list")
        self._stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or not all(isinstance(name, str | int) for name in values[::2]):
            raise TypeError("it sets items of what is no dict, or by no names")
        for name, value in zip(values[::2], values[1::2], strict=True):
            require(name not in target, f"every name once in {self._file}", f"{shown(str(name))} more than once", AGAIN)
            target[name] = value

    def _name(self, module: Any, name: Any) -> None:
        # Before it is written out: nested tuples may be of any depth, and double with each.
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("it names something by no text")
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise self._refused(shown(full))
        self._stack.append(_Global(full))

    def _storage(self, persistent: Any) -> _Storage:
        kind, storage_type, key, _, length = persistent
        if kind != "storage" or not isinstance(storage_type, _Global) or storage_type.name not in _STORAGES:
            raise TypeError("it has a storage of unknown type")
        if not isinstance(key, str) or not _are_counts((length,)):
            raise TypeError("it has a storage without key or length")
        return _Storage(key, _STORAGES[storage_type.name], length)

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Returns what a call stands for."""
        match function, arguments:
            case _Global(name=name), () if name == _ORDERED_DICT:
                return {}
            case _Global(name=name), (_Tensor() as tensor, _, _) if name == _REBUILD_PARAMETER:
                return tensor
            case _Global(name=name), (_Storage() as storage, offset, tuple(shape), tuple(strides), _, _, *metadata) if (
                name == _REBUILD_TENSOR
            ):
                if any(metadata):  # such as that all signs are to be turned
                    raise self._refused("a tensor with metadata")
                if not _are_counts((offset, *shape, *strides)) or len(shape) != len(strides):
                    raise TypeError("it has a tensor without place, shape or strides")
                return _Tensor(storage, offset, shape, strides)
        raise self._refused(f"a call of {getattr(function, 'name', type(function).__name__)} with unknown arguments")


def _are_counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
