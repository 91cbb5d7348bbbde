"""Configuration of where an experiment's arrays live. It changes no result beyond rounding."""

import dataclasses
from typing import Literal

from pdjax.errors import require

REST = -1
"""The size of a mesh axis that takes what the others leave."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis of the mesh; their product is the number of devices.

    An axis of -1 takes what the others leave: ``replica`` as many as divide the replicas of a run evenly, ``data`` as
    many as divide the batch, ``model`` all. Of several such axes the earlier takes more, unless that idles devices.
    """

    replica: int  # members of a sweep, which never talk to each other
    data: int  # examples of a batch
    model: int  # heads and hidden units of a sharded model

    def __post_init__(self):
        for name, size in dataclasses.asdict(self).items():
            require(size >= 1 or size == REST, f"mesh.{name} of at least 1, or -1 for what is left", size, "change it")


@dataclasses.dataclass(frozen=True)
class PlacementConfig:
    """Where models and teacher checkpoints live."""

    mesh: MeshConfig
    # replicated: every device of a replica's holds it whole. sharded: heads and hidden units are split over the
    # mesh's model axis, and parameters and optimizer state over its data axis, gathered when they are used.
    teacher: Literal["replicated", "sharded"]
    student: Literal["replicated", "sharded"]
    # stacked: all checkpoints of a curriculum on the device. streamed: the one in use and the next, read from the
    # store in the background. auto: stacked where it fits.
    residency: Literal["auto", "stacked", "streamed"]


REPLICAS_ONLY = PlacementConfig(MeshConfig(REST, 1, 1), "replicated", "replicated", "auto")
"""Replicas over all devices that divide them, models whole."""
