"""Adaptive curricula: every student moves on to the next checkpoint by what it has learned from the one before."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pdjax.config import CrossingConfig, SaturationConfig


def saturation_starts(
    config: SaturationConfig, steps: Sequence[int], scores: Float[np.ndarray, "E K"]
) -> tuple[int, ...]:
    """Returns the starts of a student's curriculum so far, a pure function of its evaluations.

    The student moves on at an evaluation at which its score exceeds the mean of the ``window`` evaluations
    before it, none of them before it last moved on, by less than ``min_gain``, while since then it has gained
    more than ``min_gain``; and in any case ``max_steps`` steps after it last moved on. The checkpoint changes from
    the step of that evaluation on, inclusive.

    Args:
      config: the rule's numbers.
      steps: student steps of the evaluations so far, increasing, from 0 on.
      scores: at each of them, with each of the K checkpoints as teacher. After the last there is nothing to move on to.

    Returns:
      The first student step of each checkpoint reached so far; the first is 0.
    """
    starts, last = [0], 0  # ``last``: the evaluation at which the student last moved on
    for here in range(1, len(steps)):
        if len(starts) == scores.shape[1]:
            break
        score = scores[:, len(starts) - 1]
        before = score[max(last, here - config.window) : here]
        still_gaining = score[here] - float(np.mean(before)) >= config.min_gain
        has_gained = score[here] - score[last] > config.min_gain
        saturated = len(before) == config.window and has_gained and not still_gaining
        if saturated or steps[here] - steps[last] >= config.max_steps:
            starts.append(steps[here])
            last = here
    return tuple(starts)


def crossing_starts(config: CrossingConfig, steps: Sequence[int], surplus: Float[np.ndarray, "E K"]) -> tuple[int, ...]:
    """Returns the starts of a student's curriculum so far, a pure function of its evaluations.

    The student moves on at an evaluation at which its M_robust has come to the other side of its teacher's, compared
    with the evaluation at which it last moved on (or to the same value); and in any case ``max_steps`` steps after it
    last moved on.

    Args:
      config: the rule's numbers.
      steps: student steps of the evaluations so far, increasing, from 0 on.
      surplus: the student's M_robust minus that of each of the K checkpoints, at each of them.
    """
    starts, last = [0], 0
    for here in range(1, len(steps)):
        if len(starts) == surplus.shape[1]:
            break
        difference = surplus[:, len(starts) - 1]
        crossed = difference[here] * difference[last] <= 0
        if crossed or steps[here] - steps[last] >= config.max_steps:
            starts.append(steps[here])
            last = here
    return tuple(starts)
