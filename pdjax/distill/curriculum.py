"""Curricula: which teacher checkpoint a student learns from at each of its steps.

A curriculum is a table. Checkpoint ``teacher_steps[k]`` is used from student step ``starts[k]``, inclusive
and 0-based, up to ``starts[k + 1]``, exclusive; the last one is used for ever. All schedules of the paper
(definitions 2.1 and 2.2, section D.2) are constructors of this table, and ``checkpoint_index`` is the one
lookup, which the compiled training loop uses. The labels-only student has no table: it runs no teacher.
"""

import dataclasses
import fractions
import itertools
from collections.abc import Collection, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pdjax.errors import UserError, require

FOREVER = 2**31 - 1
"""A start that no step reaches; pads tables to a common length so that they share a program."""


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Checkpoint ``teacher_steps[k]`` is used from student step ``starts[k]`` on.

    Raises:
      UserError: the table is empty or uneven, does not start at step 0, or is out of order.
    """

    starts: tuple[int, ...]
    teacher_steps: tuple[int, ...]

    def __post_init__(self):
        if not self.starts or len(self.starts) != len(self.teacher_steps):
            raise UserError(
                "a start for every checkpoint, and at least one",
                f"starts {self.starts} for checkpoints {self.teacher_steps}",
                "give both lists the same length",
            )
        # Without a start at 0 no row would hold at the first steps; of two rows with one start, the first would never
        # hold.
        if self.starts[0] != 0 or any(a >= b for a, b in itertools.pairwise(self.starts)):
            raise UserError("starts that begin at 0 and increase", str(self.starts), "sort and correct the curriculum")
        if any(a >= b for a, b in itertools.pairwise(self.teacher_steps)):
            raise UserError(
                "teacher steps in increasing order (a curriculum goes forward)",
                str(self.teacher_steps),
                "sort the checkpoints and remove repeated ones",
            )

    @property
    def switches(self) -> tuple[int, ...]:
        """The student steps at which the teacher changes."""
        return self.starts[1:]

    def check_available(self, available: Collection[int]) -> None:
        """Raises a ``UserError`` naming the checkpoints that a store does not hold."""
        missing = [step for step in self.teacher_steps if step not in available]
        if missing:
            raise UserError(
                f"teacher checkpoints {list(self.teacher_steps)}",
                f"no checkpoint for {missing} among {sorted(available)}",
                "choose stored steps or train the teacher with another checkpoint_every or keep",
            )


def explicit(teacher_steps: Sequence[int], durations: Sequence[int]) -> Curriculum:
    """Definition 2.1: checkpoint i for ``durations[i]`` steps, the last one for ever (its duration may be left out)."""
    if len(durations) not in (len(teacher_steps) - 1, len(teacher_steps)):
        raise UserError(
            f"a duration for each of {len(teacher_steps)} checkpoints; that of the last one may be left out",
            f"{len(durations)} durations {tuple(durations)}",
            "give both lists the same length",
        )
    # The last duration ends nothing: the last checkpoint is used for ever.
    starts = tuple(itertools.accumulate(durations[: len(teacher_steps) - 1], initial=0))
    return Curriculum(starts, tuple(teacher_steps))


def one_shot(final_step: int) -> Curriculum:
    """The final teacher throughout."""
    return Curriculum((0,), (final_step,))


def fixed_duration(teacher_steps: Sequence[int], duration: int) -> Curriculum:
    """Definition 2.2, (N, T): each checkpoint for T steps, then the final one for ever."""
    return explicit(teacher_steps, [duration] * len(teacher_steps))


def equal_split(teacher_steps: Sequence[int], student_length: int) -> Curriculum:
    """N-shot equal split (section D.2): the student's length in N equal intervals.

    When N does not divide the length, interval k starts at ``floor(k * length / N)``.
    """
    return _split(teacher_steps, student_length, student_length)


def teacher_split(teacher_steps: Sequence[int], teacher_length: int, kappa: float, student_length: int) -> Curriculum:
    """N-shot kappa*T0 equal split (section D.2): kappa * T0 / N steps on each checkpoint.

    Checkpoints that do not fit into the student's length are dropped; a student that trains longer than
    kappa * T0 keeps the final one to its end.
    """
    # The decimal as it was written: 0.58 * 100 is below 58 in binary, and its floors would come a step early.
    return _split(teacher_steps, fractions.Fraction(str(kappa)) * teacher_length, student_length)


def _split(teacher_steps: Sequence[int], span: fractions.Fraction | int, student_length: int) -> Curriculum:
    count = len(teacher_steps)
    if span < count:
        raise UserError(
            f"at least one student step for each of {count} checkpoints",
            f"{float(span):g} steps to split",
            "use fewer checkpoints, a longer student or a larger kappa",
        )
    # In whole numbers or exact fractions: k * (span / count) in floating point may come out just below a step.
    starts = [k * span // count for k in range(count)]
    kept = [k for k, start in enumerate(starts) if start < student_length]
    return Curriculum(tuple(starts[k] for k in kept), tuple(teacher_steps[k] for k in kept))


def equally_spaced(count: int, stored: Sequence[int]) -> tuple[int, ...]:
    """Returns ``count`` of the stored teacher steps at equal distances, the last one final (definition 2.2).

    Raises:
      UserError: such steps are not stored.
    """
    final = stored[-1]
    steps = tuple(number * final // count for number in range(1, count + 1))
    # An error, as the nearest stored steps would not be equally spaced, which is what the definition says.
    if final % count != 0 or not set(steps) <= set(stored):
        distances = {after - before for before, after in itertools.pairwise((0, *stored))}
        where = f"every {stored[0]} steps up to {final}" if len(distances) == 1 else f"at {list(stored)}"
        raise UserError(
            f"{count} equally spaced checkpoints among those stored {where}",
            f"a distance of {final / count:g}",
            "change the number of checkpoints, set selection.nearest, or teacher_training.checkpoint_every or .keep",
        )
    return steps


def nearly_equally_spaced(count: int, stored: Sequence[int]) -> tuple[int, ...]:
    """Returns ``count`` different stored teacher steps as near to equal distances as there are, the last one final.

    Of all choices the one whose distances to the steps at equal distances add up to the least.

    Raises:
      UserError: fewer are stored.
    """
    from scipy.optimize import linear_sum_assignment  # a fifth of a second, for the few that ask

    require(
        count <= len(stored),
        f"at least {count} stored checkpoints",
        f"{len(stored)}, {list(stored)}",
        "lower the number of checkpoints",
    )
    *others, final = stored
    wanted = [number * final / count for number in range(1, count)]
    _, chosen = linear_sum_assignment(np.abs(np.subtract.outer(wanted, others)).reshape(count - 1, len(others)))
    return (*sorted(others[index] for index in chosen), final)


def checkpoint_index(starts: Int[Array, "K"], step: Int[Array, ""]) -> Int[Array, ""]:
    """Returns the row of the table that holds at a student step: the last k with starts[k] <= step."""
    # Starts increase, so the rows that have begun are the first ones, and counting them finds the last of these without
    # a search. Padding never begins.
    return jnp.sum(starts <= step) - 1


def padded(starts: Sequence[int], length: int) -> Int[Array, "K"]:
    """Returns the starts as an array of a given length, padded with rows that never hold."""
    return jnp.array([*starts, *[FOREVER] * (length - len(starts))], dtype=jnp.int32)
