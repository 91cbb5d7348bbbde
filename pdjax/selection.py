"""Which checkpoints of a teacher a student learns from, and why.

A selection is a pure function of what the teacher's training recorded; it returns teacher steps and a
reason in plain language with the numbers behind it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from pdjax.config import SelectionConfig
from pdjax.curriculum import equally_spaced
from pdjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Phases:
    """The phases of a teacher's training: plateau, rapid drop of the loss, slow end (figure 4 left)."""

    start: int  # step at which the drop begins
    middle: int  # step at which half of the drop is done
    end: int  # step at which the drop slows down
    reason: str


@dataclasses.dataclass(frozen=True)
class Selection:
    """Teacher steps in the order of a curriculum, the final one last, with the reason."""

    teacher_steps: tuple[int, ...]
    reason: str


def find_phases(steps: Int[np.ndarray, "E"], loss: Float[np.ndarray, "E"]) -> Phases | None:
    """Finds the rapid drop of a recorded loss (the middle phase of figure 4 left); None if there is none.

    The loss falls at a speed, measured between neighbouring evaluations and averaged over three of them.
    After the initial fall from random predictions comes a plateau: the first time the loss falls more slowly
    than on average over the whole training. The drop is where, later, it falls at least half as fast as at
    its fastest; there must be some time at which it falls faster than average again.

    Args:
      steps: of the evaluations, increasing.
      loss: held-out loss at these steps, in nats.
    """
    if len(steps) < 4:
        return None
    # Interval i lies between evaluations i and i + 1; the window shrinks at both ends.
    window = np.ones(3)
    falls = np.convolve(-np.diff(loss), window, mode="same")
    speed = falls / np.convolve(np.diff(steps), window, mode="same")
    average = (loss[0] - loss[-1]) / (steps[-1] - steps[0])
    slow = np.flatnonzero(speed < average)
    if average <= 0 or not len(slow) or not np.any(speed[slow[0] :] > average):
        return None
    fastest = slow[0] + int(np.argmax(speed[slow[0] :]))
    first = last = fastest
    while first > slow[0] and speed[first - 1] >= speed[fastest] / 2:
        first -= 1
    while last + 1 < len(speed) and speed[last + 1] >= speed[fastest] / 2:
        last += 1
    start, end = int(steps[first]), int(steps[last + 1])
    halfway = (loss[first] + loss[last + 1]) / 2
    below = first + int(np.argmax(loss[first : last + 2] <= halfway))
    middle = int(steps[below])
    reason = (
        f"after a plateau the loss falls from {loss[first]:.3f} at step {start} to {loss[last + 1]:.3f} at step {end}, "
        f"there at least half as fast as its fastest, {1000 * speed[fastest]:.2f} nats per 1000 steps; "
        f"it is halfway by step {middle}"
    )
    return Phases(start, middle, end, reason)


def select(config: SelectionConfig, available: Sequence[int], phases: Phases | None) -> Selection:
    """Returns the checkpoints a selection names, among the stored ones.

    Args:
      config: the kind of selection and its settings.
      available: the steps of the trajectory, increasing; the last one is the final teacher.
      phases: of the teacher's training, which ``phase`` and ``multiples`` need.

    Raises:
      UserError: a checkpoint is not stored, or the training had no phase transition.
    """
    final = available[-1]
    match config.kind:
        case "final":
            return Selection((final,), f"the final teacher, step {final}")
        case "steps":
            return Selection((*(config.steps or ()), final), "given in the configuration, and the final teacher")
        case "equal":
            count = config.count or 1
            steps = equally_spaced(count, final, available[0])
            return Selection(steps, f"{count} equally spaced checkpoints, {final // count} steps apart")
        case "phase" | "multiples":
            first = _middle_of_drop(available, phases)
            assert phases is not None  # else there is no middle
            why = f"step {first} is the stored checkpoint nearest to the middle of the loss drop: {phases.reason}"
            if config.kind == "phase":
                return Selection((first, final), f"{why}; then the final teacher")
            multiples = tuple(range(first, final, first))[: None if config.count is None else config.count - 1]
            return Selection((*multiples, final), f"{why}; then its multiples and the final teacher")


def _middle_of_drop(available: Sequence[int], phases: Phases | None) -> int:
    if phases is None:
        raise UserError(
            "a phase transition in the teacher's loss for selection.kind 'phase' or 'multiples'",
            "a loss without a plateau followed by a drop",
            "use selection.kind 'equal' or 'steps', train the teacher longer or evaluate it more often",
        )
    before_final = available[:-1]
    if not before_final:
        raise UserError("a stored checkpoint before the final one", "none", "lower teacher_training.checkpoint_every")
    return min(before_final, key=lambda step: abs(step - phases.middle))
