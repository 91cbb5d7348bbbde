"""Which runs the students of an experiment are: for every budget one for each curriculum, whatever its losses."""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdjax.config import Config, StrategyConfig, digest_of
from pdjax.distill import curriculum as curricula
from pdjax.distill.curriculum import Curriculum
from pdjax.distill.phases import Phases
from pdjax.distill.selection import select
from pdjax.io.records import Replica, RunDescription
from pdjax.io.store import CheckpointStore
from pdjax.stages.programs import student_replicas
from pdjax.stages.selection import select_checkpoints


class Course(NamedTuple):
    """What the students of a run learn from, whatever their losses: strategies of one course are one run."""

    starts: tuple[int, ...]  # of an adaptive curriculum the first alone; none without a teacher, or if not known yet
    teacher_steps: tuple[int, ...]
    rule: Hashable  # how an adaptive curriculum goes on, or how one that is not known yet will be found


class SharedRun(NamedTuple):
    """Strategies that are one run."""

    budget: int
    course: Course
    strategies: tuple[str, ...]
    replicas: tuple[Replica, ...]  # a block for each of their different losses


def asked_runs(config: Config) -> list[tuple[int, tuple[str, StrategyConfig]]]:
    """Returns the pairs of budget and strategy that the configuration asks for, by budget."""
    pairs = itertools.product(config.budgets, config.strategies.items())
    return [(budget, item) for budget, item in pairs if config.asks(item[0], budget)]


def foresee_runs(config: Config, stored: Sequence[int]) -> list[SharedRun]:
    """Groups the strategies into runs as far as that can be known before the teacher is trained, which may take days.

    Where the teacher's training decides about checkpoints, strategies are one run if they find them in the same way.
    Some may turn out to have the curriculum of others: runs and replicas are then fewer than these, never more.

    Args:
      config: of the experiment.
      stored: the teacher steps that the trajectory holds, or will hold.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not among them, or does not fit a student's length.
    """

    def course_of(name: str, budget: int) -> Course:
        strategy = config.strategies[name]
        if strategy.selection.is_given:
            steps = select(strategy.selection, stored, Phases()).teacher_steps
            return _course(strategy, steps, stored, budget)
        settings = (strategy.schedule, strategy.selection, strategy.duration, strategy.kappa)
        return Course((), (), (*settings, strategy.saturation, strategy.crossing))

    return _shared_runs(config, course_of)


def plan_runs(
    config: Config, workdir: Path, trajectory: CheckpointStore
) -> list[tuple[StrategyConfig, RunDescription]]:
    """Chooses the checkpoints (writing ``selection.json``) and describes all runs, in their order.

    The first strategy of a run by the alphabet names it, wherever the configuration writes it.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not stored, or does not fit the student's length.
    """
    available = trajectory.steps()
    selections = select_checkpoints(config, workdir, available)

    def course_of(name: str, budget: int) -> Course:
        return _course(config.strategies[name], selections[name].teacher_steps, available, budget)

    runs = []
    for shared in _shared_runs(config, course_of):
        description = RunDescription(
            role="student",
            name=f"{shared.strategies[0]}-{shared.budget}",
            strategies=shared.strategies,
            budget=shared.budget,
            replicas=shared.replicas,
            starts=shared.course.starts,
            teacher_steps=shared.course.teacher_steps,
            identity="",
        )
        strategy = config.strategies[shared.strategies[0]]
        identity = _identity(config, strategy, description, trajectory)
        runs.append((strategy, dataclasses.replace(description, identity=identity)))
    return runs


def _shared_runs(config: Config, course_of: Callable[[str, int], Course]) -> list[SharedRun]:
    """Makes strategies of the same budget and course one run, each with its own loss."""
    members: dict[tuple[int, Course], list[str]] = {}
    for budget, (name, _) in asked_runs(config):
        members.setdefault((budget, course_of(name, budget)), []).append(name)
    shared = []
    for (budget, course), unordered in members.items():
        names = sorted(unordered)
        losses = tuple(dict.fromkeys(config.strategies[name].loss for name in names))
        shared.append(SharedRun(budget, course, tuple(names), student_replicas(config, losses)))
    return shared


def _course(strategy: StrategyConfig, steps: Sequence[int], available: Sequence[int], budget: int) -> Course:
    """Returns what students of a strategy learn from, whose selection found some of the available teacher steps."""
    table = build_curriculum(strategy, steps, available[-1], budget)
    if table is None:
        return Course((), (), None)
    table.check_available(available)
    if strategy.is_adaptive:
        return Course(table.starts, tuple(steps), (strategy.schedule, strategy.saturation, strategy.crossing))
    return Course(table.starts, table.teacher_steps, None)


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
        case "till_saturate" | "till_robust":
            return Curriculum((0,), (teacher_steps[0],))  # its first row; the others follow from the evaluations


def _identity(
    config: Config, strategy: StrategyConfig, description: RunDescription, trajectory: CheckpointStore
) -> str:
    """Digest of all that determines a run's results: its settings, and the very arrays of its teachers."""
    fields = config.as_dict()
    settings = {key: fields[key] for key in ("seed", "task", "student", "evaluation")}
    training = {k: v for k, v in fields["student_training"].items() if k != "budgets"}
    teachers = [trajectory.digest(step) for step in description.teacher_steps]
    rules = {key: dataclasses.asdict(strategy)[key] for key in ("saturation", "crossing")}
    run = dataclasses.asdict(description)
    return digest_of({**settings, "training": training, "teachers": teachers, "run": run, **rules})
