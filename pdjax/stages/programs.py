"""The training programs of an experiment: its teachers, its students, and models of other sizes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from pdjax.config import LABELS_ONLY, Config, Loss, ModelConfig, PlacementConfig, SizesConfig
from pdjax.io.records import Replica, product_of_replicas
from pdjax.models import build_model
from pdjax.tasks import build_task
from pdjax.train.replicas import Sweep, build_sweep
from pdjax.train.state import Program


class Training(NamedTuple):
    """A program, with the model it trains, how many replicas of it, and where they live."""

    program: Program
    model: ModelConfig
    num_replicas: int
    placement: PlacementConfig


def teacher_seeds(config: Config) -> tuple[int, ...]:
    """Returns the seeds of all teachers; students learn from the first."""
    return (config.teacher_training.seed, *config.teacher_training.extra_seeds)


def student_replicas(config: Config, losses: Sequence[Loss] = (LABELS_ONLY,)) -> tuple[Replica, ...]:
    """Returns the replicas of a student run with so many losses, each a temperature and a label weight."""
    return product_of_replicas(config.student_training.seeds, config.student_training.learning_rates, losses)


def teacher_program(config: Config) -> Training:
    """Returns the program that trains all teachers at once."""
    task, training = build_task(config.task), config.teacher_training
    program = Program(
        task=task,
        model=build_model(config.teacher, task),
        teacher_model=None,
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        shared_batches=False,  # teachers of several seeds are independent of each other
        data_name="teacher batches",
    )
    placement = dataclasses.replace(config.placement, student=config.placement.teacher)  # it is what learns here
    return Training(program, config.teacher, len(teacher_seeds(config)), placement)


def student_program(config: Config, taught: bool, num_replicas: int | None = None) -> Training:
    """Returns the program of strategies with a teacher (``taught``), or of those without.

    ``num_replicas`` is that of the run; None is a run of one strategy.
    """
    task, training = build_task(config.task), config.student_training
    program = Program(
        task=task,
        model=build_model(config.student, task),
        teacher_model=build_model(config.teacher, task) if taught else None,
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        shared_batches=training.shared_batches,
        data_name="student batches",
    )
    count = len(student_replicas(config)) if num_replicas is None else num_replicas
    return Training(program, config.student, count, config.placement)


def size_program(config: Config, sizes: SizesConfig, model: ModelConfig) -> Training:
    """Returns the program that trains a model of another size."""
    task = build_task(config.task)
    program = Program(
        task=task,
        model=build_model(model, task),
        teacher_model=None,
        optimizer=sizes.optimizer,
        batch_size=sizes.batch_size,
        shared_batches=sizes.shared_batches,
        data_name="size batches",
    )
    count = len(product_of_replicas(sizes.seeds, sizes.learning_rates))
    return Training(program, model, count, config.placement)


def compiled(config: Config, training: Training, devices: Sequence[Any] | None = None) -> Sweep:
    """Returns a program's functions, for all devices of this machine or for others to compile for."""
    program, chunk = training.program, config.loop.chunk_steps
    return build_sweep(program, chunk, training.num_replicas, config.evaluation, training.placement, devices)
