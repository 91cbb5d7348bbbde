"""Means over seeds, and of margins paired by seed, with Student-t confidence intervals."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from pdjax.report.groups import Group

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over independent runs and its confidence interval; the ends are nan with fewer than 2 runs."""

    mean: float
    low: float
    high: float
    size: int  # runs


def half_width(values: Float[np.ndarray, "*points R"], confidence: float = CONFIDENCE) -> Float[np.ndarray, "*points"]:
    """Returns half the length of the two-sided confidence interval of the mean over the last axis.

    ``t(1 - (1 - confidence) / 2; R - 1) * s / sqrt(R)``, with s the sample standard deviation (division by
    R - 1): the interval for a normal population of unknown variance. One value says nothing about the spread
    of others: the result is then nan.
    """
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    quantile = float(scipy.stats.t.ppf(0.5 + confidence / 2, count - 1))
    return quantile * np.std(values, axis=-1, ddof=1) / np.sqrt(count)


def mean_interval(values: Float[np.ndarray, "R"], confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of R >= 1 values, one per seed, with its confidence interval.

    >>> mean_interval(np.array([1.0, 2.0, 3.0]))  # 2 -+ 4.303 / sqrt(3)  # doctest: +ELLIPSIS
    Interval(mean=2.0, low=-0.484..., high=4.484..., size=3)
    """
    mean, half = float(np.mean(values)), float(half_width(values, confidence))
    return Interval(mean, mean - half, mean + half, values.shape[-1])


def paired_margin(first: Group, second: Group, over_training: bool = False) -> Interval | None:
    """Returns the mean difference in final held-out accuracy, first minus second, paired by seed.

    With ``over_training`` it is the accuracy averaged over all evaluations. With fewer than 2 common seeds the
    interval's ends are nan; without any the result is None.
    """
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        return None
    values = []
    for group in (first, second):
        accuracy = group.accuracy.mean(axis=0) if over_training else group.final_accuracy
        values.append(np.array([accuracy[group.seeds.index(seed)] for seed in common]))
    return mean_interval(values[0] - values[1])
