"""Our claim about the automatic selection of checkpoints."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pdjax.report.claims.claim import OURS, SMALLEST_MARGIN, Absent, Case, Claim, decided, margin, measured
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import (
    NO_SEARCH,
    OfTeacher,
    Search,
    automatic_strategies,
    by_teacher,
    chosen_steps,
    searches,
    unfinished_teachers,
)
from pdjax.report.stats import Interval

FEWEST_PLACES = 4
"""First checkpoints in a search; with fewer nearly every choice is the best."""


def measure(results: Results) -> list[Case] | Absent:
    """Looks for the automatic choice in every search, learning rate and budget."""
    every = results.with_students.values()
    automatic = [key for one in every for key in automatic_strategies(one)]
    if not automatic:
        return Absent("no strategy has one intermediate checkpoint that was chosen automatically")
    if results.experiment.further_teachers:
        waiting = unfinished_teachers(results)
        return [_over_teachers(*found, waiting) for found in by_teacher(results).items()] or Absent(NO_SEARCH)
    return [_case(results, search, automatic) for search in searches(results)] or Absent(NO_SEARCH)


def _over_teachers(name: str, teachers: Mapping[int, OfTeacher], waiting: str) -> Case:
    """Returns the case of several teachers, each of which has a choice and a best checkpoint of its own."""
    lost, places = {}, [len(of.search.grid) for of in teachers.values()]
    if min(places) < FEWEST_PLACES:
        return Case(name, (), "not tested", f"{min(places)} first checkpoints, needs {FEWEST_PLACES}")
    if waiting:
        return Case(name, (), "not tested", waiting)
    for seed, (results, search) in teachers.items():
        automatic = automatic_strategies(results)
        winner = search.winner
        best = None if winner is None else search.best[winner]
        chosen = (
            _chosen_group(results, search, automatic, chosen_steps(results, automatic[0])[0]) if automatic else None
        )
        if best is None or chosen is None:
            return Case(name, (), "not tested", f"the choice is unfinished for teacher {seed}")
        lost[seed] = 0.0 if chosen.is_same(best) else float(chosen.final().mean() - best.final().mean())
    found = measured("chosen minus best", pd.Series(lost).rename_axis("teacher"))
    allowed = found._replace(quantity=f"{SMALLEST_MARGIN} minus the regret", interval=_shifted(found.interval))
    return decided(name, [allowed], shown=(found,))


def _case(results: Results, search: Search, automatic: Sequence[str]) -> Case:
    step, best, places = chosen_steps(results, automatic[0])[0], search.winner, len(search.grid)
    if places < FEWEST_PLACES:
        return Case(search.name, (), "not tested", f"{places} first checkpoints, needs {FEWEST_PLACES}")
    if best is None:
        return Case(search.name, (), "not tested", "the search is unfinished")
    chosen = _chosen_group(results, search, automatic, step)
    note = f"chosen: {step:,}, best: {best:,}, {search.distance(step, best)} apart in a grid of {places}"
    winner = search.best[best]
    if chosen is not None and winner is not None and chosen.is_same(winner):
        return Case(search.name, (), "holds", f"{note}: the same students")
    lost = margin(f"chosen ({step:,}) minus best ({best:,})", chosen, winner)
    allowed = lost._replace(quantity=f"{SMALLEST_MARGIN} minus the regret", interval=_shifted(lost.interval))
    return decided(search.name, [allowed], note=note, shown=(lost,))


def _shifted(found: Interval | None) -> Interval | None:
    if found is None:
        return None
    mean, low, high, size = found
    return Interval(mean + SMALLEST_MARGIN, low + SMALLEST_MARGIN, high + SMALLEST_MARGIN, size)


def _chosen_group(results: Results, search: Search, automatic: Sequence[str], step: int) -> Group | None:
    """Returns the best finished group with the automatically chosen checkpoint, in the search or outside of it."""
    inside = search.best.get(step)
    groups = [results.finished(key, search.learning_rate, search.budget) for key in automatic]
    finished = [group for group in (inside, *groups) if group is not None]
    return max(finished, key=lambda group: float(group.final().mean()), default=None)


AUTO = Claim(
    name="auto",
    text="The automatic selection chooses a first checkpoint of (2, T) distillation that is as good as the best one.",
    source=OURS,
    rule="The best first checkpoint is the one with the highest mean final held-out accuracy of an exhaustive search, "
    "with the best T of each. Its students’ accuracy minus that of the students of the chosen checkpoint, paired by "
    "seed, is the regret; of several teachers each has a choice and a best checkpoint of its own. The claim holds if "
    f"{SMALLEST_MARGIN} minus the regret has a 95% Student t interval above 0, fails if it lies below 0, and is "
    "undecided otherwise. It is not tested with fewer than 4 first checkpoints, or while one is unfinished. The best "
    "of many is the best by chance too: the regret is overestimated.",
    smallest=SMALLEST_MARGIN,
    figure="first_checkpoints",
    measure=measure,
)
