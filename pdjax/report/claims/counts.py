"""Comparisons of students that learn their task or do not: who is sooner is counted, and tested exactly.

Accuracies of a parity are those of chance or of knowing it: means of them are shares of students that have learned, and
no normal quantities. What is compared is when each student has learned.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from pdjax.report.claims.claim import SAME_STUDENTS, SMALLEST_MARGIN, Case, Measurement, decided, margin
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import CONFIDENCE, LEVEL, MOST_UNITS, Interval

SMALLEST_SHARE = 0.1
"""The smallest difference that is of interest, as a share of the later student's steps, set before any study."""

RULE = (
    "Of a task that is learned or not (parities), what is compared is the first evaluation at which a student’s "
    "accuracy is at least that of having learned it; one that never gets there is later than all that do. Of two "
    f"paired students one is sooner if it needs at most {1 - SMALLEST_SHARE:.0%} of the other’s steps, and they are "
    "alike if both learn and neither is sooner. A teacher’s students count as one, which is sooner if more of them are "
    "sooner than later, and alike if all of them are. The number of pairs that are sooner is tested exactly (sign "
    "test, one-sided at 0.025, of those that differ); where certainly most are alike (the same test), and at most one "
    "differs, the effect is too small to matter. Pairs in which neither learns say nothing. With five pairs no such "
    "test decides. Differences of "
    "final accuracies are shown for comparison."
)
"""How comparisons by accuracy become comparisons by count."""


class Contest(NamedTuple):
    """How many pairs there are in which the first is sooner or later by a tenth, alike, or neither ever learns."""

    sooner: int
    later: int
    alike: int
    neither: int = 0
    mixed: int = 0  # teachers some of whose students are sooner and as many later

    @property
    def text(self) -> str:
        """The counts in words."""
        counts = f"sooner {self.sooner}, later {self.later}, alike {self.alike}, neither {self.neither}"
        return counts + (f", mixed {self.mixed}" if self.mixed else "")

    @property
    def size(self) -> int:
        """All pairs."""
        return sum(self)

    @property
    def p_sooner(self) -> float:
        """How likely so many would be sooner if sooner and later were equally likely."""
        return _tail(self.sooner, self.sooner + self.later)

    @property
    def p_later(self) -> float:
        """The same of those that are later."""
        return _tail(self.later, self.sooner + self.later)

    @property
    def p_alike(self) -> float:
        """How likely so many would be alike if half of all pairs were; 1 where more than one pair differs."""
        return _tail(self.alike, self.size) if self.sooner + self.later <= 1 else 1.0

    @property
    def balance(self) -> Interval | None:
        """Sooner minus later, as a share of the pairs that differ, with the exact interval (Clopper and Pearson)."""
        differing = self.sooner + self.later
        if not differing:
            return None
        low, high = scipy.stats.binomtest(self.sooner, differing).proportion_ci(CONFIDENCE, "exact")
        return Interval(2 * self.sooner / differing - 1, 2 * low - 1, 2 * high - 1, self.size)


@functools.cache
def _tail(count: int, size: int) -> float:
    """Returns the probability of at least so many of ``size`` fair coins."""
    return float(scipy.stats.binom.sf(count - 1, size, 0.5)) if size else 1.0


def contest(first: Group, second: Group, learned: float) -> Contest:
    """Returns in how many pairs students of the first group have learned sooner than those of the second.

    Args:
      first: students ...
      second: ... and others, paired by teacher and seed.
      learned: accuracy from which on the task is learned.
    """
    steps = pd.DataFrame({name: _steps(group, learned) for name, group in (("first", first), ("second", second))})
    steps = steps.dropna()  # units that one of them lacks
    most = 1 - SMALLEST_SHARE
    sooner = (steps["first"] <= most * steps["second"]) & np.isfinite(steps["first"])
    later = (steps["second"] <= most * steps["first"]) & np.isfinite(steps["second"])
    differ, learn = sooner | later, np.isfinite(steps).any(axis=1)
    pairs = pd.DataFrame({"score": sooner.astype(int) - later.astype(int), "differ": differ, "learn": learn})
    if first.unit == "teacher":
        pairs = pairs.groupby(level="teacher_seed").agg({"score": "sum", "differ": "any", "learn": "any"})
    equal = (pairs.score == 0) & ~pairs.differ
    return Contest(
        sooner=int((pairs.score > 0).sum()),
        later=int((pairs.score < 0).sum()),
        alike=int((equal & pairs.learn).sum()),
        neither=int((equal & ~pairs.learn).sum()),
        mixed=int(((pairs.score == 0) & pairs.differ).sum()),
    )


def _steps(group: Group, learned: float) -> pd.Series:
    """Returns when each model has learned, by teacher and seed: infinity where it has not."""
    rows = group.rows[group.rows.measure == "accuracy"]
    there = rows.assign(step=rows.step.where(rows.value >= learned, np.inf))
    return there.groupby(["teacher_seed", "seed"]).step.min()


def compared(
    results: Results,
    name: str,
    first: Group | None,
    others: Mapping[str, Group | None],
    missing: str = "",
    shown: Sequence[Measurement] = (),
) -> Case:
    """Returns the case that students of a group are better than those of every other one.

    By their final accuracies where a task is learned by degrees; by who learns it sooner where it is learned or not.

    Args:
      results: that they are among.
      name: of the case.
      first: None if it is not finished.
      others: by what they are called.
      missing: why it cannot be tested, if so.
      shown: for comparison.
    """
    learned = results.experiment.task.learned
    margins = [
        margin(f"margin over {label}", first, other, missing="unfinished" if first is None else f"{label} unfinished")
        for label, other in others.items()
    ]
    if learned is None:
        return decided(name, margins, missing, shown=shown, smallest=SMALLEST_MARGIN)
    return case_of_counts(name, first, others, learned, missing, (*margins, *shown))


def case_of_counts(
    name: str,
    first: Group | None,
    others: Mapping[str, Group | None],
    learned: float,
    missing: str = "",
    shown: tuple[Measurement, ...] = (),
) -> Case:
    """Returns the case that students of a group have learned sooner than those of every other one.

    Args:
      name: of the case.
      first: None if it is not finished.
      others: by what they are called.
      learned: accuracy from which on the task is learned.
      missing: why it cannot be tested, if so.
      shown: for comparison.
    """
    contests: dict[str, Contest] = {}
    measurements, notes = [], [missing] if missing else []
    for label, other in others.items():
        found = None if first is None or other is None else contest(first, other, learned)
        note = "unfinished"
        if first is not None and other is not None and found is not None:
            contests[label] = found
            note = SAME_STUDENTS if first.is_same(other) else ""
        quantity, units = f"learned sooner than {label}", "seeds" if first is None else f"{first.unit}s"
        if found is not None:
            quantity += f" ({found.text})"
        measurements.append(Measurement(quantity, None if found is None else found.balance, note, units))
        notes += [note] if note else []
    verdict, p = "undecided", 1.0
    tests = list(contests.values())
    if any(test.p_later <= LEVEL for test in tests):  # one lost comparison is enough, whatever else is missing
        verdict, p = "fails", min(1.0, len(tests) * min(test.p_later for test in tests))
    elif notes or not tests:
        return Case(name, tuple(measurements), "not tested", "; ".join(dict.fromkeys(notes)) or "no quantity", shown)
    elif all(test.p_sooner <= LEVEL for test in tests):
        verdict, p = "holds", max(test.p_sooner for test in tests)
    elif any(test.p_alike <= LEVEL for test in tests):
        verdict, p = "too small to matter", min(1.0, len(tests) * min(test.p_alike for test in tests))
    note = _outlook(tests, measurements[0].units) if verdict == "undecided" else ""
    return Case(name, tuple(measurements), verdict, note, shown, p=p)


def _outlook(tests: list[Contest], units: str) -> str:
    """Says how many units would decide if the shares of sooner, later and alike stay what they are."""
    for size in range(tests[0].size + 1, MOST_UNITS + 1):
        grown = [Contest(*(round(part * size / test.size) for part in test)) for test in tests if test.size]
        if all(test.p_sooner <= LEVEL for test in grown) or any(
            min(test.p_later, test.p_alike) <= LEVEL for test in grown
        ):
            return f"about {size:,} {units} would decide it, if the shares stay"
    return f"more than {MOST_UNITS:,} {units} would decide it, if the shares stay"
