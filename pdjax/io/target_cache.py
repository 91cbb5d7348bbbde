"""What a teacher's checkpoint says to the batches of students, on disk: computed once, in shards, each verified.

A cache belongs to one checkpoint, one stream of batches and one cut (``pdjax.distill.kept.Cut``): its directory is
named by a digest of these. A shard holds a number of consecutive steps, in a safetensors file that appears whole or not
at all::

    identity.json             what it is of
    00000000.safetensors      of the steps from 0 on: classes, how many count, and of cuts with a rest their logarithms
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, Int

from pdjax.distill.kept import Cut, Kept
from pdjax.errors import UserError, require
from pdjax.io.sealed import read_json, write_json

AGAIN = "remove it, and the same command computes it again"


class Shard(NamedTuple):
    """What is kept at the places of some steps; K is the most of any place."""

    classes: Int[np.ndarray, "N *places K"]
    counts: Int[np.ndarray, "N *places"]  # of classes with mass
    log_p: Float[np.ndarray, "N *places K"] | None  # None: the classes that count share all of the mass evenly
    log_rest: Float[np.ndarray, "N *places"] | None


def shard_of(kept: Kept, cut: Cut, num_classes: int) -> Shard:
    """Returns what a cut keeps in as little room as holds it.

    Args:
      kept: on the host.
      cut: how it was cut.
      num_classes: of the task.
    """
    small = np.min_scalar_type(num_classes - 1)
    counts = np.sum(kept.log_p > -np.inf, axis=-1).astype(np.min_scalar_type(cut.k))
    classes = kept.classes[..., : int(counts.max())]
    # What stands behind the last that counts and all others have no mass: which class it is says nothing.
    classes = np.where(np.arange(classes.shape[-1]) < counts[..., None], classes, 0).astype(small)
    if cut.whole:
        return Shard(classes, counts, None, None)
    assert kept.log_rest is not None
    return Shard(classes, counts, np.asarray(kept.log_p[..., : classes.shape[-1]]), np.asarray(kept.log_rest))


def kept_of(shard: Shard, most: int) -> Kept:
    """Returns what a shard holds, with room for ``most`` classes at every place."""
    more = [(0, 0)] * shard.counts.ndim + [(0, most - shard.classes.shape[-1])]
    classes = np.pad(shard.classes, more).astype(np.int32)
    counted = np.arange(most) < shard.counts[..., None]
    if shard.log_p is None:
        log_p = -np.log(np.maximum(shard.counts, 1).astype(np.float32))[..., None]
        return Kept(classes, np.where(counted, log_p, -np.inf).astype(np.float32), None)
    return Kept(classes, np.pad(shard.log_p, more, constant_values=-np.inf), shard.log_rest)


class TargetCache:
    """The shards of a checkpoint's answers.

    Args:
      root: of all caches.
      identity: what this one is of; it says all that the answers depend on.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]):
        text = json.dumps(identity, sort_keys=True)
        self.directory = root / hashlib.sha256(text.encode()).hexdigest()[:24]
        self._identity = json.loads(text)

    def open(self) -> None:
        """Says what the cache is of, where nobody has yet.

        Raises:
          UserError: it is one of something else.
        """
        path = self.directory / "identity.json"
        if not path.exists():
            write_json(path, self._identity)
            return
        require(read_json(path) == self._identity, f"the identity of this cache in {path}", "another one", AGAIN)

    def path(self, begin: int) -> Path:
        """Returns the file of the steps from ``begin`` on."""
        return self.directory / f"{begin:08}.safetensors"

    def has(self, begin: int) -> bool:
        """Whether there is a shard."""
        return self.path(begin).exists()

    def write(self, begin: int, shard: Shard) -> None:
        """Writes a shard, of which a reader never sees a part."""
        arrays = {name: np.ascontiguousarray(part) for name, part in shard._asdict().items() if part is not None}
        content = safetensors.numpy.save(arrays, {"sha256": _digest(arrays)})
        # A name of its own: runs of several directories may write the same shard at once, with the same content.
        partial = self.path(begin).with_suffix(f".{uuid.uuid4().hex}.partial")
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path(begin))

    def most(self, begin: int) -> int:
        """Returns how many classes the places of a shard have at most."""
        try:
            with safetensors.safe_open(self.path(begin), "numpy") as file:
                return file.get_slice("classes").get_shape()[-1]
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"a whole file {self.path(begin)}", str(error), AGAIN) from None

    def read(self, begin: int) -> Shard:
        """Reads a shard and compares it with its digest.

        Raises:
          UserError: it is missing or damaged.
        """
        try:
            with safetensors.safe_open(self.path(begin), "numpy") as file:
                recorded = file.metadata()["sha256"]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
            raise UserError(f"a whole file {self.path(begin)}", str(error), AGAIN) from None
        require(_digest(arrays) == recorded, f"{self.path(begin)} as it was written", "another content", AGAIN)
        return Shard(arrays["classes"], arrays["counts"], arrays.get("log_p"), arrays.get("log_rest"))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
