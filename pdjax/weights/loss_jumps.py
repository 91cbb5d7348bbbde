"""Which losses of a series jump against their neighbours."""

from collections.abc import Sequence

import numpy as np

JUMP = 7.0
"""A loss jumps where it is outside of what its neighbours span by this many times the changes around it.

Sound trainings have spikes too, at high learning rates, that no such factor tells from a wrong checkpoint.
"""

_AROUND = 6  # changes on either side that tell how much the loss usually changes here
_FIRST = 4  # losses at the start that are not judged: a high learning rate makes a sound training begin with a jump


def jumps(losses: Sequence[float]) -> list[int]:
    """Returns the indices of losses that jump, none of the first four and not the last.

    What a loss is measured by is the 80% quantile of the changes around it, its own left out: it holds the trend and
    the noise alike, so that neither a fast drop nor a noisy plateau is one jump after another.
    """
    values = np.asarray(losses, float)
    changes = np.abs(np.diff(values))
    found = []
    for index in range(_FIRST, len(values) - 1):
        low, high = sorted((values[index - 1], values[index + 1]))
        excess = max(low - values[index], values[index] - high)
        others = np.concatenate([changes[max(0, index - 1 - _AROUND) : index - 1], changes[index + 1 :][:_AROUND]])
        if len(others) >= _AROUND and excess > JUMP * np.quantile(others, 0.8):
            found.append(index)
    return found
