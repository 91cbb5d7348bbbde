"""What a claim is made of: a statement, measurements over seeds, and a verdict."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from pdjax.report.results import Arm
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


def paired_margin(first: Arm, second: Arm, over_training: bool = False) -> Interval | None:
    """Returns the mean difference in final held-out accuracy, first minus second, paired by seed.

    With ``over_training`` it is the accuracy averaged over all evaluations. With fewer than 2 common seeds the
    interval's ends are nan; without any the result is None.
    """
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        return None
    values = []
    for arm in (first, second):
        accuracy = arm.accuracy.mean(axis=0) if over_training else arm.final_accuracy
        values.append(np.array([accuracy[arm.seeds.index(seed)] for seed in common]))
    return mean_interval(values[0] - values[1])


def decide(measurements: Sequence[Measurement], missing: str = "") -> tuple[Verdict, str]:
    """Returns the verdict on quantities that the claim says are above 0, and why it is not tested if so.

    It holds if every interval lies above 0, fails if one lies below, and is undecided otherwise; not tested if a
    quantity has no interval, or for the reason that the caller gives.
    """
    measured = [m.interval for m in measurements if m.interval is not None]
    if any(interval.high < 0 for interval in measured):  # one lost comparison is enough, whatever else is missing
        return "fails", ""
    notes = list(dict.fromkeys([note for note in (missing, *(m.note for m in measurements)) if note]))
    if notes:
        return "not tested", "; ".join(notes)
    return ("holds" if all(interval.low > 0 for interval in measured) else "undecided"), ""


def measured(quantity: str, values: Sequence[float]) -> Measurement:
    """Returns a quantity from its values by seed; it needs two."""
    interval = mean_interval(np.array(values)) if values else None
    return Measurement(quantity, interval, "needs 2 seeds" if interval is None or interval.size < 2 else "")
