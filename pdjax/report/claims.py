"""Claims of the paper and the measurements that decide them.

A claim is a function from the results to one ``ClaimResult`` per case it can be checked in; ``CLAIMS`` lists
them. Another claim is another function in that tuple.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from pdjax.report.results import Arm, Results
from pdjax.report.stats import Interval, mean_interval

Verdict = Literal["holds", "fails", "undecided", "not tested"]


class Statement(NamedTuple):
    """What the paper says, and how the report decides whether it is so."""

    name: str
    text: str
    source: str  # place in the paper
    rule: str  # how measurements become a verdict


class Measurement(NamedTuple):
    """One measured quantity a verdict rests on."""

    quantity: str
    interval: Interval | None  # None: could not be measured
    note: str  # why it could not be measured


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """The verdict on a claim in one case."""

    statement: Statement
    case: str
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    note: str  # why it was not tested


F1 = Statement(
    name="F1",
    text="Progressive distillation reaches higher accuracy than one-shot distillation and than training from labels, "
    "at equal student steps.",
    source="figure 1",
    rule="Students of two strategies that share seed, learning rate and budget (the same initialisation and data) are "
    "paired, and the difference of their final held-out accuracies is averaged over seeds, with a 95% paired "
    "Student t confidence interval. The claim holds in a case if the interval lies above 0 against every baseline "
    "(each strategy trained from labels and each one-shot strategy), fails if it lies below 0 against any of them, "
    "and is undecided otherwise. It is not tested with fewer than 2 common seeds, or where a baseline is missing or "
    "unfinished.",
)


def progressive_beats_baselines(results: Results) -> list[ClaimResult]:
    """Claim F1 (figure 1): for every progressive strategy, learning rate and budget."""
    strategies = results.config.strategies
    progressive = [key for key, strategy in strategies.items() if strategy.is_progressive]
    baselines = [key for key, strategy in strategies.items() if not strategy.is_progressive]
    if not progressive:
        return [ClaimResult(F1, "all", (), "not tested", "no progressive strategy in the configuration")]
    cases = []
    for key in progressive:
        for rate in results.learning_rates:
            for budget in results.budgets:
                measurements = tuple(_margin(results, key, baseline, rate, budget) for baseline in baselines)
                verdict, note = _decide(measurements, _missing_kinds(results))
                case = f"{results.name(key, rate)}, {budget:,} steps"
                cases.append(ClaimResult(F1, case, measurements, verdict, note))
    return cases


Claim = Callable[[Results], list[ClaimResult]]

CLAIMS: tuple[Claim, ...] = (progressive_beats_baselines,)


def evaluate_claims(results: Results) -> list[ClaimResult]:
    """Returns the verdicts on all claims, in the order of ``CLAIMS``."""
    return [result for claim in CLAIMS for result in claim(results)]


def paired_margin(first: Arm, second: Arm) -> Interval | None:
    """Returns the mean difference in final held-out accuracy, first minus second, paired by seed.

    With fewer than 2 common seeds the interval's ends are nan; without any the result is None.
    """
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        return None
    minuend, subtrahend = (
        np.array([arm.final_accuracy[arm.seeds.index(seed)] for seed in common]) for arm in (first, second)
    )
    return mean_interval(minuend - subtrahend)


def _margin(results: Results, key: str, baseline: str, rate: float, budget: int) -> Measurement:
    quantity = f"margin over {results.labels[baseline]}"
    first, second = (results.finished(strategy, rate, budget) for strategy in (key, baseline))
    if first is None or second is None:
        return Measurement(quantity, None, f"{results.labels[key if first is None else baseline]} unfinished")
    interval = paired_margin(first, second)
    return Measurement(quantity, interval, "needs 2 seeds" if interval is None or interval.size < 2 else "")


def _missing_kinds(results: Results) -> str:
    """Says which of the two kinds of baseline the configuration lacks; the claim is about both."""
    kinds = {"labels": "strategy trained from labels", "one_shot": "one-shot strategy"}
    schedules = {strategy.schedule for strategy in results.config.strategies.values()}
    missing = [text for schedule, text in kinds.items() if schedule not in schedules]
    return f"no {' and no '.join(missing)} in the configuration" if missing else ""


def _decide(measurements: tuple[Measurement, ...], missing: str) -> tuple[Verdict, str]:
    measured = [m.interval for m in measurements if m.interval is not None]
    if any(interval.high < 0 for interval in measured):  # one lost comparison is enough, whatever else is missing
        return "fails", ""
    notes = list(dict.fromkeys([note for note in (missing, *(m.note for m in measurements)) if note]))
    if notes:
        return "not tested", "; ".join(notes)
    return ("holds" if all(interval.low > 0 for interval in measured) else "undecided"), ""
