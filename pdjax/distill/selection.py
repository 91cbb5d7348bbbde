"""Which checkpoints of a teacher a student learns from, and why.

A selection is a pure function of what the teacher's training recorded; it returns teacher steps and a reason in plain
language with the numbers behind it. The final teacher always comes last.
"""

import abc
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pdjax.distill.curriculum import equally_spaced, nearly_equally_spaced
from pdjax.distill.phases import Phases
from pdjax.errors import NotShownError, UserError, require
from pdjax.settings import Choice, Count, settings
from pdjax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Teacher steps in the order of a curriculum, the final one last, with the reason."""

    teacher_steps: tuple[int, ...]
    reason: str


class Selection(Choice, abc.ABC):
    """Which checkpoints of the trajectory a strategy uses."""

    measured_by: ClassVar[str | None] = None
    """The name of the probe whose measurements of the teacher it selects by."""

    label: ClassVar[str] = ""
    """What tells it apart beside others with the same schedule."""

    @property
    def size(self) -> int | None:
        """How many checkpoints it chooses, the final one included, where that is known in advance."""
        return 2

    @property
    def is_given(self) -> bool:
        """Whether the checkpoints are known before the teacher is trained."""
        return False

    @property
    def takes_multiples(self) -> bool:
        """Whether it takes multiples of a checkpoint that is found later: a regular trajectory alone has them."""
        return False

    def check(self, task: Task) -> None:
        """Raises a ``UserError`` if it is not for a task; by default it is for any."""

    @abc.abstractmethod
    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the checkpoints among the stored ones.

        Args:
          available: the steps of the trajectory, increasing; the last one is the final teacher.
          phases: of the teacher's training.

        Raises:
          NotShownError: the training did not show what the selection needs.
          UserError: a checkpoint is not stored.
        """

    def points(self, available: Sequence[int], num_levels: int) -> set[Any]:
        """Returns names of the intermediate checkpoints that will be found, at most one checkpoint each.

        A point that several selections find is the same checkpoint for all of them.

        Args:
          available: the steps of the trajectory, increasing.
          num_levels: of the task.
        """
        return {(type(self).__name__, 1)}


@settings
class Final(Selection):
    """The final teacher alone."""

    size: ClassVar[int] = 1  # pyright: ignore
    is_given: ClassVar[bool] = True  # pyright: ignore

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the last of the stored checkpoints."""
        return Chosen((available[-1],), f"the final teacher, step {available[-1]}")


@settings
class Equal(Selection):
    """Checkpoints at equal distances (definition 2.2)."""

    count: Count = 8
    """how many, the final one included"""
    nearest: bool = False
    """whether stored checkpoints near to equal distances do, as in a series that others have saved"""

    @property
    def size(self) -> int | None:
        """The count."""
        return self.count

    is_given: ClassVar[bool] = True  # pyright: ignore

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns every (T0 / count)-th step, or the stored ones near to them."""
        stored = f"a count of at most the {len(available)} checkpoints that there are"
        require(self.count <= len(available), stored, self.count, "lower it, or keep more checkpoints")
        if self.nearest:
            steps = nearly_equally_spaced(self.count, available)
            distance = f"{available[-1] / self.count:g}"
            return Chosen(steps, f"the {self.count} stored checkpoints nearest to equal distances of {distance} steps")
        steps = equally_spaced(self.count, available)
        return Chosen(steps, f"{self.count} equally spaced checkpoints, {available[-1] // self.count} steps apart")


@settings
class Steps(Selection):
    """Intermediate checkpoints that are named, then the final one."""

    steps: tuple[Count, ...]
    """the teacher steps, in order"""

    @property
    def size(self) -> int | None:
        """One more than there are steps."""
        return 1 + len(self.steps)

    @property
    def label(self) -> str:  # pyright: ignore
        """The steps."""
        return f"step {', '.join(map(str, self.steps))}" if self.steps else ""

    is_given: ClassVar[bool] = True  # pyright: ignore

    def __post_init__(self):
        require(
            all(a < b for a, b in itertools.pairwise(self.steps)),
            "teacher steps in increasing order (a curriculum goes forward)",
            self.steps,
            "sort the steps and remove repeated entries",
        )

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns what is named."""
        return Chosen((*self.steps, available[-1]), "given in the configuration, and the final teacher")


@settings
class Phase(Selection):
    """The checkpoint in the middle of the drop of the teacher's loss, then the final one (section 4.1)."""

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the stored checkpoint nearest to the middle of the drop."""
        first, why = _middle(self, available, phases)
        return Chosen((first, available[-1]), f"{why}; then the final teacher")

    def points(self, available: Sequence[int], num_levels: int) -> set[Any]:
        """Returns the middle."""
        return {("phase", 1)}


@settings
class Multiples(Selection):
    """A first checkpoint and its multiples, then the final one."""

    first: Count | None = None
    """a teacher step; None is the middle of the drop of the loss"""
    count: Count | None = None
    """how many checkpoints, the final one included; None takes all"""

    @property
    def size(self) -> int | None:
        """The count, as far as there are so many."""
        return self.count

    @property
    def is_given(self) -> bool:
        """Whether the first is."""
        return self.first is not None

    @property
    def takes_multiples(self) -> bool:
        """Whether the first is found later."""
        return self.first is None

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the multiples before the final step."""
        if self.first is not None:
            return self._of(self.first, available[-1], "the first is given in the configuration")
        first, why = _middle(self, available, phases)
        return self._of(first, available[-1], why)

    def points(self, available: Sequence[int], num_levels: int) -> set[Any]:
        """Returns as many as there can be: the earlier the middle is, the more."""
        # Where the middle will be is not known before the teacher is trained; plans count the most that there can be.
        most = self._of(available[0], available[-1], "").teacher_steps[:-1]
        return {("phase", multiple) for multiple in range(1, len(most) + 1)}

    def _of(self, first: int, final: int, why: str) -> Chosen:
        # Without the final step, which comes last in any case.
        multiples = tuple(range(first, final, first))[: None if self.count is None else self.count - 1]
        return Chosen((*multiples, final), f"{why}; then its multiples and the final teacher")


@settings
class RobustPeak(Selection):
    """The checkpoint at which M_robust turns (figure 4), then the final one."""

    label: ClassVar[str] = "from the peak of M_robust"
    measured_by: ClassVar[str | None] = "ngrams"

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the stored checkpoint nearest to the turn."""
        peak = _require_shown(self, phases.robust_peak, "rise of the teacher's M_robust")
        first = _nearest(available, peak.step)
        return Chosen((first, available[-1]), f"step {first}: {peak.reason}; then the final teacher")


@settings
class Auto(Selection):
    """One intermediate checkpoint by the loss and by M_robust together, then the final one.

    A student gains from the time in which the teacher turns from short n-grams to longer contexts. The loss shows it
    as its drop, M_robust as its rise up to the peak. Where the two find different checkpoints within the drop, the
    one between them is the choice: neither is exact, and their errors are different. Where M_robust turns outside the
    drop, or only one of them shows anything, the drop decides before M_robust does.
    """

    measured_by: ClassVar[str | None] = "ngrams"
    label: ClassVar[str] = "automatic"

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the stored checkpoint nearest to the choice; a training that shows neither is refused."""
        loss, peak = phases.loss, phases.robust_peak
        if loss is None and peak is None:
            _require_shown(self, None, "drop of the teacher's loss or rise of its M_robust")
        if loss is None:
            assert peak is not None
            wanted, why = peak.step, f"where M_robust turns: {peak.reason}; the loss shows no phases"
        elif peak is None or not loss.start <= peak.step <= loss.end:
            other = (
                "M_robust was not measured or never rises" if peak is None else f"M_robust turns outside: {peak.reason}"
            )
            wanted, why = loss.middle, f"the middle of the loss drop: {loss.reason}; {other}"
        else:
            wanted = (loss.middle + peak.step) // 2
            why = (
                f"halfway between step {loss.middle}, the middle of the loss drop, and step {peak.step}, where "
                f"M_robust turns: {loss.reason}; {peak.reason}"
            )
        first = _nearest(available, wanted)
        nearest = f"step {first} is the stored checkpoint nearest to {why}"
        return Chosen((first, available[-1]), f"{nearest}; then the final teacher")


@settings
class Transition(Selection):
    """Checkpoints along the rise of the teacher's accuracy (figure 2), then the final one."""

    at: Annotated[tuple[Literal["start", "middle", "end"], ...], Field(min_length=1)] = ("middle",)
    """where they lie"""

    @property
    def size(self) -> int | None:
        """One more than there are points."""
        return 1 + len(self.at)

    @property
    def label(self) -> str:  # pyright: ignore
        """The points."""
        return ", ".join(self.at)

    def check(self, task: Task) -> None:
        """Requires one class per input; elsewhere the transition is the drop of the loss."""
        require(
            task.predicts == "example",
            "a task of one class per input",
            type(task).__name__,
            "use Phase, the drop of the loss",
        )

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the stored checkpoints nearest to the points."""
        transition = _require_shown(self, phases.transition, "rise of the teacher's accuracy")
        wanted = {point: _nearest(available, getattr(transition, point)) for point in self.at}
        named = ", ".join(f"{point} at {step}" for point, step in wanted.items())
        reason = f"stored checkpoints nearest to the transition's points ({named}): {transition.reason}"
        # Where checkpoints are far apart, two points may be nearest to the same one, which a curriculum holds once.
        return Chosen((*sorted(set(wanted.values())), available[-1]), f"{reason}; then the final teacher")

    def points(self, available: Sequence[int], num_levels: int) -> set[Any]:
        """Returns the points."""
        return {("transition", point) for point in self.at}


@settings
class Levels(Selection):
    """For each level of a hierarchy the checkpoint at which its low-degree monomials spike, then the final one."""

    measured_by: ClassVar[str | None] = "monomials"

    levels: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """which, the root is 0; None takes all"""

    @property
    def size(self) -> int | None:
        """One more than there are levels, which the task knows."""
        return None if self.levels is None else 1 + len(self.levels)

    @property
    def label(self) -> str:  # pyright: ignore
        """The levels."""
        return "a checkpoint for each level" if self.levels is None else f"levels {', '.join(map(str, self.levels))}"

    def check(self, task: Task) -> None:
        """Requires levels that the task has."""
        depth = len(getattr(task, "levels", ()))
        beyond = [level for level in self.levels or () if not 0 <= level < depth]
        require(not beyond, f"levels from 0 to {depth - 1}", beyond, "the root is level 0")

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the stored checkpoints nearest to the spikes."""
        spikes = _require_shown(self, phases.spikes, "record of the teacher's correlations")
        levels = range(len(spikes)) if self.levels is None else self.levels
        unknown = [level for level in levels if not 0 <= level < len(spikes)]
        require(not unknown, f"levels from 0 to {len(spikes) - 1}", unknown, "the root is level 0")
        # Levels may spike together and in any order: a curriculum holds each checkpoint once, and goes forward.
        steps = sorted({_nearest(available, spikes[level].step) for level in levels})
        why = "; ".join(spikes[level].reason for level in levels)
        return Chosen((*steps, available[-1]), f"one checkpoint for each level's spike: {why}; then the final teacher")

    def points(self, available: Sequence[int], num_levels: int) -> set[Any]:
        """Returns the levels."""
        return {("level", level) for level in (range(num_levels) if self.levels is None else self.levels)}


def _middle(selection: Selection, available: Sequence[int], phases: Phases) -> tuple[int, str]:
    """Returns the stored checkpoint nearest to the middle of the drop of the loss, and why it is that."""
    loss = _require_shown(selection, phases.loss, "phase transition in the teacher's loss")
    first = _nearest(available, loss.middle)
    return first, f"step {first} is the stored checkpoint nearest to the middle of the loss drop: {loss.reason}"


def _nearest(available: Sequence[int], wanted: int) -> int:
    """Returns the stored step before the final one that is nearest to a step."""
    before_final = available[:-1]
    if not before_final:
        raise UserError(
            "a stored checkpoint before the final one", "none", "lower teacher_training.checkpoint_every, or keep more"
        )
    # Of two that are as near, the earlier.
    return min(before_final, key=lambda step: abs(step - wanted))


def _require_shown(selection: Selection, shown: Any, what: str) -> Any:
    if shown is None:
        # An error and no other checkpoint instead: students of it would be reported under this selection's name.
        raise NotShownError(
            f"a {what} for the selection {type(selection).__name__}",
            "a training that shows none",
            "use Equal or Steps, train the teacher longer or evaluate it more often",
        )
    return shown
