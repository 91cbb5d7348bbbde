"""The adaptive curriculum: every student moves on to the next checkpoint when it has stopped gaining."""

from collections.abc import Sequence

import numpy as np

from pdjax.config import SaturationConfig


def saturation_starts(
    config: SaturationConfig, num_checkpoints: int, steps: Sequence[int], accuracy: Sequence[float]
) -> tuple[int, ...]:
    """Returns the starts of a student's curriculum so far, a pure function of its evaluations.

    The student moves on at an evaluation at which its accuracy exceeds the mean of the ``window`` evaluations
    before it, none of them before it last moved on, by less than ``min_gain``, while since then it has gained
    more than ``min_gain``; and in any case ``max_steps`` steps after it last moved on. The checkpoint changes from
    the step of that evaluation on, inclusive.

    Args:
      config: the rule's numbers.
      num_checkpoints: of the curriculum; after the last there is nothing to move on to.
      steps: student steps of the evaluations so far, increasing, from 0 on.
      accuracy: held-out accuracy at each of them.

    Returns:
      The first student step of each checkpoint reached so far; the first is 0.
    """
    starts, last = [0], 0  # ``last``: the evaluation at which the student last moved on
    for here in range(1, len(steps)):
        if len(starts) == num_checkpoints:
            break
        before = accuracy[max(last, here - config.window) : here]
        still_gaining = accuracy[here] - float(np.mean(before)) >= config.min_gain
        has_gained = accuracy[here] - accuracy[last] > config.min_gain
        saturated = len(before) == config.window and has_gained and not still_gaining
        if saturated or steps[here] - steps[last] >= config.max_steps:
            starts.append(steps[here])
            last = here
    return tuple(starts)
