"""Batch-1 SGD steps on sparse parity against PyTorch, and what the paper's figure 1 (left) would take here.

    python benchmarks/parity_step.py [--rounds 7] [--json PATH]

Needs PyTorch (the peer extra). Both sides train the same MLPs in float32 on 2 threads with batch 1, d = 100, k = 6:
a student of width 100 under a teacher of width 50 000 (temperature 1e-4), and widths 1000 and 50 000 from the labels.
Rounds alternate strictly. The peer is the fastest of PyTorch's plain SGD loops (autograd with the for-loop and the
foreach optimizer) and, as a second peer that few would write, the same step by hand without autograd, its updates of
rank 1 in place. Its inputs are drawn beforehand while this package samples inside its chunk. This package's own
step-by-step path is in the table too.

The last table multiplies the measured steps up to 20 million: one teacher and its students (labels, one-shot,
progressive with 200 checkpoints), one seed, 200 evaluations on 4096 examples and 200 checkpoints included.
"""

import argparse
import contextlib
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from processor import processor
from timing import Timing, alternate, median_of_ratios, ratio_of_medians
from torch.nn import functional

from pdjax.distill.losses import Distillation, Loss
from pdjax.distill.teacher import Teacher
from pdjax.io.store import CheckpointStore
from pdjax.models.mlp import Mlp
from pdjax.tasks.parity import ParityTask
from pdjax.train import blocked
from pdjax.train.optimizer import Sgd
from pdjax.train.replicas import Replica, Sweep, build_sweep, place_hyperparameters, place_teacher
from pdjax.train.state import Program, init_state
from pdjax.train.step import LABELS, Evaluation

DIMENSION, DEGREE, CLASSES = 100, 6, 2
TEACHER, RATE, TEMPERATURE = 50_000, 5e-3, 1e-4
STEPS_OF_THE_PAPER, CHECKPOINTS_OF_THE_PAPER = 20_000_000, 200
TASK = ParityTask(DIMENSION, DEGREE)
EVALUATION = Evaluation(1, 16, 256)


def program(width: int, taught: bool) -> Program:
    """Returns the training of one MLP."""
    teacher = Mlp((TEACHER,)).build(TASK) if taught else None
    return Program(TASK, Mlp((width,)).build(TASK), teacher, Sgd(), 1, True, "data", (loss(taught),))


def loss(taught: bool) -> Loss:
    """Returns what a student learns from."""
    return Distillation(TEMPERATURE) if taught else LABELS


def placed_teacher(sweep: Sweep, checkpoints: int, steps: int) -> Teacher:
    """Returns fresh teachers, each for an equal part of ``steps``."""
    teachers = program(TEACHER, taught=False)
    stack = jax.jit(functools.partial(init_state, teachers))(jnp.arange(checkpoints)).params
    return place_teacher(
        sweep, Teacher(stack, jnp.arange(checkpoints) * (steps // checkpoints), jnp.arange(checkpoints))
    )


def ours(width: int, taught: bool, steps: int, in_blocks: bool = True, checkpoints: int = 1) -> Callable[[], int]:
    """Returns a function that runs one compiled chunk."""
    sweep = build_sweep(program(width, taught), steps, 1, EVALUATION)
    rows = place_hyperparameters(sweep.mesh, [Replica(0, RATE, loss(taught))])
    teacher = placed_teacher(sweep, checkpoints, steps) if taught else None
    state = sweep.init(rows.seed)

    def run() -> int:
        nonlocal state
        with contextlib.nullcontext() if in_blocks else mock.patch.object(blocked, "applies", return_value=False):
            state = state._replace(step=jnp.zeros_like(state.step))  # the curriculum begins again
            state, metrics = sweep.chunk(state, rows, teacher, jnp.int32(1), jnp.int32(2**30))
            jax.block_until_ready((state, metrics))
        return steps

    return run


def draws() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Returns an endless stream of single inputs with their classes."""
    batch = TASK.sample(jax.random.key(0), 512)
    x = torch.from_numpy(np.array(batch.inputs["vector"]))
    y = torch.from_numpy(np.array(batch.targets)).long()
    return itertools.cycle([(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])


def torch_mlp(width: int) -> torch.nn.Sequential:
    """Returns the peer's MLP; its default initialisation is the paper's."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(DIMENSION, width), torch.nn.ReLU(), torch.nn.Linear(width, CLASSES))


def peer(width: int, taught: bool, steps: int, foreach: bool) -> Callable[[], int]:
    """Returns a function that trains the peer with autograd and ``torch.optim.SGD``."""
    model, stream = torch_mlp(width), draws()
    teacher = torch_mlp(TEACHER) if taught else None
    sgd = torch.optim.SGD(model.parameters(), RATE, foreach=foreach)

    def run() -> int:
        for x, y in itertools.islice(stream, steps):
            if teacher is None:
                loss = functional.cross_entropy(model(x), y)
            else:
                with torch.no_grad():
                    wanted = torch.softmax(teacher(x) / TEMPERATURE, dim=-1)
                loss = functional.kl_div(torch.log_softmax(model(x), dim=-1), wanted, reduction="batchmean")
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        return steps

    return run


@torch.no_grad()
def by_hand(width: int, taught: bool, steps: int) -> Callable[[], int]:
    """Returns a function that trains the peer without autograd, updating the weights in place."""
    model, stream = torch_mlp(width), draws()
    teacher = torch_mlp(TEACHER) if taught else None
    hidden, output = model[0], model[2]
    assert isinstance(hidden, torch.nn.Linear)
    assert isinstance(output, torch.nn.Linear)

    @torch.no_grad()
    def run() -> int:
        for x, y in itertools.islice(stream, steps):
            z = torch.addmv(hidden.bias, hidden.weight, x[0])
            h = torch.relu(z)
            p = torch.softmax(torch.addmv(output.bias, output.weight, h), dim=0)
            if teacher is None:
                p[y[0]] -= 1
            else:
                p -= torch.softmax(teacher(x)[0] / TEMPERATURE, dim=0)
            delta = (output.weight.T @ p) * (z > 0)
            output.weight.addr_(p, h, alpha=-RATE)
            output.bias.sub_(p, alpha=RATE)
            hidden.weight.addr_(delta, x[0], alpha=-RATE)
            hidden.bias.sub_(delta, alpha=RATE)
        return steps

    return run


def compare(rounds: int) -> dict[str, dict]:
    """Times the three cases and prints their table."""
    cases = {
        "student 100, teacher 50 000": (100, True, 4096, 200),
        "width 1000, labels": (1000, False, 8192, 500),
        "width 50 000, labels": (50_000, False, 512, 60),
    }
    print(
        f"\n{'Microseconds per step, medians':36} {'pdjax':>9} {'by steps':>9} {'PyTorch':>9} {'by hand':>9}   ratios"
    )
    results = {}
    for name, (width, taught, our_steps, peer_steps) in cases.items():
        candidates = {
            "pdjax": ours(width, taught, our_steps),
            "by steps": ours(width, taught, max(64, our_steps // 8), in_blocks=False),
            "for-loop": peer(width, taught, peer_steps, foreach=False),
            "foreach": peer(width, taught, peer_steps, foreach=True),
            "by hand": by_hand(width, taught, peer_steps),
        }
        timings = alternate(candidates, rounds)
        fastest = min(("for-loop", "foreach"), key=lambda kind: timings[kind].median)
        mine, theirs, hand = timings["pdjax"], timings[fastest], timings["by hand"]
        shown = [1e3 * timing.median for timing in (mine, timings["by steps"], theirs, hand)]
        ratios = (ratio_of_medians(theirs, mine), ratio_of_medians(hand, mine))
        print(
            f"  {name:34} {''.join(f'{value:10.1f}' for value in shown)}   {ratios[0]:.1f} {ratios[1]:.1f}", flush=True
        )
        results[name] = {key: timing.rounds for key, timing in timings.items()}
        results[name] |= {"peer": fastest, "ratio": ratios[0], "median_of_ratios": median_of_ratios(theirs, mine)}
        results[name] |= {"ratio_by_hand": ratios[1]}
    return results


def predict(rounds: int) -> dict[str, float]:
    """Times what figure 1 (left) consists of and prints the hours for one seed."""
    candidates = {
        "teacher, width 50 000": ours(TEACHER, False, 1024),
        "student 100, labels": ours(100, False, 8192),
        "student 100, one-shot": ours(100, True, 4096),
        "student 100, progressive": ours(100, True, 4096, checkpoints=8),
    }
    hours = {}
    print(f"\nFigure 1 (left) at the paper's size: {STEPS_OF_THE_PAPER:,} steps, one seed")
    for name, timing in alternate(candidates, rounds).items():
        hours[name] = timing.median * STEPS_OF_THE_PAPER / 3.6e6
        print(f"  {name:34} {1e3 / timing.median:10,.0f} steps/s {hours[name]:8.2f} h")
    hours["evaluations and checkpoints"] = CHECKPOINTS_OF_THE_PAPER * (_evaluation(rounds) + _checkpoint()) / 3600
    print(f"  {'evaluations and checkpoints':34} {'':18} {hours['evaluations and checkpoints']:8.2f} h")
    print(f"  {'together':34} {'':18} {sum(hours.values()):8.2f} h")
    return hours


def _evaluation(rounds: int) -> float:
    """Returns the seconds of one evaluation of the teacher."""
    sweep = build_sweep(program(TEACHER, taught=False), 64, 1, EVALUATION)
    params = sweep.init(jnp.zeros(1, jnp.int32)).params

    def run() -> int:
        jax.block_until_ready(sweep.evaluate(params, jnp.int32(0)))
        return 1

    timing: Timing = alternate({"evaluation": run}, rounds)["evaluation"]
    return timing.median / 1e3


def _checkpoint() -> float:
    """Returns the seconds of saving one teacher."""
    params = jax.tree.map(
        np.asarray, placed_teacher(build_sweep(program(100, True), 64, 1, EVALUATION), 1, 64).checkpoints
    )
    with tempfile.TemporaryDirectory() as directory:
        store = CheckpointStore(Path(directory), {})
        began = time.perf_counter()
        for step in range(3):
            store.save(step, params)
        store.close()
        return (time.perf_counter() - began) / 3


def main() -> None:
    """Runs everything and prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--json", type=Path, help="where to write the numbers")
    options = arguments.parse_args()
    torch.set_num_threads(2)
    versions = f"jax {jax.__version__}, torch {torch.__version__}"
    here = processor()
    print(f"{versions}; {here}")
    result = {
        "versions": versions,
        "processor": here,
        "cases": compare(options.rounds),
        "hours": predict(options.rounds),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
