"""Claim R5: progressive students depend less on n-grams and know the grammar better."""

import numpy as np

from pdjax.report.claims.statement import SAME_STUDENTS, ClaimResult, Measurement, Statement, decide, measured
from pdjax.report.features import Measure, student_feature, untrained_feature
from pdjax.report.groups import Group
from pdjax.report.results import Results

R5 = Statement(
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
)

NAMES: dict[Measure, str] = {
    "close": "M_close",
    "robust": "M_robust",
    "nonterminals": "accuracy of probes for non-terminals",
}


def progressive_students_have_better_features(results: Results) -> list[ClaimResult]:
    """Claim R5 (figure 5): for every probed progressive strategy, learning rate and budget, and every measure."""
    strategies, probed = results.strategies, results.experiment.probes.students
    progressive = [key for key in probed if strategies[key].is_progressive]
    cases = []
    for alike, rate, budget in results.cases(progressive):
        rivals = [k for k in probed if not strategies[k].is_progressive and results.asks(k, budget)]
        if rivals and results.experiment.probes_students_of(budget):
            cases += [_case(results, measure, alike, rivals, rate, budget) for measure in _measures(results)]
    return cases


def _measures(results: Results) -> list[Measure]:
    """Returns what is probed."""
    probes = results.experiment.probes
    grams: list[Measure] = ["close", "robust"] if probes["ngrams"] is not None else []
    return [*grams, "nonterminals"] if probes["nonterminals"] is not None else grams


def _case(
    results: Results, measure: Measure, alike: list[str], baselines: list[str], rate: float, budget: int
) -> ClaimResult:
    group, name = results.finished(alike[0], rate, budget), NAMES[measure]
    others = {results.labels[baseline]: results.finished(baseline, rate, budget) for baseline in baselines}
    measurements = [
        _compare(results, f"{name}, against {label}", measure, group, other) for label, other in others.items()
    ]
    verdict, note = decide(measurements)
    if group is not None and measure == "nonterminals":
        note = "; ".join(part for part in (note, _untrained_note(results, group)) if part)
    case = f"{results.joined_name(alike, rate)}, {budget:,} steps: {name}"
    return ClaimResult(R5, case, tuple(measurements), verdict, note)


def _untrained_note(results: Results, group: Group) -> str:
    """Says how well probes tell the non-terminals before any training; empty if that was not measured (yet)."""
    untrained = untrained_feature(results, [group], "nonterminals")
    if untrained is None:
        return ""
    first, last = untrained.mean[[0, -1]].mean(axis=1)
    return f"{first:.3f} in these students before training, {last:.3f} in the last checkpoint"


def _compare(results: Results, name: str, measure: Measure, group: Group | None, other: Group | None) -> Measurement:
    if group is None or other is None:
        return Measurement(name, None, "unfinished")
    first, second = _by_seed(results, group, measure), _by_seed(results, other, measure)
    if first is None or second is None:
        return Measurement(name, None, "not measured yet")
    sign = 1 if measure == "nonterminals" else -1  # of these more is better
    measurement = measured(name, [sign * (first[seed] - second[seed]) for seed in first if seed in second])
    return measurement._replace(note=SAME_STUDENTS) if group.is_same(other) else measurement


def _by_seed(results: Results, group: Group, measure: Measure) -> dict[int, float] | None:
    """Returns a measure at the last checkpoint by seed; None if that was not measured (yet)."""
    feature = student_feature(results, group, measure)
    if feature is None or feature.steps[-1] != group.budget:
        return None
    return dict(zip(group.seeds, np.asarray(feature.mean[-1]).tolist(), strict=True))
