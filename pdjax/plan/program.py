"""One training program on given hardware: compiled ahead of time, its memory, its work, and a step's time."""

import dataclasses
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdjax import sharding
from pdjax.chunk import train_chunk
from pdjax.config import Config
from pdjax.flops import count_products
from pdjax.plan.hardware import Chip
from pdjax.plan.hlo import Work, count_work
from pdjax.stages.programs import Training, compiled
from pdjax.step import Guide, Replicas, TrainState
from pdjax.sweep import Sweep
from pdjax.types import Params

EFFICIENCY = {"compute": 0.4, "memory": 0.7, "links": 0.7}
"""Shares of the published peaks that a step is taken to reach."""

SECONDS_PER_KERNEL = {"tpu": 1e-6, "cuda": 3e-6}
"""What a kernel costs at least, however little it does: starting it, and draining it."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    state: int  # parameters and optimizer state of its replicas
    teachers: int
    temporaries: int
    peak: int
    limit: int  # of the device

    @property
    def fits(self) -> bool:
        """Whether the program runs."""
        return self.peak <= self.limit


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """What one program takes on each device; a step is one of all replicas."""

    name: str
    mesh: dict[str, int]
    replicas: int
    memory: Memory | None  # None: the compiler refused, see ``refusal``
    refusal: str | None
    teacher_products: float  # floating-point operations a step in matrix products, on all devices together
    student_products: float
    work: Work  # a step's, on one device
    seconds: float  # of a step
    bound: str  # by what: compute, memory, links, kernels, or measured


def plan_program(
    config: Config, name: str, training: Training, held: int | None, chip: Chip | None, devices: Any
) -> ProgramPlan:
    """Compiles the chunk of a training for devices and says what it takes.

    Args:
      config: of the experiment.
      name: of the program, for people.
      training: the program, its replicas and where they live.
      held: teacher checkpoints on the device: a number of them stacked, None for a pair of streamed ones.
      chip: what each of the devices can do; None for the devices of this machine, where steps are measured.
      devices: to compile for.

    Raises:
      UserError: the mesh does not fit the devices, the replicas, the batches or the models.
    """
    sweep = compiled(config, training, devices)
    arguments = abstract_arguments(training, sweep, held)
    steps = config.loop.chunk_steps
    products = count_products(functools.partial(train_chunk, training.program, steps), *arguments)
    used = sweep.mesh.size
    chunk: Any = sweep.chunk  # what jax.jit returns can be lowered
    state, teachers = bytes_on_a_device(arguments[0]), bytes_on_a_device(arguments[2])
    plan = functools.partial(
        ProgramPlan,
        name=name,
        mesh=dict(sweep.mesh.shape),
        replicas=training.num_replicas,
        teacher_products=products["teacher"] / steps,
        student_products=products["student"] / steps,
    )
    try:
        program = chunk.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = str(error).splitlines()[0][:300]
        return plan(memory=None, refusal=refusal, work=Work(), seconds=float("nan"), bound="memory")
    analysis = program.memory_analysis()
    peak = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    limit = chip.memory if chip is not None else _memory_here(devices)
    memory = Memory(state, teachers, analysis.temp_size_in_bytes, peak, limit)
    work = count_work(program.as_text()).times(1 / steps)
    if chip is None:
        seconds, bound = measure(sweep, training, arguments, steps), "measured"
    else:
        platform = "tpu" if devices[0].platform == "tpu" else "cuda"
        seconds, bound = roofline(sum(products.values()) / steps / used, work, chip, platform, "float32")
    return plan(memory=memory, refusal=None, work=work, seconds=seconds, bound=bound)


def roofline(products: float, work: Work, chip: Chip, platform: str, kind: str) -> tuple[float, str]:
    """Returns a step's seconds on one device and what bounds them: the slowest of its parts, as if all overlapped."""
    parts = {
        "compute": products / (chip.products[kind] * EFFICIENCY["compute"]),
        "memory": work.traffic / (chip.bandwidth * EFFICIENCY["memory"]),
        "links": work.collective_bytes / (chip.links * EFFICIENCY["links"]),
        "kernels": work.kernels * SECONDS_PER_KERNEL[platform],
    }
    bound = max(parts, key=lambda part: parts[part])
    return parts[bound], bound


def abstract_arguments(training: Training, sweep: Sweep, held: int | None) -> tuple[Any, ...]:
    """Returns the arguments of a chunk as shapes with shardings, without which it would compile for this machine."""
    count, mesh = training.num_replicas, sweep.mesh
    rows, whole = sharding.by_replica(mesh), sharding.replicated(mesh)
    seeds: Any = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=rows)
    rates: Any = jax.ShapeDtypeStruct((count,), jnp.float32, sharding=rows)
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    state: TrainState = _shaped(jax.eval_shape(sweep.init, seeds), sweep.state)
    guide = None if training.program.teacher is None else _abstract_guide(training, sweep, held)
    return state, Replicas(seeds, rates, rates, rates), guide, scalar, scalar


def bytes_on_a_device(tree: Any) -> int:
    """Returns the bytes of a tree of placed shapes on one device."""
    return sum(
        leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in jax.tree.leaves(tree)
    )


def measure(sweep: Sweep, training: Training, arguments: tuple[Any, ...], steps: int) -> float:
    """Returns the median seconds of a step, from three chunks after the first."""
    values = [
        jax.tree.map(lambda leaf: jax.device_put(jnp.ones(leaf.shape, leaf.dtype), leaf.sharding), a)
        for a in arguments[1:]
    ]
    state = sweep.init(values[0].seed)
    seconds = []
    for _ in range(4):
        began = time.monotonic()
        state, _ = jax.block_until_ready(sweep.chunk(state, *values))
        seconds.append((time.monotonic() - began) / steps)
    return statistics.median(seconds[1:])


def _abstract_guide(training: Training, sweep: Sweep, held: int | None) -> Guide:
    whole = sharding.replicated(sweep.mesh)
    one = teacher_shape(training)
    rows: Any = jax.ShapeDtypeStruct((held or 2,), jnp.int32, sharding=whole)
    if held is None:
        placed = _shaped(one, sharding.sharded(sweep.mesh, one, (), sweep.split_teacher))
        return Guide((placed, placed), rows, rows)
    stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((held, *leaf.shape), leaf.dtype), one)
    return Guide(_shaped(stack, sharding.sharded(sweep.mesh, stack, (None,), sweep.split_teacher)), rows, rows)


def teacher_shape(training: Training) -> Params:
    """Returns the shapes of a program's teacher."""
    program = training.program
    assert program.teacher is not None
    inputs = jax.eval_shape(lambda: program.task.sample(jax.random.key(0), 1)).inputs
    return jax.eval_shape(program.teacher.init, jax.random.key(0), inputs)


def _shaped(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree,
        jax.tree.broadcast(shardings, tree),
    )


def _memory_here(devices: Any) -> int:
    from pdjax.residency import memory_of

    return memory_of(devices[0])
