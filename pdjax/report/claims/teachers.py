"""Claims about what a teacher's checkpoints show while it learns, over teachers."""

import itertools

import numpy as np
import pandas as pd

from pdjax.report.claims.claim import Absent, Case, Claim, Measurement, decided, measured
from pdjax.report.claims.correlations import at_point, transitions_of
from pdjax.report.results import Results
from pdjax.report.text import count_text

SHARE = 0.95
"""Of the final accuracy, by the middle of the drop."""

NONTERMINALS, ATTENTION_MEASURE = "non-terminals", "attention to the support"


def measure_early(results: Results) -> list[Case] | Absent:
    """Compares how well probes tell the non-terminals in the middle of the drop with how well they do in the end."""
    values, without = {}, []
    for seed, one in results.by_teacher.items():
        curve = _curves(one, NONTERMINALS).get(seed)
        if curve is None:
            continue
        phases = None if one.selection is None else one.selection.phases
        if phases is None:
            without.append(seed)
        else:
            middle = curve.iloc[np.abs(curve.index - phases.middle).argmin()]
            values[seed] = float(middle - SHARE * curve.iloc[-1])
    if not values and not without:
        return Absent("no probes of non-terminals have measured teachers (yet)")
    quantity = f"accuracy at the middle of the drop minus {SHARE} of the final one"
    note = f"left out, as the loss has no drop: {count_text(len(without), 'teacher')}" if without else ""
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
    _, found = transitions_of(results)
    known = {seed: transition for seed, transition in found.items() if seed in curves}
    start, end = (at_point(point, curves, known) for point in ("start", "end"))
    ends = {seed: curves[seed].dropna().iloc[[0, -1]].tolist() for seed in known}
    grown, whole = end - start, _by_teacher({seed: last - first for seed, (first, last) in ends.items()})
    left_out = len(curves.columns) - len(known)
    note = f"{left_out} of {len(curves.columns)} teachers had no transition" if left_out else ""
    quantities = (
        measured("growth in the transition", grown),
        measured("growth in the transition minus the change outside", grown - (whole - grown).abs()),
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
    spikes = spikes.rename_axis(index="teacher")
    apart = results.experiment.teacher_training.checkpoint_every
    return [
        decided(f"levels {one:.0f} and {other:.0f}", [_apart(spikes, one, other, apart)])
        for one, other in itertools.combinations(sorted(spikes.columns), 2)
    ]


def _apart(spikes: pd.DataFrame, one: int, other: int, least: int) -> Measurement:
    values = (spikes[one] - spikes[other]).abs().astype(float) - least
    return measured(f"steps between the two spikes, minus those between checkpoints ({least:,})", values)


SPIKES = Claim(
    name="spikes",
    text="In a hierarchy, a teacher’s correlations with the features of different levels spike at different steps.",
    source="figure 17",
    rule="A level’s spike is the checkpoint with the largest mean correlation with its features’ monomials of low "
    "degree. For every two levels the claim holds if the 95% Student t interval over teachers of the steps between "
    "their spikes, minus those between two checkpoints, lies above 0; it fails if it lies below 0, and is undecided "
    "otherwise.",
    smallest=0.0,
    figure="levels",
    measure=measure_spikes,
)


def _curves(results: Results, measure: str) -> pd.DataFrame:
    """Returns a measure of the teachers, the mean where it has several places: a row by step, a column by seed."""
    rows = results.table[(results.table.role == "teacher") & (results.table.measure == measure)]
    return rows.groupby(["step", "seed"]).value.mean().unstack("seed")


def _by_teacher(values: dict[int, float]) -> pd.Series:
    return pd.Series(values, dtype=float).rename_axis("teacher")
