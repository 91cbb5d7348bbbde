"""What cannot be in memory at all is refused before anything is written or allocated."""

from collections.abc import Iterator

import jax

from pdjax.errors import require
from pdjax.experiment import Experiment
from pdjax.io.store import tree_bytes
from pdjax.io.teacher_source import memory_of
from pdjax.stages.programs import Training, size_program, student_program, student_replicas, teacher_program
from pdjax.tasks.base import batch_shapes

_TRAINED = 2  # parameters and, while they change, their gradients


def require_memory(experiment: Experiment) -> None:
    """Requires that all devices together can hold each program's parameters, gradients and batches.

    No program needs less: what passes may still be too large, as ``pdjax.plan`` tells.

    Raises:
      UserError: they cannot.
    """
    # On a CPU the devices of a process share its memory.
    sharing = jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
    held = sharing * memory_of(jax.local_devices()[0])
    for name, training in _programs(experiment):
        program = training.program
        inputs = batch_shapes(program.task, 1).inputs
        one = tree_bytes(jax.eval_shape(program.model.init, jax.random.key(0), inputs))
        examples = program.batch_size * (1 if program.shared_batches else training.num_replicas)
        batch = tree_bytes(inputs) * max(examples, experiment.evaluation.batch_size)
        needed = _TRAINED * training.num_replicas * one + batch
        require(
            needed <= held,
            f"memory of {needed / 1e9:,.1f} GB or more for {name}",
            f"{held / 1e9:,.1f} GB",
            "make the models, the batches or the number of replicas smaller, or see python -m pdjax.plan",
        )


def _programs(experiment: Experiment) -> Iterator[tuple[str, Training]]:
    """Yields the programs that an experiment trains, by what they are of; of students the least that there is."""
    if experiment.teacher_training.trajectory is None:
        yield "teacher", teacher_program(experiment)
    if experiment.strategies:
        yield "student", student_program(experiment, student_replicas(experiment))
    if experiment.sizes is not None:
        for name, model in experiment.sizes.models():
            yield f"sizes.{name}", size_program(experiment, experiment.sizes, model)
