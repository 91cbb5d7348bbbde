"""Claim R4, which first checkpoint is best, and whether the automatic selection finds it."""

from pdjax.findings import Verdict
from pdjax.report.claims.statement import OURS, ClaimResult, Measurement, Statement, decide, margin
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import Search, automatic_strategies, chosen_steps, searches, turn_name

R4 = Statement(
    name="R4",
    text="The inflection of the teacher’s M_robust is the best first checkpoint of (2, T) distillation.",
    source="figure 4 (right)",
    rule="C1 is the peak of M_robust, averaged over n; where M_robust does not fall within the training it has no "
    "peak, and C1 is its fastest rise. Where no students learned from that very checkpoint C1 is the place of the grid "
    "nearest to it. Students of (2, T) strategies learn "
    "from each first checkpoint with several T, and each has the T of its highest mean final held-out accuracy "
    "(the best of several is the best by chance too: the intervals are not corrected for that). Paired by seed, the "
    "claim holds if the 95% Student t intervals of C1 minus each first checkpoint that is more than one place away in "
    "the grid all lie above 0; it fails if one lies below 0 (a checkpoint elsewhere is better), and is undecided "
    "otherwise. It is not tested where M_robust does not rise. Neighbours of C1 are "
    "shown for comparison and do not decide.",
)

AUTO = Statement(
    name="auto",
    text="The automatic selection chooses the best first checkpoint of (2, T) distillation, or one beside it.",
    source=OURS,
    rule="The best first checkpoint is the one with the highest mean final held-out accuracy of an exhaustive search, "
    "with the best T of each. The claim holds if what the automatic selection chose is that place of the grid or one "
    "beside it (between two places counts as beside both), and fails otherwise. It is not tested with fewer than "
    "4 first checkpoints, or while one is unfinished. The paired margin of the students of the chosen checkpoint over "
    "those of the best one is shown and does not decide; the best of many is the best by chance too.",
)

FEWEST_PLACES = 4
"""First checkpoints in a search; with fewer nearly every choice is beside the best."""


def the_inflection_is_the_best_first_checkpoint(results: Results) -> list[ClaimResult]:
    """Claim R4 (figure 4 right): for every search, learning rate and budget."""
    return [_decide_inflection(results, search) for search in searches(results)]


def the_automatic_choice_is_near_the_best(results: Results) -> list[ClaimResult]:
    """Our claim: for every search, learning rate and budget, if anything was chosen automatically."""
    automatic = automatic_strategies(results)
    return [_decide_choice(results, search, automatic) for search in searches(results) if automatic]


def _decide_inflection(results: Results, search: Search) -> ClaimResult:
    case, peak = _case(results, search), results.selection.get("robust_peak")
    if peak is None:
        return ClaimResult(R4, case, (), "not tested", "M_robust does not rise, or was not measured")
    turn = peak["step"]
    first = turn if turn in search.firsts else min(search.grid, key=lambda step: abs(step - turn))
    others = [step for step in search.grid if step != first]
    far = [_margin(search, first, step) for step in others if search.places_apart(first, step) > 1]
    near = [_margin(search, first, step) for step in others if search.places_apart(first, step) == 1]
    verdict, missing = decide(far, "" if far else "no first checkpoint more than one place away")
    name = f"the {turn_name(results)} of M_robust"
    where = f"C1 is {first:,}, " + (name if first == turn else f"nearest to {name} at step {turn:,}")
    note = "; ".join(text for text in (missing, where, _winner_note(results, search, first)) if text)
    shown = [m._replace(quantity=f"{m.quantity} (neighbour)") for m in near]
    return ClaimResult(R4, case, (*far, *shown), verdict, note)


def _case(results: Results, search: Search) -> str:
    rate = f", learning rate {search.learning_rate}" if len(results.learning_rates) > 1 else ""
    return f"{search.comparison.title}, {search.budget:,} steps{rate}"


def _margin(search: Search, first: int, other: int) -> Measurement:
    ahead, behind = search.best[first], search.best[other]
    quantity = f"{_name(search, first)} minus {_name(search, other)}"
    missing = f"first checkpoint {first if ahead is None else other:,} unfinished"
    return margin(quantity, ahead, behind, missing=missing)


def _name(search: Search, first: int) -> str:
    """Names a first checkpoint with the T it is compared with."""
    group = search.best[first]
    durations = [s.duration for (step, s), g in search.groups.items() if step == first and g is not None and g is group]
    return f"{first:,}" + (f" (T = {durations[0]:,})" if durations else "")


def _winner_note(results: Results, search: Search, peak: int) -> str:
    """Says which first checkpoint is best, and how far it is from what is thought to be best."""
    if search.winner is None:
        return ""
    distances = [f"{_distance(search, search.winner, peak)} from C1"]
    phases = results.selection.get("phases")
    if phases:
        middle = min(search.grid, key=lambda step: abs(step - phases["middle"]))
        distances.append(f"{_distance(search, search.winner, middle)} from the middle of the loss’s drop ({middle:,})")
    for key in automatic_strategies(results)[:1]:
        step = chosen_steps(results, key)[0]
        distances.append(f"{_distance(search, search.winner, step)} from the automatic choice ({step:,})")
    return f"highest mean: first checkpoint {search.winner:,}, {', '.join(distances)}"


def _distance(search: Search, a: int, b: int) -> str:
    apart = search.places_apart(a, b)
    return "1 place" if apart == 1 else f"{apart} places"


def _decide_choice(results: Results, search: Search, automatic: list[str]) -> ClaimResult:
    case, step = _case(results, search), chosen_steps(results, automatic[0])[0]
    best, chosen = search.winner, _chosen_group(results, search, automatic, step)
    if len(search.grid) < FEWEST_PLACES:
        note = f"{len(search.grid)} first checkpoints, needs {FEWEST_PLACES}"
        return ClaimResult(AUTO, case, (), "not tested", note)
    if best is None:
        return ClaimResult(AUTO, case, (), "not tested", "the search is unfinished")
    shown = margin(f"chosen ({step:,}) minus best ({best:,})", chosen, search.best[best])
    verdict: Verdict = "holds" if search.places_apart(step, best) <= 1 else "fails"
    note = f"chosen: {step:,}, best: {best:,}, {_distance(search, step, best)} apart in a grid of {len(search.grid)}"
    return ClaimResult(AUTO, case, (shown,), verdict, note)


def _chosen_group(results: Results, search: Search, automatic: list[str], step: int) -> Group | None:
    """Returns the best finished group with the automatically chosen checkpoint, in the search or outside of it."""
    inside = search.best.get(step)
    groups = [results.finished(key, search.learning_rate, search.budget) for key in automatic]
    finished = [group for group in (inside, *groups) if group is not None]
    return max(finished, key=lambda group: float(group.final_accuracy.mean()), default=None)
