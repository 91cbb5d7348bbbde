"""Our claim about the automatic selection of checkpoints."""

from collections.abc import Sequence

from pdjax.findings import Verdict
from pdjax.report.claims.claim import OURS, Absent, Case, Claim, margin
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import NO_SEARCH, Search, automatic_strategies, chosen_steps, searches

FEWEST_PLACES = 4
"""First checkpoints in a search; with fewer nearly every choice is beside the best."""


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
    shown = margin(f"chosen ({step:,}) minus best ({best:,})", chosen, search.best[best])
    verdict: Verdict = "holds" if search.places_apart(step, best) <= 1 else "fails"
    note = f"chosen: {step:,}, best: {best:,}, {search.distance(step, best)} apart in a grid of {places}"
    return Case(search.name, (), verdict, note, (shown,))


def _chosen_group(results: Results, search: Search, automatic: Sequence[str], step: int) -> Group | None:
    """Returns the best finished group with the automatically chosen checkpoint, in the search or outside of it."""
    inside = search.best.get(step)
    groups = [results.finished(key, search.learning_rate, search.budget) for key in automatic]
    finished = [group for group in (inside, *groups) if group is not None]
    return max(finished, key=lambda group: float(group.final().mean()), default=None)


AUTO = Claim(
    name="auto",
    text="The automatic selection chooses the best first checkpoint of (2, T) distillation, or one beside it.",
    source=OURS,
    rule="The best first checkpoint is the one with the highest mean final held-out accuracy of an exhaustive search, "
    "with the best T of each. The claim holds if what the automatic selection chose is that place of the grid or one "
    "beside it (between two places counts as beside both), and fails otherwise. It is not tested with fewer than "
    "4 first checkpoints, or while one is unfinished. The paired margin of the students of the chosen checkpoint over "
    "those of the best one is shown and does not decide; the best of many is the best by chance too.",
    smallest=0.0,  # a place in the grid decides, no effect
    figure="first_checkpoints",
    measure=measure,
)
