"""The configuration of an experiment."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pdjax.config.models import BertConfig, Gpt2Config, ModelConfig
from pdjax.config.placement import PlacementConfig
from pdjax.config.probes import ProbesConfig
from pdjax.config.strategies import ComparisonConfig, StrategyConfig
from pdjax.config.tasks import HierarchicalTaskConfig, PcfgTaskConfig, TaskConfig
from pdjax.config.training import (
    EvaluationConfig,
    LoopConfig,
    SizesConfig,
    StudentTrainingConfig,
    TeacherTrainingConfig,
    require_seed,
)
from pdjax.conversion import build
from pdjax.errors import require


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: teacher, students by strategy and budget, report."""

    name: str
    seed: int  # of batches shared by students, and of the held-out examples
    task: TaskConfig
    teacher: ModelConfig
    student: ModelConfig
    teacher_training: TeacherTrainingConfig
    student_training: StudentTrainingConfig
    strategies: Mapping[str, StrategyConfig]
    comparisons: Mapping[str, ComparisonConfig]  # by the name of the figure's files
    probes: ProbesConfig
    sizes: SizesConfig | None  # further models trained from the labels; None trains none
    evaluation: EvaluationConfig
    loop: LoopConfig
    placement: PlacementConfig

    def __post_init__(self):
        require_seed("seed", self.seed)
        require(len(self.strategies) > 0, "at least one strategy", "none", "add one under strategies")
        models = {"teacher": self.teacher, "student": self.student}
        if self.sizes is not None:
            for panel, members in self.sizes.panels.items():
                models |= {f"sizes.panels.{panel}.{label}": model for label, model in members.items()}
        for place, model in models.items():
            _check_model(place, model, self.task)
        _check_probes(self)
        for name, comparison in self.comparisons.items():
            unknown = [key for key in comparison.strategies if key not in self.strategies]
            place = f"comparisons.{name}.strategies"
            require(not unknown, f"{place} among {sorted(self.strategies)}", unknown, "rename or remove them")
            require(len(comparison.strategies) > 0, f"at least one entry in {place}", "none", "add one")
        chunk = self.loop.chunk_steps
        lengths = {
            "loop.save_every": self.loop.save_every,
            "evaluation.every": self.evaluation.every,
            "teacher_training.steps": self.teacher_training.steps,
            "teacher_training.checkpoint_every": self.teacher_training.checkpoint_every,
            **{f"student_training.budgets[{i}]": b for i, b in enumerate(self.student_training.budgets)},
            **({} if self.sizes is None else {"sizes.steps": self.sizes.steps}),
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
        """SHA-256 over all that determines the results, in hexadecimal: an experiment may go on elsewhere."""
        return digest_of_results(self.as_dict())


def _check_model(place: str, model: ModelConfig, task: TaskConfig) -> None:
    """Requires a model that reads and predicts what the task gives."""
    masked = isinstance(task, PcfgTaskConfig)
    require(
        isinstance(model, BertConfig) == masked,
        f"a model for the task {task.kind!r} as {place}: {'bert' if masked else 'mlp or gpt2'}",
        model.kind,
        "change the model's kind or the task",
    )
    if isinstance(model, Gpt2Config) and model.tied_head:
        require(
            not isinstance(task, HierarchicalTaskConfig) or task.depth == 1,
            f"{place}.tied_head only where the classes are as many as the tokens, 2",
            f"the {2 ** getattr(task, 'depth', 1)} classes of task {task.kind!r}",
            "set it to False",
        )


def _check_probes(config: "Config") -> None:
    """Requires probes and selections that the task and the teacher have."""
    probes, kind = config.probes, config.task.kind
    wanted = [name for name in ("monomials", "attention") if getattr(probes, name) is not None]
    require(not wanted or kind != "pcfg", "no probes of a support for the task 'pcfg'", wanted, "set them to None")
    if probes.attention is not None:
        found = f"{config.teacher.kind} with {getattr(config.teacher, 'num_layers', 0)} layers"
        expected = "a gpt2 teacher of 2 layers for probes.attention"
        require(found == "gpt2 with 2 layers", expected, found, "set it to None")
    _check_saturation(config)
    depth = config.task.depth if isinstance(config.task, HierarchicalTaskConfig) else 1
    for name, strategy in config.strategies.items():
        require(
            strategy.selection.kind != "transition" or kind != "pcfg",
            f"a task of one class per input for strategies.{name} with selection.kind 'transition'",
            "task 'pcfg'",
            "use 'phase', the drop of the loss",
        )
        beyond = [level for level in strategy.selection.levels or () if not 0 <= level < depth]
        require(not beyond, f"strategies.{name}.selection.levels from 0 to {depth - 1}", beyond, "the root is level 0")
        require(
            strategy.selection.kind != "levels" or probes.monomials is not None,
            f"probes.monomials for strategies.{name} with selection.kind 'levels'",
            "None",
            "the spikes of the correlations are what it selects by",
        )


def _check_saturation(config: "Config") -> None:
    """Requires adaptive rules that can decide anything before their limit of steps does."""
    for name, strategy in config.strategies.items():
        rule = strategy.saturation
        if rule is not None:
            require(
                config.placement.residency != "streamed",
                f"placement.residency 'auto' or 'stacked' for the adaptive strategies.{name}",
                "streamed",
                "every replica may be at another checkpoint: they are stacked",
            )
            window = rule.window * config.evaluation.every
            require(
                rule.max_steps > window,
                f"strategies.{name}.saturation.max_steps above window * evaluation.every = {window} steps",
                rule.max_steps,
                "the student would always move on before it can have saturated: evaluate more often or raise it",
            )


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_results(whole: Mapping[str, Any]) -> str:
    """Returns the digest of a configuration as plain data, without where its arrays live."""
    return digest_of({key: value for key, value in whole.items() if key != "placement"})


def from_config_dict(config: Any) -> Config:
    """Converts a ConfigDict (or nested dicts) into the validated dataclasses.

    Raises:
      UserError: an unknown or missing key, a wrong type, or values that contradict each other.
    """
    to_dict = getattr(config, "to_dict", None)
    return build(Config, to_dict() if to_dict is not None else config, "config")
