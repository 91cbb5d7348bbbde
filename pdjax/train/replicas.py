"""Compiled functions for all replicas of a run at once, placed on the mesh."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from pdjax.config import EvaluationConfig, PlacementConfig
from pdjax.config.placement import REPLICAS_ONLY
from pdjax.distill.teacher import Teacher
from pdjax.errors import require
from pdjax.train import sharding
from pdjax.train.chunk import Chunk, train_chunk
from pdjax.train.state import Hyperparameters, Program, TrainState, init_state
from pdjax.train.step import evaluate
from pdjax.types import Params, StepMetrics


class Sweep(NamedTuple):
    """A program's compiled functions.

    ``init(seeds)``, ``chunk(state, hyperparameters, teacher, data_seed, num_steps)`` and ``evaluate(params, seed)``;
    all arrays that lead with the replica axis are spread over ``mesh``, and parameters as ``state`` says.
    """

    init: Callable[[Int[Array, "R"]], TrainState]
    chunk: Chunk
    evaluate: Callable[[Params, ArrayLike], StepMetrics]
    mesh: Mesh
    state: TrainState  # shardings of a training state
    split_teacher: bool


def build_sweep(
    program: Program,
    chunk_steps: int,
    num_replicas: int,
    evaluation: EvaluationConfig,
    placement: PlacementConfig = REPLICAS_ONLY,
    devices: Sequence[Any] | None = None,
) -> Sweep:
    """Compiles (on first use) the functions of a sweep; a teacher's values may change without recompilation.

    Equal programs share their compiled functions: the runs of an experiment, and its ablations, have many in common.

    Raises:
      UserError: the mesh does not fit the devices, the replicas, the batches or the models.
    """
    mesh = sharding.build_mesh(placement.mesh, num_replicas, program.batch_size, devices)
    data = mesh.shape[sharding.DATA]
    if data > 1:
        require(
            evaluation.batch_size % data == 0,
            f"an evaluation.batch_size that the {data} devices of placement.mesh.data divide",
            evaluation.batch_size,
            "change one of the two",
        )
        program = program._replace(batch_sharding=sharding.by_example(mesh))
    return _compiled(program, chunk_steps, num_replicas, evaluation, placement, mesh)


@functools.lru_cache(maxsize=32)
def _compiled(
    program: Program,
    chunk_steps: int,
    num_replicas: int,
    evaluation: EvaluationConfig,
    placement: PlacementConfig,
    mesh: Mesh,
) -> Sweep:
    init, evaluate_all, state = _compiled_without_teacher(
        program._replace(teacher_model=None), num_replicas, evaluation, placement.student == "sharded", mesh
    )
    metrics = NamedSharding(mesh, PartitionSpec(None, sharding.REPLICA))
    return Sweep(
        init=init,
        chunk=jax.jit(
            functools.partial(train_chunk, program, chunk_steps), donate_argnums=0, out_shardings=(state, metrics)
        ),
        evaluate=evaluate_all,
        mesh=mesh,
        state=state,
        split_teacher=placement.teacher == "sharded",
    )


@functools.lru_cache(maxsize=32)
def _compiled_without_teacher(
    program: Program, num_replicas: int, evaluation: EvaluationConfig, split: bool, mesh: Mesh
) -> tuple[Callable[[Int[Array, "R"]], TrainState], Callable[[Params, ArrayLike], StepMetrics], TrainState]:
    """Returns ``init``, ``evaluate`` and ``state`` of a sweep, which students with and without a teacher share."""
    init = functools.partial(init_state, program)
    shapes = jax.eval_shape(init, jax.ShapeDtypeStruct((num_replicas,), jnp.int32))
    spread = functools.partial(sharding.sharded, mesh, leading=(sharding.REPLICA,), split=split)
    state = TrainState(sharding.replicated(mesh), spread(shapes.params), spread(shapes.opt_state))  # pyright: ignore
    evaluator = functools.partial(evaluate, program, evaluation.num_batches, evaluation.batch_size)
    return jax.jit(init, out_shardings=state), jax.jit(evaluator, out_shardings=sharding.by_replica(mesh)), state


def place_hyperparameters(
    mesh: Mesh,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    temperatures: Sequence[float],
    label_weights: Sequence[float],
) -> Hyperparameters:
    """Returns what the replicas differ in as arrays on the mesh."""
    reals = [np.array(values, np.float32) for values in (learning_rates, temperatures, label_weights)]
    return Hyperparameters(*sharding.put([np.array(seeds, np.int32), *reals], sharding.by_replica(mesh)))


def place_checkpoints(sweep: Sweep, checkpoints: Params, stacked: bool) -> Params:
    """Puts a teacher's parameters on the mesh: one checkpoint, or several ``stacked`` along a leading axis."""
    leading = (None,) if stacked else ()
    return sharding.put(checkpoints, sharding.sharded(sweep.mesh, checkpoints, leading, sweep.split_teacher))


def place_starts(sweep: Sweep, starts: Int[np.ndarray, "S"] | Int[np.ndarray, "R S"]) -> Int[Array, "*rows S"]:
    """Puts a curriculum's starts on the mesh; those that differ by replica go where the replicas are."""
    where = sharding.by_replica(sweep.mesh) if starts.ndim == 2 else sharding.replicated(sweep.mesh)
    return sharding.put(starts, where)


def place_teacher(sweep: Sweep, teacher: Teacher) -> Teacher:
    """Puts a teacher whose checkpoints are stacked on the mesh."""
    return Teacher(
        place_checkpoints(sweep, teacher.checkpoints, stacked=True),
        place_starts(sweep, np.asarray(teacher.starts)),
        sharding.put(teacher.slots, sharding.replicated(sweep.mesh)),
    )
