"""Placing arrays on devices: the mesh, and rules from the paths of parameters to its axes.

The models know nothing of this. A rule says which axes of a parameter a ``sharded`` model splits over the mesh's
``model`` axis (tensor parallelism: heads, hidden units); what is left is split over ``data`` (fully sharded data
parallelism), where it is large enough to matter. XLA inserts the communication.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pdjax.errors import require
from pdjax.models.stack import LAYERS
from pdjax.settings import Count, Place, settings

REST = -1
"""The size of a mesh axis that takes what the others leave."""

REPLICA, DATA, MODEL = AXES = ("replica", "data", "model")

Spec = tuple[str | None, ...]

# Patterns look at the end of a path: in front of it optimizer states have names of their own, and models their layers.
RULES: tuple[tuple[str, Spec], ...] = (
    (r"attention/(query|key|value)/kernel$", (None, MODEL)),
    (r"attention/(query|key|value)/bias$", (MODEL,)),
    (r"expand/kernel$", (None, MODEL)),
    (r"expand/bias$", (MODEL,)),
    (r"contract/kernel$", (MODEL, None)),
    # An MLP's layers alternate: the hidden units that one layer splits are what the next one sums over.
    (r"hidden_\d*[02468]/kernel$", (None, MODEL)),
    (r"hidden_\d*[02468]/bias$", (MODEL,)),
    (r"hidden_\d*[13579]/kernel$", (MODEL, None)),
    (r"output/kernel$", (MODEL, None)),  # of an MLP, and of attention
)
"""Ordered pairs of a pattern of the path and the mesh axis of each axis; the first that matches counts.

The axis of scanned layers, which leads below an entry ``layers``, stays whole, and is none of a parameter's own.
"""

SMALL = 2**12
"""Up to so many scalars a parameter is not worth gathering: every device keeps it."""


@settings
class MeshSizes:
    """How many devices lie along each axis of the mesh; their product is the number of devices.

    An axis of -1 takes what the others leave: ``replica`` as many as divide the replicas of a run evenly, ``data`` as
    many as divide the batch, ``model`` all. Of several such axes the earlier takes more, unless that idles devices.
    """

    replica: int = REST
    """members of a sweep, which never talk to each other"""
    data: int = 1
    """examples of a batch"""
    model: int = 1
    """heads and hidden units of a sharded model"""

    def __post_init__(self):
        for name in AXES:
            size = getattr(self, name)
            require(size >= 1 or size == REST, f"mesh.{name} of at least 1, or -1 for what is left", size, "change it")


@settings
class Placement:
    """Where models and teacher checkpoints live. It changes no result beyond rounding, but for dropout in pieces."""

    mesh: MeshSizes = MeshSizes()
    """by default replicas are spread over all devices that divide them, and models are whole"""
    teacher: Literal["replicated", "sharded"] = "replicated"
    """replicated: every device of a replica's holds it whole. sharded: heads and hidden units are split over the mesh's
    model axis, and parameters and optimizer state over its data axis, gathered when they are used"""
    student: Literal["replicated", "sharded"] = "replicated"
    """likewise"""
    residency: Literal["auto", "stacked", "streamed", "cached"] = "auto"
    """stacked: all checkpoints of a curriculum on the device. streamed: the one in use and the next, read from the
    store in the background. auto: stacked where it fits. cached: none; what they say to the students' batches is
    computed once and read from files, for losses that look at their most likely classes alone"""
    cache: Place | None = None
    """the directory of these files, which several working directories may share; None is one in the working directory
    """
    micro_batches: Count = 1
    """pieces of a batch, whose gradients a device takes one after the other: memory for so many fewer examples at once.
    Means are those of the whole batch; dropout draws other masks than for a whole one"""


REPLICAS_ONLY = Placement()
"""Replicas over all devices that divide them, models whole."""


def build_mesh(config: MeshSizes, num_replicas: int, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh of a run, over all devices or the given ones; an axis of -1 takes what the others leave.

    With 6 replicas on 4 devices and ``replica`` -1, 3 devices hold 2 replicas each, and one is idle. Were ``data`` -1
    as well, 2 devices would share the batches of 3 replicas each, and none be idle.

    Raises:
      UserError: the sizes do not multiply to the devices, or do not divide the replicas or the batch.
    """
    devices = jax.devices() if devices is None else devices
    wanted = {REPLICA: config.replica, DATA: config.data, MODEL: config.model}
    fixed = math.prod(size for size in wanted.values() if size != REST)
    exact = REST not in wanted.values()
    require(
        fixed == len(devices) if exact else len(devices) % fixed == 0,
        f"placement.mesh sizes that {'multiply to' if exact else 'divide'} the {len(devices)} devices",
        " x ".join(f"{axis} {size}" for axis, size in wanted.items()),
        "change one, or set one to -1: it takes what is left",
    )
    for axis, total, what in ((REPLICA, num_replicas, "replicas"), (DATA, batch_size, "examples of a batch")):
        size = wanted[axis]
        # A shard of each device has the same shape: nothing is padded.
        fits = size == REST or total % size == 0
        require(fits, f"placement.mesh.{axis} that divides the {total} {what}", size, "change it, or -1")
    sizes = dict(zip(AXES, _sizes(config, len(devices), num_replicas, batch_size), strict=True))
    used = math.prod(sizes.values())
    require(
        used == len(devices) or jax.process_count() == 1,
        f"a placement.mesh that uses all {len(devices)} devices of several processes",
        " x ".join(f"{axis} {size}" for axis, size in sizes.items()),
        "set placement.mesh.data or model to -1, or use other numbers of replicas or examples",
    )
    return Mesh(np.array(devices[:used]).reshape(*sizes.values()), AXES)


def _sizes(config: MeshSizes, devices: int, num_replicas: int, batch_size: int) -> tuple[int, int, int]:
    """Returns the sizes that use most devices, and of these the one with most along the earlier axes."""

    def options(size: int, limit: int, total: int) -> list[int]:
        return [size] if size != REST else [n for n in range(1, limit + 1) if total % n == 0]

    # `model` splits by no number that is known here: what it does not divide, `_split` refuses.
    fitting = []
    for replica in options(config.replica, devices, num_replicas):
        for data in options(config.data, devices // replica, batch_size):
            left = devices // (replica * data)
            model = config.model if config.model != REST else left
            if 0 < replica * data * model <= devices:
                fitting.append((replica, data, model))
    return max(fitting, key=lambda sizes: (math.prod(sizes), sizes))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole: curricula, scalars, small teachers."""
    return NamedSharding(mesh, PartitionSpec())


def by_replica(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that lead with the replica axis."""
    return NamedSharding(mesh, PartitionSpec(REPLICA))


def by_example(mesh: Mesh, leading: Spec = ()) -> NamedSharding:
    """Returns the sharding of a batch, whose arrays lead with its examples, or with such axes before them."""
    return NamedSharding(mesh, PartitionSpec(*leading, DATA))


def put(tree: Any, shardings: Any) -> Any:
    """Puts host arrays, which every process holds whole, where shardings say: one for each leaf, or one for all."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    each = jax.tree.broadcast(shardings, tree)
    return jax.tree.map(
        # Asked for the parts of this process's own devices alone.
        lambda leaf, where: jax.make_array_from_callback(leaf.shape, where, lambda part: np.asarray(leaf)[part]),
        tree,
        each,
    )


def sharded(mesh: Mesh, tree: Any, leading: Spec, split: bool) -> Any:
    """Returns the shardings of a tree of parameters, or of an optimizer state, which repeats their paths.

    Args:
      mesh: of the run.
      tree: of arrays or ShapeDtypeStructs.
      leading: mesh axes of the axes in front of a parameter's own: replicas, or checkpoints.
      split: whether parameters are sharded by ``RULES``; else only the leading axes are.

    Raises:
      UserError: a split axis is not a multiple of the mesh's model axis.
    """

    def sharding_of(path: Any, leaf: Any) -> NamedSharding:
        # An entry of a dict has a `key`, a field of a named tuple a `name`.
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        shape = leaf.shape[len(leading) :]
        axes = _split(mesh, name, shape) if split else (None,) * len(shape)
        return NamedSharding(mesh, PartitionSpec(*leading, *axes))

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def _split(mesh: Mesh, name: str, shape: tuple[int, ...]) -> Spec:
    """Returns the mesh axis of each axis of a parameter."""
    if re.search(rf"(^|/){LAYERS}/", name):
        return (None, *_split(mesh, re.sub(rf"(^|/){LAYERS}/", r"\1", name, count=1), shape[1:]))
    axes = list(next((spec for pattern, spec in RULES if re.search(pattern, name)), (None,) * len(shape)))
    for axis, size in zip(axes, shape, strict=True):
        if axis is not None:
            require(
                size % mesh.shape[axis] == 0,
                f"an axis of {name} that the {mesh.shape[axis]} devices of placement.mesh.{axis} divide",
                f"{size}",
                "change the mesh, or leave the model replicated",
            )
    # An axis that `data` does not divide stays whole, without an error: this split only saves memory, while that by
    # `model` is what the configuration asks for.
    free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % mesh.shape[DATA] == 0]
    if free and math.prod(shape) > SMALL:
        axes[max(free, key=lambda i: shape[i])] = DATA
    return tuple(axes)
