"""One training program on given hardware: compiled ahead of time, its memory, its work, and a step's time."""

import dataclasses
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.distill.kept import Cut, Kept
from pdjax.distill.teacher import Answers, Teacher
from pdjax.experiment import Experiment
from pdjax.io.store import tree_bytes
from pdjax.io.teacher_source import memory_of
from pdjax.models.precision import Compute
from pdjax.plan.hardware import Chip
from pdjax.plan.hlo import Work, count_work
from pdjax.plan.roofline import roofline
from pdjax.stages.programs import Training, compiled
from pdjax.tasks.base import batch_shapes
from pdjax.train import sharding
from pdjax.train.chunk import train_chunk
from pdjax.train.flops import count_products
from pdjax.train.replicas import Sweep
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.types import Params

Held = int | tuple[Cut, ...] | None
"""Of the teacher on a device: so many checkpoints stacked, None for a pair of streamed ones, or of cached answers what
each family of losses needs."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device; None where the compiler refused the program, as no schedule of it fits."""

    state: int  # parameters and optimizer state of its replicas
    teachers: int
    temporaries: int | None
    peak: int | None
    limit: int  # of the device

    @property
    def fits(self) -> bool:
        """Whether the program runs."""
        return self.peak is not None and self.peak <= self.limit


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """What one program takes on each device; a step is one of all replicas."""

    name: str
    mesh: dict[str, int]
    replicas: int
    memory: Memory
    refusal: str | None  # the compiler's words
    teacher_products: float  # floating-point operations a step in matrix products, on all devices together
    student_products: float
    work: Work  # a step's, on one device
    seconds: float  # of a step
    bound: str  # by what: compute, memory, links, kernels, or measured
    evaluation_seconds: float  # of one evaluation of all replicas
    saved: int  # bytes of a saved training state of all replicas ...
    arrays: int  # ... in so many arrays


def plan_program(
    experiment: Experiment,
    name: str,
    training: Training,
    held: Held,
    chip: Chip | None,
    devices: Any,
    curricula: int = 1,
) -> ProgramPlan:
    """Compiles the chunk of a training for devices and says what it takes.

    Args:
      experiment: whose loop and models these are.
      name: of the program, for people.
      training: the program, its replicas and where they live.
      held: what of the teacher is on the device.
      chip: what each of the devices can do; None for the devices of this machine, where steps are measured.
      devices: to compile for.
      curricula: that its students follow; each is taken to be at a checkpoint of its own.

    Raises:
      UserError: the mesh does not fit the devices, the replicas, the batches or the models.
    """
    if chip is not None:
        # Of whole batches, which take most: a branch for smaller ones is in no count of operations and memory.
        experiment = dataclasses.replace(experiment, loop=dataclasses.replace(experiment.loop, optimized=False))
    sweep = compiled(experiment, training, devices)
    arguments = abstract_arguments(training, sweep, held, curricula)
    state, teachers = bytes_on_a_device(arguments[0]), bytes_on_a_device(arguments[2])
    steps = experiment.loop.chunk_steps
    # From the jaxpr: XLA counts the body of a loop once. A chunk is ``steps`` steps.
    products = count_products(functools.partial(train_chunk, training.program, steps), *arguments)
    plan = functools.partial(
        ProgramPlan,
        name=name,
        mesh=dict(sweep.mesh.shape),
        replicas=training.num_replicas,
        teacher_products=products["teacher"] / steps,
        student_products=products["student"] / steps,
        saved=tree_bytes(arguments[0]),
        arrays=len(jax.tree.leaves(arguments[0])),
    )
    # The chip's, where the devices are not there to be asked.
    limit = chip.memory if chip is not None else memory_of(devices[0])
    programs = _compile(sweep, arguments)
    if isinstance(programs, str):
        memory, unknown = Memory(state, teachers, None, None, limit), float("nan")
        return plan(memory=memory, refusal=programs, work=Work(), seconds=unknown, bound="", evaluation_seconds=unknown)
    program, evaluator = programs
    temporaries, peak = _compiled_memory(program)
    memory = Memory(state, teachers, temporaries, peak, limit)
    plan = functools.partial(plan, memory=memory, refusal=None)
    # Already of one device: the text is of the partitioned program. Products are of all of them, hence ``used``.
    work = count_work(program.as_text()).times(1 / steps)
    if chip is None:
        if not memory.fits:  # it would end this process
            return plan(work=work, seconds=float("nan"), bound="", evaluation_seconds=float("nan"))
        seconds, evaluation = measure(sweep, arguments, steps)
        return plan(work=work, seconds=seconds, bound="measured", evaluation_seconds=evaluation)
    used = sweep.mesh.size
    kinds: dict[str, Compute] = {"teacher": experiment.teacher.compute, "student": training.model.compute}
    each: list[tuple[Compute, float]] = [(kinds[part], count / steps / used) for part, count in products.items()]
    seconds, bound = roofline(each, work, chip)
    evaluated = count_products(sweep.evaluate, *_evaluated(sweep, arguments)).total() / used
    evaluation, _ = roofline([(kinds["student"], evaluated)], count_work(evaluator.as_text()), chip)
    return plan(work=work, seconds=seconds, bound=bound, evaluation_seconds=evaluation)


def _compile(sweep: Sweep, arguments: tuple[Any, ...]) -> tuple[Any, Any] | str:
    """Returns a chunk and an evaluation, compiled, or the compiler's words where it refuses one that does not fit."""
    parts: Any = ((sweep.chunk, arguments), (sweep.evaluate, _evaluated(sweep, arguments)))
    try:
        program, evaluator = (function.lower(*given).compile() for function, given in parts)
    except jax.errors.JaxRuntimeError as error:
        # TPU compilers refuse what does not fit. Others compile it, and the peak is compared with the limit.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0][:300]
    return program, evaluator


def _evaluated(sweep: Sweep, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the arguments of an evaluation, from those of a chunk."""
    state, _, _, data_seed, *_ = arguments
    evaluation, where = sweep.evaluation, sharding.by_example(sweep.mesh, (None,))
    examples = sweep.program.task.example_shapes(evaluation.num_batches, evaluation.batch_size)
    return state.params, data_seed, _shaped(examples, where)


def _compiled_memory(program: Any) -> tuple[int, int]:
    """Returns the bytes of temporaries and of everything, on each device."""
    stats = program.memory_analysis()
    # The state is donated: what its arrays become lies in the same memory, and is counted as an argument.
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporaries = stats.temp_size_in_bytes
    return temporaries, stats.argument_size_in_bytes + results + temporaries + stats.generated_code_size_in_bytes


def abstract_arguments(training: Training, sweep: Sweep, held: Held, curricula: int = 1) -> tuple[Any, ...]:
    """Returns the arguments of a chunk as shapes with shardings, without which it would compile for this machine."""
    count, mesh = training.num_replicas, sweep.mesh
    rows, replicated = sharding.by_replica(mesh), sharding.replicated(mesh)
    seeds: Any = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=rows)
    rates: Any = jax.ShapeDtypeStruct((count,), jnp.float32, sharding=rows)
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    state: TrainState = _shaped(jax.eval_shape(sweep.init, seeds), sweep.state)
    teacher = None if training.program.teacher_model is None else _abstract_teacher(training, sweep, held, curricula)
    members = Hyperparameters(seeds, rates, _abstract_numbers(training, rates))
    return state, members, teacher, scalar, scalar, _abstract_examples(training.program, sweep, count)


def _abstract_examples(program: Program, sweep: Sweep, num_replicas: int) -> Any:
    """Returns a chunk's examples of a fed task as shapes, as ``pdjax.io.feed`` places them; None of a sampled one."""
    replicas, axes = ((), ()) if program.shared_batches else ((num_replicas,), (sharding.REPLICA,))
    shapes = program.task.example_shapes(sweep.chunk_steps, *replicas, program.batch_size)
    return _shaped(shapes, sharding.by_example(sweep.mesh, (None, *axes)))


def _abstract_numbers(training: Training, rates: Any) -> tuple[dict[str, Any], ...]:
    """Returns the numbers of the replicas' losses as shapes: one for each replica of a loss."""
    program = training.program
    sizes = program.group_sizes or (training.num_replicas,)
    alone = len(sizes) == 1
    # As ``place_hyperparameters`` does: blocks of several losses need not divide the replica axis.
    where = rates.sharding if alone else sharding.replicated(rates.sharding.mesh)
    shapes = [jax.ShapeDtypeStruct((size,), jnp.float32, sharding=where) for size in sizes]
    return tuple(dict.fromkeys(loss.numbers, shape) for loss, shape in zip(program.losses, shapes, strict=True))


def bytes_on_a_device(tree: Any) -> int:
    """Returns the bytes of a tree of placed shapes on one device."""
    return sum(
        leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in jax.tree.leaves(tree)
    )


def measure(sweep: Sweep, arguments: tuple[Any, ...], steps: int) -> tuple[float, float]:
    """Returns the median seconds of a step and of an evaluation, from three of each after the first."""

    def ones(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.device_put(jnp.ones(leaf.shape, leaf.dtype), leaf.sharding), tree)

    values, held_out = [ones(a) for a in arguments[1:]], ones(_evaluated(sweep, arguments)[2])
    # A real state, as each chunk takes over the memory of the one before.
    state = sweep.init(values[0].seed)
    chunks, evaluations = [], []
    for _ in range(4):
        began = time.monotonic()
        state, _ = jax.block_until_ready(sweep.chunk(state, *values))
        trained = time.monotonic()
        jax.block_until_ready(sweep.evaluate(state.params, values[2], held_out))
        chunks.append((trained - began) / steps)
        evaluations.append(time.monotonic() - trained)
    # The first of each compiles.
    return statistics.median(chunks[1:]), statistics.median(evaluations[1:])


def _abstract_teacher(training: Training, sweep: Sweep, held: Held, curricula: int) -> Teacher | Answers:
    if isinstance(held, tuple):
        targets = batch_shapes(training.program.task, training.program.batch_size).targets
        places = (sweep.chunk_steps, *targets.shape)
        answers = Answers(tuple(_abstract_kept(cut, places) for cut in held))
        return _shaped(answers, sharding.by_example(sweep.mesh, (None,)))
    replicated = sharding.replicated(sweep.mesh)
    one = teacher_shape(training)
    # The table has a row for each checkpoint; of streamed ones two stand for any number, as rows are but integers.
    several = (curricula,) if curricula > 1 else ()
    rows: Any = jax.ShapeDtypeStruct((*several, held or 2), jnp.int32, sharding=replicated)
    if held is None:
        placed = _shaped(one, sharding.sharded(sweep.mesh, one, (), sweep.split_teacher))
        return Teacher((placed, placed), rows, rows)
    stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((held, *leaf.shape), leaf.dtype), one)
    each: Any = jax.ShapeDtypeStruct((training.num_replicas,), jnp.int32, sharding=sharding.by_replica(sweep.mesh))
    placed = _shaped(stack, sharding.sharded(sweep.mesh, stack, (None,), sweep.split_teacher))
    return Teacher(placed, rows, rows, each if several else None)


def _abstract_kept(cut: Cut, places: tuple[int, ...]) -> Kept:
    """Returns what is kept of a teacher at the places, without ties."""
    shape: Any = jax.ShapeDtypeStruct
    classes = (*places, 1 if cut.whole else cut.k)
    rest = None if cut.whole else shape(places, jnp.float32)
    return Kept(shape(classes, jnp.int32), shape(classes, jnp.float32), rest)


def teacher_shape(training: Training) -> Params:
    """Returns the shapes of a program's teacher."""
    program = training.program
    assert program.teacher_model is not None
    return jax.eval_shape(program.teacher_model.init, jax.random.key(0), batch_shapes(program.task, 1).inputs)


def _shaped(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree,
        jax.tree.broadcast(shardings, tree),
    )
