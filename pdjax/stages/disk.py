"""How much disk an experiment takes: said, and refused where it is not there, before anything is written."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pdjax.experiment import Experiment
from pdjax.io.store import disk_bytes, require_space
from pdjax.stages.caching import foreseen_bytes
from pdjax.stages.programs import Training, size_program, student_program, teacher_program
from pdjax.stages.runs import foresee_runs
from pdjax.stages.students import kept_bytes
from pdjax.stages.teacher import checkpoint_bytes, most_kept, teacher_identity
from pdjax.train.loop import KEPT_STATES
from pdjax.train.state import init_state
from pdjax.weights.checkpoint import is_series

logger = logging.getLogger("pdjax")

_RUN = 45_000
"""Bytes of a run's directories and small files, in blocks of 4 KiB."""
_METRICS, _COST, _MEASURED = 150, 100, 500
"""Bytes of a line of a run's metrics, of its costs, and of a probe."""
_PAGE, _FIGURE, _ROW = 300_000, 150_000, 290
"""Bytes of a report for the page, for each figure, and for each number, which stands in tables and figures."""
_NUMBERS = 8
"""What a probe measures of a model, about."""


def announce_disk(experiment: Experiment, workdir: Path, stages: Sequence[str], stored: Sequence[int]) -> None:
    """Says how much disk the stages of an experiment take in all, and requires what is not written yet.

    Args:
      experiment: that is run.
      workdir: where; may not exist yet.
      stages: that are run.
      stored: the teacher steps that the trajectory holds, or will hold.

    Raises:
      UserError: there is less.
    """
    parts = {stage: size for stage, size in disk_by_stage(experiment, stored).items() if stage in stages and size}
    total = sum(parts.values())
    logger.info(
        "disk: %.1f MB in all (%s)",
        total / 1e6,
        ", ".join(f"{stage.replace('_', ' ')} {size / 1e6:.1f}" for stage, size in parts.items()),
    )
    require_space(workdir, total - _written(workdir), "all that is yet to be written")


def disk_by_stage(experiment: Experiment, stored: Sequence[int]) -> dict[str, int]:
    """Returns the bytes of disk that each stage of an experiment takes in its directory, about."""
    training, students, sizes = experiment.teacher_training, experiment.student_training, experiment.sizes
    runs, probes = foresee_runs(experiment, stored), experiment.probes
    teachers = len(training.seeds)
    stages = ("teacher", "probes", "students", "student_probes", "sizes", "ablations", "report")
    parts: dict[str, int] = dict.fromkeys(stages, 0)
    rows = 0
    if training.trajectory is None:
        parts["teacher"] = teachers * most_kept(experiment) * checkpoint_bytes(experiment)
        parts["teacher"] += _of_run(experiment, teacher_program(experiment), training.steps, teachers)
        rows += _rows(experiment, training.steps, teachers)
    elif is_series(training.trajectory):
        parts["teacher"] = len(stored) * checkpoint_bytes(experiment)
    parts["probes"] = len(probes.measured) * len(stored) * teachers * _MEASURED
    every, probed = students.checkpoint_every, {*probes.students}
    for run in runs:
        count = len(run.replicas)
        program = student_program(experiment, run.replicas, run.course.part)
        parts["students"] += _of_run(experiment, program, run.budget, count) + kept_bytes(experiment, run.budget, count)
        rows += _rows(experiment, run.budget, len(run.strategies) * len(students.seeds) * len(students.learning_rates))
        if every is not None and probed & {*run.strategies} and experiment.probes_students_of(run.budget):
            measured = sum(probe.of_students for probe in probes.measured) * (1 + run.budget // every) * count
            parts["student_probes"] += measured * _MEASURED
    if experiment.placement.residency == "cached" and experiment.placement.cache is None:
        parts["students"] += foreseen_bytes(experiment, runs)
    if sizes is not None:
        for _, model in sizes.models():
            program = size_program(experiment, sizes, model)
            parts["sizes"] += _of_run(experiment, program, sizes.steps, program.num_replicas)
            rows += _rows(experiment, sizes.steps, program.num_replicas)
    for variant in experiment.variants().values():
        of = disk_by_stage(variant, stored)
        own = teacher_identity(variant) != teacher_identity(experiment)
        parts["ablations"] += of["students"] + of["sizes"] + of["probes"] + (of["teacher"] if own else 0)
    rows += (parts["probes"] + parts["student_probes"]) // _MEASURED * _NUMBERS
    figures = sum(len(experiment.budgets) if one.kind == "training" else 1 for one in experiment.comparisons)
    parts["report"] = _PAGE + _FIGURE * (2 + figures + len(probes.measured) + len(experiment.ablations)) + _ROW * rows
    return parts


def _of_run(experiment: Experiment, training: Training, steps: int, replicas: int) -> int:
    """Returns the bytes of a run's last training states, records and other files."""
    states = KEPT_STATES * disk_bytes(_state(training), replicas)
    chunks, evaluations = steps // experiment.loop.chunk_steps, 1 + steps // experiment.evaluation.every
    return states + _RUN + (chunks + evaluations) * replicas * _METRICS + chunks * _COST


def _state(training: Training) -> Any:
    """Returns the training state of one replica as shapes."""
    losses = training.program.losses[:1]
    program = training.program._replace(losses=losses, group_sizes=())
    return _shapes(program._replace(bounds=None))


@functools.cache
def _shapes(program: Any) -> Any:
    return jax.eval_shape(functools.partial(init_state, program), jax.ShapeDtypeStruct((1,), jnp.int32))


def _rows(experiment: Experiment, steps: int, models: int) -> int:
    """Returns how many numbers of held-out examples a run adds to the table of results."""
    return 2 * models * (1 + steps // experiment.evaluation.every)


def _written(workdir: Path) -> int:
    """Returns the bytes of disk that a directory takes."""
    files = (os.lstat(Path(place) / name) for place, _, names in os.walk(workdir) for name in names)
    return sum(file.st_blocks * 512 for file in files)
