"""Configurations of strategies: which checkpoints a student learns from, and when."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pdjax.config.probes import NgramsConfig
from pdjax.errors import require


class Loss(NamedTuple):
    """What a student learns from: ``losses.mixed`` with this temperature and weight of the labels."""

    temperature: float  # of the teacher; 0 is its most probable class
    label_weight: float  # alpha, between 0 (the teacher alone) and 1


LABELS_ONLY = Loss(temperature=0.0, label_weight=1.0)


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """Which checkpoints of the trajectory a strategy uses; the final one always comes last."""

    kind: Literal["final", "equal", "steps", "phase", "multiples", "robust_peak", "auto", "transition", "levels"]
    count: int | None  # how many checkpoints, the final one included; None with multiples takes all
    # steps: the intermediate teacher steps, in order. multiples: the first alone; None is the middle of the phase
    steps: tuple[int, ...] | None
    points: tuple[Literal["start", "middle", "end"], ...] | None  # transition: where the checkpoints lie
    levels: tuple[int, ...] | None  # levels: of which levels of the task, the root is 0; None takes all

    def __post_init__(self):
        needs = {"equal": "count", "steps": "steps", "transition": "points"}.get(self.kind)
        if needs is not None:
            value = getattr(self, needs)
            require(value is not None, f"selection.{needs} with selection.kind {self.kind!r}", "None", "set it")
        for name in ("points", "levels"):
            expected = f"at least one entry in selection.{name}, or None"
            require(getattr(self, name) != (), expected, "none", "an empty list chooses no checkpoint")
        if self.kind == "multiples" and self.steps is not None:
            require(
                len(self.steps) == 1, "one selection.steps with selection.kind 'multiples'", self.steps, "the first"
            )
        if self.count is not None:
            require(self.count >= 1, "selection.count of at least 1", self.count, "raise it")
        if self.steps is not None:
            require(
                all(a < b for a, b in itertools.pairwise(self.steps)),
                "teacher steps in increasing order (a curriculum goes forward)",
                self.steps,
                "sort selection.steps and remove repeated entries",
            )

    @property
    def is_given(self) -> bool:
        """Whether the checkpoints are known before the teacher is trained."""
        return self.kind in ("final", "equal", "steps") or (self.kind == "multiples" and self.steps is not None)

    @property
    def measured_by(self) -> Literal["ngrams", "monomials"] | None:
        """The probe whose measurements of the teacher it selects by: the turn of M_robust, or the levels' spikes."""
        match self.kind:
            case "robust_peak" | "auto":
                return "ngrams"
            case "levels":
                return "monomials"
        return None


@dataclasses.dataclass(frozen=True)
class SaturationConfig:
    """When a student has learned what its teacher of the moment has to give (the authors' adaptive schedule).

    It moves on at an evaluation where its score is less than ``min_gain`` above the mean of the last
    ``window`` evaluations, while it has gained more than ``min_gain`` since it last moved on; and in any case
    ``max_steps`` steps after it last did. The score is its held-out accuracy, or how often its most likely class
    there is that of its teacher of the moment.
    """

    score: Literal["accuracy", "agreement"]
    window: int  # evaluations
    min_gain: float  # of the score
    max_steps: int  # student steps

    def __post_init__(self):
        for name in ("window", "max_steps"):
            require(getattr(self, name) >= 1, f"saturation.{name} of at least 1", getattr(self, name), "raise it")
        require(self.min_gain > 0, "a positive saturation.min_gain", self.min_gain, "raise it")


@dataclasses.dataclass(frozen=True)
class CrossingConfig:
    """When a student depends on short n-grams as much as its teacher of the moment.

    It moves on at an evaluation where its median M_robust (equation 5; over the places of ``ngrams``, the mean of its
    n) has come to the other side of its teacher's, compared with when it last moved on; and in any case ``max_steps``
    steps after it last did.
    """

    ngrams: NgramsConfig
    max_steps: int  # student steps

    def __post_init__(self):
        require(self.max_steps >= 1, "crossing.max_steps of at least 1", self.max_steps, "raise it")


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """A way to train a student: which checkpoints, when, how soft, and how much of the labels.

    ``schedule`` says when the student moves on (see ``pdjax.distill.curriculum``): ``labels`` never asks a teacher;
    ``one_shot`` uses the final one; ``fixed_duration`` spends ``duration`` steps on each (definition 2.2);
    ``equal_split`` splits the student's length; ``teacher_split`` splits ``kappa`` times the teacher's;
    ``till_saturate`` lets each student move on when it has stopped gaining; ``till_robust`` when its M_robust has
    crossed its teacher's.
    """

    schedule: Literal[
        "labels", "one_shot", "fixed_duration", "equal_split", "teacher_split", "till_saturate", "till_robust"
    ]
    label: str  # how the report names it
    selection: SelectionConfig
    duration: int | None  # fixed_duration: student steps per checkpoint
    kappa: float | None  # teacher_split
    saturation: SaturationConfig | None  # till_saturate
    crossing: CrossingConfig | None  # till_robust
    temperature: float  # of the teacher; 0 is its most likely class
    label_weight: float  # alpha: loss = alpha * cross-entropy + (1 - alpha) * distillation
    budgets: tuple[int, ...] | None  # training lengths in steps; None is those of student_training

    def __post_init__(self):
        needs = {"fixed_duration": "duration", "teacher_split": "kappa"}.get(self.schedule)
        if needs is not None:
            value = getattr(self, needs)
            require(
                value is not None and value > 0, f"a positive {needs} with schedule {self.schedule!r}", value, "set it"
            )
        rule = {"till_saturate": "saturation", "till_robust": "crossing"}.get(self.schedule)
        if rule is not None:
            value = getattr(self, rule)
            require(value is not None, f"{rule} with schedule {self.schedule!r}", "None", "set it")
        require(
            self.budgets != (), "at least one entry in budgets, or None", "none", "None is those of student_training"
        )
        require(min(self.budgets or (1,)) >= 1, "budgets of at least 1 step, or None", self.budgets, "raise them")
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

    @property
    def is_adaptive(self) -> bool:
        """Whether each student moves on by what it has learned."""
        return self.schedule in ("till_saturate", "till_robust")

    @property
    def loss(self) -> Loss:
        """Temperature and label weight; without a teacher there is no temperature."""
        return LABELS_ONLY if self.schedule == "labels" else Loss(self.temperature, self.label_weight)


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """Strategies that a figure of the report draws together.

    ``training`` draws their accuracy over training, one figure for each budget; ``budgets`` the final accuracy against
    the budget; ``first_checkpoints`` bars of the final accuracy by the first checkpoint of (2, T) strategies, grouped
    by T (figure 4 right).
    """

    kind: Literal["training", "budgets", "first_checkpoints"]
    title: str
    figure: str  # of the paper, as the caption names it: "figure 1 (right)"
    strategies: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """Variants of the experiment, with other tasks, teachers or students (figures 23 to 28, 30 to 32).

    Every variant is an experiment of its own, under ``ablations/<key>/<variant>`` in the working directory: the
    experiment's configuration with some fields replaced, without probes but for those that its strategies select by. It
    has the teacher of the experiment where it changes nothing that the teacher depends on.
    """

    title: str
    figure: str  # of the paper
    base: str | None  # what the experiment itself is called beside them; None leaves it out
    variants: Mapping[str, Mapping[str, Any]]  # fields to replace, nested like the configuration
    strategies: tuple[str, ...]  # trained in every variant
    budgets: tuple[int, ...]
    sizes: bool  # whether every variant also trains the models of ``sizes``

    def __post_init__(self):
        require(len(self.variants) > 0, "at least one entry in variants", "none", "add one or remove the ablation")
        split = [name for name in self.variants if "/" in name or name in ("", ".", "..")]
        require(not split, "names of variants that can be directories", split, "leave out the slash")
        require(self.base not in self.variants, "another name for base than those of variants", self.base, "rename it")
