"""Damages of tensors and of files."""

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdjax.errors import UserError
from pdjax.weights.files import open_weights
from pdjax.weights.names import canonical
from wild.case import Case, Group
from wild.models import BERT, GPT2, GPT_NEOX, MODELS, Model, changed, check, weights, write, write_config
from wild.spelled import TABLES
from wild.writing import (
    BIN,
    SAFETENSORS,
    WRITERS,
    Arrays,
    entries_of,
    header_of,
    shard_names,
    state_of,
    view,
    write_bin,
    write_index,
    write_safetensors,
    write_shards,
    write_zip,
)

Edit = Callable[[dict[str, np.ndarray]], Arrays]


def tensors() -> Group:
    """Returns cases of tensors that are not what they have to be."""
    about = "In whole files, with the config.json of the model."
    return Group("Damages of tensors", about, list(_tensors()))


def files() -> Group:
    """Returns cases of files that are not whole."""
    about = (
        "A file that is cut at any byte, or of which any bit is turned, is refused or gives the same numbers, but for "
        "bits of the numbers in a safetensors file, which has no checksums: an audit of the series may show these."
    )
    return Group("Damages of files", about, [*_in_place(), *_safetensors(), *_bin(), *_index(), *_downloads()])


# Tensors


def _tensors() -> Iterator[Case]:
    for model in MODELS:
        table = TABLES[type(model.architecture)]
        norm = next(name for name in weights(model) if name.endswith(".bias"))
        yield _tensor("a weight is missing", model, lambda arrays, norm=norm: _without(arrays, norm))
        yield _tensor("the weights of 3 layers", model, _of_layers(model, 3))
        yield _tensor("the weights of 1 layer", model, _of_layers(model, 1))
        yield _tensor("a value that is no number", model, _with_value(norm, np.nan))
        yield _tensor("a row more in the embedding", model, lambda arrays, table=table: _longer(arrays, table))
    name = "transformer.h.1.mlp.c_fc.weight"
    yield _tensor("an infinite value", GPT2, _with_value(name, -np.inf))
    yield _tensor("an infinite value of float16", GPT2, _with_value(name, np.inf, np.float16))
    yield _tensor("a value of float64 beyond float32", GPT2, _with_value(name, 1e300, np.float64))
    yield _tensor("a tied head that is not finite, the embedding is", GPT2, _with_value("lm_head.weight", np.nan))
    yield _tensor("all values are no numbers", GPT2, lambda arrays: {n: a * np.nan for n, a in arrays.items()})
    for what, shape in {
        "transposed": (16, 8), "flat": (128,), "with an axis more": (1, 8, 16), "empty": (0, 16), "of one row": (1, 16),
        "a scalar": (),
    }.items():  # fmt: skip
        yield _tensor(f"a kernel {what}", GPT2, _replace(name, np.ones(shape, np.float32)))
    for dtype in (np.int64, np.uint8, bool):
        yield _tensor(f"a kernel of {np.dtype(dtype).name}", GPT2, _replace(name, np.ones((8, 16), dtype)))
    others = {"transformer.h.2.ln_1.weight": np.ones(8, np.float32)}
    yield _tensor("one weight of a layer too many", GPT2, lambda arrays: arrays | others)
    yield _tensor("two norms are missing", BERT, lambda arrays: _without(_without(arrays, _NORMS[0]), _NORMS[1]))
    swapped = {"gpt_neox.layers.0.mlp.dense_h_to_4h.weight": "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"}
    yield _tensor("two kernels under each other's names", GPT_NEOX, lambda arrays: _exchanged(arrays, swapped))
    yield _tensor("no tensors", GPT2, lambda _: {})
    untied = changed(GPT2, tied_head=False)
    yield _tensor("an untied decoder in a model that is said to be tied", GPT2, lambda _: weights(untied))


_NORMS = tuple(f"bert.encoder.layer.{i}.output.LayerNorm.weight" for i in range(2))


def _tensor(what: str, model: Model, edit: Edit) -> Case:
    def act(folder: Path) -> str:
        write(folder, model, edit(weights(model)))
        return check(folder, model)

    return Case(what, act, refused=True, of=model.name)


def _without(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
    assert name in arrays
    return {other: array for other, array in arrays.items() if other != name}


def _of_layers(model: Model, count: int) -> Edit:
    return lambda _: weights(changed(model, num_layers=count))


def _with_value(name: str, value: float, dtype: Any = np.float32) -> Edit:
    def edit(arrays: dict[str, np.ndarray]) -> Arrays:
        array = arrays[name].astype(dtype)
        array[1, 2:3] = value
        return arrays | {name: array}

    def edit_vector(arrays: dict[str, np.ndarray]) -> Arrays:
        array = arrays[name].astype(dtype)
        array[2] = value
        return arrays | {name: array}

    return edit_vector if name.endswith(".bias") else edit


def _longer(arrays: Arrays, name: str) -> Arrays:
    head = {n: np.concatenate([a, a[:1]]) for n, a in arrays.items() if n in (name, *_HEADS)}
    return {**arrays, **head}


_HEADS = ("cls.predictions.decoder.weight", "lm_head.weight", "embed_out.weight")


def _replace(name: str, array: np.ndarray) -> Edit:
    return lambda arrays: arrays | {name: array}


def _exchanged(arrays: Arrays, pairs: dict[str, str]) -> Arrays:
    names = pairs | {new: old for old, new in pairs.items()}
    return {names.get(name, name): array for name, array in arrays.items()}


# Files


def _file(what: str, damage: Callable[[Path], object], refused: bool = True) -> Case:
    """A case of GPT-2 in a folder that ``damage`` writes to; config.json is there."""

    def act(folder: Path) -> str:
        write_config(folder, GPT2)
        damage(folder)
        return check(folder, GPT2)

    return Case(what, act, refused)


_IN_PLACE = {
    "nothing, an empty file": b"",
    "a pointer of git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 42\n",
    "a web page": b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
    "a server's error in XML": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "a server's error in JSON": b'{"error": "no"}',
    "a line of text": b"Entry not found\n",
    "zeros, as where a disk was full": bytes(4096),
    "random bytes": bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8)),
}


def _in_place() -> Iterator[Case]:
    for form in (SAFETENSORS, BIN):
        for what, content in _IN_PLACE.items():
            yield _file(
                f"`{form}`: {what}", lambda folder, form=form, content=content: (folder / form).write_bytes(content)
            )
        yield _file(f"`{form}`: a folder", lambda folder, form=form: (folder / form).mkdir())
        yield _file(
            f"`{form}`: a link that leads nowhere", lambda folder, form=form: (folder / form).symlink_to("../blobs/5")
        )
        yield _file(f"`{form}`: a link to itself", lambda folder, form=form: (folder / form).symlink_to(form))


def _cut(form: str, left: Callable[[int], int]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        WRITERS[form](folder / form, weights(GPT2))
        content = (folder / form).read_bytes()
        (folder / form).write_bytes(content[: left(len(content))])

    return damage


_LEFT: dict[str, Callable[[int], int]] = {
    "3 bytes are left": lambda size: 3,
    "60 bytes are left": lambda size: 60,
    "half is left": lambda size: size // 2,
    "the last 30 bytes are gone": lambda size: size - 30,
    "the last byte is gone": lambda size: size - 1,
}


def _sweep(form: str, damages: Callable[[bytes], Iterator[bytes]], what: str) -> Case:
    """A case of many damages of one file: how many of them are refused; all others have to give the same numbers."""

    def act(folder: Path) -> str:
        file = folder / form
        WRITERS[form](file, weights(GPT2))
        refused = count = 0
        for content in damages(file.read_bytes()):
            file.write_bytes(content)
            count += 1
            try:
                found, ignored = canonical(open_weights(folder), "gpt2")
                values = {name: tensor.read() for name, tensor in found.items()}
            except UserError as error:
                if not str(error).isprintable():
                    raise ValueError(f"more than one line: {error}") from error
                refused += 1
                continue
            whole = weights(GPT2)
            assert values.keys() == whole.keys(), f"other names, {ignored} ignored"
            assert all(np.array_equal(values[name], whole[name]) for name in whole), "other numbers"
        return f"{refused} of {count} are refused in one line, the others give the same parameters, bit for bit"

    return Case(what, act)


def _shorter(content: bytes) -> Iterator[bytes]:
    yield from (content[:size] for size in range(0, len(content), 61))


def _turned(content: bytes, end: int | None = None) -> Iterator[bytes]:
    for place in range(0, len(content) if end is None else end, 61):
        yield content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def _turned_in_header(content: bytes) -> Iterator[bytes]:
    yield from _turned(content, 8 + int.from_bytes(content[:8], "little"))


def _safetensors() -> Iterator[Case]:
    for what, left in _LEFT.items():
        yield _file(f"`{SAFETENSORS}`: {what}", _cut(SAFETENSORS, left))
    yield _sweep(SAFETENSORS, _shorter, f"`{SAFETENSORS}`: cut at every 61st byte")
    yield _sweep(SAFETENSORS, _turned_in_header, f"`{SAFETENSORS}`: a bit turned in every 61st byte of its header")
    yield _file(f"`{SAFETENSORS}`: a byte more", lambda folder: _append(folder / SAFETENSORS, b"x"))
    header = header_of(weights(GPT2))
    name = next(iter(header))
    begin, end = header[name]["data_offsets"]
    for what, changes in {
        "a type that there is not": {"dtype": "F12"},
        "a type of another size": {"dtype": "F16"},
        "another shape": {"shape": [1]},
        "a negative length": {"shape": [-7, -8]},
        "a length that is no integer": {"shape": [7.0, 8]},
        "a length of 2 to the power of 70": {"shape": [2**70]},
        "no length of one, and another beyond all": {"shape": [0, 2**70]},
        "places that overlap": {"data_offsets": [begin, end + 4]},
        "places in turn": {"data_offsets": [end, begin]},
        "places beyond the end": {"data_offsets": [10**9, 10**9 + end]},
        "no places": {"data_offsets": None},
    }.items():
        changed_header = header | {name: header[name] | changes}
        yield _header(f"its header says {what}", changed_header)
    yield _header("its header is a list", "[]")
    yield _header("its header is cut", json.dumps(header)[:-20])
    yield _file(
        f"`{SAFETENSORS}`: its header would take 2 to the power of 60 bytes",
        lambda folder: (folder / SAFETENSORS).write_bytes(struct.pack("<Q", 2**60) + bytes(100)),
    )
    of_axes = {"wte.weight": np.ones(1, np.float32)}
    entry = {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}
    yield Case(
        f"`{SAFETENSORS}`: a tensor of 100 axes",
        lambda folder: _read_all(folder, lambda file: write_safetensors(file, of_axes, {"wte.weight": entry})),
        refused=True,
    )
    yield Case(
        f"`{SAFETENSORS}`: cut after it was opened",
        lambda folder: _read_all(folder, _whole, after=_halved),
        refused=True,
    )


def _header(what: str, header: Any) -> Case:
    return _file(
        f"`{SAFETENSORS}`: {what}", lambda folder: write_safetensors(folder / SAFETENSORS, weights(GPT2), header)
    )


def _append(file: Path, content: bytes) -> None:
    _whole(file)
    file.write_bytes(file.read_bytes() + content)


def _whole(file: Path) -> None:
    WRITERS[file.name](file, weights(GPT2))


def _halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _read_all(
    folder: Path,
    write_file: Callable[[Path], object],
    after: Callable[[Path], object] = lambda file: None,
    form: str = SAFETENSORS,
) -> str:
    """Opens a file and reads all tensors, whatever they are called."""
    write_file(folder / form)
    opened = open_weights(folder)
    after(folder / form)
    for tensor in opened.values():
        tensor.read()
    return f"{len(opened)} tensors"


def _bin() -> Iterator[Case]:
    for what, left in _LEFT.items():
        yield _file(f"`{BIN}`: {what}", _cut(BIN, left))
    yield _sweep(BIN, _shorter, f"`{BIN}`: cut at every 61st byte")
    yield _sweep(BIN, _turned, f"`{BIN}`: a bit turned in every 61st byte")
    arrays = weights(GPT2)
    entries, state = dict(entries_of(arrays)), state_of(arrays)
    name, first = next(iter(arrays.items()))
    for what, changed_entries in {
        "a storage is missing": [item for item in entries.items() if item[0] != "archive/data/0"],
        "a storage is too short": [*(entries | {"archive/data/0": b"1234"}).items()],
        "an entry is there twice": [*entries.items(), ("archive/data/0", first.tobytes())],
        "no data.pkl": [item for item in entries.items() if not item[0].endswith(".pkl")],
        "two of data.pkl": [*entries.items(), ("other/data.pkl", entries["archive/data.pkl"])],
        "data.pkl in no folder": entries_of(arrays, root=""),
        "data.pkl in a folder within another, as is the rest": entries_of(arrays, root="a/b/"),
        "entries that lead out of the folder": entries_of(arrays, root="../../archive/"),
        "a byte order that there is not": entries_of(arrays, byteorder=b"middle"),
        "no entries": [],
    }.items():
        may = what.endswith(("the rest", "the folder"))
        yield _file(f"`{BIN}`: {what}", lambda folder, e=changed_entries: write_zip(folder / BIN, e), refused=not may)
    for what, tensor in {
        "a tensor beyond its storage": view("0", "Float", first.size, 1, first.shape, (8, 1)),
        "a tensor of strides beyond its storage": view("0", "Float", first.size, 0, first.shape, (2**30, 1)),
        "a tensor of negative strides": view("0", "Float", first.size, 0, first.shape, (-8, 1)),
        "a tensor of more axes than strides": view("0", "Float", first.size, 0, first.shape, (1,)),
        "a tensor of another type than its storage": view("0", "Double", first.size, 0, first.shape, (8, 1)),
    }.items():
        yield _file(f"`{BIN}`: {what}", lambda folder, t=tensor: write_bin(folder / BIN, arrays, state | {name: t}))
    for what, value in {
        "numbers beside the tensors": state | {"epoch": 3},
        "a training's state around the tensors (Lightning)": {"epoch": 3, "state_dict": state},
        "numbers for names": {5: state[name]},
        "a tuple": tuple(state.values()),
        "a tensor alone": state[name],
    }.items():
        yield _file(f"`{BIN}`: {what}", lambda folder, v=value: write_bin(folder / BIN, arrays, v))
    yield _file(f"`{BIN}`: one entry compressed", _one_compressed)
    yield _file(f"`{BIN}`: encrypted", _encrypted)
    yield Case(
        f"`{BIN}`: cut after it was opened", lambda folder: _read_all(folder, _whole, _halved, BIN), refused=True
    )


def _one_compressed(folder: Path) -> None:
    entries = entries_of(weights(GPT2))
    write_zip(folder / BIN, entries[:-1])
    with zipfile.ZipFile(folder / BIN, "a") as archive:
        archive.writestr(zipfile.ZipInfo(entries[-1][0]), entries[-1][1], zipfile.ZIP_DEFLATED)


def _encrypted(folder: Path) -> None:
    """Says of all entries that they are encrypted."""
    _whole(folder / BIN)
    content = bytearray((folder / BIN).read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 8] |= 1
        place = content.find(b"PK\x01\x02", place + 1)
    (folder / BIN).write_bytes(content)


_TABLE = "transformer.wte.weight"


def _index() -> Iterator[Case]:
    for form in (SAFETENSORS, BIN):
        one, two = shard_names(form)
        index = f"`{form}.index.json`"
        yield _sharded("a shard is missing", form, lambda folder, _, two=two: (folder / two).unlink())
        yield _sharded(
            "all shards are missing", form,
            lambda folder, _, one=one, two=two: ((folder / one).unlink(), (folder / two).unlink()),
        )  # fmt: skip
        yield _sharded("a shard is empty", form, lambda folder, _, two=two: (folder / two).write_bytes(b""))
        yield _sharded("a shard is cut", form, lambda folder, _, two=two: _halved(folder / two))
        yield _sharded(
            "a shard is a copy of the other", form,
            lambda folder, _, one=one, two=two: (folder / two).write_bytes((folder / one).read_bytes()),
        )  # fmt: skip
        yield _sharded(
            "one tensor in both shards", form,
            lambda folder, said, form=form, two=two: WRITERS[form](
                folder / two, {n: a for n, a in weights(GPT2).items() if said[n] == two or "wte" in n}
            ),
        )  # fmt: skip
        yield _sharded(
            f"{index} is missing", form, lambda folder, _, form=form: (folder / f"{form}.index.json").unlink()
        )
        for what, change in {
            "names a tensor that no shard has": lambda said, two=two: said | {"transformer.h.2.ln_1.weight": two},
            "says another shard of a tensor": lambda said, two=two: said | {_TABLE: two},
            "leaves a tensor out": lambda said: _without(said, _TABLE),
            "names a shard that is not there": lambda said: said | {_TABLE: "model-00003-of-00003"},
            "leads out of the folder": lambda said, two=two: said | {_TABLE: f"../{two}"},
            "leads to a full path": lambda said: said | {_TABLE: "/etc/passwd"},
            "names no shard of a tensor": lambda said: said | {_TABLE: None},
            "has no entries": lambda said: {},
            "has a list": lambda said: list(said),
        }.items():
            yield _sharded(
                f"{index} {what}", form,
                lambda folder, said, form=form, change=change: write_index(folder, change(said), form),
            )  # fmt: skip
        for what, content in {"empty": b"", "cut": b'{"weight_map": {"transformer.wte', "a list": b"[]"}.items():
            yield _sharded(
                f"{index} is {what}", form,
                lambda folder, _, form=form, content=content: (folder / f"{form}.index.json").write_bytes(content),
            )  # fmt: skip
    twice = b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'
    yield _sharded(
        "an index with one name twice", SAFETENSORS,
        lambda folder, _: (folder / f"{SAFETENSORS}.index.json").write_bytes(twice),
    )  # fmt: skip


def _sharded(what: str, form: str, damage: Callable[[Path, dict[str, str]], object]) -> Case:
    where = "" if form in what else f"shards of `{form}`: "
    return _file(f"{where}{what}", lambda folder: damage(folder, write_shards(folder, weights(GPT2), form)))


def _downloads() -> Iterator[Case]:
    def beside(folder: Path) -> None:
        _whole(folder / SAFETENSORS)
        (folder / f"{SAFETENSORS}.incomplete").touch()

    def below(folder: Path) -> None:
        download = folder / ".cache" / "huggingface" / "download"
        download.mkdir(parents=True)
        (download / "5.incomplete").touch()

    yield _file("`model.safetensors.incomplete` beside the file", beside)
    yield _file("no file, but an unfinished download below the folder", below)
    yield _file("no weights at all", lambda folder: None)
    yield Case("no folder", lambda folder: f"{len(open_weights(folder / 'none'))} tensors", refused=True)
    yield Case("a file in place of the folder", _no_folder, refused=True)


def _no_folder(folder: Path) -> str:
    _whole(folder / SAFETENSORS)
    return f"{len(open_weights(folder / SAFETENSORS))} tensors"
