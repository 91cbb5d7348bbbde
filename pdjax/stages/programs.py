"""The training programs of an experiment: its teachers, its students, and models of other sizes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from pdjax.distill.losses import Loss
from pdjax.distill.part import WHOLE, Part
from pdjax.experiment import Experiment, Sizes
from pdjax.models.base import Architecture, parameter_shapes
from pdjax.tasks.base import Bounds
from pdjax.train.replicas import Replica, Sweep, build_sweep, families, product_of_replicas
from pdjax.train.sharding import Placement
from pdjax.train.state import Program
from pdjax.train.step import LABELS
from pdjax.types import Params


class Training(NamedTuple):
    """A program, with the model it trains, how many replicas of it, and where they live."""

    program: Program
    model: Architecture
    num_replicas: int
    placement: Placement


def student_replicas(experiment: Experiment, losses: Sequence[Loss] = (LABELS,)) -> tuple[Replica, ...]:
    """Returns the replicas of a student run with these losses."""
    training = experiment.student_training
    return product_of_replicas(training.seeds, training.learning_rates, losses)


def teacher_program(experiment: Experiment) -> Training:
    """Returns the program that trains all teachers at once."""
    task, training = experiment.task, experiment.teacher_training
    program = Program(
        task=task,
        model=experiment.teacher.build(task),
        teacher_model=None,
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        shared_batches=False,  # teachers of several seeds are independent of each other
        # Streams of batches have names: the teacher's and a student's are different although their seeds may be equal.
        data_name="teacher batches",
        losses=(training.loss.family,),
        mean_over=training.mean_over,
    )
    # It is what learns here.
    placement = dataclasses.replace(experiment.placement, student=experiment.placement.teacher)
    return Training(program, experiment.teacher, len(training.seeds), placement)


def teacher_shape(experiment: Experiment) -> Params:
    """Returns a teacher's parameters as shapes."""
    return parameter_shapes(experiment.teacher, experiment.task)


def student_program(experiment: Experiment, replicas: Sequence[Replica], part: Part = WHOLE) -> Training:
    """Returns the program of a run's students, who see a part of their teachers."""
    task, training = experiment.task, experiment.student_training
    losses, sizes = families(replicas)
    program = Program(
        task=task,
        model=experiment.student.build(task),
        teacher_model=part.model(experiment.teacher.build(task), task) if _asked(losses) else None,
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        shared_batches=training.shared_batches,
        data_name="student batches",
        losses=losses,
        group_sizes=sizes if len(losses) > 1 else (),
        mean_over=training.mean_over,
    )
    return Training(program, experiment.student, len(replicas), experiment.placement)


def _asked(losses: Sequence[Loss]) -> bool:
    return any(loss.asks_teacher for loss in losses)


def size_program(experiment: Experiment, sizes: Sizes, model: Architecture) -> Training:
    """Returns the program that trains a model of another size."""
    program = Program(
        task=experiment.task,
        model=model.build(experiment.task),
        teacher_model=None,
        optimizer=sizes.optimizer,
        batch_size=sizes.batch_size,
        shared_batches=sizes.shared_batches,
        data_name="size batches",
    )
    count = len(product_of_replicas(sizes.seeds, sizes.learning_rates))
    return Training(program, model, count, experiment.placement)


def compiled(experiment: Experiment, training: Training, devices: Sequence[Any] | None = None) -> Sweep:
    """Returns a program's functions, for all devices of this machine or for others to compile for."""
    chunk = experiment.loop.chunk_steps
    program = training.program._replace(bounds=bounds_of(experiment, training))
    return build_sweep(program, chunk, training.num_replicas, experiment.evaluation, training.placement, devices)


def bounds_of(experiment: Experiment, training: Training) -> Bounds | None:
    """Returns the bounds of what counts of a training's batches; None where they are taken whole."""
    program = training.program
    models = [training.model, *([experiment.teacher] if program.teacher_model is not None else [])]
    if (
        not experiment.loop.optimized  # two branches take longer to compile
        or not all(model.can_be_narrow for model in models)
        or not all(loss.by_place and not loss.of_whole_batch for loss in program.losses)
        or experiment.placement.residency == "cached"  # answers are of all positions
    ):
        return None
    examples = program.batch_size * (1 if program.shared_batches else training.num_replicas)
    return experiment.task.bounds(examples)
