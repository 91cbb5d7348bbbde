"""Configurations of strategies: which checkpoints a student learns from, and when."""

import dataclasses
import itertools
from typing import Literal

from pdjax.errors import require


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """Which checkpoints of the trajectory a strategy uses; the final one always comes last."""

    kind: Literal["final", "equal", "steps", "phase", "multiples", "transition", "levels"]
    count: int | None  # how many checkpoints, the final one included; None with multiples takes all
    steps: tuple[int, ...] | None  # steps: the intermediate teacher steps, in order
    points: tuple[Literal["start", "middle", "end"], ...] | None  # transition: where the checkpoints lie
    levels: tuple[int, ...] | None  # levels: of which levels of the task, the root is 0; None takes all

    def __post_init__(self):
        needs = {"equal": "count", "steps": "steps", "transition": "points"}.get(self.kind)
        if needs is not None:
            value = getattr(self, needs)
            require(value is not None, f"selection.{needs} with selection.kind {self.kind!r}", "None", "set it")
        for name in ("points", "levels"):
            place = f"at least one entry in selection.{name}, or None"
            require(getattr(self, name) != (), place, "none", "an empty list chooses no checkpoint")
        if self.count is not None:
            require(self.count >= 1, "selection.count of at least 1", self.count, "raise it")
        if self.steps is not None:
            require(
                all(a < b for a, b in itertools.pairwise(self.steps)),
                "teacher steps in increasing order (a curriculum goes forward)",
                self.steps,
                "sort selection.steps and remove repeated entries",
            )


@dataclasses.dataclass(frozen=True)
class SaturationConfig:
    """When a student has learned what its teacher of the moment has to give (the authors' adaptive schedule).

    It moves on at an evaluation where its accuracy is less than ``min_gain`` above the mean of the last
    ``window`` evaluations, while it has gained more than ``min_gain`` since it last moved on; and in any case
    ``max_steps`` steps after it last did.
    """

    window: int  # evaluations
    min_gain: float  # of accuracy
    max_steps: int  # student steps

    def __post_init__(self):
        for name in ("window", "max_steps"):
            require(getattr(self, name) >= 1, f"saturation.{name} of at least 1", getattr(self, name), "raise it")
        require(self.min_gain > 0, "a positive saturation.min_gain", self.min_gain, "raise it")


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """A way to train a student: which checkpoints, when, how soft, and how much of the labels.

    ``schedule`` says when the student moves on (see ``pdjax.curriculum``): ``labels`` never asks a teacher;
    ``one_shot`` uses the final one; ``fixed_duration`` spends ``duration`` steps on each (definition 2.2);
    ``equal_split`` splits the student's length; ``teacher_split`` splits ``kappa`` times the teacher's;
    ``till_saturate`` lets each student move on when it has stopped gaining.
    """

    schedule: Literal["labels", "one_shot", "fixed_duration", "equal_split", "teacher_split", "till_saturate"]
    label: str  # how the report names it
    selection: SelectionConfig
    duration: int | None  # fixed_duration: student steps per checkpoint
    kappa: float | None  # teacher_split
    saturation: SaturationConfig | None  # till_saturate
    temperature: float  # of the teacher; 0 is its most likely class
    label_weight: float  # alpha: loss = alpha * cross-entropy + (1 - alpha) * distillation

    def __post_init__(self):
        needs = {"fixed_duration": "duration", "teacher_split": "kappa"}.get(self.schedule)
        if needs is not None:
            value = getattr(self, needs)
            require(
                value is not None and value > 0, f"a positive {needs} with schedule {self.schedule!r}", value, "set it"
            )
        require(
            self.schedule != "till_saturate" or self.saturation is not None,
            "saturation with schedule 'till_saturate'",
            "None",
            "set it",
        )
        require(self.temperature >= 0, "a temperature of at least 0", self.temperature, "0 means the most likely class")
        require(0 <= self.label_weight <= 1, "label_weight in [0, 1]", self.label_weight, "change it")
        require(
            (self.schedule == "labels") == (self.label_weight == 1),
            "label_weight 1 exactly when schedule is 'labels'",
            f"schedule {self.schedule!r} with label_weight {self.label_weight}",
            "training from labels alone runs no teacher",
        )

    @property
    def is_progressive(self) -> bool:
        """Whether the student meets more than one checkpoint."""
        return self.schedule not in ("labels", "one_shot")


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """Strategies that a figure of the report draws together."""

    title: str
    figure: str  # of the paper, as the caption names it: "figure 1 (right)"
    strategies: tuple[str, ...]
