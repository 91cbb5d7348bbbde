"""The probe stages: measure the checkpoints of teachers and of students (see ``pdjax.io.probe_records``).

Of students the untrained ones too, as step 0: what a probe finds in them is not what training gave.
"""

from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp

from pdjax.config import Config, digest_of
from pdjax.errors import UserError
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription
from pdjax.io.signals import Interrupt
from pdjax.io.store import CheckpointStore
from pdjax.stages.probing import (
    MOST_AT_ONCE,
    Probe,
    finish,
    is_measured,
    listing,
    measure_checkpoints,
    parity_probes,
    string_probes,
)
from pdjax.stages.programs import teacher_seeds
from pdjax.stages.runs import plan_runs
from pdjax.stages.students import open_checkpoints, run_directory, students_shape, untrained_students
from pdjax.stages.teacher import open_trajectory, teacher_shape
from pdjax.types import Params


def probe_teachers(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Evaluates the configured probes on all checkpoints of all teachers, unless that is done.

    Raises:
      UserError: there is no finished teacher, or the directory holds probes of another one.
    """
    directory, like = workdir / "probes", teacher_shape(config)
    if not config.probes.measured:
        return
    stores = [_teacher(config, workdir, seed) for seed in teacher_seeds(config)]
    try:
        steps = stores[0].steps()
        digests = [[store.digest(step) for step in steps] for store in stores]
        identity = digest_of({"probes": _settings(config), "teachers": digests})
        if is_measured(directory, identity):
            return

        def load(step: int) -> Params:
            trees = [store.restore(step, like) for store in stores]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

        strings = string_probes(config, config.teacher, stores[0].restore(steps[-1], like))
        probes = strings or parity_probes(config, directory)
        names = [{"seed": seed} for seed in teacher_seeds(config)]
        at_once = MOST_AT_ONCE if strings else len(names)  # wide MLPs: a checkpoint of every teacher is enough
        with closing(Progress("probes", len(steps), unit="checkpoint")) as progress:
            measure_checkpoints(directory, identity, probes, steps, load, names, at_once, interrupt, progress)
    finally:
        for store in stores:
            store.close()
    finish(directory, identity, listing(config))


def probe_students(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Evaluates the probes on the students that ``probes.students`` names: untrained, and at their kept checkpoints.

    Raises:
      UserError: a student is not finished, or a directory holds probes of others.
    """
    asked = set(config.probes.students)
    if not asked or not config.probes.measured:
        return
    trajectory = _teacher(config, workdir, config.teacher_training.seed)
    try:
        runs = [run for _, run in plan_runs(config, workdir, trajectory) if asked & set(run.strategies)]
        runs = [run for run in runs if config.probes_students_of(run.budget)]
        final = trajectory.steps()[-1]
        teacher, digest = trajectory.restore(final, teacher_shape(config)), trajectory.digest(final)
    finally:
        trajectory.close()
    every = config.student_training.checkpoint_every
    assert every is not None  # the config requires it
    probes = string_probes(config, config.student, teacher)
    checkpoints = sum(1 + run.budget // every for run in runs)
    with closing(Progress("student probes", checkpoints, unit="checkpoint")) as progress:
        for run in runs:
            _probe_run(config, workdir, run, probes, digest, interrupt, progress)


def _probe_run(
    config: Config,
    workdir: Path,
    run: RunDescription,
    probes: dict[str, Probe],
    teacher: str,  # digest of the one that students are compared with
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    if not (run_directory(workdir, run) / "result.json").exists():
        raise UserError(f"a finished run {run.name}", "none", "run --stage=students first")
    store, directory = open_checkpoints(workdir, run), run_directory(workdir, run) / "probes"
    try:
        kept = store.steps()
        steps = (0, *kept)
        students = [store.digest(step) for step in kept]
        identity = digest_of({"probes": _settings(config), "students": students, "steps": steps, "teacher": teacher})
        if is_measured(directory, identity):
            progress.skip(len(steps))
            return
        like = students_shape(config, len(run.replicas))
        names = [{"replica": replica} for replica in range(len(run.replicas))]

        def load(step: int) -> Params:
            return store.restore(step, like) if step else untrained_students(config, run)

        measure_checkpoints(directory, identity, probes, steps, load, names, MOST_AT_ONCE, interrupt, progress)
    finally:
        store.close()
    finish(directory, identity, listing(config))


def _teacher(config: Config, workdir: Path, seed: int) -> CheckpointStore:
    if not (workdir / "teacher" / "result.json").exists():
        raise UserError("a finished teacher", f"none in {workdir / 'teacher'}", "run --stage=teacher first")
    return open_trajectory(config, workdir, seed)


def _settings(config: Config) -> dict[str, object]:
    """Returns what the numbers depend on: the probes, whichever students they are evaluated on."""
    return {key: value for key, value in config.as_dict()["probes"].items() if key not in ("students", "longest_alone")}
