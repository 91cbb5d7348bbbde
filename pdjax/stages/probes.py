"""The probe stages: measure the checkpoints of teachers and of students (see ``pdjax.io.probe_records``).

Of students the untrained ones too, as step 0: what a probe finds in them is not what training gave.
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pdjax.errors import UserError, require
from pdjax.experiment import Experiment, digest_of
from pdjax.io.feed import held_out_examples
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_result
from pdjax.io.signals import Interrupt
from pdjax.models.base import Architecture
from pdjax.probes.base import Probe, Subject
from pdjax.settings import determining
from pdjax.stages.probing import MOST_AT_ONCE, Measure, finish, measure_checkpoints, prepared, unmeasured
from pdjax.stages.programs import teacher_shape
from pdjax.stages.recovery import lost_checkpoints
from pdjax.stages.runs import plan_runs, run_directory
from pdjax.stages.students import kept_steps, open_checkpoints, students_shape, untrained_students
from pdjax.stages.teacher import open_trajectory, require_whole
from pdjax.types import Params


def probe_teachers(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Evaluates the configured probes on all checkpoints of all teachers, unless that is done.

    Raises:
      UserError: there is no finished teacher, or the directory holds probes of another one.
    """
    directory, like = workdir / "probes", teacher_shape(experiment)
    if not experiment.probes.measured:
        return
    require_whole(experiment, workdir)
    seeds = experiment.teacher_training.seeds
    stores = [open_trajectory(experiment, workdir, seed) for seed in seeds]
    try:
        # One run trained all of them: their checkpoints have the same steps.
        steps = stores[0].steps()
        # Of the arrays: a teacher that is trained anew is another, although its settings are the same.
        digests = [[store.digest(step) for step in steps] for store in stores]
        asked = _identities(experiment, experiment.probes.measured, {"teachers": digests})
        missing = unmeasured(directory, asked)
        if not missing:
            return
        left = {name: asked[name] for name in missing}
        measured = [probe for probe in experiment.probes.measured if probe.name in left]

        def load(step: int) -> Params:
            # Every teacher once, along a leading axis: [S, ...].
            trees = [store.restore(step, like) for store in stores]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

        # The first is the teacher that students learn from, which all models are compared with.
        subject = _subject(experiment, experiment.teacher, stores[0].restore(steps[-1], like))
        probes = prepared(measured, subject)
        names = [{"seed": seed} for seed in seeds]
        # Models of vectors may be wide: a checkpoint of every teacher is enough.
        at_once = MOST_AT_ONCE if experiment.task.predicts == "positions" else len(names)
        with closing(Progress("probes", len(steps), unit="checkpoint")) as progress:
            measure_checkpoints(directory, digest_of(left), probes, steps, load, names, at_once, interrupt, progress)
    finally:
        for store in stores:
            store.close()
    finish(directory, left, _listing(experiment, measured))


def probe_students(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Evaluates the probes on the students that ``probes.students`` names: untrained, and at their kept checkpoints.

    Raises:
      UserError: a student is not finished, or a directory holds probes of others.
    """
    asked = set(experiment.probes.students)
    if not asked or not _of_students(experiment):
        return
    require_whole(experiment, workdir)
    trajectory = open_trajectory(experiment, workdir)
    try:
        runs = [run for _, run in plan_runs(experiment, workdir, trajectory) if asked & set(run.strategies)]
        runs = [run for run in runs if experiment.probes_students_of(run.budget)]
        final = trajectory.steps()[-1]
        teacher, digest = trajectory.restore(final, teacher_shape(experiment)), trajectory.digest(final)
    finally:
        trajectory.close()
    every = experiment.student_training.checkpoint_every
    assert every is not None  # the experiment requires it
    probes = prepared(_of_students(experiment), _subject(experiment, experiment.student, teacher))
    # The one more is step 0.
    checkpoints = sum(1 + run.budget // every for run in runs)
    with closing(Progress("student probes", checkpoints, unit="checkpoint")) as progress:
        for run in runs:
            _probe_run(experiment, workdir, run, probes, digest, interrupt, progress)


def _probe_run(
    experiment: Experiment,
    workdir: Path,
    run: RunDescription,
    probes: dict[str, Measure],
    teacher: str,  # digest of the one that students are compared with
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    if read_result(run_directory(workdir, run)) is None:
        raise UserError(f"a finished run {run.name}", "none", "run --stage=students first")
    store, directory = open_checkpoints(workdir, run), run_directory(workdir, run) / "probes"
    try:
        kept, lost = store.steps(), lost_checkpoints(directory.parent, run, kept_steps(experiment, run), [store])
        remedy = "run --stage=students first, which computes them again"
        require(not lost, f"all checkpoints of {run.name}", f"none of the steps {list(lost)}", remedy)
        # Nobody keeps the untrained students: their seeds make them again.
        steps = (0, *kept)
        students = [store.digest(step) for step in kept]
        # The final teacher too: what was compared with another one says nothing about this one.
        measured = _of_students(experiment)
        asked = _identities(experiment, measured, {"students": students, "steps": steps, "teacher": teacher})
        missing = unmeasured(directory, asked)
        if not missing:
            progress.skip(len(steps))
            return
        left = {name: asked[name] for name in missing}
        looks = {name: probes[name] for name in missing}
        like = students_shape(experiment, len(run.replicas))
        names = [{"replica": replica} for replica in range(len(run.replicas))]

        def load(step: int) -> Params:
            return store.restore(step, like) if step else untrained_students(experiment, run)

        measure_checkpoints(directory, digest_of(left), looks, steps, load, names, MOST_AT_ONCE, interrupt, progress)
    finally:
        store.close()
    finish(directory, left, _listing(experiment, [probe for probe in measured if probe.name in left]))


def _identities(experiment: Experiment, probes: Sequence[Probe], models: Mapping[str, Any]) -> dict[str, str]:
    """Returns digests of all that the numbers of each probe depend on: itself, and the models that it looks at."""

    def identity(probe: Probe) -> str:
        revision = {"revision": probe.revision} if probe.revision else {}
        return digest_of({"probe": determining(probe), "seed": experiment.probes.seed, **revision, **models})

    return {probe.name: identity(probe) for probe in probes}


def _of_students(experiment: Experiment) -> list[Probe]:
    """Returns the probes of students."""
    return [probe for probe in experiment.probes.measured if probe.of_students]


def _subject(experiment: Experiment, measured: Architecture, final_teacher: Params) -> Subject:
    """Returns what probes look at: models of an architecture, beside the final teacher."""
    task = experiment.task
    model, teacher = measured.build(task), experiment.teacher.build(task)
    held_out = functools.partial(held_out_examples, task, experiment.probes.seed)
    return Subject(task, model, teacher, final_teacher, experiment.probes.seed, held_out)


def _listing(experiment: Experiment, probes: Sequence[Probe]) -> dict[str, Any]:
    """Returns what the recorded numbers belong to, by probe."""
    return {probe.name: probe.listing(experiment.task, experiment.probes.seed) for probe in probes}
