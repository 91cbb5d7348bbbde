"""Claim R5: progressive students depend less on n-grams and know the grammar better."""

from collections.abc import Sequence

from pdjax.report.claims.claim import (
    SAME_STUDENTS,
    SMALLEST_MARGIN,
    Absent,
    Case,
    Claim,
    Measurement,
    decided,
    measured,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results

LEVELS = "non-terminals"
"""The measure of which more is better."""

NAMES = {"M_close": "M_close", "M_robust": "M_robust", LEVELS: "accuracy of probes for non-terminals"}
"""What quantities call the measures, which are averaged over n and levels."""


def measure(results: Results) -> list[Case] | Absent:
    """Compares every probed progressive strategy, for each learning rate and budget, by every measure."""
    measures = [name for name in NAMES if (results.table.measure == name).any()]
    if not measures:
        return Absent("no probes of n-grams or non-terminals have measured anything (yet)")
    strategies, probed = results.strategies, results.experiment.probes.students
    progressive = [key for key in probed if strategies[key].is_progressive]
    cases = []
    for alike, rate, budget in results.cases(progressive):
        rivals = [k for k in probed if not strategies[k].is_progressive and results.asks(k, budget)]
        if rivals and results.experiment.probes_students_of(budget):
            cases += [_case(results, name, alike, rivals, rate, budget) for name in measures]
    return cases or Absent("no students of a progressive strategy are probed together with those of a baseline")


def _case(
    results: Results, measure: str, alike: Sequence[str], baselines: Sequence[str], rate: float | None, budget: int
) -> Case:
    group, name = results.finished(alike[0], rate, budget), NAMES[measure]
    others = {results.labels[baseline]: results.finished(baseline, rate, budget) for baseline in baselines}
    margins = [_compared(f"{name}, against {label}", measure, group, other) for label, other in others.items()]
    note = _untrained_note(group) if group is not None and measure == LEVELS else ""
    return decided(
        f"{results.joined_name(alike, rate)}, {budget:,} steps: {name}", margins, note=note, smallest=SMALLEST_MARGIN
    )


def _untrained_note(group: Group) -> str:
    """Says how well probes tell the non-terminals before any training; empty if that was not measured (yet)."""
    curve = group.over(LEVELS).mean(axis=1)
    if 0 not in curve.index:
        return ""
    return f"{curve[0]:.3f} in these students before training, {curve.iloc[-1]:.3f} in the last checkpoint"


def _compared(name: str, measure: str, group: Group | None, other: Group | None) -> Measurement:
    if group is None or other is None:
        return Measurement(name, None, "unfinished")
    first, second = group.final(measure), other.final(measure)
    if first.empty or second.empty:
        return Measurement(name, None, "not measured yet")
    better = first - second if measure == LEVELS else second - first
    measurement = measured(name, better.dropna())
    return measurement._replace(note=SAME_STUDENTS) if group.is_same(other) else measurement


R5 = Claim(
    name="R5",
    text="Progressive distillation gives students a lower M_close and a lower M_robust than one-shot distillation and "
    "training from labels, and their non-terminals are easier to tell.",
    source="figure 5",
    rule="Of the last checkpoints: the medians of M_close and M_robust over strings and positions, averaged over n, "
    "the baseline’s minus the progressive students’; the accuracy of the probes for non-terminals, averaged over "
    "levels, the progressive students’ minus the baseline’s. Students are paired by seed. Every strategy, budget and "
    "measure is a case. The claim holds in it if the 95% Student t intervals lie above 0 against every probed baseline "
    "(one-shot or from labels); it fails if one lies below 0, and is undecided otherwise. It is not tested with fewer "
    "than 2 common seeds or where something is not measured yet.",
    smallest=SMALLEST_MARGIN,
    figure="features_",
    measure=measure,
)
