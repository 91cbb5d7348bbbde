"""What a claim is: a statement, a function that measures it case by case, and how measurements become verdicts."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from pdjax.findings import Verdict
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import Interval, interval

OURS = "ours"
"""Source of a statement that the paper does not make."""

SAME_STUDENTS = "the same students"
"""Why two strategies with the same curriculum and loss cannot be compared: the margin is 0 by definition."""


class Measurement(NamedTuple):
    """One measured quantity that a verdict rests on."""

    quantity: str
    interval: Interval | None  # None: could not be measured
    note: str  # why it could not be measured, or decides nothing
    units: str = "seeds"  # over which the interval is


@dataclasses.dataclass(frozen=True)
class Case:
    """The verdict on a claim in one case."""

    name: str
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    note: str = ""  # why it was not tested, or what to read the verdict with
    shown: tuple[Measurement, ...] = ()  # for comparison: none of them decides alone
    smallest: float = 0.0  # effects within -it and it do not matter; 0: all do
    p: float | None = None  # of the verdict; None: that of the intervals

    @property
    def listed(self) -> tuple[Measurement, ...]:
        """All measurements, those that decide first."""
        return self.measurements + self.shown


class Absent(NamedTuple):
    """Why a claim says nothing about an experiment."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says (or this project), and how the report decides whether it is so."""

    name: str
    text: str
    source: str  # place in the paper; or ``OURS``
    rule: str  # how measurements become a verdict
    smallest: float  # effect of interest, in the unit of the quantities; smaller ones are said to be small
    figure: str  # what the names of the figures that show it begin with
    measure: Callable[[Results], list[Case] | Absent]

    @property
    def origin(self) -> str:
        """Whose statement it is, as a sentence."""
        return "Not the paper’s claim but ours." if self.source == OURS else f"From the paper’s {self.source}."


class Finding(NamedTuple):
    """What came out of a claim: its cases, or why there are none."""

    claim: Claim
    cases: list[Case]
    absent: str


SMALLEST_MARGIN = 0.02
"""The smallest difference in accuracy that is of interest, set before any study: smaller ones do not matter."""


def measured(quantity: str, values: pd.Series) -> Measurement:
    """Returns a quantity from its values by unit, of which it needs two."""
    units = f"{values.index.name or 'seed'}s"
    found = interval(values.to_numpy()) if len(values) else None
    return Measurement(quantity, found, f"needs 2 {units}" if found is None or found.size < 2 else "", units)


def margin(
    quantity: str,
    first: Group | None,
    second: Group | None,
    over_training: bool = False,
    missing: str = "unfinished",
) -> Measurement:
    """Returns by how much models of a group are more accurate than those of another, paired by unit.

    Args:
      quantity: what it is called.
      first: None if it is not finished.
      second: which is subtracted.
      over_training: whether the accuracy averaged over all evaluations is meant, not that after the last step.
      missing: the note where a group is None.
    """
    if first is None or second is None:
        return Measurement(quantity, None, missing)
    ends = [group.over().mean() if over_training else group.final() for group in (first, second)]
    measurement = measured(quantity, (ends[0] - ends[1]).dropna())
    return measurement._replace(note=SAME_STUDENTS) if first.is_same(second) else measurement


def margin_over(results: Results, key: str, baseline: str, rate: float | None, budget: int) -> Measurement:
    """Returns by how much a strategy's students are more accurate in the end than a baseline's."""
    first, second = (results.finished(strategy, rate, budget) for strategy in (key, baseline))
    missing = f"{results.labels[key if first is None else baseline]} unfinished"
    return margin(f"margin over {results.labels[baseline]}", first, second, missing=missing)


def decided(
    name: str,
    measurements: Sequence[Measurement],
    missing: str = "",
    note: str = "",
    shown: Sequence[Measurement] = (),
    smallest: float = 0.0,
) -> Case:
    """Returns a case of quantities that the claim says are above 0.

    It holds if every interval lies above 0, fails if one lies below, and is undecided otherwise; not tested if there
    is no quantity or one has no interval, or for the reason that the caller gives. What all cases of a claim together
    make of it, and effects that are too small, see ``judging``.

    Args:
      name: of the case.
      measurements: all of which decide.
      missing: why it cannot be tested, if so.
      note: what to read the verdict with.
      shown: further measurements, none of which decides.
      smallest: effect of interest, in the unit of the quantities; 0: all are.
    """
    verdict, reason = decide(measurements, missing)
    notes = "; ".join(text for text in (reason, note) if text)
    return Case(name, tuple(measurements), verdict, notes, tuple(shown), smallest)


def decide(measurements: Sequence[Measurement], missing: str = "") -> tuple[Verdict, str]:
    """Returns the verdict of ``decided``, and why it is not tested if so."""
    found = [m.interval for m in measurements if m.interval is not None]
    if any(interval.high < 0 for interval in found):  # one lost comparison is enough, whatever else is missing
        return "fails", ""
    notes = list(dict.fromkeys([note for note in (missing, *(m.note for m in measurements)) if note]))
    if notes or not found:
        return "not tested", "; ".join(notes) or "no quantity"
    return ("holds" if all(interval.low > 0 for interval in found) else "undecided"), ""
