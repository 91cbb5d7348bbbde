"""Means over independent runs, with Student t or bootstrap confidence intervals."""

import functools
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

CONFIDENCE = 0.95

LEVEL = (1 - CONFIDENCE) / 2
"""Of a verdict: an interval lies on one side of 0 by chance that often."""

Method = Literal["t", "bootstrap"]

_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over independent runs and its confidence interval; the ends are nan with fewer than 2 runs."""

    mean: float
    low: float
    high: float
    size: int  # runs

    def clipped(self, low: float = 0.0, high: float = 1.0) -> "Interval":
        """Returns it without what lies beyond the range of what is measured, such as accuracies above 1."""
        low, high = (float(np.clip(end, low, high)) for end in (self.low, self.high))
        return self._replace(low=low, high=high)


def interval(values: Float[np.ndarray, "R"], method: Method = "t") -> Interval:
    """Returns the mean of R >= 1 values, one per independent run, with its two-sided 95% confidence interval.

    Args:
      values: the runs are the unit: values that share one (a teacher, say) are to be averaged before.
      method: ``t`` is ``mean -+ t(0.975; R - 1) * s / sqrt(R)``, for a normal population of unknown variance;
        ``bootstrap`` the percentiles of the means of 2,000 resamples, always the same ones.

    >>> interval(np.array([1.0, 2.0, 3.0]))  # 2 -+ 4.303 / sqrt(3)  # doctest: +ELLIPSIS
    Interval(mean=2.0, low=-0.484..., high=4.484..., size=3)
    """
    mean, size = float(np.mean(values)), len(values)
    if size < 2:
        return Interval(mean, np.nan, np.nan, size)
    if method == "t":
        half = float(_quantile(size) * scipy.stats.sem(values))
        return Interval(mean, mean - half, mean + half, size)
    ends = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    return Interval(mean, float(ends.low), float(ends.high), size)


def p_above(found: Interval, threshold: float = 0.0) -> float:
    """Returns the one-sided p-value of a mean that is no larger than a threshold.

    It is that of the t statistic whose interval this is: below 0.025 exactly where the interval's lower end lies above
    the threshold. NaN with fewer than 2 runs.
    """
    return _p(found.mean - threshold, found.mean - found.low, found.size)


def p_below(found: Interval, threshold: float = 0.0) -> float:
    """Returns the one-sided p-value of a mean that is no smaller than a threshold."""
    return _p(threshold - found.mean, found.high - found.mean, found.size)


def p_within(found: Interval, smallest: float) -> float:
    """Returns the p-value of a mean whose absolute value is at least ``smallest``, by two one-sided tests (TOST)."""
    return float(np.maximum(p_above(found, -smallest), p_below(found, smallest)))


def _p(distance: float, half: float, size: int) -> float:
    if size < 2 or not np.isfinite(half):
        return np.nan
    if half <= 0:  # all runs are equal
        return 0.0 if distance > 0 else 1.0
    # An interval's half width is the quantile times the standard error.
    return float(scipy.special.stdtr(size - 1, -distance / half * _quantile(size)))


@functools.cache
def _quantile(size: int) -> float:
    return float(scipy.special.stdtrit(size - 1, 0.5 + CONFIDENCE / 2))


@functools.cache
def _quantiles() -> Float[np.ndarray, "N"]:
    """Returns the quantile for every number of runs from 2 on."""
    return np.array([_quantile(size) for size in range(2, MOST_UNITS + 1)])


MOST_UNITS = 1000
"""Runs up to which ``units_needed`` looks."""


def units_needed(found: Interval, smallest: float = 0.0) -> int | None:
    """Returns how many runs would decide about a mean, if it and the scatter of the runs stay what they are.

    They do where the interval leaves 0 out, or lies within ``-smallest`` and ``smallest``. None is more than 1,000, or
    not known.
    """
    deviation = (found.high - found.low) / 2 / _quantile(found.size) * np.sqrt(found.size) if found.size > 1 else np.nan
    sizes = np.arange(max(found.size, 2), MOST_UNITS + 1)
    half = _quantiles()[sizes - 2] * deviation / np.sqrt(sizes)
    enough = (half < abs(found.mean)) | (abs(found.mean) + half < smallest)
    return int(sizes[enough][0]) if np.any(enough) else None


def band(
    method: Method = "t", low: float = -np.inf, high: float = np.inf
) -> Callable[[Iterable[float]], tuple[float, float]]:
    """Returns what seaborn's ``errorbar`` asks for: a function from values to the ends of their interval.

    Args:
      method: see ``interval``.
      low: the ends stay within the range of what is measured: for accuracies 0 ...
      high: ... and 1.
    """

    def ends(values: Iterable[float]) -> tuple[float, float]:
        return interval(np.fromiter(values, float), method).clipped(low, high)[1:3]

    return ends
