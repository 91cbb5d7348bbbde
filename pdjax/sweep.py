"""Compiled functions for all replicas of a run at once, placed on the local devices."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from pdjax import sharding
from pdjax.chunk import Chunk, train_chunk
from pdjax.config import EvaluationConfig
from pdjax.step import Guide, Program, Replicas, TrainState, evaluate, init_state
from pdjax.types import Params, StepMetrics


class Sweep(NamedTuple):
    """A program's compiled functions.

    ``init(seeds)``, ``chunk(state, replicas, guide, data_seed, num_steps)`` and
    ``evaluate(params, seed)``; all arrays that lead with the replica axis are spread over ``mesh``.
    """

    init: Callable[[Int[Array, "R"]], TrainState]
    chunk: Chunk
    evaluate: Callable[[Params, Int[Array, ""]], StepMetrics]
    mesh: Mesh


def build_sweep(program: Program, chunk_steps: int, num_replicas: int, evaluation: EvaluationConfig) -> Sweep:
    """Compiles (on first use) the functions of a sweep; a guide's values may change without recompilation."""
    mesh = sharding.replica_mesh(num_replicas)
    state, rows = sharding.state_sharding(mesh), sharding.by_replica(mesh)
    evaluator = functools.partial(
        evaluate, program.task, program.student, evaluation.num_batches, evaluation.batch_size
    )
    return Sweep(
        init=jax.jit(functools.partial(init_state, program), out_shardings=state),
        chunk=jax.jit(
            functools.partial(train_chunk, program, chunk_steps), donate_argnums=0, out_shardings=(state, None)
        ),
        evaluate=jax.jit(evaluator, out_shardings=rows),
        mesh=mesh,
    )


def place_replicas(
    mesh: Mesh,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    temperatures: Sequence[float],
    label_weights: Sequence[float],
) -> Replicas:
    """Returns the replicas' settings as arrays on the mesh."""
    values = Replicas(
        jnp.array(seeds, jnp.int32),
        jnp.array(learning_rates, jnp.float32),
        jnp.array(temperatures, jnp.float32),
        jnp.array(label_weights, jnp.float32),
    )
    return jax.device_put(values, sharding.by_replica(mesh))


def place_guide(mesh: Mesh, guide: Guide) -> Guide:
    """Puts a guide on every device of the mesh; starts that differ by replica go where the replicas are."""
    starts = sharding.by_replica(mesh) if guide.adaptive else sharding.replicated(mesh)
    everywhere = sharding.replicated(mesh)
    return Guide(
        jax.device_put(guide.checkpoints, everywhere),
        jax.device_put(guide.starts, starts),
        jax.device_put(guide.entries, everywhere),
    )
