"""What a replica costs in a sweep: the default PCFG distillation step at 1, 4 and 8 replicas that share batches.

    python benchmarks/replicas.py [--rounds 7] [--config pcfg] [--replicas 1,4,8]

Chunks of the real program, sampling included, in alternation. The teacher's forward pass is shared, so that a
replica gets cheaper the more there are; small models also fill the cores better together.
"""

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from processor import processor
from timing import alternate

from pdjax.configuration import experiment_of
from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.experiment import Experiment
from pdjax.stages.programs import compiled, student_program, student_replicas
from pdjax.train.replicas import place_hyperparameters, place_teacher
from pdjax.train.state import init_state

CHECKPOINTS = 2


def main() -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--config", default="pcfg", help="a file of configs/, by name")
    arguments.add_argument("--replicas", default="1,4,8")
    options = arguments.parse_args()
    experiment = load(options.config)
    counts = [int(count) for count in options.replicas.split(",")]
    timings = alternate({str(count): chunk(experiment, count) for count in counts}, options.rounds)
    first = timings[str(counts[0])].median / counts[0]
    batch_size = experiment.student_training.batch_size
    print(f"{experiment.name}, batch {batch_size}, jax {jax.__version__}; {processor()}")
    print(f"{'replicas':>8} {'ms a step':>10} {'ms a replica':>13} {'of the first':>13}")
    for count in counts:
        milliseconds = timings[str(count)].median
        print(f"{count:8} {milliseconds:10.2f} {milliseconds / count:13.2f} {milliseconds / count / first:13.2f}")


def load(name: str) -> Experiment:
    """Returns the default experiment of a file of configs/."""
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return experiment_of(module.get_config())


def chunk(experiment: Experiment, replicas: int) -> Callable[[], int]:
    """Returns a function that runs one compiled chunk of a student with a teacher."""
    training = dataclasses.replace(
        experiment.student_training, seeds=tuple(range(replicas)), learning_rates=(1e-3,), shared_batches=True
    )
    experiment = dataclasses.replace(experiment, student_training=training)
    students = student_replicas(experiment, [Distillation()])
    part = student_program(experiment, students)
    sweep = compiled(experiment, part)
    rows = place_hyperparameters(sweep.mesh, students)
    assert part.program.teacher_model is not None
    teachers = init_state(part.program._replace(model=part.program.teacher_model), jnp.arange(CHECKPOINTS)).params
    teacher = place_teacher(sweep, Teacher(teachers, jnp.array([0, 100]), jnp.array([0, 1])))
    state = sweep.init(rows.seed)

    def run() -> int:
        nonlocal state
        state, metrics = sweep.chunk(state, rows, teacher, np.int32(0), np.int32(10_000))
        jax.block_until_ready((state, metrics))
        return experiment.loop.chunk_steps

    return run


if __name__ == "__main__":
    main()
