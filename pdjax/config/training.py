"""Configurations of training: optimizer, teacher, students, other sizes, evaluation, loop."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from pdjax.config.models import ModelConfig
from pdjax.errors import require


def require_seed(name: str, seed: int) -> None:
    """Seeds live on the device as 32-bit integers."""
    require(0 <= seed < 2**31, f"{name} in [0, 2**31)", seed, "choose another seed")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam or plain SGD with a learning-rate schedule (section D.6)."""

    kind: Literal["adam", "sgd"]
    schedule: Literal["constant", "cosine"]  # cosine: linear warm-up, then half a cosine to 0
    warmup_fraction: float  # of all steps
    clip_norm: float | None  # on the norm of the whole gradient; None does not clip
    beta1: float
    beta2: float
    epsilon: float

    def __post_init__(self):
        require(0 <= self.warmup_fraction < 1, "warmup_fraction in [0, 1)", self.warmup_fraction, "lower it")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} in [0, 1)", getattr(self, name), "change it")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            "a positive clip_norm or None",
            self.clip_norm,
            "None switches clipping off",
        )


@dataclasses.dataclass(frozen=True)
class TeacherTrainingConfig:
    """How the teacher is trained and which of its states are kept."""

    seed: int  # of the teacher that students learn from
    extra_seeds: tuple[int, ...]  # further teachers trained along with it, for statements about teachers
    steps: int
    batch_size: int
    learning_rate: float
    checkpoint_every: int  # steps between checkpoints of the trajectory
    trajectory: str | None  # an existing trajectory store to use instead of training a teacher
    optimizer: OptimizerConfig

    def __post_init__(self):
        require_seed("teacher_training.seed", self.seed)
        for i, seed in enumerate(self.extra_seeds):
            require_seed(f"teacher_training.extra_seeds[{i}]", seed)
        require(
            len({self.seed, *self.extra_seeds}) == 1 + len(self.extra_seeds),
            "distinct teacher_training.extra_seeds, other than teacher_training.seed",
            self.extra_seeds,
            "remove the repeated ones",
        )
        require(
            self.trajectory is None or not self.extra_seeds,
            "no teacher_training.extra_seeds with a given trajectory",
            self.extra_seeds,
            "no teacher is trained then: leave them empty",
        )
        for name in ("steps", "batch_size", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"teacher_training.{name} of at least 1", getattr(self, name), "raise it")
        require(self.learning_rate > 0, "a positive teacher_training.learning_rate", self.learning_rate, "raise it")
        require(
            self.steps % self.checkpoint_every == 0,
            f"teacher_training.checkpoint_every that divides steps = {self.steps}",
            self.checkpoint_every,
            "the last checkpoint is the final teacher",
        )

    @property
    def checkpoints(self) -> Sequence[int]:
        """The steps of the trajectory that this training leaves."""
        return range(self.checkpoint_every, self.steps + 1, self.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class StudentTrainingConfig:
    """How students are trained: budgets, and the replicas seeds x learning_rates of every run."""

    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    budgets: tuple[int, ...]  # training lengths in steps, of every strategy without budgets of its own
    batch_size: int
    shared_batches: bool  # all replicas see the same batches, and the teacher runs once for all of them
    checkpoint_every: int | None  # steps between checkpoints that are kept for probes; None keeps none
    optimizer: OptimizerConfig

    def __post_init__(self):
        every = self.checkpoint_every
        require(
            every is None or every >= 1, "student_training.checkpoint_every of at least 1, or None", every, "raise it"
        )
        _check_replicas("student_training", self.seeds, self.learning_rates)
        _check_distinct("student_training.budgets", self.budgets)
        require(min(self.budgets) >= 1, "budgets of at least 1 step", self.budgets, "raise them")
        require(self.batch_size >= 1, "student_training.batch_size of at least 1", self.batch_size, "raise it")


@dataclasses.dataclass(frozen=True)
class SizesConfig:
    """Models of several sizes trained from the labels, to see which learns faster (figures 7 and 10)."""

    panels: Mapping[str, Mapping[str, ModelConfig]]  # panel -> label -> model; both names become directories
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    steps: int
    batch_size: int
    shared_batches: bool
    optimizer: OptimizerConfig

    def __post_init__(self):
        _check_replicas("sizes", self.seeds, self.learning_rates)
        require(len(self.panels) > 0, "at least one panel in sizes.panels", "none", "or leave sizes at None")
        for panel, models in self.panels.items():
            require(len(models) > 0, f"at least one model in sizes.panels.{panel}", "none", "add one")
            split = [name for name in (panel, *models) if "/" in name or name in ("", ".", "..")]
            require(not split, "names of panels and models that can be directories", split, "leave out the slash")
        for name in ("steps", "batch_size"):
            require(getattr(self, name) >= 1, f"sizes.{name} of at least 1", getattr(self, name), "raise it")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation: the same fresh examples for every model of the experiment."""

    every: int  # steps between evaluations; the last step is always evaluated
    num_batches: int
    batch_size: int

    def __post_init__(self):
        for name in ("every", "num_batches", "batch_size"):
            require(getattr(self, name) >= 1, f"evaluation.{name} of at least 1", getattr(self, name), "raise it")


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often the loop comes back from the device, and saves."""

    chunk_steps: int  # steps compiled into one program
    save_every: int  # steps between saved training states, from which a run resumes
    writers: tuple[str, ...]  # besides JSONL: "tensorboard", "wandb"

    def __post_init__(self):
        for name in ("chunk_steps", "save_every"):
            require(getattr(self, name) >= 1, f"loop.{name} of at least 1", getattr(self, name), "raise it")
        unknown = set(self.writers) - {"tensorboard", "wandb"}
        require(not unknown, "loop.writers among 'tensorboard', 'wandb'", sorted(unknown), "JSONL is always written")


def _check_replicas(path: str, seeds: tuple[int, ...], learning_rates: tuple[float, ...]) -> None:
    _check_distinct(f"{path}.seeds", seeds)
    _check_distinct(f"{path}.learning_rates", learning_rates)
    require(min(learning_rates) > 0, f"positive {path}.learning_rates", learning_rates, "raise them")
    for i, seed in enumerate(seeds):
        require_seed(f"{path}.seeds[{i}]", seed)


def _check_distinct(name: str, values: tuple[float, ...]) -> None:
    require(len(values) > 0, f"at least one entry in {name}", "none", "add one")
    require(len(set(values)) == len(values), f"distinct entries in {name}", values, "remove the repeated ones")
