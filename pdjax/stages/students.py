"""The student stage: trains the students of every run (see ``pdjax.stages.runs``) and keeps their checkpoints."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.experiment import Experiment
from pdjax.io.processes import meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_description
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt
from pdjax.io.store import CheckpointStore, disk_bytes
from pdjax.io.store import stack as stack_checkpoints
from pdjax.io.teacher_source import TeacherSource
from pdjax.io.workdir import is_done
from pdjax.settings import plain
from pdjax.stages.adaptive import adaptation
from pdjax.stages.caching import cached_source
from pdjax.stages.programs import compiled, student_program, student_replicas, teacher_shape
from pdjax.stages.recovery import lost_checkpoints, recover
from pdjax.stages.runs import plan_runs, run_directory
from pdjax.stages.sources import Sources
from pdjax.stages.teacher import open_trajectory, require_whole
from pdjax.stages.together import Group, again, groups_of
from pdjax.train.loop import ByReplica, Job, Kept, train_together
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
        runs = [description for _, description in plan_runs(experiment, workdir, trajectory)]
        pending = [run for run in runs if not is_done(run_directory(workdir, run), run)]
        lost = {run: steps for run in runs if (steps := _lost(experiment, workdir, run))}
        meet("what students have left has been seen")
        _renew(workdir, [run for run in runs if run not in pending])
        replicas = sum(len(run.replicas) for run in runs)
        logger.info("students: %d of %d runs to do, of %d replicas in all", len(pending), len(runs), replicas)
        # Of all runs, done ones too: a resumed stage stacks the same checkpoints and has tables of the same length.
        open_source, stacked = _sources(experiment, workdir, trajectory, runs, interrupt)
        jobs_of = functools.partial(_jobs, experiment, workdir, trajectory, open_source)
        with closing(Progress("students", sum(run.budget for run in runs))) as progress:
            progress.skip(sum(run.budget for run in runs) - sum(run.budget for run in pending))
            for run, steps in lost.items():
                with ExitStack() as stack:
                    jobs = {
                        job.description.name: job for job, _ in jobs_of(again(experiment, workdir, runs, run), stack)
                    }
                    mine = jobs.pop(run.name)
                    recover(mine, run_directory(workdir, run), steps, experiment.loop, interrupt, list(jobs.values()))
            for group in groups_of(experiment, workdir, pending, stacked):
                with ExitStack() as stack:
                    train_together(jobs_of(group, stack), experiment.loop, interrupt, progress)
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


def _renew(workdir: Path, done: Sequence[RunDescription]) -> None:
    """Writes of finished runs which strategies' students they are: some may have been asked for since."""
    for run in done:
        directory = run_directory(workdir, run)
        recorded = read_description(directory)
        if recorded.strategies != run.strategies:
            write_json(directory / "run.json", plain(dataclasses.replace(recorded, strategies=run.strategies)))


def students_shape(experiment: Experiment, count: int) -> Params:
    """Returns the stacked parameters of so many students as shapes."""
    # What is kept are the models without what a loss trains besides: their shapes are those of students of the labels.
    program = student_program(experiment, student_replicas(experiment)).program
    return jax.eval_shape(functools.partial(init_state, program), jax.ShapeDtypeStruct((count,), jnp.int32)).params


def untrained_students(experiment: Experiment, description: RunDescription) -> Params:
    """Returns the stacked parameters that the students of a run begin with."""
    # Seeds alone say what students begin with, whatever their losses: each once, so that runs share one program.
    program = student_program(experiment, student_replicas(experiment)).program
    seeds = sorted({replica.seed for replica in description.replicas})
    params = jax.device_get(init_state(program, jnp.array(seeds, jnp.int32)).params)
    rows = np.array([seeds.index(replica.seed) for replica in description.replicas])
    return jax.tree.map(lambda leaf: leaf[rows], params)


def kept_bytes(experiment: Experiment, budget: int, replicas: int) -> int:
    """Returns the bytes of disk that the kept checkpoints of a run take; 0 where none are kept."""
    every = experiment.student_training.checkpoint_every
    return 0 if every is None else (budget // every) * disk_bytes(students_shape(experiment, replicas))


def _sources(
    experiment: Experiment,
    workdir: Path,
    trajectory: CheckpointStore,
    runs: Sequence[RunDescription],
    interrupt: Interrupt,
) -> tuple[Callable[[Group[RunDescription], Sweep], TeacherSource], bool]:
    """Returns how groups of runs get their checkpoints, and whether all of these are on the device at once."""
    if experiment.placement.residency != "cached":
        sources = Sources(experiment, workdir, trajectory, runs)
        return sources.open, sources.stacked

    def cached(group: Group[RunDescription], sweep: Sweep) -> TeacherSource:
        (run,) = group.runs
        return cached_source(experiment, workdir, trajectory, interrupt, run, sweep)

    return cached, False


def _jobs(
    experiment: Experiment,
    workdir: Path,
    trajectory: CheckpointStore,
    open_source: Callable[[Group[RunDescription], Sweep], TeacherSource],
    group: Group[RunDescription],
    stack: ExitStack,
) -> list[tuple[Job, Path]]:
    """Returns the jobs of a group with their directories; the stack closes the stores of what they keep."""
    strategy = experiment.strategy(group.runs[0].strategies[0])
    names = group.began or tuple(run.name for run in group.runs)
    partners = names if len(names) > 1 else ()
    sweep = compiled(experiment, student_program(experiment, group.replicas, strategy.part))
    shared = Job(
        description=dataclasses.replace(group.runs[0], together=partners),
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, group.replicas),
        # Reads no checkpoint yet: a run opens its source.
        open_source=functools.partial(open_source, group, sweep),
        data_seed=experiment.seed,
        evaluation_seed=experiment.seed,
        evaluate_every=experiment.evaluation.every,
        configuration=plain(experiment),
    )
    if len(group.runs) == 1:
        steps = group.runs[0].teacher_steps
        # Adaptive strategies alone need the stack.
        teachers = functools.partial(stack_checkpoints, trajectory, steps, teacher_shape(experiment))
        job = dataclasses.replace(shared, adapt=adaptation(experiment, strategy, teachers, len(steps)))
        return [(_keeping(experiment, workdir, job, stack), run_directory(workdir, job.description))]
    jobs = []
    for run in group.runs:
        job = dataclasses.replace(shared, description=dataclasses.replace(run, together=partners), rows=group.rows(run))
        jobs.append((_keeping(experiment, workdir, job, stack), run_directory(workdir, run)))
    return jobs


def _keeping(experiment: Experiment, workdir: Path, job: Job, stack: ExitStack) -> Job:
    """Returns a job that keeps its checkpoints, if the configuration says so."""
    if experiment.student_training.checkpoint_every is None:
        return job
    store = stack.enter_context(closing(open_checkpoints(workdir, job.description)))

    def keep(step: int, params: Params, means: Mapping[str, ByReplica]) -> None:
        # One checkpoint holds all replicas, hence the mean over them.
        store.save(step, params, {name: float(values.mean()) for name, values in means.items()})

    return dataclasses.replace(job, kept=kept_steps(experiment, job.description), keep=keep)
