"""Claims about what a teacher's checkpoints show while it learns, over teachers."""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from pdjax.distill.phases import find_loss_phases
from pdjax.report.claims.claim import Absent, Case, Claim, decided, measured
from pdjax.report.claims.correlations import at_point, transitions_of
from pdjax.report.results import Results
from pdjax.report.stats import LEVEL, p_above, p_below, p_within
from pdjax.report.text import count_text

SHARE = 0.95
"""Of the final accuracy, by the middle of the drop."""

NONTERMINALS, ATTENTION_MEASURE = "non-terminals", "attention to the support"


def measure_early(results: Results) -> list[Case] | Absent:
    """Compares how well probes tell the non-terminals in the middle of the drop with how well they do in the end."""
    curves = _curves(results, NONTERMINALS)
    if curves.empty:
        return Absent("no probes of non-terminals have measured teachers (yet)")
    if waiting := _unmeasured(results, curves):
        return [Case("all levels", (), "not tested", waiting)]
    values = {}
    for seed in map(int, curves.columns):
        loss = results.teacher_curve("loss", seed)
        phases = find_loss_phases(loss.step.to_numpy(), loss.value.to_numpy())
        if phases is not None:
            curve = curves[seed].dropna()
            middle = curve.iloc[np.abs(curve.index - phases.middle).argmin()]
            values[seed] = float(middle - SHARE * curve.iloc[-1])
    without = len(curves.columns) - len(values)
    note = f"left out, as the loss has no drop: {count_text(without, 'teacher')}" if without else ""
    quantity = f"accuracy at the middle of the drop minus {SHARE} of the final one"
    return [decided("all levels", [measured(quantity, _by_teacher(values))], note=note)]


EARLY = Claim(
    name="early",
    text="By the middle of the drop of its loss a teacher knows the non-terminals nearly as well as in the end.",
    source="figure 22 (right)",
    rule="Of every teacher whose loss has a drop: the accuracy of the probes for non-terminals, averaged over levels, "
    f"at the checkpoint nearest to the drop’s middle, minus {SHARE} of that at the last one. The claim holds if the "
    "95% Student t interval over teachers lies above 0, fails if it lies below 0, and is undecided otherwise.",
    smallest=0.0,
    figure="nonterminals",
    measure=measure_early,
)


def measure_attention(results: Results) -> list[Case] | Absent:
    """Compares how much the attention to the support grows in the transition with how much it grows outside."""
    curves = _curves(results, ATTENTION_MEASURE)
    if curves.empty:
        return Absent("no attention of the teachers was measured (yet)")
    undecided = [seed for seed, one in results.with_students.items() if one.selection is None]
    if waiting := _unmeasured(results, curves) or _unfinished(undecided):
        return [Case("attention to the support", (), "not tested", waiting)]
    _, found = transitions_of(results)
    known = {seed: transition for seed, transition in found.items() if seed in curves}
    start, end = (at_point(point, curves, known) for point in ("start", "end"))
    first, last = (_by_teacher({seed: float(curves[seed].dropna().iloc[place]) for seed in known}) for place in (0, -1))
    grown, outside = end - start, (start - first).abs() + (last - end).abs()
    left_out = len(curves.columns) - len(known)
    note = f"{left_out} of {len(curves.columns)} teachers had no transition" if left_out else ""
    quantities = (
        measured("growth in the transition", grown),
        measured("growth in the transition minus the change outside", grown - outside),
    )
    return [decided("attention to the support", quantities, note=note)]


ATTENTION = Claim(
    name="attention",
    text="A teacher’s attention to the support grows as its accuracy does.",
    source="figure 11",
    rule="Of every teacher: the attention to the support, summed over heads, the median of inputs, at the checkpoints "
    "nearest to the start and the end of the rise of its accuracy. The claim holds if 95% Student t intervals over "
    "teachers lie above 0 of its growth between them, and of this minus its change in the rest of the training; it "
    "fails if one lies below 0, and is undecided otherwise. Teachers without a transition are left out.",
    smallest=0.0,
    figure="attention",
    measure=measure_attention,
)


def measure_spikes(results: Results) -> list[Case] | Absent:
    """Compares the steps at which the correlations of every two levels of a hierarchy are largest."""
    levels = getattr(results.experiment.task, "levels", ())
    if len(levels) < 2:
        return Absent("the task has no hierarchy of features")
    rows = results.table[(results.table.role == "teacher") & (results.table.measure == "correlation")]
    rows = rows[(rows.feature >= 0) & (rows.degree < results.experiment.task.degree)]  # pyright: ignore
    if rows.empty:
        return Absent("no correlations of the teachers with monomials were measured (yet)")
    means = rows.groupby(["seed", "feature", "step"]).value.mean()
    spikes = means.groupby(["seed", "feature"]).idxmax().map(lambda place: place[-1]).unstack("feature")
    if waiting := _unfinished({*results.by_teacher, *results.awaited} - {*spikes.index}):
        return [Case("every two levels", (), "not tested", waiting)]
    spikes = spikes.rename_axis(index="teacher").astype(float)
    apart = results.experiment.teacher_training.checkpoint_every
    pairs = itertools.combinations(sorted(spikes.columns), 2)
    return [_apart(f"levels {one:.0f} and {other:.0f}", spikes[other] - spikes[one], apart) for one, other in pairs]


def _apart(name: str, steps: pd.Series, apart: int) -> Case:
    """Returns the case of two levels: whichever spikes first, it has to be the same one with most teachers.

    Distances without a sign would be above 0 by noise alone, and the more surely the more teachers there are.
    """
    found = measured("steps from the first’s spike to the second’s", steps)
    if found.interval is None or found.note:
        return Case(name, (found,), "not tested", found.note)
    p_apart, p_together = 2 * min(p_above(found.interval), p_below(found.interval)), p_within(found.interval, apart)
    if p_apart <= LEVEL and abs(found.interval.mean) > apart:
        return Case(name, (found,), "holds", p=p_apart)
    if p_together <= LEVEL:
        return Case(name, (found,), "fails", p=p_together)
    return Case(name, (found,), "undecided", p=1.0)


SPIKES = Claim(
    name="spikes",
    text="In a hierarchy, a teacher’s correlations with the features of different levels spike at different steps.",
    source="figure 17",
    rule="A level’s spike is the checkpoint with the largest mean correlation with its features’ monomials of low "
    "degree. For every two levels the claim holds if the steps from the one’s spike to the other’s, averaged over "
    "teachers, are more than those between two checkpoints and certainly not 0 (Student t test, two-sided at 0.025); "
    "it fails if they certainly are at most those between two checkpoints, and is undecided otherwise.",
    smallest=0.0,
    figure="levels",
    measure=measure_spikes,
)


def _unmeasured(results: Results, curves: pd.DataFrame) -> str:
    """Says which teachers were not measured yet; nothing if all were."""
    return _unfinished({*results.by_teacher, *results.awaited} - {*curves})


def _unfinished(seeds: Iterable[int]) -> str:
    found = ", ".join(map(str, sorted(seeds)))
    return f"unfinished for the teachers {found}" if found else ""


def _curves(results: Results, measure: str) -> pd.DataFrame:
    """Returns a measure of the teachers, the mean where it has several places: a row by step, a column by seed."""
    rows = results.table[(results.table.role == "teacher") & (results.table.measure == measure)]
    return rows.groupby(["step", "seed"]).value.mean().unstack("seed")


def _by_teacher(values: dict[int, float]) -> pd.Series:
    return pd.Series(values, dtype=float).rename_axis("teacher")
