"""Claim R4: which first checkpoint is the best."""

from collections.abc import Mapping

import pandas as pd

from pdjax.distill.phases import RobustPeak
from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, Measurement, decided, margin, measured
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
from pdjax.report.text import listed


def measure(results: Results) -> list[Case] | Absent:
    """Compares the turn of M_robust with other first checkpoints in every search, learning rate and budget."""
    if results.experiment.further_teachers:
        waiting = unfinished_teachers(results)
        return [_over_teachers(*found, waiting) for found in by_teacher(results).items()] or Absent(NO_SEARCH)
    return [_case(results, search) for search in searches(results)] or Absent(NO_SEARCH)


def _over_teachers(name: str, teachers: Mapping[int, OfTeacher], waiting: str) -> Case:
    """Returns the case of several teachers, each of which has a C1 of its own."""
    if waiting:
        return Case(name, (), "not tested", waiting)
    turned = {seed: of for seed, of in teachers.items() if (peak := _peak(of.results)) is not None and peak.peaked}
    if not turned:
        return Case(name, (), "not tested", "there is no peak: M_robust does not fall within any teacher’s training")
    values: dict[int, dict[int, float]] = {}
    for seed, (of, search) in turned.items():
        peak = _peak(of)
        assert peak is not None
        first = _place(search, peak.step)
        for step in search.grid:
            ahead, behind = search.best[first], search.best[step]
            if search.places_apart(first, step) > 1 and ahead is not None and behind is not None:
                values.setdefault(step, {})[seed] = float(ahead.final().mean() - behind.final().mean())
    margins = [
        measured(f"C1 minus {step:,}", pd.Series(values[step]).rename_axis("teacher"))
        for step in sorted(values)
        if len(values[step]) > 1 or len(turned) == 1  # of one teacher alone it says nothing of others
    ]
    steps = sorted(peak.step for of in turned.values() if (peak := _peak(of.results)) is not None)
    note = f"C1 lies at {listed([f'{step:,}' for step in dict.fromkeys(steps)])}"
    left_out = len(teachers) - len(turned)
    alone = [f"{step:,}" for step, of in sorted(values.items()) if len(of) == 1 < len(turned)]
    note += f"; far from the C1 of one teacher alone, hence not compared: {listed(alone)}" if alone else ""
    note += f"; M_robust has no peak in {left_out} of {len(teachers)} teachers, which are left out" if left_out else ""
    missing = "" if margins else "no finished first checkpoint more than one place away"
    return decided(name, margins, missing, note, smallest=SMALLEST_MARGIN)


def _peak(results: Results) -> RobustPeak | None:
    return None if results.selection is None else results.selection.robust_peak


def _place(search: Search, step: int) -> int:
    """Returns a step from which students learned, or else the place of the grid that is nearest to it."""
    return step if step in search.firsts else min(search.grid, key=lambda place: abs(place - step))


def _case(results: Results, search: Search) -> Case:
    peak = _peak(results)
    if peak is None or not peak.peaked:
        why = "does not rise, or was not measured" if peak is None else "does not fall within the training"
        return Case(search.name, (), "not tested", f"there is no peak: M_robust {why}")
    first = _place(search, peak.step)
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
    "otherwise. Neighbours of C1 are shown for comparison and do not decide. Of several teachers each has a C1 of its "
    "own, and the intervals are over teachers; those without a peak are left out.",
    smallest=SMALLEST_MARGIN,
    figure="first_checkpoints",
    measure=measure,
)
