"""The protocol of a study: strategies are tuned on some seeds, and compared at their best on others.

``tuning`` chooses each strategy's learning rate, T and κ by the students of one teacher; ``study`` compares strategies
at what was chosen, over teachers that nobody has looked at. Both take task, models and teachers from an experiment.
"""

import dataclasses
from collections.abc import Sequence

from pdjax.distill.strategy import Strategy
from pdjax.errors import require
from pdjax.experiment import Experiment, Probes, Tuning

GRID = Tuning()
"""How far learning rates are searched."""

FEWEST_TEACHERS = 5
"""Of a study: with fewer, intervals over teachers say little."""


FEWEST_COUNTED = 6
"""Of a study of a task that is learned or not: five pairs decide nothing, whatever comes out."""


def tuning(
    experiment: Experiment,
    strategies: Sequence[Strategy],
    *,
    teacher: int,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    grid: Tuning = GRID,
) -> Experiment:
    """Returns the experiment that tunes strategies, all for its longest budget (section D.6).

    Args:
      experiment: whose task, models and teachers are taken.
      strategies: those that differ in T or κ alone are one, of which the best is chosen.
      teacher: its seed.
      seeds: of the students.
      learning_rates: that are tried first.
      grid: how far further ones are.
    """
    chosen = tuple(dataclasses.replace(strategy, budgets=None, learning_rate=None) for strategy in strategies)
    needed = {strategy.selection.measured_by for strategy in chosen}
    measured = tuple(probe for probe in experiment.probes.measured if probe.name in needed)
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-tune",
        seed=teacher,
        further_teachers=(),
        teacher_training=dataclasses.replace(experiment.teacher_training, seed=teacher, extra_seeds=()),
        student_training=dataclasses.replace(
            experiment.student_training,
            seeds=tuple(seeds),
            learning_rates=tuple(learning_rates),
            budgets=experiment.budgets[-1:],
            checkpoint_every=None,
        ),
        strategies=chosen,
        tuning=grid,
        comparisons=(),
        probes=Probes(measured, seed=experiment.probes.seed),
        sizes=None,
        ablations=(),
        remarks={},
    )


def study(
    experiment: Experiment, strategies: Sequence[Strategy], *, teachers: Sequence[int], seeds: Sequence[int]
) -> Experiment:
    """Returns the experiment that compares strategies over teachers, each with students of its own.

    Args:
      experiment: whose task, models, teachers, probes and comparisons are taken.
      strategies: with the learning rate, T and κ that were chosen for each.
      teachers: their seeds, none of which has been looked at.
      seeds: of the students of the first teacher; all others have as many.

    Raises:
      UserError: there are fewer teachers than can decide anything.
    """
    fewest = FEWEST_TEACHERS if experiment.task.learned is None else FEWEST_COUNTED
    require(
        len(teachers) >= fewest,
        f"at least {fewest} teachers, over which a study averages",
        teachers,
        "add some",
    )
    known = {strategy.name for strategy in strategies}
    comparisons = [
        dataclasses.replace(one, strategies=tuple(name for name in one.strategies if name in known))
        for one in experiment.comparisons
        if len({*one.strategies} & known) > 1
    ]
    probed = tuple(name for name in experiment.probes.students if name in known)
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-study",
        seed=teachers[0],
        further_teachers=tuple(teachers[1:]),
        teacher_training=dataclasses.replace(experiment.teacher_training, seed=teachers[0], extra_seeds=()),
        student_training=dataclasses.replace(experiment.student_training, seeds=tuple(seeds)),
        strategies=tuple(strategies),
        comparisons=tuple(comparisons),
        probes=dataclasses.replace(experiment.probes, students=probed),
        sizes=None,
        ablations=(),
        remarks={},
    )
