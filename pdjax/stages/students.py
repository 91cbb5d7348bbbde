"""The student stage: trains the students of every run (see ``pdjax.stages.runs``) and keeps their checkpoints."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import jax
import jax.numpy as jnp

from pdjax.experiment import Experiment
from pdjax.io.processes import meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription
from pdjax.io.signals import Interrupt
from pdjax.io.store import SAFETY, CheckpointStore, require_space, stack, tree_bytes
from pdjax.io.teacher_source import TeacherSource
from pdjax.io.workdir import is_done
from pdjax.stages.adaptive import adaptation
from pdjax.stages.caching import cached_source
from pdjax.stages.programs import compiled, student_program, student_replicas, teacher_shape
from pdjax.stages.recovery import lost_checkpoints, recover
from pdjax.stages.runs import plan_runs, run_directory
from pdjax.stages.sources import plan_sources
from pdjax.stages.teacher import open_trajectory, require_whole
from pdjax.train.loop import Adapt, ByReplica, Job, Kept, train
from pdjax.train.replicas import Sweep, place_hyperparameters
from pdjax.train.state import init_state
from pdjax.types import Params

logger = logging.getLogger("pdjax")


def train_students(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Trains the students of every budget and strategy, skipping those that are done.

    Of their kept checkpoints, those that are gone are computed again.

    Raises:
      UserError: there is no finished teacher, or a curriculum asks for a checkpoint that is not stored.
    """
    require_whole(experiment, workdir)
    trajectory = open_trajectory(experiment, workdir)
    try:
        runs = plan_runs(experiment, workdir, trajectory)
        pending = [run for run in runs if not is_done(run_directory(workdir, run[1]), run[1])]
        lost = {description.name: _lost(experiment, workdir, description) for _, description in runs}
        incomplete = [run for run in runs if run in pending or lost[run[1].name]]
        meet("what students have left has been seen")
        replicas = sum(len(description.replicas) for _, description in runs)
        logger.info("students: %d of %d runs to do, of %d replicas in all", len(pending), len(runs), replicas)
        sweep_of = functools.cache(
            lambda replicas, part: compiled(experiment, student_program(experiment, replicas, part))
        )
        # Of all runs, done ones too: a resumed stage stacks the same checkpoints and has tables of the same length.
        descriptions = [description for _, description in runs]
        if experiment.placement.residency == "cached":
            source_of = functools.partial(cached_source, experiment, workdir, trajectory, interrupt)
        else:
            source_of = plan_sources(experiment, workdir, trajectory, descriptions)
        _announce_disk(experiment, workdir, [description for _, description in pending])
        with closing(Progress("students", sum(description.budget for _, description in runs))) as progress:
            progress.skip(sum(d.budget for _, d in runs) - sum(d.budget for _, d in pending))
            for strategy, description in incomplete:
                sweep = sweep_of(description.replicas, strategy.part)
                # Neither reads checkpoints yet: a run opens its source, and adaptive strategies alone need the stack.
                open_source = functools.partial(source_of, description, sweep)
                teachers = functools.partial(stack, trajectory, description.teacher_steps, teacher_shape(experiment))
                adapt = adaptation(experiment, strategy, teachers, len(description.teacher_steps))
                job = _job(experiment, description, sweep, open_source, adapt)
                _train(experiment, workdir, job, lost[description.name], interrupt, progress)
    finally:
        trajectory.close()


def open_checkpoints(workdir: Path, description: RunDescription) -> CheckpointStore:
    """Opens the kept checkpoints of a student run; each holds the parameters of all replicas, stacked."""
    return CheckpointStore(run_directory(workdir, description) / "trajectory", {"run": description.identity})


def kept_steps(experiment: Experiment, description: RunDescription) -> Kept:
    """Returns at which steps a student run is kept."""
    every = experiment.student_training.checkpoint_every
    return Kept(() if every is None else range(every, description.budget + 1, every))


def _lost(experiment: Experiment, workdir: Path, description: RunDescription) -> tuple[int, ...]:
    """Returns the steps of checkpoints that a run has kept and that are gone."""
    kept, directory = kept_steps(experiment, description), run_directory(workdir, description)
    if not kept.candidates or not (directory / "run.json").exists():
        return ()
    with closing(open_checkpoints(workdir, description)) as store:
        return lost_checkpoints(directory, description, kept, [store])


def students_shape(experiment: Experiment, count: int) -> Params:
    """Returns the stacked parameters of so many students as shapes."""
    # What is kept are the models without what a loss trains besides: their shapes are those of students of the labels.
    program = student_program(experiment, student_replicas(experiment)).program
    return jax.eval_shape(functools.partial(init_state, program), jax.ShapeDtypeStruct((count,), jnp.int32)).params


def untrained_students(experiment: Experiment, description: RunDescription) -> Params:
    """Returns the stacked parameters that the students of a run begin with."""
    # Seeds alone say what students begin with, whatever their losses.
    program = student_program(experiment, student_replicas(experiment)).program
    seeds = jnp.array([replica.seed for replica in description.replicas], jnp.int32)
    return init_state(program, seeds).params


def kept_bytes(experiment: Experiment, budget: int, replicas: int) -> int:
    """Returns the bytes of disk that the kept checkpoints of a run take; 0 where none are kept."""
    every = experiment.student_training.checkpoint_every
    return 0 if every is None else int(SAFETY * (budget // every) * tree_bytes(students_shape(experiment, replicas)))


def _announce_disk(experiment: Experiment, workdir: Path, pending: Sequence[RunDescription]) -> None:
    """Says how much disk the kept checkpoints take, and refuses when it is not there."""
    if experiment.student_training.checkpoint_every is None:
        return
    needed = sum(kept_bytes(experiment, run.budget, len(run.replicas)) for run in pending)
    logger.info("students: their checkpoints take %.1f MB on disk", needed / 1e6)
    # Before any of them is trained, not in the middle of a run.
    require_space(workdir, needed, "the students' checkpoints")


def _train(
    experiment: Experiment, workdir: Path, job: Job, lost: Sequence[int], interrupt: Interrupt, progress: Progress
) -> None:
    """Trains a run unless it is done, keeping its checkpoints if the configuration says so."""
    description = job.description
    directory = run_directory(workdir, description)
    with ExitStack() as stack:
        if experiment.student_training.checkpoint_every is not None:
            store = stack.enter_context(closing(open_checkpoints(workdir, description)))

            def keep(step: int, params: Params, means: Mapping[str, ByReplica]) -> None:
                # One checkpoint holds all replicas, hence the mean over them.
                store.save(step, params, {name: float(values.mean()) for name, values in means.items()})

            job = dataclasses.replace(job, kept=kept_steps(experiment, description), keep=keep)
        if lost:
            recover(job, directory, lost, experiment.loop, interrupt)
        if not is_done(directory, description):
            train(job, directory, experiment.loop, interrupt, progress)


def _job(
    experiment: Experiment,
    description: RunDescription,
    sweep: Sweep,
    open_source: Callable[[], TeacherSource],
    adapt: Adapt | None,
) -> Job:
    return Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, description.replicas),
        open_source=open_source,
        data_seed=experiment.seed,
        evaluation_seed=experiment.seed,
        evaluate_every=experiment.evaluation.every,
        adapt=adapt,
    )
