"""The student stage: trains the students of every run (see ``pdjax.stages.runs``) and keeps their checkpoints."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp

from pdjax.config import Config
from pdjax.errors import UserError
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription
from pdjax.io.signals import Interrupt
from pdjax.io.store import SAFETY, CheckpointStore, require_space, stack, tree_bytes
from pdjax.io.teacher_source import TeacherSource
from pdjax.io.workdir import is_done
from pdjax.stages.adaptive import adaptation
from pdjax.stages.programs import compiled, student_program
from pdjax.stages.runs import plan_runs
from pdjax.stages.sources import plan_sources
from pdjax.stages.teacher import open_trajectory, teacher_shape
from pdjax.train.loop import Adapt, ByReplica, Job, train
from pdjax.train.replicas import Sweep, place_hyperparameters
from pdjax.train.state import init_state
from pdjax.types import Params

logger = logging.getLogger("pdjax")


def train_students(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Trains the students of every budget and strategy, skipping those that are done.

    Raises:
      UserError: there is no finished teacher, or a curriculum asks for a checkpoint that is not stored.
    """
    if not (workdir / "teacher" / "result.json").exists():
        raise UserError("a finished teacher", f"none in {workdir / 'teacher'}", "run --stage=teacher first")
    trajectory = open_trajectory(config, workdir)
    try:
        runs = plan_runs(config, workdir, trajectory)
        pending = [run for run in runs if not is_done(run_directory(workdir, run[1]), run[1])]
        replicas = sum(len(description.replicas) for _, description in runs)
        logger.info("students: %d of %d runs to do, of %d replicas in all", len(pending), len(runs), replicas)
        sweep_of = functools.cache(lambda taught, count: compiled(config, student_program(config, taught, count)))
        source_of = plan_sources(config, trajectory, [description for _, description in runs])
        _announce_disk(config, workdir, [description for _, description in pending])
        with closing(Progress("students", sum(description.budget for _, description in runs))) as progress:
            progress.skip(sum(d.budget for _, d in runs) - sum(d.budget for _, d in pending))
            for strategy, description in pending:
                sweep = sweep_of(strategy.schedule != "labels", len(description.replicas))
                open_source = functools.partial(source_of, description, sweep)
                teachers = functools.partial(stack, trajectory, description.teacher_steps, teacher_shape(config))
                adapt = adaptation(config, strategy, teachers, len(description.teacher_steps))
                _train(config, workdir, description, sweep, open_source, adapt, interrupt, progress)
    finally:
        trajectory.close()


def run_directory(workdir: Path, description: RunDescription) -> Path:
    """Returns the directory of a student run."""
    return workdir / "students" / description.name


def open_checkpoints(workdir: Path, description: RunDescription) -> CheckpointStore:
    """Opens the kept checkpoints of a student run; each holds the parameters of all replicas, stacked."""
    return CheckpointStore(run_directory(workdir, description) / "trajectory", {"run": description.identity})


def students_shape(config: Config, count: int) -> Params:
    """Returns the stacked parameters of so many students as shapes."""
    program = student_program(config, taught=False).program
    return jax.eval_shape(functools.partial(init_state, program), jax.ShapeDtypeStruct((count,), jnp.int32)).params


def untrained_students(config: Config, description: RunDescription) -> Params:
    """Returns the stacked parameters that the students of a run begin with."""
    program = student_program(config, taught=False).program
    seeds = jnp.array([replica.seed for replica in description.replicas], jnp.int32)
    return init_state(program, seeds).params


def kept_bytes(config: Config, budget: int, replicas: int) -> int:
    """Returns the bytes of disk that the kept checkpoints of a run take; 0 where none are kept."""
    every = config.student_training.checkpoint_every
    return 0 if every is None else int(SAFETY * (budget // every) * tree_bytes(students_shape(config, replicas)))


def _announce_disk(config: Config, workdir: Path, pending: Sequence[RunDescription]) -> None:
    """Says how much disk the kept checkpoints take, and refuses when it is not there."""
    if config.student_training.checkpoint_every is None:
        return
    needed = sum(kept_bytes(config, run.budget, len(run.replicas)) for run in pending)
    logger.info("students: their checkpoints take %.1f MB on disk", needed / 1e6)
    require_space(workdir, needed, "the students' checkpoints")


def _train(
    config: Config,
    workdir: Path,
    description: RunDescription,
    sweep: Sweep,
    open_source: Callable[[], TeacherSource],
    adapt: Adapt | None,
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Trains a run, keeping its checkpoints if the configuration says so."""
    job = _job(config, description, sweep, open_source, adapt)
    directory = run_directory(workdir, description)
    if config.student_training.checkpoint_every is None:
        train(job, directory, config.loop, interrupt, progress)
        return
    store = open_checkpoints(workdir, description)

    def keep(step: int, params: Params, means: Mapping[str, ByReplica]) -> None:
        store.save(step, params, {name: float(values.mean()) for name, values in means.items()})

    job = dataclasses.replace(job, keep_every=config.student_training.checkpoint_every, keep=keep)
    try:
        train(job, directory, config.loop, interrupt, progress)
    finally:
        store.close()


def _job(
    config: Config,
    description: RunDescription,
    sweep: Sweep,
    open_source: Callable[[], TeacherSource],
    adapt: Adapt | None,
) -> Job:
    replicas = description.replicas
    return Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(
            sweep.mesh,
            seeds=[replica.seed for replica in replicas],
            learning_rates=[replica.learning_rate for replica in replicas],
            temperatures=[replica.temperature for replica in replicas],
            label_weights=[replica.label_weight for replica in replicas],
        ),
        open_source=open_source,
        data_seed=config.seed,
        evaluation_seed=config.seed,
        evaluate_every=config.evaluation.every,
        adapt=adapt,
    )
