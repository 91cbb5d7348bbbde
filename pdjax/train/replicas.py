"""Compiled functions for all replicas of a run at once, placed on the mesh."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from pdjax.distill.losses import Labels, Loss, Ramp
from pdjax.distill.teacher import Teacher
from pdjax.errors import require
from pdjax.train import sharding
from pdjax.train.chunk import Chunk, train_chunk
from pdjax.train.sharding import REPLICAS_ONLY, Placement
from pdjax.train.state import Hyperparameters, Program, TrainState, init_state
from pdjax.train.step import LABELS, Evaluation, evaluate
from pdjax.types import Params, StepMetrics


class Sweep(NamedTuple):
    """A program's compiled functions.

    ``init(seeds)``, ``chunk(state, hyperparameters, teacher, data_seed, num_steps, examples)`` and ``evaluate(params,
    seed, examples)``; all arrays that lead with the replica axis are spread over ``mesh``, and parameters as ``state``
    says. ``examples`` are for fed tasks alone (see ``pdjax.io.feed``).
    """

    program: Program
    chunk_steps: int
    evaluation: Evaluation

    init: Callable[[Int[Array, "R"]], TrainState]
    chunk: Chunk
    evaluate: Callable[..., StepMetrics]
    mesh: Mesh
    state: TrainState  # shardings of a training state
    split_teacher: bool
    of_model: Callable[[Params], Params]  # the model's part of a state's parameters


def build_sweep(
    program: Program,
    chunk_steps: int,
    num_replicas: int,
    evaluation: Evaluation,
    placement: Placement = REPLICAS_ONLY,
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
    if (pieces := placement.micro_batches) > 1:
        require(
            program.batch_size % (pieces * data) == 0,
            f"a batch_size that {pieces} placement.micro_batches of {data} devices of placement.mesh.data divide",
            program.batch_size,
            "lower one of the three",
        )
        require(
            evaluation.batch_size % (pieces * data) == 0,
            f"an evaluation.batch_size that {pieces} placement.micro_batches of {data} devices divide",
            evaluation.batch_size,
            "change one of the three",
        )
        program = program._replace(micro_batches=pieces)
    return _compiled(program, chunk_steps, num_replicas, evaluation, placement, mesh)


@functools.lru_cache(maxsize=32)
def _compiled(
    program: Program,
    chunk_steps: int,
    num_replicas: int,
    evaluation: Evaluation,
    placement: Placement,
    mesh: Mesh,
) -> Sweep:
    init, evaluate_all, state = _compiled_without_teacher(
        _without_teacher(program), num_replicas, evaluation, placement.student == "sharded", mesh
    )
    # Of [N, R]: steps are no axis of the mesh.
    metrics = NamedSharding(mesh, PartitionSpec(None, sharding.REPLICA))
    return Sweep(
        program=program,
        chunk_steps=chunk_steps,
        evaluation=evaluation,
        init=init,
        # The old state's memory becomes the new one's, which therefore has to lie in the same way: a chunk's result is
        # the next chunk's argument, and another sharding would be another program.
        chunk=jax.jit(
            functools.partial(train_chunk, program, chunk_steps), donate_argnums=0, out_shardings=(state, metrics)
        ),
        evaluate=evaluate_all,
        mesh=mesh,
        state=state,
        split_teacher=placement.teacher == "sharded",
        of_model=program.of_model,
    )


def _without_teacher(program: Program) -> Program:
    """Returns a program whose states and evaluations are those of the same students without a teacher, if they are."""
    # What such losses train is in the state beside the model's parameters: no other students' states are like it.
    if program.has_loss_params:
        return program
    return program._replace(teacher_model=None, losses=(Labels(),), group_sizes=())


@functools.lru_cache(maxsize=32)
def _compiled_without_teacher(
    program: Program, num_replicas: int, evaluation: Evaluation, split: bool, mesh: Mesh
) -> tuple[Callable[[Int[Array, "R"]], TrainState], Callable[..., StepMetrics], TrainState]:
    """Returns ``init``, ``evaluate`` and ``state`` of a sweep, which students with and without a teacher share."""
    init = functools.partial(init_state, program)
    shapes = jax.eval_shape(init, jax.ShapeDtypeStruct((num_replicas,), jnp.int32))
    spread = functools.partial(sharding.sharded, mesh, leading=(sharding.REPLICA,), split=split)
    state = TrainState(sharding.replicated(mesh), spread(shapes.params), spread(shapes.opt_state))  # pyright: ignore
    evaluator = functools.partial(evaluate, program, evaluation.num_batches, evaluation.batch_size)
    return jax.jit(init, out_shardings=state), jax.jit(evaluator, out_shardings=sharding.by_replica(mesh)), state


@dataclasses.dataclass(frozen=True)
class Replica:
    """One member of a sweep."""

    seed: int
    learning_rate: float
    loss: Loss = LABELS


def product_of_replicas(
    seeds: Sequence[int], learning_rates: Sequence[float], losses: Sequence[Loss] = (LABELS,)
) -> tuple[Replica, ...]:
    """Returns a replica for every combination: those of one family of losses together, of one loss, of one rate."""
    # Families in the order of their first loss. Sorting is stable: within a family the losses keep the given order.
    known = list(dict.fromkeys(loss.family for loss in losses))
    ordered = sorted(losses, key=lambda loss: known.index(loss.family))
    return tuple(Replica(seed, rate, loss) for loss, rate, seed in itertools.product(ordered, learning_rates, seeds))


def families(replicas: Sequence[Replica]) -> tuple[tuple[Loss, ...], tuple[int, ...]]:
    """Returns the losses of replicas without their numbers, and how many replicas have each; these stand together."""
    counts = [(loss, len(list(members))) for loss, members in itertools.groupby(r.loss.family for r in replicas)]
    return tuple(loss for loss, _ in counts), tuple(count for _, count in counts)


def place_hyperparameters(mesh: Mesh, replicas: Sequence[Replica]) -> Hyperparameters:
    """Returns what the replicas differ in as arrays on the mesh."""
    numbers = []
    for _, members in itertools.groupby(replicas, key=lambda replica: replica.loss.family):
        # Losses of one family differ in numbers alone, so that all have the names of the first.
        of_each = [replica.loss.numbers for replica in members]
        numbers.append({name: _stacked([each[name] for each in of_each]) for name in of_each[0]})
    seeds = np.array([replica.seed for replica in replicas], np.int32)
    rates = np.array([replica.learning_rate for replica in replicas], np.float32)
    # The mesh divides all replicas evenly, but not those of each family: of several, every device holds these few
    # numbers.
    where = sharding.by_replica(mesh) if len(numbers) == 1 else sharding.replicated(mesh)
    placed = [{name: sharding.put(values, where) for name, values in group.items()} for group in numbers]
    seeds, rates = sharding.put((seeds, rates), sharding.by_replica(mesh))
    return Hyperparameters(seeds, rates, tuple(placed))


def _stacked(values: Sequence[float | Ramp]) -> Float[np.ndarray, "R *ramp"]:
    """Returns numbers as an array, all of them with the four parts of a ramp if any of them is one."""
    if not any(isinstance(value, Ramp) for value in values):
        return np.array(values, np.float32)
    # Replicas share one array, hence one shape: a number that stays is a ramp between equal ends.
    ramps = [value if isinstance(value, Ramp) else Ramp(value, value) for value in values]
    return np.array([(ramp.first, ramp.last, ramp.begin, ramp.end) for ramp in ramps], np.float32)


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
    whole = sharding.replicated(sweep.mesh)
    several = teacher.curriculum is not None
    starts, slots = np.asarray(teacher.starts), sharding.put(teacher.slots, whole)
    return Teacher(
        place_checkpoints(sweep, teacher.checkpoints, stacked=True),
        sharding.put(starts, whole) if several else place_starts(sweep, starts),
        slots,
        sharding.put(teacher.curriculum, sharding.by_replica(sweep.mesh)) if several else None,
    )
