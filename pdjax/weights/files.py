"""Weights in a folder as Hugging Face's tools leave it: which files they are in, and that nothing of them is missing.

::

    model.safetensors               one file, or
    model.safetensors.index.json    ... which tensor is in which shard: model-00001-of-00002.safetensors, ...
    pytorch_model.bin               the same as torch.save writes it
    pytorch_model.bin.index.json

The first of these that is there is read, as transformers does. The folder may be one of the hub's cache
(``models--owner--name/snapshots/<commit>``, of links into ``blobs``), or that cache with a single snapshot.
"""

import json
import logging
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdjax.errors import UserError, require
from pdjax.weights.pickles import open_pickle
from pdjax.weights.safetensors import open_safetensors
from pdjax.weights.stored import AGAIN, StoredTensor, listed

__all__ = ["SUFFIXES", "StoredTensor", "check_is_there", "holds_weights", "open_weights", "unique_json"]

_INDEX = ".index.json"
_FORMATS: dict[str, Callable[[Path], dict[str, StoredTensor]]] = {
    "model.safetensors": open_safetensors,
    f"model.safetensors{_INDEX}": open_safetensors,
    "pytorch_model.bin": open_pickle,
    f"pytorch_model.bin{_INDEX}": open_pickle,
}
"""How to open what files hold, the first that is there before others."""

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".npz", ".pkl")
"""How names of files end that hold weights, or might."""

_INCOMPLETE = ".incomplete"
"""How the hub's tools name what they are still downloading."""

_START = 512
"""Bytes of a file that tell what it is."""

_TEXT = string.printable.encode()
_LFS = b"version https://git-lfs.github.com/spec/"

logger = logging.getLogger("pdjax")


def holds_weights(folder: Path) -> bool:
    """Returns whether a folder has a file of weights that can be read, be it whole or not, or a link to one."""
    return any(os.path.lexists(folder / name) for name in _FORMATS)


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a checkpoint by their names in the file, none of them read yet.

    Raises:
      UserError: there are no weights, or they are damaged or incomplete.
    """
    require(folder.is_dir(), "a folder of a checkpoint", f"{folder}, which is none", "name the folder of the weights")
    folder = _snapshot(folder)
    if not holds_weights(folder):
        raise _nothing(folder)
    present = [name for name in _FORMATS if os.path.lexists(folder / name)]
    partial = sorted(path.name for path in folder.glob(f"*{_INCOMPLETE}"))
    require(not partial, f"a whole download in {folder}", listed(partial), "download it again, or remove these files")
    chosen, *others = present
    if others:
        logger.info("Reading %s of %s, not %s beside it", chosen, folder, " and ".join(others))
    if chosen.endswith(_INDEX):
        return _open_shards(folder / chosen, _FORMATS[chosen])
    _check_is_binary(folder / chosen)
    return _FORMATS[chosen](folder / chosen)


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


def _snapshot(folder: Path) -> Path:
    """Returns the folder itself, or the only snapshot of one of the hub's cache."""
    snapshots = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
    if not snapshots:
        return folder
    require(
        len(snapshots) == 1,
        f"one revision in {folder / 'snapshots'}",
        f"{len(snapshots)}: {listed(path.name for path in snapshots)}",
        "name the folder of one of them",
    )
    return snapshots[0]


def _open_shards(index: Path, open_file: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Returns the tensors of all shards of an index."""
    check_is_there(index)
    shard_of = unique_json(index.read_bytes(), str(index)).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or any(not _is_file_name(name) for name in shard_of.values()):
        raise UserError(f"a weight_map from tensors to files beside it in {index}", "none", AGAIN)
    shards = sorted(set(shard_of.values()))
    missing = [name for name in shards if not os.path.lexists(index.parent / name)]
    if missing:
        found = f"{len(missing)} missing: {listed(missing)}{_of_downloads(index.parent)}"
        raise UserError(f"the {len(shards)} shards of {index}", found, "download or copy these too")
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        file = index.parent / shard
        _check_is_binary(file)
        opened, expected = open_file(file), {name for name in shard_of if shard_of[name] == shard}
        for what, names in (("without", expected - set(opened)), ("with also", set(opened) - expected)):
            require(
                not names,
                f"the tensors in {file} that {index.name} says",
                f"it {what} {listed(sorted(names))}",
                "download or copy all files of one revision again",
            )
        tensors |= opened
    return {name: tensors[name] for name in shard_of}


def _is_file_name(name: object) -> bool:
    # An index leads to files beside it and nowhere else.
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def check_is_there(file: Path) -> None:
    """Raises a ``UserError`` unless a file is there, with content that is not one in place of it."""
    if not file.is_file():
        target = f"a link to {os.readlink(file)}, which is not there" if file.is_symlink() else "no file"
        raise UserError(
            f"the file {file}", f"{target}{_of_downloads(file.parent)}", "the download is incomplete: download it again"
        )
    with file.open("rb") as opened:
        start = opened.read(_START)
    require(len(start) > 0, f"content in {file}", "an empty file", AGAIN)
    if start.startswith(_LFS):
        raise UserError(
            f"the content of {file}", "a pointer to it of git LFS", "run git lfs pull in the repository that it is from"
        )
    text = start.strip().lower()
    require(
        not text.startswith((b"<!doctype", b"<html", b"<?xml")),
        f"the content of {file}",
        "a web page, such as a server sends in place of a file",
        "download it again, with leave to read it",
    )


def _check_is_binary(file: Path) -> None:
    """Raises a ``UserError`` unless a file is there and may hold weights."""
    check_is_there(file)
    with file.open("rb") as opened:
        start = opened.read(_START)
    if not start.translate(None, _TEXT):
        raise UserError(f"weights in {file}", f"text: {start[:60].decode().strip()!r}", AGAIN)


def _nothing(folder: Path) -> UserError:
    """Returns the error for a folder without weights that can be read."""
    others = sorted(path.name for path in folder.iterdir() if path.name.endswith((*SUFFIXES, _INCOMPLETE)))
    return UserError(
        f"{' or '.join(_FORMATS)} in {folder}",
        f"{listed(others) if others else 'none of them'}{_of_downloads(folder)}",
        "name the folder that holds them, complete the download, or have transformers write them (save_pretrained)",
    )


def _of_downloads(folder: Path) -> str:
    """Returns what to add where something is missing: which downloads the hub's tools have not completed."""
    places = [folder / ".cache" / "huggingface" / "download"]
    if folder.parent.name == "snapshots":
        places.append(folder.parents[1] / "blobs")
    names = sorted(path.name for place in places for path in place.glob(f"**/*{_INCOMPLETE}"))
    return f" (and an unfinished download: {listed(names)})" if names else ""
