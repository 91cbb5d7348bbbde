"""The protocol of a study: strategies are tuned on some seeds, and compared at their best on others.

``tuning`` chooses each strategy's learning rate, and its T or κ, by the students of one teacher; ``study`` compares
strategies at what was chosen, over teachers that nobody has looked at. Both take task, models, teachers and strategies
from an experiment, and the rest from a ``Plan``, which is to be fixed before any of its seeds is run.

A configuration file asks for them by name: ``STAGES["tune"](experiment, plan)`` behind ``:tune``, and so on.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from pdjax.distill.schedules import Schedule
from pdjax.distill.strategy import Strategy
from pdjax.errors import require
from pdjax.experiment import Experiment, Probes, Tuning

FEWEST_TEACHERS = 5
"""Of a study: with fewer, intervals over teachers say little."""


FEWEST_COUNTED = 6
"""Of a study of a task that is learned or not: five pairs decide nothing, whatever comes out."""


class Best(NamedTuple):
    """What a strategy is compared at."""

    learning_rate: float
    schedule: Schedule | None = None  # None: that of the experiment


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an experiment is tuned and studied."""

    rates: tuple[float, ...]  # that are tried first, of every strategy
    schedules: Mapping[str, tuple[Schedule, ...]]  # that are tried of a strategy; of others theirs alone
    tuned: tuple[str, ...]  # the strategies that are
    teachers: tuple[int, ...]  # seeds of a study's, which nobody has looked at
    students: tuple[int, ...]  # seeds of its first teacher's; all others have as many
    controls: tuple[str, ...] = ()  # strategies that a study compares beside those that were tuned
    tuning_teacher: int = 100  # seed
    tuning_students: tuple[int, ...] = (100, 101, 102, 103, 104)  # seeds
    grid: Tuning = Tuning()  # how far further learning rates are
    best: Mapping[str, Best] = dataclasses.field(default_factory=dict)  # chosen; others are compared at defaults


def tuning(experiment: Experiment, plan: Plan) -> Experiment:
    """Returns the experiment that tunes strategies, all for its longest budget (section D.6).

    A strategy with several schedules becomes one for each, its place among them behind the name: of these the best is
    chosen.
    """
    strategies = [
        dataclasses.replace(one, budgets=None) for name in plan.tuned for one in _tried(experiment.strategy(name), plan)
    ]
    needed = {strategy.selection.measured_by for strategy in strategies}
    measured = tuple(probe for probe in experiment.probes.measured if probe.name in needed)
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-tune",
        seed=plan.tuning_teacher,
        further_teachers=(),
        teacher_training=dataclasses.replace(experiment.teacher_training, seed=plan.tuning_teacher, extra_seeds=()),
        student_training=dataclasses.replace(
            experiment.student_training,
            seeds=plan.tuning_students,
            learning_rates=plan.rates,
            budgets=experiment.budgets[-1:],
            checkpoint_every=None,
        ),
        strategies=tuple(strategies),
        tuning=plan.grid,
        comparisons=(),
        probes=Probes(measured, seed=experiment.probes.seed),
        sizes=None,
        ablations=(),
        remarks={},
    )


def _tried(strategy: Strategy, plan: Plan) -> Iterator[Strategy]:
    if strategy.name not in plan.schedules:
        yield strategy
    for place, schedule in enumerate(plan.schedules.get(strategy.name, ())):
        yield dataclasses.replace(strategy, name=f"{strategy.name}_{place}", schedule=schedule)


def study(experiment: Experiment, plan: Plan) -> Experiment:
    """Returns the experiment that compares strategies over teachers, each with students of its own.

    Students are not probed: what they depend on is no claim of a study.

    Raises:
      UserError: there are fewer teachers than can decide anything.
    """
    fewest = FEWEST_TEACHERS if experiment.task.learned is None else FEWEST_COUNTED
    require(
        len(plan.teachers) >= fewest,
        f"at least {fewest} teachers, over which a study averages",
        plan.teachers,
        "add some",
    )
    default = Best(experiment.student_training.learning_rates[0])
    compared = [
        _at(strategy, plan.best.get(strategy.name, default))
        for strategy in experiment.strategies
        if strategy.name in (*plan.tuned, *plan.controls)
    ]
    known = {strategy.name for strategy in compared}
    comparisons = [
        dataclasses.replace(one, strategies=tuple(name for name in one.strategies if name in known))
        for one in experiment.comparisons
        if len({*one.strategies} & known) > 1
    ]
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-study",
        seed=plan.teachers[0],
        further_teachers=plan.teachers[1:],
        teacher_training=dataclasses.replace(experiment.teacher_training, seed=plan.teachers[0], extra_seeds=()),
        student_training=dataclasses.replace(
            experiment.student_training,
            seeds=plan.students,
            learning_rates=experiment.student_training.learning_rates[:1],
            checkpoint_every=None,
        ),
        strategies=tuple(compared),
        comparisons=tuple(comparisons),
        probes=dataclasses.replace(experiment.probes, students=()),
        sizes=None,
        ablations=(),
        remarks={},
    )


def _at(strategy: Strategy, best: Best) -> Strategy:
    schedule = strategy.schedule if best.schedule is None else best.schedule
    return dataclasses.replace(strategy, learning_rate=best.learning_rate, schedule=schedule)


STAGES: dict[str, Callable[[Experiment, Plan], Experiment]] = {"tune": tuning, "study": study}
"""What a configuration file has behind the name of a size (``smoke-tune``, ``paper-study``, ...)."""
