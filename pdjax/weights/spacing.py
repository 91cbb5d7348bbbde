"""Which steps a series of checkpoints leaves out, where its spacing leaves no doubt."""

from collections.abc import Sequence

import numpy as np

_LEAST = 5  # equal gaps in a piece before its spacing is evident
_MOST = 0.6  # of a piece's gaps, at least
_LARGEST = 64  # times the spacing: what is farther apart is no hole


def missing_steps(steps: Sequence[int]) -> list[int]:
    """Returns the steps that are missing from pieces of regular or geometric spacing.

    A gap is a hole where it is a multiple of the gaps before and after it and these are most of their piece's; where
    the spacing changes, as from 512 to 1000 and on, is none, nor at either end.

    >>> missing_steps([0, 1, 2, 4, 8, 32, 64, 128, 256, 512, 1000, 2000, 3000, 5000, 6000, 7000, 8000])
    [16, 4000]
    """
    values = np.asarray(steps, float)
    regular = _holes(values, np.zeros(len(values)))
    missing = {round(steps[before] + gap * n) for before, gap, count in regular for n in range(1, count)}
    positive = values[values > 0]
    for errors in (np.full(len(positive), 1e-9), 0.5 / positive):  # whole powers, and rounded ones
        for before, gap, count in _holes(np.log(positive), errors):
            missing |= {round(positive[before] * np.exp(gap * n)) for n in range(1, count)}
    return sorted(missing - set(steps))


def _holes(values: np.ndarray, errors: np.ndarray) -> list[tuple[int, float, int]]:
    """Returns the holes in pieces with equal gaps: the index before each, the gap, and how many gaps it is long.

    Args:
      values: increasing.
      errors: how far each may be off for its rounding.
    """
    gaps, slack = np.diff(values), errors[:-1] + errors[1:]
    found: list[tuple[int, float, int]] = []
    start = 0
    while start < len(gaps):
        gap = gaps[start]
        multiples = np.rint(gaps[start:] / gap)
        whole = (multiples >= 1) & (multiples <= _LARGEST)
        whole &= np.abs(gaps[start:] - multiples * gap) <= slack[start:] + slack[start] * multiples
        whole &= slack[start:] < gap / 8
        end = start + (len(whole) if whole.all() else int(np.argmin(whole)))
        while end > start and multiples[end - 1 - start] != 1:  # a piece ends with the gap that it begins with
            end -= 1
        counts = multiples[: end - start].astype(int)
        ones = counts == 1
        if ones.sum() >= _LEAST and ones.mean() >= _MOST:
            even = float(gaps[start:end][ones].mean())  # of rounded steps better than the first
            found += [(start + int(place), even, int(counts[place])) for place in np.flatnonzero(~ones & _few(~ones))]
        start = max(end, start + 1)
    return found


def _few(holes: np.ndarray) -> np.ndarray:
    """Returns which holes are alone or two in a row: more are another spacing."""
    runs = np.split(np.arange(len(holes)), np.flatnonzero(np.diff(holes.astype(int))) + 1)
    return np.concatenate([np.full(len(run), len(run) <= 2) for run in runs])
