"""An experiment: its stages in order, each resumable and skipped when it is done."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from pdjax.config import Config
from pdjax.io.processes import is_first, meet
from pdjax.io.signals import Interrupt
from pdjax.io.workdir import open_workdir
from pdjax.report import write_report
from pdjax.stages.probes import probe_students, probe_teachers
from pdjax.stages.runs import foresee_runs
from pdjax.stages.sizes import train_sizes
from pdjax.stages.students import train_students
from pdjax.stages.teacher import stored_steps, teacher_identity, train_teacher
from pdjax.tasks import build_task

logger = logging.getLogger("pdjax")


def run_experiment(config: Config, workdir: Path, stages: Sequence[str], interrupt: Interrupt) -> None:
    """Runs the given stages of an experiment in its working directory.

    Raises:
      UserError: the directory holds another experiment, or a stage lacks the one before it.
      Interrupted: a signal asked to stop; the same command continues.
      TrainingError: a run cannot go on.
    """
    # What can be wrong with the input is found before anything is written.
    for experiment in (config, *variants_of(config).values()):
        build_task(experiment.task)
        foresee_runs(experiment, stored_steps(experiment, workdir))
    if is_first():
        open_workdir(config, workdir)
    meet("the working directory is open")
    if "teacher" in stages:
        train_teacher(config, workdir, interrupt)
    if "probes" in stages:
        probe_teachers(config, workdir, interrupt)
    if "students" in stages:
        train_students(config, workdir, interrupt)
    if "student_probes" in stages:
        probe_students(config, workdir, interrupt)
    if "sizes" in stages:
        train_sizes(config, workdir, interrupt)
    if "ablations" in stages:
        run_ablations(config, workdir, interrupt)
    if "report" in stages and is_first():
        logger.info("report: %s", write_report(workdir))


def variants_of(config: Config) -> dict[str, Config]:
    """Returns the variants of all ablations as experiments, by their directories."""
    return {
        f"{key}/{variant}": config.variant(key, variant)
        for key, ablation in config.ablations.items()
        for variant in ablation.variants
    }


def run_ablations(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Runs every variant in a directory of its own; the same teacher is not trained again."""
    for name, experiment in variants_of(config).items():
        logger.info("ablation %s", name)
        directory = workdir / "ablations" / name
        if is_first():
            open_workdir(experiment, directory)
            if teacher_identity(experiment) == teacher_identity(config):
                _share_teacher(workdir, directory)
        meet(f"ablation {name} is open")
        train_teacher(experiment, directory, interrupt)
        probe_teachers(experiment, directory, interrupt)
        train_students(experiment, directory, interrupt)
        train_sizes(experiment, directory, interrupt)


def _share_teacher(workdir: Path, directory: Path) -> None:
    """Makes the experiment's teacher a variant's, by a link that survives when both are moved together."""
    link = directory / "teacher"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(workdir / "teacher", directory), target_is_directory=True)
