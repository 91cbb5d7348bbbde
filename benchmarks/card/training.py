"""Training steps to measure: models, sizes, and a task that costs nothing."""

import dataclasses
import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.io.teacher_source import memory_of
from pdjax.io.xla import DETERMINISTIC
from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.precision import Compute
from pdjax.plan.hardware import Chip, chip_of
from pdjax.plan.hlo import count_work
from pdjax.plan.program import abstract_arguments
from pdjax.plan.roofline import roofline
from pdjax.settings import Count, settings
from pdjax.stages.programs import Training
from pdjax.tasks.base import Bounds, Task
from pdjax.tasks.pcfg import MASK, VOCABULARY
from pdjax.train.chunk import train_chunk
from pdjax.train.flops import count_products
from pdjax.train.optimizer import Adam
from pdjax.train.replicas import Sweep, build_sweep, place_hyperparameters, place_teacher, product_of_replicas
from pdjax.train.sharding import REPLICAS_ONLY
from pdjax.train.state import Program
from pdjax.train.step import LABELS, Evaluation
from pdjax.types import Batch, Params

RATE, TEMPERATURE, MASK_RATE = 1e-3, 1e-4, 0.3
TAUGHT = Distillation(TEMPERATURE)
ADAM = Adam("constant", 0.0, 1.0, 0.9, 0.95, 1e-8)
EXPAND = 4
SECONDS = 1.0
"""How long a case is timed, if three rounds do not take longer."""


class Size(NamedTuple):
    """Of a teacher, its student and their batches."""

    layers: int
    teacher_heads: int
    student_heads: int
    head_dim: int
    batch: int
    length: int
    steps: int  # of a chunk


SIZES = {
    "laptop": Size(4, 8, 2, 8, 64, 64, 20),
    "paper": Size(4, 32, 8, 8, 512, 512, 2),
    "12x64": Size(4, 12, 4, 64, 512, 512, 2),
}
TINY = {
    "laptop": Size(1, 2, 1, 8, 4, 8, 2),
    "paper": Size(1, 4, 2, 8, 4, 16, 2),
    "12x64": Size(1, 2, 1, 64, 4, 16, 2),
}


class Case(NamedTuple):
    """One way to train: of labels the teacher itself, or a student by distillation from it."""

    model: Literal["bert", "gpt2"]
    size: str
    loss: Literal["labels", "distillation"]
    replicas: int
    compute: Compute
    pieces: int = 1  # of a batch, one after the other; of more than one, layers are computed again too

    def __str__(self) -> str:
        pieces = f" in {self.pieces} pieces" if self.pieces > 1 else ""
        return f"{self.model} {self.size} {self.loss} x{self.replicas} {self.compute}{pieces}"


COMPUTES: tuple[Compute, ...] = ("float32", "tf32", "bfloat16")
BASE = Case("bert", "paper", "distillation", 1, "float32")


def cases() -> list[Case]:
    """Returns all ways to train, those first that differ from the base in fewest choices.

    A teacher is also trained in pieces of its batch, which at the paper's size is how it fits at all.
    """
    every = itertools.starmap(
        Case, itertools.product(("bert", "gpt2"), SIZES, ("distillation", "labels"), (1, 8, 64), COMPUTES)
    )
    pieces = itertools.starmap(Case, itertools.product(("bert",), ("paper",), ("labels",), (1,), COMPUTES, (16,)))
    return sorted([*every, *pieces], key=differences)


def differences(case: Case) -> int:
    """Returns in how many choices a case differs from the base."""
    return sum(one != other for one, other in zip(case, BASE, strict=True))


@settings
class UniformTask(Task):
    """Uniform tokens: the cost of a step without the cost of a grammar."""

    predicts: ClassVar[Literal["positions", "example"]] = "positions"
    length: Count

    @property
    def num_classes(self) -> int:
        """As many as a grammar's."""
        return VOCABULARY

    @property
    def vocabulary(self) -> int:
        """As many as a grammar's."""
        return VOCABULARY

    @property
    def num_positions(self) -> int:
        """The length."""
        return self.length

    def bounds(self, count: int) -> Bounds:
        """Returns the selected positions that 95 % of all batches do not exceed."""
        return Bounds(self.length, int(scipy.stats.binom.ppf(0.95 ** (1 / count), self.length, MASK_RATE)))

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws tokens and selects 30 % of the positions."""
        token_key, select_key = jax.random.split(key)
        tokens = jax.random.randint(token_key, (batch_size, self.length), 0, 3)
        selected = jax.random.uniform(select_key, tokens.shape) < MASK_RATE
        inputs = {"tokens": jnp.where(selected, MASK, tokens), "valid": tokens >= 0, "selected": selected}
        return Batch(inputs, tokens, selected.astype(jnp.float32), {})


def transformer(
    kind: str,
    layers: int,
    heads: int,
    head_dim: int,
    length: int,
    compute: Compute = "float32",
    rematerialize: bool = False,
) -> LinenModel:
    """Returns this package's BERT or GPT-2."""
    choices: dict[str, Any] = {"feed_forward_multiple": EXPAND, "compute": compute, "rematerialize": rematerialize}
    settings = Bert(layers, heads, head_dim, **choices) if kind == "bert" else Gpt2(layers, heads, head_dim, **choices)
    return settings.build(UniformTask(length))


class Prepared(NamedTuple):
    """A compiled chunk; its arguments exist as shapes alone until it runs, as it may not fit."""

    program: Program
    sweep: Sweep
    shapes: tuple[Any, ...]  # of the chunk's arguments, placed
    steps: int
    compiled: Any
    compile_seconds: float
    computes: Mapping[str, Compute]  # of the teacher and of the student

    @property
    def memory(self) -> int:
        """The bytes on the device while it runs: arguments, results that reuse none of them, and temporaries."""
        stats = self.compiled.memory_analysis()
        results = stats.output_size_in_bytes - stats.alias_size_in_bytes
        return stats.argument_size_in_bytes + results + stats.temp_size_in_bytes


def prepare_case(case: Case, size: Size, checkpoints: int = 1) -> Prepared:
    """Compiles the training of a case on the first device."""
    task = UniformTask(size.length)
    teacher, student = (
        transformer(case.model, size.layers, heads, size.head_dim, size.length, case.compute, case.pieces > 1)
        for heads in (size.teacher_heads, size.student_heads)
    )
    taught = case.loss == "distillation"
    trained, teacher_model = (student, teacher) if taught else (teacher, None)
    losses = (TAUGHT if taught else LABELS,)
    program = Program(task, trained, teacher_model, ADAM, size.batch, True, "train", losses)
    program = program._replace(micro_batches=min(case.pieces, size.batch))
    return prepare(program, case.replicas, size.steps, checkpoints, dict.fromkeys(("teacher", "student"), case.compute))


def prepare(program: Program, replicas: int, steps: int, checkpoints: int, computes: Mapping[str, Compute]) -> Prepared:
    """Compiles a chunk of a program, with a stack of so many teachers if it has one, for the first device."""
    device = jax.devices()[:1]
    sweep = build_sweep(program, steps, replicas, Evaluation(1, 1, program.batch_size), devices=device)
    training = Training(program, None, replicas, REPLICAS_ONLY)  # pyright: ignore[reportArgumentType]
    shapes = abstract_arguments(training, sweep, checkpoints)
    began = time.perf_counter()
    lowered = sweep.chunk.lower(*shapes)  # pyright: ignore[reportFunctionMemberAccess]
    compiled = lowered.compile(compiler_options=_options(computes))
    return Prepared(program, sweep, shapes, steps, compiled, time.perf_counter() - began, computes)


def _options(computes: Mapping[str, Compute]) -> dict[str, bool]:
    """Returns the options under which ``pdjax.main`` has programs compiled (``pdjax.io.xla``)."""
    decided = DETERMINISTIC in os.environ.get("XLA_FLAGS", "") or "bfloat16" in computes.values()
    return {} if decided or jax.default_backend() != "gpu" else {DETERMINISTIC.removeprefix("--"): True}


def values(prepared: Prepared) -> tuple[Any, ...]:
    """Returns arguments for a chunk: random parameters, and a curriculum that uses every teacher."""
    state, members, teacher, seed, total, examples = prepared.shapes
    loss = LABELS if prepared.program.teacher_model is None else TAUGHT
    replicas = product_of_replicas(range(len(members.seed)), [RATE], [loss])
    rows = place_hyperparameters(prepared.sweep.mesh, replicas)
    if teacher is not None:
        checkpoints = len(teacher.slots)
        each = np.arange(checkpoints, dtype=np.int32)
        starts = each * max(1, prepared.steps // checkpoints)
        teacher = place_teacher(prepared.sweep, Teacher(filled(teacher.checkpoints), starts, each))  # pyright: ignore
    scalars = (jax.device_put(np.int32(value), leaf.sharding) for value, leaf in ((0, seed), (2**30, total)))
    return (filled(state), rows, teacher, *scalars, filled(examples))


def filled(shapes: Any) -> Any:
    """Returns placed arrays of random numbers for shapes; counters are 0. A product of zeros would take less power."""
    some = np.abs(np.random.default_rng(0).standard_normal(2**20, np.float32)) * np.float32(0.02)

    def fill(leaf: Any) -> jax.Array:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)  # positive, as second moments are
        return jax.device_put(np.resize(some, leaf.shape) if real else np.zeros(leaf.shape, leaf.dtype), leaf.sharding)

    return jax.tree.map(fill, shapes)


def measure(prepared: Prepared) -> dict[str, Any]:
    """Returns what a step takes: milliseconds, operations and their share of the peak, memory, and the prediction."""
    device = jax.devices()[0]
    chip = chip_of(device)
    # Counted in float32, whose attention is plain products: what cuDNN does inside of its kernels cannot be counted.
    plain = prepared.program._replace(
        model=exactly(prepared.program.model), teacher_model=exactly(prepared.program.teacher_model)
    )
    products = count_products(functools.partial(train_chunk, plain, prepared.steps), *prepared.shapes)
    fits = prepared.memory <= memory_of(device)
    seconds = timed(chunk_runner(prepared, values(prepared))) if fits else None
    flops = products.total() / prepared.steps
    each: list[tuple[Compute, float]] = [
        (prepared.computes[part], count / prepared.steps) for part, count in products.items()
    ]
    return {
        "ms": None if seconds is None else 1e3 * seconds,
        "TFLOP/s": None if seconds is None else flops / seconds / 1e12,
        "of peak": None if seconds is None or chip is None else ideal(each, chip) / seconds,
        "predicted ms": _predicted(prepared, each, chip),
        "GFLOP a step": flops / 1e9,
        "GB": prepared.memory / 1e9,
        "fits": fits,
        "compile s": prepared.compile_seconds,
    }


def exactly(model: Any) -> Any:
    """Returns a model that computes in float32."""
    return None if model is None else dataclasses.replace(model, compute="float32")


def ideal(each: Sequence[tuple[Compute, float]], chip: Chip) -> float:
    """Returns the seconds of products at the chip's peak."""
    return sum(count / chip.products[kind] for kind, count in each)


def _predicted(prepared: Prepared, each: Sequence[tuple[Compute, float]], chip: Chip | None) -> float | None:
    """Returns the milliseconds of a step that ``pdjax.plan`` would say."""
    if chip is None:
        return None
    work = count_work(prepared.compiled.as_text()).times(1 / prepared.steps)
    return 1e3 * roofline(each, work, chip)[0]


def chunk_runner(prepared: Prepared, arguments: tuple[Any, ...]) -> Callable[[], int]:
    """Returns a function that runs the chunk once and returns its number of steps; it takes the state's memory."""
    state, *others = arguments

    def run() -> int:
        nonlocal state
        first = jax.device_put(jnp.int32(0), prepared.sweep.state.step)  # the curriculum begins again
        state, metrics = prepared.compiled(state._replace(step=first), *others)
        jax.block_until_ready((state, metrics))
        return prepared.steps

    return run


def timed(run: Callable[[], int]) -> float:
    """Returns the median seconds of a unit of work, after a first round that is not counted."""
    run()
    rounds: list[float] = []
    began = time.perf_counter()
    while len(rounds) < 3 or (time.perf_counter() - began < SECONDS and len(rounds) < 50):
        start = time.perf_counter()
        units = run()
        rounds.append((time.perf_counter() - start) / units)
    return statistics.median(rounds)


def fresh(model: LinenModel, length: int, seed: int = 0) -> Params:
    """Returns fresh parameters of a Transformer."""
    return model.init(jax.random.key(seed), UniformTask(length).sample(jax.random.key(0), 1).inputs)
