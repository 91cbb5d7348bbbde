"""What a claim is made of: a statement, measurements over seeds, and a verdict."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pdjax.findings import Verdict
from pdjax.report.groups import Group
from pdjax.report.stats import Interval, mean_interval, paired_margin

OURS = "ours"
"""Source of a statement that the paper does not make."""

SAME_STUDENTS = "the same students"
"""Why two strategies with the same curriculum and loss cannot be compared: the margin is 0 by definition."""


class Statement(NamedTuple):
    """What the paper says (or this project), and how the report decides whether it is so."""

    name: str
    text: str
    source: str  # place in the paper; or ``OURS``
    rule: str  # how measurements become a verdict

    @property
    def origin(self) -> str:
        """Whose statement it is, as a sentence."""
        return "Not the paper’s claim but ours." if self.source == OURS else f"From the paper’s {self.source}."


class Measurement(NamedTuple):
    """One measured quantity a verdict rests on."""

    quantity: str
    interval: Interval | None  # None: could not be measured
    note: str  # why it could not be measured, or decides nothing


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """The verdict on a claim in one case."""

    statement: Statement
    case: str
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    note: str  # why it was not tested, or what to read the verdict with


def margin(
    quantity: str,
    first: Group | None,
    second: Group | None,
    over_training: bool = False,
    missing: str = "unfinished",
) -> Measurement:
    """Returns the paired margin of two groups as a measurement; what has none, or says nothing, notes why.

    Args:
      quantity: what it is called.
      first: None if it is not finished.
      second: which is subtracted.
      over_training: see ``paired_margin``.
      missing: the note where a group is None.
    """
    if first is None or second is None:
        return Measurement(quantity, None, missing)
    interval = paired_margin(first, second, over_training)
    if first.is_same(second):
        return Measurement(quantity, interval, SAME_STUDENTS)
    return Measurement(quantity, interval, "needs 2 seeds" if interval is None or interval.size < 2 else "")


def decide(measurements: Sequence[Measurement], missing: str = "") -> tuple[Verdict, str]:
    """Returns the verdict on quantities that the claim says are above 0, and why it is not tested if so.

    It holds if every interval lies above 0, fails if one lies below, and is undecided otherwise; not tested if there
    is no quantity or one has no interval, or for the reason that the caller gives.
    """
    measured = [m.interval for m in measurements if m.interval is not None]
    if any(interval.high < 0 for interval in measured):  # one lost comparison is enough, whatever else is missing
        return "fails", ""
    notes = list(dict.fromkeys([note for note in (missing, *(m.note for m in measurements)) if note]))
    if notes or not measured:
        return "not tested", "; ".join(notes) or "no quantity"
    return ("holds" if all(interval.low > 0 for interval in measured) else "undecided"), ""


def measured(quantity: str, values: Sequence[float]) -> Measurement:
    """Returns a quantity from its values by seed; it needs two."""
    interval = mean_interval(np.array(values)) if values else None
    return Measurement(quantity, interval, "needs 2 seeds" if interval is None or interval.size < 2 else "")
