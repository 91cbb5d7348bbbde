"""How fast it is: training steps, the batch-1 MLP of figure 1 left, switching, sampling, and the card itself.

A program for a GPU takes ten seconds and more to compile, on few cores: those of several training steps are compiled at
the same time, while nothing is measured. Their compile seconds are what each of them took so.
"""

import concurrent.futures
import functools
import importlib.util
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.configuration import experiment_of
from pdjax.models.attention import flash, products
from pdjax.models.precision import Compute, products_in
from pdjax.plan.hardware import chip_of
from pdjax.plan.hlo import count_work
from pdjax.stages.programs import student_program, student_replicas, teacher_program
from pdjax.tasks.pcfg import PcfgTask
from pdjax.train.replicas import place_checkpoints, place_teacher

from .records import Records, essence
from .training import (
    COMPUTES,
    SIZES,
    TAUGHT,
    TINY,
    Case,
    Prepared,
    cases,
    chunk_runner,
    differences,
    measure,
    prepare,
    prepare_case,
    timed,
    values,
)

PART = "speed"
SWITCHES = 4
AT_ONCE = max(1, (os.cpu_count() or 1) // 3)
"""So many programs are compiled at the same time."""


def run(records: Records) -> None:
    """Measures the card, then training steps that differ from the base in one choice, then the rest."""
    sizes = TINY if records.tiny else SIZES
    steps = {str(case): case for case in cases()}
    others: dict[str, Callable[[], dict[str, Any]]] = {
        **{f"product {compute}": functools.partial(_product, compute, records.tiny) for compute in COMPUTES},
        "copy": functools.partial(_copy, records.tiny),
        "kernel": _kernel,
        "mlp of figure 1 left, teacher": functools.partial(_mlp, records.tiny, False),
        "mlp of figure 1 left, students": functools.partial(_mlp, records.tiny, True),
        "switching": functools.partial(_switching, records.tiny),
        **{
            f"sampling {name}": functools.partial(_sampling, root, batch)
            for name, (root, batch) in _samplers(records.tiny).items()
        },
        **{f"attention of {c} dimensions": functools.partial(_attention, c, records.tiny) for c in (8, 16, 64)},
    }
    card = [name for name in others if name.startswith(("product", "copy", "kernel"))]
    first = [name for name in steps if differences(steps[name]) <= 1]
    order = [*card, *first, *others, *steps]
    order = list(dict.fromkeys(order))
    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    ahead: dict[str, concurrent.futures.Future[Prepared]] = {}

    def compiled(name: str) -> Prepared:
        """Returns a step's program, compiled together with those of the next steps."""
        if name not in ahead:
            coming = [other for other in records.waiting(PART, order) if other in steps]
            for other in coming[:AT_ONCE]:
                ahead[other] = pool.submit(prepare_case, steps[other], sizes[steps[other].size])
            concurrent.futures.wait(ahead.values())
        return ahead.pop(name).result()

    for name in records.timely(PART, order):
        try:
            measurement = others[name]() if name in others else measure(compiled(name))
        except Exception as error:  # a case that the compiler or the memory refuses is a result, and others are waiting
            records.write(PART, name, refused=essence(error))
            jax.block_until_ready(jnp.ones(8) + 1)  # or else the device is lost, and this process with it
            continue
        records.write(PART, name, **measurement)


def slowest(records: Records) -> Case:
    """Returns the slowest training step among those measured, or the first of all."""
    by_name = {str(case): case for case in cases()}
    measured = {line["case"]: line.get("ms") or 0.0 for line in records.lines() if line["case"] in by_name}
    return by_name[max(measured, key=lambda name: measured[name])] if measured else next(iter(by_name.values()))


def _product(compute: Any, tiny: bool) -> dict[str, Any]:
    """Times a large product of each type: what share of its published peak a card really reaches."""
    size = 256 if tiny else 8192
    x, y = jax.random.normal(jax.random.key(0), (2, size, size), "bfloat16" if compute == "bfloat16" else "float32")
    with products_in(compute):
        multiply = jax.jit(lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float32))
        seconds = timed(_waiting(multiply, x, y))
    chip, rate = chip_of(jax.devices()[0]), 2 * size**3 / seconds
    return {
        "ms": 1e3 * seconds,
        "TFLOP/s": rate / 1e12,
        "of peak": None if chip is None else rate / chip.products[compute],
    }


def _copy(tiny: bool) -> dict[str, Any]:
    """Times reading and writing memory."""
    x = jnp.ones(2**20 if tiny else 2**28)
    seconds, chip = timed(_waiting(jax.jit(lambda x: x + 1), x)), chip_of(jax.devices()[0])
    rate = 2 * x.nbytes / seconds
    return {"ms": 1e3 * seconds, "GB/s": rate / 1e9, "of peak": None if chip is None else rate / chip.bandwidth}


def _kernel() -> dict[str, Any]:
    """Times kernels that do next to nothing, one after the other in a compiled loop."""
    turns = 1000
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, turns, lambda _, x: jnp.sin(x @ x), x))
    x = jnp.ones((16, 16)) / 16
    kernels = count_work(loop.lower(x).compile().as_text() or "").kernels
    seconds = timed(_waiting(loop, x))
    return {"µs a turn": 1e6 * seconds / turns, "kernels a turn": kernels / turns}


def _mlp(tiny: bool, taught: bool) -> dict[str, Any]:
    """Measures the training of the paper's batch-1 MLPs: the teacher, or the students that it teaches."""
    path = Path(__file__).parents[2] / "configs" / "parity_mlp.py"
    spec = importlib.util.spec_from_file_location("parity_mlp", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = experiment_of(module.get_config("smoke" if tiny else "paper"))
    students = student_replicas(experiment, [TAUGHT])
    training = student_program(experiment, students) if taught else teacher_program(experiment)
    computes: dict[str, Compute] = {"teacher": experiment.teacher.compute, "student": experiment.student.compute}
    chunk = experiment.loop.chunk_steps
    prepared = prepare(training.program, training.num_replicas, chunk, SWITCHES if taught else 1, computes)
    return measure(prepared)


def _switching(tiny: bool) -> dict[str, Any]:
    """Compares a chunk that switches teachers with one that does not, and times bringing one to the device."""
    size = (TINY if tiny else SIZES)["laptop"]
    prepared = prepare_case(Case("bert", "laptop", "distillation", 1, "float32"), size, checkpoints=SWITCHES)
    arguments = values(prepared)
    teacher = arguments[2]
    progressive = timed(chunk_runner(prepared, arguments))
    never = np.array([0, *[2**30] * (SWITCHES - 1)], np.int32)
    state, rows, _, *scalars = values(prepared)
    constant = place_teacher(prepared.sweep, teacher._replace(starts=never))
    one_shot = timed(chunk_runner(prepared, (state, rows, constant, *scalars)))
    checkpoint = jax.tree.map(lambda leaf: np.asarray(leaf[0]), teacher.checkpoints)
    bringing = timed(_waiting(lambda: place_checkpoints(prepared.sweep, checkpoint, stacked=False)))
    return {
        "progressive ms": 1e3 * progressive,
        "one-shot ms": 1e3 * one_shot,
        "ratio": progressive / one_shot,
        "bringing a checkpoint ms": 1e3 * bringing,
    }


def _samplers(tiny: bool) -> dict[str, tuple[int | None, int]]:
    """Returns roots of cfg3b and batch sizes."""
    return {"cfg3b under 10": (10, 4)} if tiny else {"cfg3b under 16": (16, 64), "cfg3b": (None, 512)}


def _sampling(root: int | None, batch_size: int) -> dict[str, Any]:
    """Times drawing batches of masked strings."""
    task = PcfgTask("cfg3b", root)
    draw = jax.jit(lambda key: task.sample(key, batch_size)[:3])
    keys = itertools.count()
    seconds = timed(lambda: _waiting(draw, jax.random.key(next(keys)))())
    return {"ms": 1e3 * seconds, "batch": batch_size, "strings/s": batch_size / seconds}


def _attention(head_dim: int, tiny: bool) -> dict[str, Any]:
    """Times attention with its gradient in bfloat16: by cuDNN, where it is, and by this package's products."""
    batch, length, width = (2, 16, 64) if tiny else (64, 512, 512)
    shape = (max(1, width // head_dim), head_dim, batch, length)
    q, k, v = (part.astype(jnp.bfloat16) for part in jax.random.normal(jax.random.key(0), (3, *shape)))
    bias = jnp.zeros((batch, 1, length))
    implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"

    def gradient(attend: Callable[..., Any]) -> Callable[..., Any]:
        def squared(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(attend(q, k, v, bias).astype(jnp.float32)))

        return jax.jit(jax.grad(squared, argnums=(0, 1, 2)))

    theirs = timed(_waiting(gradient(functools.partial(flash, implementation)), q, k, v))
    ours = timed(_waiting(gradient(products), q, k, v))
    return {"implementation": implementation, "ms": 1e3 * theirs, "products ms": 1e3 * ours, "ratio": ours / theirs}


def _waiting(function: Callable[..., Any], *arguments: Any) -> Callable[[], int]:
    """Returns a function that evaluates once, waits, and returns 1."""

    def run() -> int:
        jax.block_until_ready(function(*arguments))
        return 1

    return run
