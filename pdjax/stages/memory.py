"""What cannot be in memory at all is refused before anything is written or allocated."""

import dataclasses
from collections.abc import Iterator

import jax

from pdjax.errors import require
from pdjax.experiment import Experiment
from pdjax.io.store import tree_bytes
from pdjax.io.teacher_source import memory_of
from pdjax.models.base import Architecture, parameter_shapes
from pdjax.models.transformer import Transformer
from pdjax.stages.programs import Training, size_program, student_program, student_replicas, teacher_program
from pdjax.tasks.base import Task, batch_shapes

_TRAINED = 2  # parameters and, while they change, their gradients

_TRACED = 100
"""Layers that are looked at one by one. Of more all are taken to be alike, as tracing them takes memory and time too:
for as many as a mistake may ask for, all that there is."""


def require_memory(experiment: Experiment) -> None:
    """Requires that all devices together can hold each program's parameters, gradients and batches.

    No program needs less: what passes may still be too large, as ``pdjax.plan`` tells.

    Raises:
      UserError: they cannot.
    """
    # On a CPU the devices of a process share its memory.
    sharing = jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
    held = sharing * memory_of(jax.local_devices()[0])
    for name, architecture, training in _programs(experiment):
        program = training.program
        inputs = batch_shapes(program.task, 1).inputs
        one = _model_bytes(architecture, program.task)
        examples = program.batch_size * (1 if program.shared_batches else training.num_replicas)
        batch = tree_bytes(inputs) * max(examples, experiment.evaluation.batch_size)
        needed = _TRAINED * training.num_replicas * one + batch
        require(
            needed <= held,
            f"memory of {needed / 1e9:,.1f} GB or more for {name}",
            f"{held / 1e9:,.1f} GB",
            "make the models, the batches or the number of replicas smaller, or see python -m pdjax.plan",
        )


def _model_bytes(architecture: Architecture, task: Task) -> int:
    """Returns the bytes of a model's parameters."""
    if not isinstance(architecture, Transformer) or architecture.num_layers <= _TRACED:
        return tree_bytes(parameter_shapes(architecture, task))
    one, two = (
        tree_bytes(parameter_shapes(dataclasses.replace(architecture, num_layers=n), task))  # pyright: ignore
        for n in (1, 2)
    )
    return one + (architecture.num_layers - 1) * (two - one)


def _programs(experiment: Experiment) -> Iterator[tuple[str, Architecture, Training]]:
    """Yields the programs that an experiment trains, by what they are of; of students the least that there is."""
    if experiment.teacher_training.trajectory is None:
        yield "teacher", experiment.teacher, teacher_program(experiment)
    if experiment.strategies:
        yield "student", experiment.student, student_program(experiment, student_replicas(experiment))
    if experiment.sizes is not None:
        for name, model in experiment.sizes.models():
            yield f"sizes.{name}", model, size_program(experiment, experiment.sizes, model)
