"""Padding to a few lengths instead of one: strings that are sorted by length need less of it.

Shapes are static, so a program holds one branch for each padded length and takes the shortest that fits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


def padded_lengths(distribution: Mapping[int, float], count: int) -> tuple[int, ...]:
    """Returns at most ``count`` lengths, ascending, that pad strings least on average; the last one fits them all.

    Args:
      distribution: probability of every length that can occur.
      count: of the lengths, each of which costs a compilation.
    """
    lengths = np.array(sorted(distribution))  # that occur: one between two of these would only pad more
    below = np.concatenate([[0.0], np.cumsum([distribution[length] for length in lengths])])
    # By dynamic programming: cost[i, j] of padding the i-th to j-th length to the j-th, best[j] of all up to the j-th.
    cost = (below[None, 1:] - below[:-1, None]) * lengths
    cost[np.tril_indices(len(lengths), -1)] = np.inf
    best, choices = cost[0], []
    for _ in range(min(count, len(lengths)) - 1):
        extended = np.concatenate([[0.0], best[:-1]])[:, None] + cost  # the last group begins with the i-th
        choices.append(np.argmin(extended, axis=0))
        best = np.min(extended, axis=0)
    ends = [len(lengths) - 1]
    for choice in reversed(choices):
        # 0: this group reaches down to the shortest, so that fewer lengths are as good.
        if choice[ends[-1]] > 0:
            ends.append(choice[ends[-1]] - 1)
    return tuple(int(lengths[end]) for end in reversed(ends))


def at_length(lengths: tuple[int, ...], needed: Int[Array, ""], function: Callable[..., Any], *operands: Any) -> Any:
    """Returns ``function(length, *operands)`` with the shortest of ascending lengths that is not below ``needed``."""
    branches = [lambda *operands, length=length: function(length, *operands) for length in lengths]
    # `needed` is one number and not mapped over, so that one branch runs.
    return jax.lax.switch(jnp.sum(needed > jnp.array(lengths)), branches, *operands)
