"""Claim H: how many checkpoints a student of a hierarchy of features needs."""

import itertools
from collections.abc import Sequence

import pandas as pd

from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Transition
from pdjax.report.claims.claim import Absent, Case, Claim, decided, margin, measured
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import chosen_steps

TOLERANCE = 0.02
"""Accuracy that a student who has learned the task may still miss."""


def measure(results: Results) -> list[Case] | Absent:
    """Compares strategies with one and with two intermediate checkpoints, for every learning rate and budget."""
    if len(getattr(results.experiment.task, "levels", ())) < 2:
        return Absent("the task has no hierarchy of features")
    accuracies = {seed: one.teacher_accuracy for seed, one in results.with_students.items()}
    if not accuracies or None in accuracies.values():
        return Absent("the teacher’s final accuracy is not known yet")
    # Each student is compared with its own teacher.
    known = pd.Series(accuracies, dtype=float).rename_axis("teacher")
    teacher = known if results.experiment.further_teachers else float(known.iloc[0])
    places = itertools.product(results.learning_rates, results.budgets)
    return [_case(results, *place, teacher) for place in places]


def _case(results: Results, rate: float | None, budget: int, teacher: pd.Series | float) -> Case:
    name = f"{budget:,} steps" + (f", learning rate {rate}" if len(results.learning_rates) > 1 else "")
    one, two = (_finished(results, rate, budget, inside) for inside in (1, 2))
    if not (one and two):
        return Case(name, (), "not tested", "needs finished strategies with one and with two checkpoints inside")
    best = max(two, key=lambda group: float(group.final().mean()))
    suffices = measured(
        f"{results.labels[best.strategy]}: accuracy over what suffices", best.final() - teacher + TOLERANCE
    )
    short = [
        measured(f"{results.labels[group.strategy]}: what it lacks to suffice", teacher - TOLERANCE - group.final())
        for group in one
    ]
    margins = [margin(f"best of two minus {results.labels[group.strategy]}", best, group) for group in one]
    return decided(name, (suffices, *short, *margins))


def _finished(results: Results, rate: float | None, budget: int, inside: int) -> Sequence[Group]:
    """Returns the groups of fixed durations with so many checkpoints inside; none while one is unfinished."""
    groups = [
        results.finished(key, rate, budget)
        for key, strategy in results.strategies.items()
        if isinstance(strategy.schedule, FixedDuration)
        and all(_inside(one, key) == inside for one in results.with_students.values())
    ]
    finished = [group for group in groups if group is not None]
    return finished if len(finished) == len(groups) else ()


def _inside(results: Results, key: str) -> int:
    """Returns how many intermediate checkpoints of a strategy lie inside the transition, not at its start or end."""
    selection = results.strategies[key].selection
    if isinstance(selection, Transition):  # whose points may be one checkpoint
        return int("middle" in selection.at and len(chosen_steps(results, key)) > 1)
    return len(chosen_steps(results, key)) - 1


H = Claim(
    name="H",
    text="Hierarchical parity: one intermediate checkpoint does not suffice, two inside the transition do.",
    source="figures 15 and 17 to 19",
    rule="A strategy suffices if its students’ final held-out accuracy is within 0.02 of the teacher’s. The claim "
    "holds if 95% Student t intervals lie above 0 of all these: what the best strategy with two intermediate "
    "checkpoints has above that, what each strategy with one lacks to it, and the paired margins between them. Those "
    "with a second one from the transition’s start or end, which is outside, have one. It "
    "fails if one lies below 0, and is undecided otherwise. The best of several is the best by chance too: its "
    "interval is not corrected for that.",
    smallest=TOLERANCE,
    figure="training_",
    measure=measure,
)
