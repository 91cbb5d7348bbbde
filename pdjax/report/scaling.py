"""How a number of samples grows with the size of a problem: exponents with intervals over units."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from pdjax.report.stats import CONFIDENCE, Interval

_RESAMPLES = 2000
_MOST_LOST = 0.05  # of the resamples may have no exponent


class Line(NamedTuple):
    """The units of one source in several problems that differ in one size alone."""

    source: str
    rest: Mapping[str, float]  # what they have in common, by name
    values: Mapping[float, Sequence[float]]  # samples of every unit, by size; infinite where they were not enough

    @property
    def medians(self) -> dict[float, float]:
        """Of the units of each size, where it is finite."""
        medians = {size: float(median(np.asarray(each, float))) for size, each in self.values.items()}
        return {size: samples for size, samples in medians.items() if np.isfinite(samples)}

    @property
    def exponent(self) -> Interval | None:
        """The slope of log median against log size, with a bootstrap interval: see ``exponent``."""
        return exponent(self.values)


def lines(rows: pd.DataFrame, axis: str, rest: Sequence[str]) -> Iterator[Line]:
    """Yields a line for each source, in the order of the rows, wherever at least two sizes are beside each other.

    Args:
      rows: with columns ``source``, ``samples`` and those that are named.
      axis: the column of the size.
      rest: columns that are the same within a line.
    """
    for source, of_source in rows.groupby("source", sort=False):
        for _, chosen in of_source.groupby(list(rest)):
            if chosen[axis].nunique() > 1:
                by_size = {float(size): each.samples.tolist() for size, each in chosen.groupby(axis)}  # pyright: ignore
                yield Line(str(source), {name: chosen[name].iloc[0] for name in rest}, by_size)


def exponent(values: Mapping[float, Sequence[float]]) -> Interval | None:
    """Returns the slope of log median against log size, by least squares, with a bootstrap interval over units.

    Units are resampled at every size by itself; ``size`` of the interval is how many there are where they are fewest,
    and its ends are nan where that is one. None where a median is infinite, or where more than a twentieth of the
    resamples have an infinite one: too few units were found.

    Args:
      values: of every unit, by size; infinite where a search ended without one.

    >>> round(exponent({10.0: [200.0, 200.0], 100.0: [20000.0, 20000.0]}).mean, 9)
    2.0
    """
    x, units = np.log(np.array(list(values), float)), [np.log(np.asarray(each, float)) for each in values.values()]
    medians = np.array([median(each) for each in units])
    if not np.all(np.isfinite(medians)):
        return None
    generator = np.random.default_rng(0)
    resampled = np.stack([median(generator.choice(each, (_RESAMPLES, len(each)))) for each in units], axis=1)
    resampled = resampled[np.all(np.isfinite(resampled), axis=1)]
    if len(resampled) < (1 - _MOST_LOST) * _RESAMPLES:
        return None
    fewest, slope = min(map(len, units)), float(np.polyfit(x, medians, 1)[0])
    if fewest < 2:  # resampled it is always the same, which says nothing about another one
        return Interval(slope, np.nan, np.nan, fewest)
    slopes = np.polyfit(x, resampled.T, 1)[0]
    low, high = np.quantile(slopes, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(slope, float(low), float(high), fewest)


def median(values: Float[np.ndarray, "*leading U"]) -> Float[np.ndarray, "*leading"]:
    """Returns the median of U units; of two in the middle the larger: with that, more than half had enough.

    >>> float(median(np.array([10.0, np.inf, 20.0, 40.0])))
    40.0
    """
    ordered = np.sort(values)
    return ordered[..., ordered.shape[-1] // 2]
