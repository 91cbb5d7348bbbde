"""Placing a sweep on the local devices: the replica axis of the mesh."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pdjax.step import TrainState

REPLICA = "replica"


def replica_mesh(num_replicas: int) -> Mesh:
    """Returns a mesh over as many local devices as divide the replicas evenly.

    Replicas never talk to each other, so a device holds whole ones; with 6 replicas on 4 devices, 3 devices
    hold 2 each and one is idle.
    """
    devices = jax.local_devices()
    used = max(n for n in range(1, len(devices) + 1) if num_replicas % n == 0)
    return Mesh(np.array(devices[:used]), (REPLICA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole: teachers, curricula, scalars."""
    return NamedSharding(mesh, PartitionSpec())


def by_replica(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that lead with the replica axis."""
    return NamedSharding(mesh, PartitionSpec(REPLICA))


def state_sharding(mesh: Mesh) -> TrainState:
    """Returns the shardings of a training state, as a prefix of its tree."""
    return TrainState(step=replicated(mesh), params=by_replica(mesh), opt_state=by_replica(mesh))  # pyright: ignore
