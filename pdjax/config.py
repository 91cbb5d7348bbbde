"""The experiment's configuration: frozen dataclasses, built once from a ConfigDict and validated.

Config files under ``configs/`` describe an experiment as an ``ml_collections.ConfigDict``, which is what
command-line overrides act on. ``from_config_dict`` turns it into the dataclasses below; everything else in
the package takes these and never looks at a ConfigDict. An unknown key, a missing key, a wrong type or a
contradiction is a ``UserError`` that names the key.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any, Literal

from pdjax.conversion import build
from pdjax.errors import require


def _require_seed(name: str, seed: int) -> None:
    """Seeds live on the device as 32-bit integers."""
    require(0 <= seed < 2**31, f"{name} in [0, 2**31)", seed, "choose another seed")


@dataclasses.dataclass(frozen=True)
class PcfgTaskConfig:
    """Masked prediction on strings of a probabilistic context-free grammar (definition 4.1)."""

    kind: Literal["pcfg"]
    grammar: str
    root: int | None  # a symbol of the grammar; None is the grammar's own root
    length: int | None  # positions, [BOS] included; None is the longest string that can occur
    mask_rate: float  # probability that a position is selected
    select_bos: bool  # the released code may select [BOS]; the paper's definition has no such token

    def __post_init__(self):
        require(0 < self.mask_rate < 1, "task.mask_rate between 0 and 1", self.mask_rate, "give a probability")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """A BERT encoder with a masked-language-model head (section D.5)."""

    kind: Literal["bert"]
    num_layers: int
    num_heads: int
    head_dim: int | None  # None: width / num_heads
    width: int | None  # None: num_heads * head_dim
    feed_forward_multiple: int
    dropout: float
    attend_to_selected: bool  # False: selected positions are invisible as keys, as in the released code

    def __post_init__(self):
        for name in ("num_layers", "num_heads", "feed_forward_multiple"):
            require(getattr(self, name) >= 1, f"{name} of at least 1", getattr(self, name), "raise it")
        require(0 <= self.dropout < 1, "dropout in [0, 1)", self.dropout, "give a probability")
        require(
            self.head_dim is not None or self.width is not None,
            "head_dim or width",
            "neither",
            "set one: the width is num_heads * head_dim",
        )
        width = self.width if self.width is not None else self.num_heads * (self.head_dim or 0)
        require(width >= 1, "a width of at least 1", f"width {width}", "raise width or head_dim")
        require(
            width % self.num_heads == 0,
            f"a width that {self.num_heads} heads divide",
            f"width {width}",
            "change width or num_heads",
        )
        head_dim = self.head_dim if self.head_dim is not None else width // self.num_heads
        require(
            width == self.num_heads * head_dim,
            f"width = num_heads * head_dim = {self.num_heads} * {head_dim} = {self.num_heads * head_dim}",
            f"width {width}",
            "change one of the three, or leave head_dim or width at None",
        )

    @property
    def model_width(self) -> int:
        """The width of the residual stream, D."""
        return self.width if self.width is not None else self.num_heads * (self.head_dim or 0)


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

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    checkpoint_every: int  # steps between checkpoints of the trajectory
    trajectory: str | None  # an existing trajectory store to use instead of training a teacher
    optimizer: OptimizerConfig

    def __post_init__(self):
        _require_seed("teacher_training.seed", self.seed)
        for name in ("steps", "batch_size", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"teacher_training.{name} of at least 1", getattr(self, name), "raise it")
        require(self.learning_rate > 0, "a positive teacher_training.learning_rate", self.learning_rate, "raise it")
        require(
            self.steps % self.checkpoint_every == 0,
            f"teacher_training.checkpoint_every that divides steps = {self.steps}",
            self.checkpoint_every,
            "the last checkpoint is the final teacher",
        )


@dataclasses.dataclass(frozen=True)
class StudentTrainingConfig:
    """How students are trained: budgets, and the replicas seeds x learning_rates of every run."""

    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    budgets: tuple[int, ...]  # training lengths in steps, one run of every strategy for each
    batch_size: int
    shared_batches: bool  # all replicas see the same batches, and the teacher runs once for all of them
    optimizer: OptimizerConfig

    def __post_init__(self):
        for name in ("seeds", "learning_rates", "budgets"):
            values = getattr(self, name)
            require(len(values) > 0, f"at least one entry in student_training.{name}", "none", "add one")
            require(
                len(set(values)) == len(values),
                f"distinct entries in student_training.{name}",
                values,
                "remove the repeated ones",
            )
        require(
            min(self.learning_rates) > 0,
            "positive student_training.learning_rates",
            self.learning_rates,
            "raise them",
        )
        for i, seed in enumerate(self.seeds):
            _require_seed(f"student_training.seeds[{i}]", seed)
        require(min(self.budgets) >= 1, "budgets of at least 1 step", self.budgets, "raise them")
        require(self.batch_size >= 1, "student_training.batch_size of at least 1", self.batch_size, "raise it")


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """Which checkpoints of the trajectory a strategy uses; the final one always comes last."""

    kind: Literal["final", "equal", "steps", "phase", "multiples"]
    count: int | None  # how many checkpoints, the final one included; None with multiples takes all
    steps: tuple[int, ...] | None  # steps: the intermediate teacher steps, in order

    def __post_init__(self):
        needs = {"equal": "count", "steps": "steps"}.get(self.kind)
        if needs is not None:
            value = getattr(self, needs)
            require(value is not None, f"selection.{needs} with selection.kind {self.kind!r}", "None", "set it")
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
class StrategyConfig:
    """A way to train a student: which checkpoints, when, how soft, and how much of the labels.

    ``schedule`` says when the student moves on (see ``pdjax.curriculum``): ``labels`` never asks a teacher;
    ``one_shot`` uses the final one; ``fixed_duration`` spends ``duration`` steps on each (definition 2.2);
    ``equal_split`` splits the student's length; ``teacher_split`` splits ``kappa`` times the teacher's.
    """

    schedule: Literal["labels", "one_shot", "fixed_duration", "equal_split", "teacher_split"]
    label: str  # how the report names it
    selection: SelectionConfig
    duration: int | None  # fixed_duration: student steps per checkpoint
    kappa: float | None  # teacher_split
    temperature: float  # of the teacher; 0 is its most likely class
    label_weight: float  # alpha: loss = alpha * cross-entropy + (1 - alpha) * distillation

    def __post_init__(self):
        needs = {"fixed_duration": "duration", "teacher_split": "kappa"}.get(self.schedule)
        if needs is not None:
            value = getattr(self, needs)
            require(
                value is not None and value > 0, f"a positive {needs} with schedule {self.schedule!r}", value, "set it"
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


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: teacher, students by strategy and budget, report."""

    name: str
    seed: int  # of batches shared by students, and of the held-out examples
    task: PcfgTaskConfig
    teacher: BertConfig
    student: BertConfig
    teacher_training: TeacherTrainingConfig
    student_training: StudentTrainingConfig
    strategies: Mapping[str, StrategyConfig]
    evaluation: EvaluationConfig
    loop: LoopConfig

    def __post_init__(self):
        _require_seed("seed", self.seed)
        require(len(self.strategies) > 0, "at least one strategy", "none", "add one under strategies")
        chunk = self.loop.chunk_steps
        lengths = {
            "loop.save_every": self.loop.save_every,
            "evaluation.every": self.evaluation.every,
            "teacher_training.steps": self.teacher_training.steps,
            "teacher_training.checkpoint_every": self.teacher_training.checkpoint_every,
            **{f"student_training.budgets[{i}]": b for i, b in enumerate(self.student_training.budgets)},
        }
        for name, length in lengths.items():
            require(
                length % chunk == 0,
                f"{name} to be a multiple of loop.chunk_steps = {chunk}",
                length,
                "the loop evaluates and saves between chunks; change one of the two",
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns nested plain dicts and lists, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """SHA-256 over the whole configuration, in hexadecimal."""
        return digest_of(self.as_dict())


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def from_config_dict(config: Any) -> Config:
    """Converts a ConfigDict (or nested dicts) into the validated dataclasses.

    Raises:
      UserError: an unknown or missing key, a wrong type, or values that contradict each other.
    """
    to_dict = getattr(config, "to_dict", None)
    return build(Config, to_dict() if to_dict is not None else config, "config")
