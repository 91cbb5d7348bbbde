"""What a teacher's training shows: the phases of its loss, the rise of its accuracy, spikes, and where M_robust turns.

Each is found by a pure function of recorded numbers, and comes with a reason in plain language that holds them.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class LossPhases:
    """The phases of a teacher's training: plateau, rapid drop of the loss, slow end (figure 4 left)."""

    start: int  # step at which the drop begins
    middle: int  # step at which half of the drop is done
    end: int  # step at which the drop slows down
    reason: str


@dataclasses.dataclass(frozen=True)
class Transition:
    """The rise of a teacher's accuracy from chance to what it ends with (figure 2 left)."""

    start: int  # last checkpoint with an accuracy near chance
    middle: int  # checkpoint between them at which it is most nearly half done
    end: int  # first checkpoint near the final accuracy
    reason: str


@dataclasses.dataclass(frozen=True)
class Spike:
    """The evaluation at which predictions correlate most with a feature's low-degree monomials."""

    step: int
    reason: str


@dataclasses.dataclass(frozen=True)
class RobustPeak:
    """Where a training turns from the n-grams around a position to longer contexts (figure 4 middle)."""

    step: int
    peaked: bool  # M_robust falls after it; otherwise it is where M_robust rises fastest
    reason: str


class Phases(NamedTuple):
    """What is known about a teacher's training; None where it shows no such thing."""

    loss: LossPhases | None = None
    transition: Transition | None = None
    spikes: tuple[Spike, ...] | None = None  # one for each level of the task, the root first
    robust_peak: RobustPeak | None = None


PLATEAU, DROP = 1.4, 0.07
"""How many times faster than before a loss falls in its drop, and the drop's smallest share of the whole fall. Set on
the language models of ``docs/results`` (their first teachers): GPT-2's drop is 1.5 to 1.6 times as fast and 10 % of the
fall, the others' are far more. Of 500 convex curves with noise, which have no drop, 0 have one at a standard deviation
of 0.003 nats, 2 at 0.005 and 35 at 0.01."""


def find_loss_phases(steps: Int[np.ndarray, "E"], loss: Float[np.ndarray, "E"]) -> LossPhases | None:
    """Finds the rapid drop of a recorded loss (the middle phase of figure 4 left); None if there is none.

    The loss falls at a speed, measured between neighbouring evaluations and averaged over three of them. A loss that
    only slows down, as after its initial fall from random predictions, has no phases. The drop is where it falls
    fastest among the times at which it falls ``PLATEAU`` times faster than at some time before, the plateau; around
    it, where it falls at least half as fast. What is less than ``DROP`` of the whole fall is noise.

    Args:
      steps: of the evaluations, increasing.
      loss: held-out loss at these steps, in nats.
    """
    # Of fewer than three intervals `convolve` would make as many speeds as its window is long, not one for each.
    if len(steps) < 4:
        return None
    # Interval i lies between evaluations i and i + 1; the window shrinks at both ends.
    window = np.ones(3)
    falls = np.convolve(-np.diff(loss), window, mode="same")
    # The fall over the time that it took, each summed over the window: evaluations need not be equally spaced.
    speed = falls / np.convolve(np.diff(steps), window, mode="same")
    slowest = np.minimum.accumulate(speed)[:-1]
    faster = 1 + np.flatnonzero((speed[1:] > 0) & (speed[1:] >= PLATEAU * np.maximum(slowest, 0)))
    for fastest in sorted(faster.tolist(), key=lambda interval: -speed[interval]):
        plateau = int(np.argmin(speed[:fastest]))
        first = last = fastest
        while first - 1 > plateau and speed[first - 1] >= speed[fastest] / 2:
            first -= 1
        while last + 1 < len(speed) and speed[last + 1] >= speed[fastest] / 2:
            last += 1
        # Intervals `first` to `last` lie between evaluations `first` and `last + 1`.
        if loss[first] - loss[last + 1] >= DROP * (loss.max() - loss[-1]):
            return _phases(steps, loss, first, last, float(speed[fastest]))
    return None


def _phases(
    steps: Int[np.ndarray, "E"], loss: Float[np.ndarray, "E"], first: int, last: int, fastest: float
) -> LossPhases:
    start, end = int(steps[first]), int(steps[last + 1])
    halfway = (loss[first] + loss[last + 1]) / 2
    below = first + int(np.argmax(loss[first : last + 2] <= halfway))
    middle = int(steps[below])
    reason = (
        f"after a plateau the loss falls from {loss[first]:.3f} at step {start} to {loss[last + 1]:.3f} at step {end}, "
        f"there at least half as fast as its fastest, {1000 * fastest:.2f} nats per 1000 steps; "
        f"it is halfway by step {middle}"
    )
    return LossPhases(start, middle, end, reason)


UNRISEN, RISEN = 0.03, 0.99
"""Shares of the whole rise up to which an accuracy counts as not risen yet, and from which it counts as risen. Near
chance, accuracies over 4096 examples scatter with a standard error of 1.6 % of a rise from 1/2 to 1. The transition is
sharp at both ends: of four teachers on sparse parity (configs/parity_mlp.py, seeds 100, 101, 102 and 104) every student
of a checkpoint with 9 to 97 % of the rise done reached an accuracy of 1, and none did with less than 4.5 or more than
99 %."""


def find_transition(steps: Int[np.ndarray, "E"], accuracy: Float[np.ndarray, "E"], chance: float) -> Transition | None:
    """Finds the rise of a recorded accuracy from chance; None if there is none, or if it goes on to the end.

    Args:
      steps: of the stored checkpoints, increasing.
      accuracy: held-out accuracy of these checkpoints.
      chance: accuracy of guessing.
    """
    gain = float(accuracy[-1]) - chance
    # A rise as small as the scatter of accuracies is none.
    if gain < 2 * UNRISEN * (1 - chance):
        return None
    risen = (accuracy - chance) / gain
    # There is one: the last checkpoint has risen by the whole gain. `argmax` finds the first.
    last = int(np.argmax(risen >= RISEN))
    if last == len(steps) - 1:  # still rising when the training ended: nobody knows where its end is
        return None
    # The last one near chance, not the first above it: an accuracy may leave chance and come back.
    below = np.flatnonzero(risen[:last] <= UNRISEN)
    first = int(below[-1]) if len(below) else 0
    # The nearest, not the first above: accuracies may rest at half of the rise, scattering to both sides of it.
    middle = first + int(np.argmin(np.abs(risen[first : last + 1] - 0.5)))
    start, half, end = (int(steps[i]) for i in (first, middle, last))
    reason = (
        f"the accuracy rises from {accuracy[first]:.3f} at step {start} (chance is {chance:.3f}) over "
        f"{accuracy[middle]:.3f} at step {half} to {accuracy[last]:.3f} at step {end}; it ends with {accuracy[-1]:.3f}"
    )
    return Transition(start, half, end, reason)


def find_spikes(
    steps: Int[np.ndarray, "E"], inside: Float[np.ndarray, "E G"], outside: Float[np.ndarray, "E"]
) -> tuple[Spike, ...]:
    """Finds for each feature the checkpoint whose predictions correlate most with its low-degree monomials.

    Args:
      steps: of the checkpoints.
      inside: mean correlation with each feature's monomials, by checkpoint.
      outside: mean correlation with monomials off the support, the noise to compare with.
    """
    peaks = np.argmax(inside, axis=0)
    return tuple(
        Spike(
            int(steps[peak]),
            f"the correlation with the monomials of level {level} peaks at step {steps[peak]}: "
            f"{inside[peak, level]:.3f} on average, {outside[peak]:.3f} off the support",
        )
        for level, peak in enumerate(peaks)
    )


FALLEN = 0.9
"""Share of its peak below which M_robust has to fall until the end to have had one."""


SHORT = 5
"""The largest n-gram that is a short one: the peak is where a model relies on these most (section 4.1.2, n = 3 say)."""


def find_robust_peak(
    steps: Int[np.ndarray, "E"], robust: Float[np.ndarray, "E N"], n: Sequence[int]
) -> RobustPeak | None:
    """Finds the peak of M_robust over a training, the inflection from n-grams to longer contexts (section 4.1.1).

    It is the peak of the mean over the short n. A training that ends before M_robust falls shows no peak: then it is
    the fastest rise between neighbouring checkpoints, the speed averaged over three of these intervals, and the later
    of the two. None where M_robust does not rise at all, or no n is short.

    Args:
      steps: of the checkpoints, increasing.
      robust: median M_robust of each checkpoint, for each n.
      n: sizes of the n-grams.
    """
    short = [place for place, size in enumerate(n) if size <= SHORT]
    if not short:
        return None
    mean = robust[:, short].mean(axis=1)
    peak = int(np.argmax(mean))
    if peak == 0:
        return None
    names = ", ".join(str(n[place]) for place in short)
    what = f"median M_robust, averaged over n = {names},"
    # Any curve has a maximum. It is a peak if the training ends well below it.
    if mean[-1] < FALLEN * mean[peak]:
        reason = (
            f"{what} rises from {mean[0]:.3f} at step {steps[0]} to its peak of {mean[peak]:.3f} at step {steps[peak]} "
            f"and falls to {mean[-1]:.3f} at step {steps[-1]}"
        )
        return RobustPeak(int(steps[peak]), True, reason)
    window = np.ones(3)
    # As in `find_loss_phases`.
    speed = np.convolve(np.diff(mean), window, mode="same") / np.convolve(np.diff(steps), window, mode="same")
    fastest = int(np.argmax(speed))
    first, last = max(fastest - 1, 0), min(fastest + 2, len(mean) - 1)
    reason = (
        f"{what} has no peak before the training ends with {mean[-1]:.3f} at step {steps[-1]}; around step "
        f"{steps[fastest + 1]} it rises fastest, from {mean[first]:.3f} at step {steps[first]} to {mean[last]:.3f} at "
        f"step {steps[last]}"
    )
    return RobustPeak(int(steps[fastest + 1]), False, reason)
