"""Which runs the students of an experiment are: for every budget one for each curriculum, whatever its losses."""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdjax.distill.losses import Loss
from pdjax.distill.part import WHOLE, Part, Whole
from pdjax.distill.phases import Phases
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, digest_of
from pdjax.io.records import RunDescription, read_begun
from pdjax.io.store import CheckpointStore
from pdjax.settings import determining
from pdjax.stages.growing import grown
from pdjax.stages.selection import select_checkpoints
from pdjax.tasks.base import batch_shapes
from pdjax.train.replicas import Replica, product_of_replicas
from pdjax.train.state import outputs_of


class Course(NamedTuple):
    """What the students of a run learn from, whatever their losses: strategies of one course are one run."""

    starts: tuple[int, ...]  # of an adaptive curriculum the first alone; none without a teacher, or if not known yet
    teacher_steps: tuple[int, ...]
    rule: Hashable  # how an adaptive curriculum goes on, or how one that is not known yet will be found
    part: Part = WHOLE  # what of the intermediate checkpoints


class SharedRun(NamedTuple):
    """Strategies that are one run."""

    budget: int
    course: Course
    strategies: tuple[str, ...]
    replicas: tuple[Replica, ...]  # a block for each of their different losses


def run_directory(workdir: Path, description: RunDescription) -> Path:
    """Returns the directory of a student run."""
    return workdir / "students" / description.name


def asked_runs(experiment: Experiment) -> list[tuple[int, Strategy]]:
    """Returns the pairs of budget and strategy that the experiment asks for, by budget."""
    pairs = itertools.product(experiment.budgets, experiment.strategies)
    return [(budget, strategy) for budget, strategy in pairs if experiment.asks(strategy, budget)]


def foresee_runs(experiment: Experiment, stored: Sequence[int]) -> list[SharedRun]:
    """Groups the strategies into runs as far as that can be known before the teacher is trained, which may take days.

    Where the teacher's training decides about checkpoints, strategies are one run if they find them in the same way.
    Some may turn out to have the curriculum of others: runs and replicas are then fewer than these, never more.

    Args:
      experiment: whose runs.
      stored: the teacher steps that the trajectory holds, or will hold.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not among them, or does not fit a student's length; a loss
        asks for what the models do not say.
    """
    _check_losses(experiment)

    def course_of(strategy: Strategy, budget: int) -> Course:
        if not strategy.loss.asks_teacher:
            # Whatever their strategy selects: it may be a copy of one with a teacher.
            return _course(strategy, (), stored, budget)
        if strategy.selection.is_given:
            # Selections whose checkpoints are given look at no phases.
            return _course(strategy, strategy.selection.select(stored, Phases()).teacher_steps, stored, budget)
        # Equal rules find equal checkpoints, whatever these are.
        return Course((), (), (strategy.schedule, strategy.selection), strategy.part)

    return _shared_runs(experiment, course_of)


def _check_losses(experiment: Experiment) -> None:
    """Shows losses that look at more than logits the shapes of what both models will say."""
    asked = {f"strategies.{strategy.name}.loss": strategy.loss for strategy in experiment.strategies}
    asked["teacher_training.loss"] = experiment.teacher_training.loss
    looking = {path: loss for path, loss in asked.items() if type(loss).check is not Loss.check}
    if not looking:
        return  # tracing both models takes a second
    inputs = batch_shapes(experiment.task, 1).inputs
    student, teacher = (outputs_of(a.build(experiment.task), inputs) for a in (experiment.student, experiment.teacher))
    for path, loss in looking.items():
        try:
            loss.check(teacher if path == "teacher_training.loss" else student, teacher)
        except UserError as error:
            raise error.within(f"config.{path}") from None


def plan_runs(
    experiment: Experiment, workdir: Path, trajectory: CheckpointStore
) -> list[tuple[Strategy, RunDescription]]:
    """Chooses the checkpoints (writing ``selection.json``) and describes all runs, in their order.

    The first strategy of a run by the alphabet names it, wherever the configuration writes it.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not stored, or does not fit the student's length.
    """
    available = trajectory.steps()
    chosen = select_checkpoints(experiment, workdir, available)

    def course_of(strategy: Strategy, budget: int) -> Course:
        steps = chosen[strategy.name].teacher_steps if strategy.name in chosen else ()
        return _course(strategy, steps, available, budget)

    root, runs = workdir / "students", []
    begun = read_begun(root, "*")
    for shared in _shared_runs(experiment, course_of):
        asked = RunDescription(
            role="student",
            name=f"{shared.strategies[0]}-{shared.budget}",
            strategies=shared.strategies,
            budget=shared.budget,
            replicas=shared.replicas,
            starts=shared.course.starts,
            teacher_steps=shared.course.teacher_steps,
            identity=_identity(experiment, shared, trajectory),
        )
        for run in grown(asked, begun, root):
            losses = {replica.loss for replica in run.replicas}
            names = tuple(name for name in shared.strategies if experiment.strategy(name).loss in losses)
            runs.append((experiment.strategy(names[0]), dataclasses.replace(run, strategies=names)))
    return runs


def _shared_runs(experiment: Experiment, course_of: Callable[[Strategy, int], Course]) -> list[SharedRun]:
    """Makes strategies of the same budget and course one run, each with its own loss."""
    members: dict[tuple[int, Course, Loss | None], list[str]] = {}
    for budget, strategy in asked_runs(experiment):
        # What a loss trains along with the student has its own shapes: such students are no members of one sweep.
        alone = strategy.loss.family if strategy.loss.has_params else None
        members.setdefault((budget, course_of(strategy, budget), alone), []).append(strategy.name)
    shared = []
    for (budget, course, _), unordered in members.items():
        # The order in which a configuration writes strategies neither names a run nor orders its replicas.
        names = sorted(unordered)
        replicas = _replicas(experiment, [experiment.strategy(name) for name in names])
        shared.append(SharedRun(budget, course, tuple(names), replicas))
    return shared


def _replicas(experiment: Experiment, strategies: Sequence[Strategy]) -> tuple[Replica, ...]:
    """Returns the replicas of strategies: for each of their losses every seed at every rate of it."""
    rates: dict[Loss, list[float]] = {}
    for strategy in strategies:
        rates.setdefault(strategy.loss, []).extend(experiment.rates(strategy))
    every = tuple(dict.fromkeys(itertools.chain(*rates.values())))
    product = product_of_replicas(experiment.student_training.seeds, every, tuple(rates))
    return tuple(replica for replica in product if replica.learning_rate in rates[replica.loss])


def _course(strategy: Strategy, steps: Sequence[int], available: Sequence[int], budget: int) -> Course:
    """Returns what students of a strategy learn from, whose selection found some of the available teacher steps."""
    if not strategy.loss.asks_teacher:
        return Course((), (), strategy.loss.family)
    table = strategy.schedule.curriculum(steps, available[-1], budget)
    table.check_available(available)
    # The table has its first row alone: what students go on by are the schedule and all the checkpoints.
    if strategy.is_adaptive:
        return Course(table.starts, tuple(steps), strategy.schedule)
    # Of the table, not of the selection: checkpoints that a short student never reaches are dropped (section D.2).
    return Course(table.starts, table.teacher_steps, None, strategy.part)


def _identity(experiment: Experiment, shared: SharedRun, trajectory: CheckpointStore) -> str:
    """Digest of all that determines the results of a run's replicas, whichever these are: settings, and teachers."""
    parts = experiment.determining("seed", "task", "student", "evaluation", "student_training")
    # A run has one budget, which is given, and its replicas have theirs: they are the same whatever others there are.
    for name in ("budgets", "seeds", "learning_rates"):
        parts["student_training"].pop(name, None)
    course = shared.course
    run = {"role": "student", "budget": shared.budget, "starts": course.starts, "teacher_steps": course.teacher_steps}
    # Steps do not tell teachers apart; the digests of their arrays do.
    teachers = [trajectory.digest(step) for step in course.teacher_steps]
    # Whole ones are not mentioned: runs have had identities before there were parts.
    parts |= {} if isinstance(course.part, Whole) else {"part": determining(course.part)}
    return digest_of({**parts, "teachers": teachers, "rule": determining(course.rule), "run": run})
