"""An experiment's stages in order."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pdjax.errors import NotShownError
from pdjax.experiment import Experiment
from pdjax.io.feed import check_examples
from pdjax.io.lock import writing
from pdjax.io.processes import is_first, meet, require_same
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt
from pdjax.io.sinks import require_installed
from pdjax.io.workdir import open_workdir
from pdjax.stages.disk import Foreseen, require_disk
from pdjax.stages.memory import require_memory
from pdjax.stages.probes import probe_students, probe_teachers
from pdjax.stages.runs import foresee_runs
from pdjax.stages.sizes import train_sizes
from pdjax.stages.students import train_students
from pdjax.stages.teacher import stored_steps, teacher_identity, train_teacher
from pdjax.stages.tuning import tune, with_grown_grid

logger = logging.getLogger("pdjax")


def run_experiment(
    experiment: Experiment,
    workdir: Path,
    stages: Sequence[str],
    interrupt: Interrupt,
    configuration: Path | None = None,
) -> None:
    """Runs the given stages of an experiment in its working directory, which keeps a copy of its configuration's file.

    Raises:
      UserError: the directory holds another experiment, or a stage lacks the one before it.
      Interrupted: a signal asked to stop; the same command continues.
      TrainingError: a run cannot go on.
    """
    experiment = with_grown_grid(experiment, workdir)
    require_same("configuration", experiment.digest)
    foreseen = foresee(experiment, workdir)
    disk = ""
    if is_first():
        if {*stages} & {"teacher", "students", "sizes", "teachers", "ablations"}:  # they train
            require_installed(experiment.loop.writers)
        disk = require_disk(foreseen, stages)
    with ExitStack() as stack:
        # The others go on once the directory is known to be this experiment's.
        if is_first():
            stack.enter_context(writing(workdir))
            open_workdir(experiment, workdir, configuration)
            logger.info("%s", disk)
        meet("the working directory is open")
        _run_stages(experiment, workdir, stages, interrupt)


def foresee(experiment: Experiment, workdir: Path) -> list[Foreseen]:
    """Returns an experiment and those that it has within, all of which can be run; nothing is written yet.

    Raises:
      UserError: something is wrong with the input.
    """
    parts = ((experiment, workdir), *((part, workdir / place) for place, part in experiment.parts().items()))
    # First, as all that follows traces whole models.
    for one, _ in parts:
        require_memory(one)
    foreseen = [Foreseen(one, directory, stored_steps(one, workdir)) for one, directory in parts]
    for one, _, stored in foreseen:
        foresee_runs(one, stored)
        check_examples(one.task, _held_out(one))
    return foreseen


def _run_stages(experiment: Experiment, workdir: Path, stages: Sequence[str], interrupt: Interrupt) -> None:
    if "teacher" in stages:
        train_teacher(experiment, workdir, interrupt)
    if "probes" in stages:
        probe_teachers(experiment, workdir, interrupt)
    has_students = True
    if "students" in stages:
        if experiment.tuning is not None:
            experiment = tune(experiment, workdir, interrupt)
        elif experiment.further_teachers:
            has_students = _students_unless_left_out(experiment, workdir, interrupt)
        else:
            train_students(experiment, workdir, interrupt)
    if "student_probes" in stages and has_students:
        probe_students(experiment, workdir, interrupt)
    if "sizes" in stages:
        train_sizes(experiment, workdir, interrupt)
    if "teachers" in stages:
        run_further_teachers(experiment, workdir, interrupt)
    if "ablations" in stages:
        run_ablations(experiment, workdir, interrupt)
    if "report" in stages and is_first():
        # pandas, scipy and matplotlib take a second, which whoever trains need not wait for.
        from pdjax.report import write_report

        write_report(workdir)


def _held_out(experiment: Experiment) -> dict[str, int]:
    """Returns how many held-out examples of a fed task an experiment reads, by what reads them."""
    evaluation = experiment.evaluation
    probes = {f"probes.{probe.name}": probe.num_held_out() for probe in experiment.probes.measured}
    return {"evaluation": evaluation.num_batches * evaluation.batch_size, **probes}


def run_further_teachers(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Runs the experiment of every further teacher in a directory of its own; their programs are those of the first."""
    for seed, one in experiment.of_further_teachers().items():
        logger.info("teacher %d", seed)
        directory = workdir / "teachers" / str(seed)
        if is_first():
            open_workdir(one, directory)
        meet(f"teacher {seed} is open")
        train_teacher(one, directory, interrupt)
        probe_teachers(one, directory, interrupt)
        if _students_unless_left_out(one, directory, interrupt):
            probe_students(one, directory, interrupt)


def _students_unless_left_out(experiment: Experiment, directory: Path, interrupt: Interrupt) -> bool:
    """Trains the students of one of several teachers; returns whether it has any.

    A teacher that has not learned what checkpoints are chosen by has none: it is left out, and that is recorded.
    """
    record, seed = directory / "left_out.json", experiment.teacher_training.seed
    try:
        train_students(experiment, directory, interrupt)
    except NotShownError as error:
        logger.warning("teacher %d is left out: %s", seed, error)
        if is_first():
            write_json(record, {"reason": str(error)})
        meet(f"teacher {seed} is left out")
        return False
    if is_first():
        record.unlink(missing_ok=True)  # of a version that chose otherwise
    return True


def run_ablations(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Runs every variant in a directory of its own; the same teacher is not trained again."""
    for name, variant in experiment.variants().items():
        logger.info("ablation %s", name)
        directory = workdir / "ablations" / name
        if is_first():
            open_workdir(variant, directory)
            # Such as a variant of the student alone.
            if teacher_identity(variant) == teacher_identity(experiment):
                _share_teacher(workdir, directory)
        meet(f"ablation {name} is open")
        train_teacher(variant, directory, interrupt)
        probe_teachers(variant, directory, interrupt)
        train_students(variant, directory, interrupt)
        train_sizes(variant, directory, interrupt)


def _share_teacher(workdir: Path, directory: Path) -> None:
    """Makes the experiment's teacher a variant's, by a link that survives when both are moved together."""
    link = directory / "teacher"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(workdir / "teacher", directory), target_is_directory=True)
