"""What an audit measures of checkpoints: each is read in order, at most two tensors in memory at a time."""

import functools
import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pdjax.errors import UserError, require
from pdjax.weights.stored import DTYPES, StoredTensor, shown

SAMPLE = 65_536
"""About as many values of a checkpoint's matrices stay in memory, so that every two checkpoints can be compared."""

_LEAST = 256  # of them from every matrix, for its correlation
_CHUNK = 1 << 18  # elements


class Audited(NamedTuple):
    """A checkpoint of a series, as its source names it."""

    step: int
    name: str
    open: Callable[[], Mapping[str, StoredTensor]]
    """Returns its tensors by name, none of them read yet; raises ``UserError`` where they are damaged or incomplete."""

    loss: float | None = None  # held-out or of training, the same for all checkpoints; in nats
    vocabulary: tuple[str, ...] | None = None  # the token of every id


class Measured(NamedTuple):
    """What is kept of a checkpoint. Its tensors are those of floats: masks, places and counters are no weights."""

    shapes: Mapping[str, tuple[int, ...]]  # of its tensors by name, in the names' order
    dtypes: tuple[str, ...]  # that occur, in order
    parameters: int
    size: int  # bytes
    digests: Mapping[str, bytes]  # of each tensor's values as float32
    sample: Mapping[str, np.ndarray]  # float32 values at fixed places of each matrix
    distance: float | None
    """The distance of all weights to the checkpoint before, relative to that one's norm.

    None for the first, and where the shapes are not those that most checkpoints have.
    """

    @property
    def digest(self) -> str:
        """A digest of all values as float32 with their names and shapes: equal in any format and container."""
        content = repr([(name, self.shapes[name], digest) for name, digest in self.digests.items()])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def measure(checkpoints: Sequence[Audited]) -> list[Measured | UserError]:
    """Reads every checkpoint, and again when the one after it is compared with it.

    Returns what is kept of each, or the error that kept it from being read.
    """
    opened = [_opened(checkpoint) for checkpoint in checkpoints]
    counts = Counter(_structure(tensors) for tensors in opened if not isinstance(tensors, UserError))
    common = counts.most_common(1)[0][0] if counts else ()
    found: list[Measured | UserError] = []
    before: Mapping[str, StoredTensor] | None = None
    for tensors in opened:
        if isinstance(tensors, UserError):
            found.append(tensors)
            continue
        try:
            measured = _measured(tensors, before if _structure(tensors) == common else None, common)
        except UserError as error:
            found.append(error)
            continue
        found.append(measured)
        if _structure(tensors) == common:
            before = tensors
    return found


def _opened(checkpoint: Audited) -> dict[str, StoredTensor] | UserError:
    """Returns the tensors of floats by name, in the names' order, or why there are none."""
    try:
        tensors = checkpoint.open()
    except UserError as error:
        return error
    return {name: tensors[name] for name in sorted(tensors) if "float" in tensors[name].dtype}


_Structure = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes


def _structure(tensors: Mapping[str, StoredTensor]) -> _Structure:
    return tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())


def _measured(
    tensors: Mapping[str, StoredTensor], before: Mapping[str, StoredTensor] | None, common: _Structure
) -> Measured:
    shapes = dict(_structure(tensors))
    wanted = _wanted(common)
    digests: dict[str, bytes] = {}
    sample: dict[str, np.ndarray] = {}
    difference = norm = 0.0
    for name, tensor in tensors.items():
        values = _finite(np.ascontiguousarray(tensor.read(), np.float32), name)
        digests[name] = hashlib.blake2b(values.reshape(-1).view(np.uint8).data, digest_size=16).digest()
        if (count := wanted.get((name, values.shape), 0)) > 0:
            sample[name] = values.ravel()[_places(name, values.size, count)]
        if before is not None:
            other = np.ascontiguousarray(before[name].read(), np.float32)
            difference += _squared(values, other)
            norm += _squared(other)
            del other
        del values  # before the next one is read
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return Measured(
        shapes,
        tuple(sorted({tensor.dtype for tensor in tensors.values()})),
        sum(sizes.values()),
        sum(sizes[name] * DTYPES[tensor.dtype].itemsize for name, tensor in tensors.items()),
        digests,
        sample,
        None if before is None else math.sqrt(difference / norm) if norm > 0 else math.inf if difference > 0 else 0.0,
    )


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    require(
        math.isfinite(_squared(values)),
        f"finite values in {shown(name)}",
        "some that are not",
        "leave this checkpoint out: its training diverged or it is damaged",
    )
    return values


def _squared(values: np.ndarray, other: np.ndarray | None = None) -> float:
    """Returns the squared norm of values, less another array if there is one, summed in float64 piece by piece."""
    total, flat = 0.0, values.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK].astype(np.float64)
        if other is not None:
            piece -= other.reshape(-1)[start : start + _CHUNK]
        total += float(piece @ piece)
    return total


def _wanted(common: _Structure) -> dict[tuple[str, tuple[int, ...]], int]:
    """Returns how many values of which tensors are kept, in proportion to sizes: of matrices, if there are any."""
    matrices = {named: math.prod(named[1]) for named in common if len(named[1]) >= 2}
    sizes = matrices or {named: math.prod(named[1]) for named in common}
    total = max(sum(sizes.values()), 1)
    return {named: min(size, max(_LEAST, round(SAMPLE * size / total))) for named, size in sizes.items()}


@functools.cache
def _places(name: str, size: int, count: int) -> np.ndarray:
    """Returns which values of a tensor are kept: the same in all checkpoints and in every audit."""
    return np.sort(np.random.default_rng([size, zlib.crc32(name.encode())]).choice(size, count, replace=False))
