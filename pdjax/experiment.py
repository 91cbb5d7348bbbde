"""An experiment: its stages in order, each resumable and skipped when it is done."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pdjax.config import Config
from pdjax.interrupt import Interrupt
from pdjax.processes import is_first, meet
from pdjax.report import write_report
from pdjax.stages.probes import probe_teachers
from pdjax.stages.sizes import train_sizes
from pdjax.stages.students import check_curricula, train_students
from pdjax.stages.teacher import stored_steps, train_teacher
from pdjax.stages.workdir import open_workdir
from pdjax.tasks import build_task

STAGES = ("teacher", "probes", "students", "sizes", "report")

logger = logging.getLogger("pdjax")


def run_experiment(config: Config, workdir: Path, stages: Sequence[str], interrupt: Interrupt) -> None:
    """Runs the given stages of an experiment in its working directory.

    Raises:
      UserError: the directory holds another experiment, or a stage lacks the one before it.
      Interrupted: a signal asked to stop; the same command continues.
      TrainingError: a run cannot go on.
    """
    # What can be wrong with the input is found before anything is written.
    build_task(config.task)
    check_curricula(config, stored_steps(config, workdir))
    if is_first():
        open_workdir(config, workdir)
    meet("the working directory is open")
    if "teacher" in stages:
        train_teacher(config, workdir, interrupt)
    if "probes" in stages:
        probe_teachers(config, workdir, interrupt)
    if "students" in stages:
        train_students(config, workdir, interrupt)
    if "sizes" in stages:
        train_sizes(config, workdir, interrupt)
    if "report" in stages and is_first():
        logger.info("report: %s", write_report(workdir))
