"""Claim R4: which first checkpoint is the best."""

from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, Measurement, decided, margin
from pdjax.report.results import Results
from pdjax.report.searches import NO_SEARCH, Search, automatic_strategies, chosen_steps, searches


def measure(results: Results) -> list[Case] | Absent:
    """Compares the turn of M_robust with other first checkpoints in every search, learning rate and budget."""
    return [_case(results, search) for search in searches(results)] or Absent(NO_SEARCH)


def _case(results: Results, search: Search) -> Case:
    peak = None if results.selection is None else results.selection.robust_peak
    if peak is None or not peak.peaked:
        why = "does not rise, or was not measured" if peak is None else "does not fall within the training"
        return Case(search.name, (), "not tested", f"there is no peak: M_robust {why}")
    first = peak.step if peak.step in search.firsts else min(search.grid, key=lambda step: abs(step - peak.step))
    margins = {step: _margin(search, first, step) for step in search.grid if step != first}
    far = [margin for step, margin in margins.items() if search.places_apart(first, step) > 1]
    near = [margin for step, margin in margins.items() if search.places_apart(first, step) == 1]
    turn = "the peak of M_robust"
    where = f"C1 is {first:,}, " + (turn if first == peak.step else f"nearest to {turn} at step {peak.step:,}")
    note = "; ".join(text for text in (where, _winner_note(results, search, first)) if text)
    shown = [m._replace(quantity=f"{m.quantity} (neighbour)") for m in near]
    missing = "" if far else "no first checkpoint more than one place away"
    return decided(search.name, far, missing, note, shown, SMALLEST_MARGIN)


def _margin(search: Search, first: int, other: int) -> Measurement:
    ahead, behind = search.best[first], search.best[other]
    missing = f"first checkpoint {first if ahead is None else other:,} unfinished"
    return margin(f"{_name(search, first)} minus {_name(search, other)}", ahead, behind, missing=missing)


def _name(search: Search, first: int) -> str:
    """Names a first checkpoint with the T it is compared with."""
    group = search.best[first]
    durations = [s.duration for (step, s), g in search.groups.items() if step == first and g is not None and g is group]
    return f"{first:,}" + (f" (T = {durations[0]:,})" if durations else "")


def _winner_note(results: Results, search: Search, peak: int) -> str:
    """Says which first checkpoint is best, and how far it is from what is thought to be best."""
    if search.winner is None:
        return ""
    distances = [f"{search.distance(search.winner, peak)} from C1"]
    if results.selection is not None and (phases := results.selection.phases) is not None:
        middle = min(search.grid, key=lambda step: abs(step - phases.middle))
        distances.append(f"{search.distance(search.winner, middle)} from the middle of the loss’s drop ({middle:,})")
    for key in automatic_strategies(results)[:1]:
        step = chosen_steps(results, key)[0]
        distances.append(f"{search.distance(search.winner, step)} from the automatic choice ({step:,})")
    return f"highest mean: first checkpoint {search.winner:,}, {', '.join(distances)}"


R4 = Claim(
    name="R4",
    text="The inflection of the teacher’s M_robust is the best first checkpoint of (2, T) distillation.",
    source="figure 4 (right)",
    rule="C1 is the peak of M_robust, averaged over the short n (see the selections); where M_robust does not fall "
    "within the training it has none, and the claim is not tested. Where no students learned from that very checkpoint "
    "C1 is the place of the grid nearest to it. Students of (2, T) strategies learn "
    "from each first checkpoint with several T, and each has the T of its highest mean final held-out accuracy "
    "(the best of several is the best by chance too: the intervals are not corrected for that). Paired by seed, the "
    "claim holds if the 95% Student t intervals of C1 minus each first checkpoint that is more than one place away in "
    "the grid all lie above 0; it fails if one lies below 0 (a checkpoint elsewhere is better), and is undecided "
    "otherwise. Neighbours of C1 are shown for comparison and do not decide.",
    smallest=SMALLEST_MARGIN,
    figure="first_checkpoints",
    measure=measure,
)
