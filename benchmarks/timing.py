"""Timing on a busy machine: the things to compare take turns, so that a slow minute is slow for all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Timing(NamedTuple):
    """Milliseconds per unit of work, one value for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.rounds)

    @property
    def minimum(self) -> float:
        """The fastest round, which the machine's other work disturbed least."""
        return min(self.rounds)


def alternate(candidates: Mapping[str, Callable[[], int]], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Times the candidates in strict alternation: A B C A B C ...

    A candidate does its work, waits until it is done and returns how many units it did; its times are per
    unit. The first ``warmup`` rounds, which compile and fill caches, are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for done in range(warmup + rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            units = candidate()
            elapsed = time.perf_counter() - start
            if done >= warmup:
                times[name].append(1e3 * elapsed / units)
    return {name: Timing(tuple(values)) for name, values in times.items()}


def ratio_of_medians(slower: Timing, faster: Timing) -> float:
    """How many times longer the first takes, by the medians over all rounds."""
    return slower.median / faster.median


def median_of_ratios(slower: Timing, faster: Timing) -> float:
    """The same by neighbours: the median of the rounds' own ratios, which slow drifts do not touch."""
    return statistics.median(a / b for a, b in zip(slower.rounds, faster.rounds, strict=True))
