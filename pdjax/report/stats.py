"""Means over independent runs, with Student t or bootstrap confidence intervals."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

CONFIDENCE = 0.95

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
        half = float(scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, size - 1) * scipy.stats.sem(values))
        return Interval(mean, mean - half, mean + half, size)
    ends = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    return Interval(mean, float(ends.low), float(ends.high), size)


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
