"""The student stage: for every budget and strategy one run, whose replicas are seeds x learning rates."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pdjax import curriculum as curricula
from pdjax.config import Config, StrategyConfig, digest_of
from pdjax.curriculum import Curriculum
from pdjax.errors import UserError
from pdjax.interrupt import Interrupt
from pdjax.progress import Progress
from pdjax.records import RunDescription
from pdjax.residency import Lessons
from pdjax.saturation import saturation_starts
from pdjax.selection import Evidence, select
from pdjax.stages.lessons import plan_lessons
from pdjax.stages.programs import compiled, student_program, student_replicas
from pdjax.stages.selection import select_checkpoints
from pdjax.stages.teacher import open_trajectory
from pdjax.stages.workdir import is_done
from pdjax.store import CheckpointStore
from pdjax.sweep import Sweep, place_replicas
from pdjax.train import Adapt, Job, train

logger = logging.getLogger("pdjax")


def train_students(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Trains the students of every budget and strategy, skipping those that are done.

    Raises:
      UserError: there is no finished teacher, or a curriculum asks for a checkpoint that is not stored.
    """
    if not (workdir / "teacher" / "result.json").exists():
        raise UserError("a finished teacher", f"none in {workdir / 'teacher'}", "run --stage=teacher first")
    trajectory = open_trajectory(config, workdir)
    progress = Progress("students", sum(config.student_training.budgets) * len(config.strategies))
    try:
        runs = plan_runs(config, workdir, trajectory)
        pending = [run for run in runs if not is_done(_directory(workdir, run[1]), run[1])]
        logger.info(
            "students: %d of %d runs to do, %d replicas each", len(pending), len(runs), len(student_replicas(config))
        )
        sweep_of = functools.cache(lambda guided: compiled(config, student_program(config, guided)))
        lessons_of = plan_lessons(config, trajectory, [description for _, description in runs])
        progress.skip(sum(d.budget for _, d in runs) - sum(d.budget for _, d in pending))
        for strategy, description in pending:
            sweep = sweep_of(strategy.schedule != "labels")
            open_lessons = functools.partial(lessons_of, description, sweep)
            job = _job(config, strategy, description, sweep, open_lessons)
            train(job, _directory(workdir, description), config.loop, interrupt, progress)
    finally:
        progress.close()
        trajectory.close()


def check_curricula(config: Config, stored: Sequence[int]) -> None:
    """Checks all curricula that can be known before the teacher is trained, which may take days.

    Args:
      config: of the experiment.
      stored: the teacher steps that the trajectory holds, or will hold.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not among them, or does not fit a student's length.
    """
    for strategy, budget in itertools.product(config.strategies.values(), config.student_training.budgets):
        if strategy.selection.kind in ("final", "equal", "steps"):
            steps = select(strategy.selection, stored, Evidence(None, None, None)).teacher_steps
            table = build_curriculum(strategy, steps, stored[-1], budget)
            if table is not None:
                table.check_available(stored)


def plan_runs(
    config: Config, workdir: Path, trajectory: CheckpointStore
) -> list[tuple[StrategyConfig, RunDescription]]:
    """Chooses the checkpoints (writing ``selection.json``) and describes all runs, in their order.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not stored, or does not fit the student's length.
    """
    selections = select_checkpoints(config, workdir, trajectory.steps())
    teacher_length = trajectory.steps()[-1]
    runs = []
    for budget, (name, strategy) in itertools.product(
        sorted(config.student_training.budgets), config.strategies.items()
    ):
        steps = selections[name].teacher_steps
        table = build_curriculum(strategy, steps, teacher_length, budget)
        if table is not None:
            table.check_available(trajectory.steps())
        adaptive = strategy.schedule == "till_saturate"
        description = RunDescription(
            role="student",
            name=f"{name}-{budget}",
            strategy=name,
            budget=budget,
            replicas=student_replicas(config),
            starts=table.starts if table is not None else (),
            teacher_steps=tuple(steps) if adaptive else table.teacher_steps if table is not None else (),
            identity="",
        )
        identity = _identity(config, strategy, description, trajectory)
        runs.append((strategy, dataclasses.replace(description, identity=identity)))
    return runs


def build_curriculum(
    strategy: StrategyConfig, teacher_steps: Sequence[int], teacher_length: int, budget: int
) -> Curriculum | None:
    """Returns the table of a strategy for a student of ``budget`` steps; None for labels only."""
    match strategy.schedule:
        case "labels":
            return None
        case "one_shot":
            return curricula.one_shot(teacher_length)
        case "fixed_duration":
            assert strategy.duration is not None  # the config requires it
            return curricula.fixed_duration(teacher_steps, strategy.duration)
        case "equal_split":
            return curricula.equal_split(teacher_steps, budget)
        case "teacher_split":
            assert strategy.kappa is not None  # the config requires it
            return curricula.teacher_split(teacher_steps, teacher_length, strategy.kappa, budget)
        case "till_saturate":
            return Curriculum((0,), (teacher_steps[0],))  # its first row; the others follow from the evaluations


def _identity(
    config: Config, strategy: StrategyConfig, description: RunDescription, trajectory: CheckpointStore
) -> str:
    """Digest of all that determines a run's results: its settings, and the very arrays of its teachers."""
    whole = config.as_dict()
    settings = {key: whole[key] for key in ("seed", "task", "student", "evaluation")}
    training = {k: v for k, v in whole["student_training"].items() if k != "budgets"}
    teachers = [trajectory.digest(step) for step in description.teacher_steps]
    return digest_of(
        {**settings, "training": training, "teachers": teachers, "run": dataclasses.asdict(description)}
        | {key: dataclasses.asdict(strategy)[key] for key in ("temperature", "label_weight", "saturation")}
    )


def _job(
    config: Config,
    strategy: StrategyConfig,
    description: RunDescription,
    sweep: Sweep,
    open_lessons: Callable[[], Lessons],
) -> Job:
    replicas = description.replicas
    return Job(
        description=description,
        sweep=sweep,
        replicas=place_replicas(
            sweep.mesh,
            seeds=[replica.seed for replica in replicas],
            learning_rates=[replica.learning_rate for replica in replicas],
            temperatures=[strategy.temperature] * len(replicas),
            label_weights=[strategy.label_weight] * len(replicas),
        ),
        open_lessons=open_lessons,
        data_seed=config.seed,
        evaluation_seed=config.seed,
        evaluate_every=config.evaluation.every,
        adapt=_policy(strategy, len(description.teacher_steps)),
    )


def _policy(strategy: StrategyConfig, num_checkpoints: int) -> Adapt | None:
    """Returns how an adaptive strategy goes on; None for one whose curriculum is fixed."""
    rule = strategy.saturation
    if strategy.schedule != "till_saturate" or rule is None:
        return None
    return lambda steps, accuracy: [
        saturation_starts(rule, num_checkpoints, steps, column) for column in np.stack(accuracy, axis=1).tolist()
    ]


def _directory(workdir: Path, description: RunDescription) -> Path:
    return workdir / "students" / description.name
