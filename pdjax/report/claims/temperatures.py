"""Claims about the teacher's temperature: next to none is like none, and a high one hurts stronger students."""

import dataclasses
import itertools
from collections.abc import Iterator

from pdjax.distill.losses import Distillation
from pdjax.experiment import Ablation
from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, Measurement, decided, margin
from pdjax.report.claims.counts import contest
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import LEVEL
from pdjax.report.variants import Variant, group_in, strategies_by_kind, variants_of

LOW = 0.01
"""Temperatures up to it are those that figure 14 calls alike."""


def measure_argmax(results: Results) -> list[Case] | Absent:
    """Compares strategies of low temperatures with those of 0, for every learning rate and budget."""
    cases = [
        _alike(results, low, none, rate, budget)
        for low, none in _pairs(results)
        for rate, budget in itertools.product(results.learning_rates, results.budgets)
        if results.asks(low, budget) and results.asks(none, budget)
    ]
    return cases or Absent(f"no strategy of a temperature up to {LOW} stands beside one of 0")


def _pairs(results: Results) -> Iterator[tuple[str, str]]:
    """Yields progressive strategies of a low temperature, and those that differ from them in having 0."""
    progressive, _ = strategies_by_kind(results, tuple(results.strategies))
    for low, none in itertools.permutations(progressive, 2):
        one, other = results.strategies[low], results.strategies[none]
        if not isinstance(one.loss, Distillation) or not isinstance(one.loss.temperature, float):
            continue
        coldest = dataclasses.replace(one.loss, temperature=0.0)
        if 0 < one.loss.temperature <= LOW and dataclasses.replace(one, name=none, loss=coldest) == other:
            yield low, none


def _alike(results: Results, low: str, none: str, rate: float | None, budget: int) -> Case:
    name = f"{results.name(low, rate)}, {budget:,} steps"
    first, second = (results.finished(key, rate, budget) for key in (low, none))
    difference = margin(f"minus {results.labels[none]}", first, second)
    learned = results.experiment.task.learned
    if learned is not None and first is not None and second is not None and not difference.note:
        return _alike_by_counts(name, first, second, learned, difference)
    within = []
    for sign, word in ((-1, "minus"), (1, "plus")):
        found = difference.interval
        if found is not None:
            low_end, high_end = sorted((sign * found.low, sign * found.high))
            found = found._replace(
                mean=SMALLEST_MARGIN + sign * found.mean, low=SMALLEST_MARGIN + low_end, high=SMALLEST_MARGIN + high_end
            )
        within.append(difference._replace(quantity=f"{SMALLEST_MARGIN} {word} the difference", interval=found))
    return decided(name, within, shown=[difference])


def _alike_by_counts(name: str, first: Group, second: Group, learned: float, difference: Measurement) -> Case:
    found = contest(first, second, learned)
    p_unlike = 2 * min(found.p_sooner, found.p_later)  # either would be unlike
    verdict = "holds" if found.p_alike <= LEVEL else "fails" if p_unlike <= LEVEL else "undecided"
    p = {"holds": found.p_alike, "fails": p_unlike, "undecided": 1.0}[verdict]
    measurement = Measurement(f"learned as soon ({found.text})", found.balance, "", f"{first.unit}s")
    return Case(name, (measurement,), verdict, shown=(difference,), p=p)


ARGMAX = Claim(
    name="argmax",
    text="At temperatures of 0.01 and less progressive distillation is like that from the teacher’s most likely class.",
    source="figure 14",
    rule="Progressive strategies that differ in the temperature alone, one of at most 0.01 and one of 0. Students are "
    "paired by seed. The claim holds if the difference of final held-out accuracies certainly lies within 0.02 (two "
    "one-sided tests by the 95% Student t interval), fails if it certainly lies outside, and is undecided otherwise. "
    "Of a task that is learned or not, it holds if certainly most pairs learn it equally soon, within a tenth of the "
    "steps (exact test), and fails if certainly more are sooner than later, or later than sooner.",
    smallest=SMALLEST_MARGIN,
    figure="training_temperatures",
    measure=measure_argmax,
)


def measure_soft(results: Results) -> list[Case] | Absent:
    """Compares progressive distillation at temperature 1 with one-shot distillation, of every stronger student."""
    if results.experiment.task.predicts != "positions":
        return Absent("it is about predictions at the positions of a string, and the task is to classify whole inputs")
    cases = [
        case
        for key, ablation in results.asked_ablations.items()
        for variant in variants_of(results, key)
        if _is_stronger(results, variant)
        for case in _of_stronger(results, ablation, variant)
    ]
    return cases or Absent("no ablation has stronger students of progressive strategies at temperature 1")


def _is_stronger(results: Results, variant: Variant) -> bool:
    """Whether a variant replaces the student alone, by one with more heads."""
    heads = getattr(results.experiment.student, "num_heads", None)
    if heads is None or set(variant.fields) != {"student"}:
        return False
    return variant.fields["student"].get("num_heads", heads) > heads


def _of_stronger(results: Results, ablation: Ablation, variant: Variant) -> Iterator[Case]:
    progressive, one_shot = strategies_by_kind(results, ablation.strategies)
    soft = [key for key in progressive if results.strategies[key].loss == Distillation(temperature=1.0)]
    for key, rate, budget in itertools.product(soft, results.learning_rates, sorted(ablation.budgets)):
        students = group_in(results, variant, key, rate, budget)
        margins = [
            margin(f"{results.labels[one]} minus it", group_in(results, variant, one, rate, budget), students)
            for one in one_shot
        ]
        name = f"{variant.name}, {results.name(key, rate)}, {budget:,} steps"
        yield decided(name, margins, "" if margins else "no one-shot strategy", smallest=SMALLEST_MARGIN)


SOFT = Claim(
    name="soft",
    text="At a teacher’s temperature of 1, progressive distillation is worse than one-shot distillation for stronger "
    "students.",
    source="figure 25, which says that it can be",
    rule="In variants whose student has more heads, students of one-shot strategies are paired by seed with those of "
    "progressive strategies at temperature 1. The claim holds if the 95% Student t intervals of the former’s final "
    "held-out accuracy minus the latter’s all lie above 0, fails if one lies below 0, and is undecided otherwise.",
    smallest=SMALLEST_MARGIN,
    figure="ablation_",
    measure=measure_soft,
)
