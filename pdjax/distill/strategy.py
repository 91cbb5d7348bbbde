"""A way to train a student: which checkpoints, when, and with which loss."""

from typing import Annotated

from pydantic import Field

from pdjax.distill.adaptive import AdaptiveSchedule
from pdjax.distill.losses import Distillation, Loss
from pdjax.distill.part import WHOLE, Part, Whole
from pdjax.distill.schedules import OneShot, Schedule
from pdjax.distill.selection import Final, Selection
from pdjax.errors import require
from pdjax.settings import Beside, Count, Grows, Name, Positive, settings


@settings
class Strategy:
    """A way to train a student. Where the loss asks no teacher, selection, schedule and part say nothing."""

    name: Name
    """what it is called in flags, comparisons and files"""
    loss: Annotated[Loss, Beside()] = Distillation()
    """what the student learns from"""
    schedule: Annotated[Schedule, Beside()] = OneShot()
    """when it moves on to the next checkpoint"""
    selection: Selection = Final()
    """which checkpoints"""
    budgets: Annotated[Annotated[tuple[Count, ...], Field(min_length=1)] | None, Grows()] = None
    """training lengths in steps; None is those of student_training"""
    learning_rate: Positive | None = None
    """of its students; None is those of student_training"""
    part: Part = WHOLE
    """what students see of the intermediate checkpoints; the final one stays whole"""

    def __post_init__(self):
        # The name stands in paths of flags and in names of files.
        require(self.name.isidentifier(), "a name of letters, digits and underscores", repr(self.name), "rename it")

    @property
    def is_progressive(self) -> bool:
        """Whether the student meets more than one checkpoint."""
        return self.loss.asks_teacher and self.schedule.is_progressive

    @property
    def is_one_shot(self) -> bool:
        """Whether the student meets the final teacher alone."""
        return self.loss.asks_teacher and not self.schedule.is_progressive

    @property
    def is_adaptive(self) -> bool:
        """Whether each student moves on by what it has learned."""
        return self.loss.asks_teacher and isinstance(self.schedule, AdaptiveSchedule)

    @property
    def is_partial(self) -> bool:
        """Whether the student sees its intermediate checkpoints in part."""
        return self.loss.asks_teacher and not isinstance(self.part, Whole)

    @property
    def label(self) -> str:
        """How the report names it, after its settings."""
        if not self.loss.asks_teacher:
            return self.loss.label
        size = "N" if self.selection.size is None else str(self.selection.size)
        parts = (self.schedule.label.replace("{N}", size), self.selection.label, self.part.label, self.loss.label)
        return ", ".join(part for part in parts if part)


def temperature_name(temperature: float) -> str:
    """Returns a strategy's name for a temperature: 0.01 is ``temperature_0p01``, 1e-05 ``temperature_1em05``."""
    return "temperature_" + f"{temperature:g}".replace(".", "p").replace("-", "m")
