"""Claim R7: progressive distillation on the next token of strings, by budget and by how many tokens count."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from pdjax.experiment import Ablation
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
from pdjax.report.results import Results
from pdjax.report.variants import Variant, changes_nothing_else, group_in, strategies_by_kind, variants_of, varies_alone


class _Contest(NamedTuple):
    """A progressive strategy against the one-shot strategies, with one learning rate."""

    results: Results
    progressive: str
    one_shot: Sequence[str]
    learning_rate: float | None

    @property
    def name(self) -> str:
        return self.results.name(self.progressive, self.learning_rate)

    def rivals(self, variant: Variant, budget: int) -> list[str]:
        """Returns the one-shot strategies that a variant has with a budget; none where it lacks the progressive one."""
        asks = (lambda *_: True) if variant.results is None else variant.results.asks
        return [key for key in self.one_shot if asks(key, budget) and asks(self.progressive, budget)]

    def gap(self, variant: Variant, baseline: str, budget: int) -> pd.Series | str:
        """Returns the gap in final accuracy to a one-shot strategy by unit, or why there is none."""
        keys = (self.progressive, baseline)
        first, second = (group_in(self.results, variant, key, self.learning_rate, budget) for key in keys)
        if first is None or second is None:
            return "unfinished"
        return SAME_STUDENTS if first.is_same(second) else (first.final() - second.final()).dropna()


def measure(results: Results) -> list[Case] | Absent:
    """Compares gaps at each l by budget, and between the l of an ablation."""
    if not hasattr(results.experiment.task, "level"):
        return Absent("the task does not predict next tokens")
    base = Variant("", {}, results)
    cases = [
        case
        for contest in _contests(results, results.compared)
        for case in _cases_at_one_level(contest, base, results.budgets)
    ]
    for key, ablation in results.asked_ablations.items():
        if varies_alone(ablation, "task", "level"):
            cases += _cases_of_ablation(results, key, ablation, base)
    return cases or Absent("no progressive strategy is compared with a one-shot strategy")


def _contests(results: Results, keys: tuple[str, ...]) -> list[_Contest]:
    progressive, one_shot = strategies_by_kind(results, keys)
    return [_Contest(results, key, one_shot, rate) for key in progressive for rate in results.learning_rates]


def _cases_of_ablation(results: Results, key: str, ablation: Ablation, base: Variant) -> Iterator[Case]:
    variants = [variant for variant in variants_of(results, key) if not variant.is_base]
    budgets, contests = tuple(sorted(ablation.budgets)), _contests(results, ablation.strategies)
    for variant, contest in itertools.product(variants, contests):
        yield from _cases_at_one_level(contest, variant, budgets)
    if ablation.base is not None and changes_nothing_else(ablation, "task", "level"):
        variants.append(base)
    variants.sort(key=lambda variant: _level(results, variant))
    if _level(results, variants[0]) < _level(results, variants[-1]):
        for contest, budget in itertools.product(contests, budgets):
            yield from _cases_between_levels(contest, ablation.title, variants[0], variants[-1], budget)


def _level(results: Results, variant: Variant) -> int:
    """Returns the l of a variant."""
    return variant.fields.get("task", {}).get("level", getattr(results.experiment.task, "level", 0))


def _cases_at_one_level(contest: _Contest, variant: Variant, budgets: tuple[int, ...]) -> Iterator[Case]:
    """Yields the verdicts on all gaps of a variant, and on whether they are there and shrink with the budget."""
    labels = contest.results.labels
    gaps = {
        (key, budget): contest.gap(variant, key, budget)
        for budget in budgets
        for key in contest.rivals(variant, budget)
    }
    every = [_difference(f"gap to {labels[key]}, {budget:,} steps", gap) for (key, budget), gap in gaps.items()]
    shrink = []
    for baseline in contest.one_shot:
        ends = [budget for key, budget in gaps if key == baseline]
        if len(ends) > 1:
            text = f"gap to {labels[baseline]}, {ends[0]:,}"
            first, last = gaps[baseline, ends[0]], gaps[baseline, ends[-1]]
            shrink += [
                _difference(f"{text} steps", first),
                _difference(f"{text} minus {ends[-1]:,} steps", first, last),
            ]
    level = f"l = {_level(contest.results, variant)}" + ("" if variant.is_base else f" ({variant.name})")
    for what, measurements in {"all gaps": every, "gap by budget": shrink}.items():
        if measurements:
            yield decided(f"{level}, {contest.name}: {what}", measurements, smallest=SMALLEST_MARGIN)


def _cases_between_levels(contest: _Contest, title: str, low: Variant, high: Variant, budget: int) -> Iterator[Case]:
    """Yields the verdict on whether a gap is there and smaller where more tokens count, if both levels have both."""
    results, measurements = contest.results, []
    for baseline in contest.rivals(high, budget):
        if baseline in contest.rivals(low, budget):
            text = f"gap to {results.labels[baseline]}, l = {_level(results, high)}"
            gaps = [contest.gap(variant, baseline, budget) for variant in (high, low)]
            difference = _difference(f"{text} minus l = {_level(results, low)}", *gaps)
            measurements += [_difference(text, gaps[0]), difference]
    if measurements:
        yield decided(f"{title}, {contest.name}, {budget:,} steps: gap by l", measurements, smallest=SMALLEST_MARGIN)


def _difference(quantity: str, first: pd.Series | str, second: pd.Series | str | float = 0.0) -> Measurement:
    """Returns a gap, or it minus another, paired by unit."""
    if isinstance(first, str):
        return Measurement(quantity, None, first)
    if isinstance(second, str):
        return Measurement(quantity, None, second)
    return measured(quantity, (first - second).dropna())


R7 = Claim(
    name="R7",
    text="On the next token, progressive distillation is more accurate than one-shot distillation; the gap shrinks "
    "with the budget, and with more tokens in the loss.",
    source="figures 30 and 31",
    rule="The gap is the final held-out accuracy of a progressive strategy’s students minus that of a one-shot "
    "strategy’s, paired by seed; the loss is over the tokens of C^(l), which are fewer the higher l is. Cases are: all "
    "gaps at one l; the gap at the shortest budget, and it minus that at the longest, at one l; the gap at the highest "
    "l, and it minus that at the lowest, at one budget: where nothing is gained no gap shrinks. Each holds if all of "
    "its 95% Student t intervals lie above 0, fails if one lies below 0, and is undecided otherwise. Teachers differ "
    "between l and do not between budgets.",
    smallest=SMALLEST_MARGIN,
    figure="accuracy_by_budget",
    measure=measure,
)
