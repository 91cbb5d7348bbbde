"""Our claim about the automatic selection of checkpoints."""

from collections.abc import Sequence

from pdjax.report.claims.claim import OURS, SMALLEST_MARGIN, Absent, Case, Claim, decided, margin
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import NO_SEARCH, Search, automatic_strategies, chosen_steps, searches
from pdjax.report.stats import Interval

FEWEST_PLACES = 4
"""First checkpoints in a search; with fewer nearly every choice is the best."""


def measure(results: Results) -> list[Case] | Absent:
    """Looks for the automatic choice in every search, learning rate and budget."""
    automatic = automatic_strategies(results)
    if not automatic:
        return Absent("no strategy has one intermediate checkpoint that was chosen automatically")
    return [_case(results, search, automatic) for search in searches(results)] or Absent(NO_SEARCH)


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
    f"seed, is the regret. The claim holds if {SMALLEST_MARGIN} minus the regret has a 95% Student t interval above 0, "
    "fails if it lies below 0, and is undecided otherwise. It is not tested with fewer than 4 first checkpoints, or "
    "while one is unfinished. The best of many is the best by chance too: the regret is overestimated.",
    smallest=SMALLEST_MARGIN,
    figure="first_checkpoints",
    measure=measure,
)
