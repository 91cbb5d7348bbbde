"""Which states of a teacher's training are kept as checkpoints of its trajectory.

``checkpoint_every`` lays a grid over the training, its multiples up to the last step. A choice keeps some of the grid,
and always the last step, which is the final teacher.
"""

import abc
import fractions
import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from pdjax.errors import require
from pdjax.settings import Choice, Count, Positive, settings


class Keeping(Choice, abc.ABC):
    """Which steps of the grid are kept."""

    decides: ClassVar[bool] = False
    """Whether the training decides about more of them than the sure ones: every step of the grid is then evaluated."""

    @abc.abstractmethod
    def sure(self, grid: range) -> Sequence[int]:
        """Returns the steps that are kept whatever the training shows, increasing; the last is that of the grid."""

    def check(self, grid: range) -> None:
        """Raises a ``UserError`` where the settings do not fit the grid."""

    def most(self, grid: range, checkpoint_bytes: int) -> int:
        """Returns how many checkpoints are kept at most.

        Args:
          grid: of the training.
          checkpoint_bytes: what one checkpoint takes on disk.

        Raises:
          UserError: a budget is smaller than what the sure ones take.
        """
        return len(self.sure(grid))

    def kept(self, grid: range, steps: Sequence[int], losses: Sequence[float], checkpoint_bytes: int) -> Sequence[int]:
        """Returns the steps kept so far, a pure function of the evaluations so far.

        Args:
          grid: of the training.
          steps: of the evaluations so far, increasing, from 0 on.
          losses: at each of them, held out, in nats.
          checkpoint_bytes: what one checkpoint takes on disk.
        """
        return [step for step in self.sure(grid) if step <= steps[-1]]


@settings
class Regular(Keeping):
    """All of the grid."""

    def sure(self, grid: range) -> Sequence[int]:
        """Returns the grid."""
        return grid


@settings
class AtSteps(Keeping):
    """Steps that are named, and the last."""

    steps: tuple[Count, ...]
    """multiples of checkpoint_every, increasing"""

    def check(self, grid: range) -> None:
        """Requires steps of the grid, in order."""
        require(
            all(a < b for a, b in itertools.pairwise(self.steps)),
            "steps in increasing order",
            self.steps,
            "sort them and remove repeated ones",
        )
        outside = [step for step in self.steps if step not in grid]
        require(
            not outside,
            f"multiples of checkpoint_every = {grid.step} up to {grid[-1]}",
            outside,
            "change these steps or checkpoint_every",
        )

    def sure(self, grid: range) -> Sequence[int]:
        """Returns what is named, and the last."""
        return tuple(sorted({*self.steps, grid[-1]}))


@settings
class Geometric(Keeping):
    """The first step of the grid, then each the ratio times the one before, and the last: early ones are dense.

    Each is the step of the grid that is nearest to the ratio times the one before, and never that one again.
    """

    ratio: Annotated[float, Field(gt=1)] = 2.0

    def sure(self, grid: range) -> Sequence[int]:
        """Returns the progression up to the last step."""
        # The decimal as it was written: products in binary may come out just below a half.
        ratio, number, numbers = fractions.Fraction(str(self.ratio)), 1, []
        while number < len(grid):
            numbers.append(number)
            number = max(number + 1, round(number * ratio))
        return (*(grid[number - 1] for number in numbers), grid[-1])


@settings
class WhileFalling(Keeping):
    """Densely while the held-out loss falls fast: wherever it has fallen by so much since the checkpoint before.

    Besides, checkpoints at regular steps and the last one, whose place in the budget is reserved. Nothing that is kept
    is dropped again: when the budget is spent, by the earliest falls, the regular ones alone follow. Of several
    teachers that are trained together, the loss of the first decides for all.
    """

    decides: ClassVar[bool] = True

    min_fall: Positive = 0.05
    """of the held-out loss since the checkpoint before, or the untrained model, in nats"""
    at_least_every: Count | None = None
    """steps between checkpoints that are kept in any case, a multiple of checkpoint_every; None: the last one alone"""
    most_checkpoints: Count | None = None
    """the budget of one teacher's trajectory, the last one included; None: as many as the grid has"""
    most_bytes: Count | None = None
    """the same, on disk"""

    def check(self, grid: range) -> None:
        """Requires regular steps on the grid, and a budget for them."""
        every, sure = self.at_least_every, len(self.sure(grid))
        require(
            every is None or every % grid.step == 0,
            f"at_least_every that is a multiple of checkpoint_every = {grid.step}, or None",
            every,
            "change one of the two",
        )
        require(
            self.most_checkpoints is None or self.most_checkpoints >= sure,
            f"most_checkpoints of at least {sure}, the last and those of at_least_every",
            self.most_checkpoints,
            "raise it, or at_least_every",
        )

    def sure(self, grid: range) -> Sequence[int]:
        """Returns the regular steps and the last."""
        every = self.at_least_every
        return tuple(step for step in grid if step == grid[-1] or (every is not None and step % every == 0))

    def most(self, grid: range, checkpoint_bytes: int) -> int:
        """Returns what the budget allows."""
        sure = len(self.sure(grid))
        allowed = None if self.most_bytes is None else self.most_bytes // checkpoint_bytes
        require(
            allowed is None or allowed >= sure,
            f"teacher_training.keep.most_bytes of at least {sure * checkpoint_bytes}, for {sure} checkpoints",
            self.most_bytes,
            "raise it, or at_least_every",
        )
        return min(limit for limit in (len(grid), self.most_checkpoints, allowed) if limit is not None)

    def kept(self, grid: range, steps: Sequence[int], losses: Sequence[float], checkpoint_bytes: int) -> Sequence[int]:
        """Returns the regular steps, and those at which the loss had fallen while the budget lasted."""
        sure = set(self.sure(grid))
        spare = self.most(grid, checkpoint_bytes) - len(sure)
        kept, before = [], losses[0]
        for step, loss in zip(steps, losses, strict=True):
            if step not in grid:
                continue
            if step not in sure:
                if spare == 0 or before - loss < self.min_fall:
                    continue
                spare -= 1
            kept.append(step)
            before = loss
        return kept
