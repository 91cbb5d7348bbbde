"""When a student moves on from one checkpoint of its teacher to the next.

A schedule makes the table of a curriculum. An adaptive one makes its first row alone: each student extends the table at
its evaluations, by what it has learned from the checkpoint before (``pdjax.distill.adaptive``).
"""

import abc
from collections.abc import Sequence
from typing import ClassVar

from pdjax.distill import curriculum as curricula
from pdjax.distill.curriculum import Curriculum
from pdjax.settings import Choice, Count, Positive, settings


class Schedule(Choice, abc.ABC):
    """When a student moves on."""

    is_progressive: ClassVar[bool] = True
    """Whether the student meets more than one checkpoint."""

    @abc.abstractmethod
    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns the table of a student's curriculum.

        Args:
          teacher_steps: of the selected checkpoints, the final one last.
          teacher_length: T0, the steps of the teacher's training.
          student_length: the steps of the student's.

        Raises:
          UserError: the checkpoints do not fit into the student's length.
        """

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What it is called beside others, with N for the number of checkpoints: ``({N}, 300)``."""


@settings
class OneShot(Schedule):
    """The final teacher throughout."""

    is_progressive: ClassVar[bool] = False
    label: ClassVar[str] = "one-shot"  # pyright: ignore

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns a table of one row."""
        # Whatever is selected: one-shot is the baseline, which meets no intermediate checkpoint.
        return curricula.one_shot(teacher_length)


@settings
class FixedDuration(Schedule):
    """Definition 2.2, (N, T): each checkpoint for T steps, then the final one to the end."""

    duration: Count = 300
    """T, student steps on each checkpoint"""

    @property
    def label(self) -> str:
        """As the paper writes it."""
        return f"progressive ({{N}}, {self.duration})"

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns a table whose rows are T steps long."""
        return curricula.fixed_duration(teacher_steps, self.duration)


@settings
class EqualSplit(Schedule):
    """The student's length in equal parts (section D.2)."""

    label: ClassVar[str] = "progressive ({N}-shot, equal split)"  # pyright: ignore

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns a table that ends with the student."""
        return curricula.equal_split(teacher_steps, student_length)


@settings
class TeacherSplit(Schedule):
    """kappa times the teacher's length in equal parts (section D.2); the final checkpoint to the end."""

    kappa: Positive = 0.5
    """of T0, the share that is split"""

    @property
    def label(self) -> str:
        """With T0 for the teacher's length."""
        share = {0.5: "T0/2", 1.0: "T0"}.get(self.kappa, f"{self.kappa:g} T0")
        return f"progressive ({{N}}-shot, {share})"

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns a table without the checkpoints that do not fit into the student's length."""
        return curricula.teacher_split(teacher_steps, teacher_length, self.kappa, student_length)
