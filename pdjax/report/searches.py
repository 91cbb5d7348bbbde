"""Exhaustive searches for the best first checkpoint of (2, T) distillation (figure 4 right)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

from pdjax.distill.losses import Loss
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Auto, Steps
from pdjax.experiment import Comparison
from pdjax.report.groups import Group
from pdjax.report.results import Results

NO_SEARCH = "there is no search for the best first checkpoint whose checkpoints are chosen"
"""Why claims about searches say nothing."""


class Series(NamedTuple):
    """What strategies of a search differ in besides the first checkpoint."""

    duration: int  # T, student steps
    loss: Loss

    @property
    def order(self) -> tuple[float | str, ...]:
        """What series are sorted by: T, then the loss and its numbers."""
        return (self.duration, type(self.loss).__name__, *map(str, self.loss.numbers.values()))


@dataclasses.dataclass(frozen=True)
class Search:
    """Students of (2, T) strategies that differ in the first checkpoint and in T, with one budget and learning rate."""

    key: str  # of the comparison
    name: str  # of what is decided: the comparison, the budget, and the learning rate where there are several
    comparison: Comparison
    learning_rate: float | None
    budget: int  # steps
    groups: Mapping[tuple[int, Series], Group | None]  # by first checkpoint (teacher step), increasing; None: not done
    grid: tuple[int, ...]  # the first checkpoints that were given; others are chosen by what the training shows

    @property
    def firsts(self) -> tuple[int, ...]:
        """All first checkpoints, increasing."""
        return tuple(dict.fromkeys(first for first, _ in self.groups))

    @property
    def series(self) -> tuple[Series, ...]:
        """All series, in increasing order of T."""
        return tuple(sorted({series for _, series in self.groups}, key=lambda series: series.order))

    @functools.cached_property
    def best(self) -> Mapping[int, Group | None]:
        """The group of the best T by mean final accuracy of each first checkpoint; None if one T is unfinished."""
        best: dict[int, Group | None] = {}
        for first in self.firsts:
            groups = [group for (step, _), group in self.groups.items() if step == first]
            finished = [group for group in groups if group is not None]
            complete = len(finished) == len(groups)
            best[first] = max(finished, key=lambda group: float(group.final().mean())) if complete else None
        return best

    @property
    def winner(self) -> int | None:
        """The first checkpoint of the grid with the highest mean final accuracy; None while one is unfinished."""
        best = {first: self.best[first] for first in self.grid}
        means = {first: float(group.final().mean()) for first, group in best.items() if group is not None}
        return max(means, key=lambda first: means[first]) if means and len(means) == len(best) else None

    def places_apart(self, a: int, b: int) -> int:
        """Returns how many places of the grid lie from one teacher step to another, which may lie between places.

        Neighbours are one place apart, and so are a checkpoint between two places and each of these.
        """
        low, high = sorted((a, b))
        return max(sum(low < g <= high for g in self.grid), sum(low <= g < high for g in self.grid))

    def distance(self, a: int, b: int) -> str:
        """Says how many places apart two teacher steps are."""
        apart = self.places_apart(a, b)
        return "1 place" if apart == 1 else f"{apart} places"


class OfTeacher(NamedTuple):
    """A teacher's results, and a search among its students."""

    results: Results
    search: Search


def by_teacher(results: Results) -> dict[str, dict[int, OfTeacher]]:
    """Returns the searches of each teacher alone, by name and the teacher's seed."""
    found: dict[str, dict[int, OfTeacher]] = {}
    for seed, one in results.with_students.items():
        for search in searches(one):
            found.setdefault(search.name, {})[seed] = OfTeacher(one, search)
    return found


def unfinished_teachers(results: Results) -> str:
    """Says which teachers' searches are not finished; nothing where all are."""
    waiting = {*results.awaited}
    for searched in by_teacher(results).values():
        waiting |= {seed for seed, of in searched.items() if of.search.winner is None}
        waiting |= {*results.with_students} - {*searched}
    return f"unfinished for the teachers {', '.join(map(str, sorted(waiting)))}" if waiting else ""


def searches(results: Results) -> list[Search]:
    """Returns the searches that the configuration asks for and whose checkpoints are chosen.

    Of several teachers a search has the checkpoints that were given; those that were found are others for each.
    """
    all_searches = []
    for key, comparison in results.comparisons.items():
        members = _members(results, comparison) if comparison.kind == "first_checkpoints" else {}
        given = {key: cell for key, cell in members.items() if isinstance(results.strategies[key].selection, Steps)}
        if results.experiment.further_teachers:
            members = given  # what is found in a teacher's training is another checkpoint for each
        for rate in results.learning_rates:
            for budget in results.budgets:
                groups: dict[tuple[int, Series], Group | None] = {}
                for strategy, cell in sorted(members.items(), key=lambda item: (item[1][0], item[1][1].order)):
                    if results.asks(strategy, budget) and groups.get(cell) is None:
                        groups[cell] = results.finished(strategy, rate, budget)
                grid = tuple(sorted({first for k, (first, _) in given.items() if results.asks(k, budget)}))
                if grid:
                    of_rate = f", learning rate {rate}" if len(results.learning_rates) > 1 else ""
                    name = f"{comparison.title}, {budget:,} steps{of_rate}"
                    all_searches.append(Search(key, name, comparison, rate, budget, groups, grid))
    return all_searches


def chosen_steps(results: Results, strategy: str) -> tuple[int, ...]:
    """Returns the teacher steps that were chosen for a strategy; none are while nothing is recorded."""
    return () if results.selection is None else results.selection.steps(strategy)


def automatic_strategies(results: Results) -> list[str]:
    """Returns the strategies with one checkpoint, and the final one, that the automatic selection chose."""
    chosen = [key for key, strategy in results.strategies.items() if isinstance(strategy.selection, Auto)]
    return [key for key in chosen if len(chosen_steps(results, key)) == 2]


def _members(results: Results, comparison: Comparison) -> dict[str, tuple[int, Series]]:
    """Returns checkpoint and series of a comparison's strategies that have one intermediate checkpoint for T steps."""
    members = {}
    for key in comparison.strategies:
        strategy, steps = results.strategies[key], chosen_steps(results, key)
        if strategy.is_partial or not strategy.loss.asks_teacher or len(steps) != 2:
            continue
        if isinstance(strategy.schedule, FixedDuration):
            members[key] = steps[0], Series(strategy.schedule.duration, strategy.loss)
    return members


def turn_name(results: Results) -> str:
    """Names what was found of M_robust: a peak, or its fastest rise where it never falls; empty if nothing was."""
    peak = None if results.selection is None else results.selection.robust_peak
    return "" if peak is None else "peak" if peak.peaked else "fastest rise"
