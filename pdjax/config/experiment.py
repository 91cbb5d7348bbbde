"""The configuration of an experiment."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pdjax.config.building import as_written
from pdjax.config.conversion import build
from pdjax.config.models import Gpt2Config, ModelConfig
from pdjax.config.placement import PlacementConfig
from pdjax.config.probes import ProbesConfig
from pdjax.config.strategies import AblationConfig, ComparisonConfig, StrategyConfig
from pdjax.config.tasks import HierarchicalTaskConfig, ParityTaskConfig, TaskConfig
from pdjax.config.training import (
    EvaluationConfig,
    LoopConfig,
    SizesConfig,
    StudentTrainingConfig,
    TeacherTrainingConfig,
    require_seed,
)
from pdjax.errors import UserError, require


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
    ablations: Mapping[str, AblationConfig]  # by the name of their directory
    probes: ProbesConfig
    sizes: SizesConfig | None  # further models trained from the labels; None trains none
    evaluation: EvaluationConfig
    loop: LoopConfig
    placement: PlacementConfig
    remarks: Mapping[str, str]  # what other sizes have shown, by the name of the claim: shown beside its verdicts

    def __post_init__(self):
        require_seed("seed", self.seed)
        require(len(self.strategies) > 0, "at least one strategy", "none", "add one under strategies")
        models = {"teacher": self.teacher, "student": self.student}
        if self.sizes is not None:
            for panel, members in self.sizes.panels.items():
                models |= {f"sizes.panels.{panel}.{label}": model for label, model in members.items()}
        for path, model in models.items():
            _check_model(path, model, self.task)
        _check_probes(self)
        _check_names(self)
        _check_lengths(self)
        for key, ablation in self.ablations.items():
            for name in ablation.variants:
                self.variant(key, name)  # what it refuses, this refuses

    @property
    def budgets(self) -> tuple[int, ...]:
        """All training lengths of students in steps, increasing: those of all strategies, and strategies' own."""
        strategy_budgets = {budget for strategy in self.strategies.values() for budget in strategy.budgets or ()}
        return tuple(sorted(strategy_budgets | set(self.student_training.budgets)))

    def asks(self, strategy: str, budget: int) -> bool:
        """Whether students of a strategy are to be trained for so many steps."""
        budgets = self.strategies[strategy].budgets
        return budget in (self.student_training.budgets if budgets is None else budgets)

    def probes_students_of(self, budget: int) -> bool:
        """Whether the students of ``probes.students`` are probed when they are trained for so many steps."""
        probed = [other for other in self.budgets if any(self.asks(key, other) for key in self.probes.students)]
        return not self.probes.longest_alone or budget == max(probed, default=None)

    def variant(self, ablation: str, name: str) -> "Config":
        """Returns a variant of an ablation as an experiment of its own.

        A given trajectory is that of the experiment's own teacher: a variant with another task or teacher trains one.

        Raises:
          UserError: the variant's fields do not exist or do not fit.
        """
        asked = self.ablations[ablation]
        fields = self.as_dict()
        if not {"task", "teacher", "teacher_training"}.isdisjoint(asked.variants[name]):
            fields["teacher_training"]["trajectory"] = None
        fields = _replaced(fields, asked.variants[name])
        fields |= {"name": f"{self.name}/{ablation}/{name}", "ablations": {}, "comparisons": {}, "remarks": {}}
        kept = {"seed", "longest_alone", *(self.strategies[key].selection.measured_by for key in asked.strategies)}
        fields["probes"] = {key: value if key in kept else None for key, value in fields["probes"].items()}
        fields["probes"]["students"] = []
        fields["student_training"] |= {"budgets": asked.budgets, "checkpoint_every": None}
        fields["strategies"] = {key: fields["strategies"][key] | {"budgets": None} for key in asked.strategies}
        fields["sizes"] = fields["sizes"] if asked.sizes else None
        try:
            return from_config_dict(fields)
        except UserError as error:
            raise error.within(f"ablations.{ablation}.variants.{name}") from None

    def as_dict(self) -> dict[str, Any]:
        """Returns nested plain dicts and lists, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """SHA-256 over all that determines the results, in hexadecimal: an experiment may go on elsewhere."""
        return digest_of_results(self.as_dict())


def _check_lengths(config: "Config") -> None:
    """Requires that everything happens between chunks, and that the last step is a checkpoint."""
    chunk, kept = config.loop.chunk_steps, config.student_training.checkpoint_every
    lengths = {
        "loop.save_every": config.loop.save_every,
        "evaluation.every": config.evaluation.every,
        "teacher_training.steps": config.teacher_training.steps,
        "teacher_training.checkpoint_every": config.teacher_training.checkpoint_every,
        **{f"student_training.budgets[{i}]": b for i, b in enumerate(config.student_training.budgets)},
        **{f"strategies.{name}.budgets": b for name, s in config.strategies.items() for b in s.budgets or ()},
        **({} if config.sizes is None else {"sizes.steps": config.sizes.steps}),
        **({} if kept is None else {"student_training.checkpoint_every": kept}),
    }
    for name, length in lengths.items():
        require(
            length % chunk == 0,
            f"{name} to be a multiple of loop.chunk_steps = {chunk}",
            length,
            "the loop evaluates and saves between chunks; change one of the two",
        )
    for budget in config.budgets:
        expected = f"student_training.checkpoint_every that divides the budget {budget}, or None"
        require(kept is None or budget % kept == 0, expected, kept, "the last checkpoint is the final student")


def _check_names(config: "Config") -> None:
    """Requires that strategies that are named elsewhere exist."""
    references = {f"comparisons.{name}.strategies": c.strategies for name, c in config.comparisons.items()}
    references |= {f"ablations.{name}.strategies": a.strategies for name, a in config.ablations.items()}
    for path, names in references.items():
        require(len(names) > 0, f"at least one entry in {path}", "none", "add one")
    for path, names in (references | {"probes.students": config.probes.students}).items():
        unknown = [key for key in names if key not in config.strategies]
        require(not unknown, f"{path} among {sorted(config.strategies)}", unknown, "rename or remove them")
    require(
        not config.probes.students or config.student_training.checkpoint_every is not None,
        "student_training.checkpoint_every with probes.students",
        "None",
        "set it: probes look at kept checkpoints",
    )
    split = [name for name in config.ablations if "/" in name or name in ("", ".", "..")]
    require(not split, "names of ablations that can be directories", split, "leave out the slash")


def _replaced(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested plain data with some fields replaced; a mapping replaces what it names in a mapping."""
    replaced = dict(fields)
    for key, value in changes.items():
        old = replaced.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        replaced[key] = _replaced(old, value) if both else value  # pyright: ignore[reportArgumentType]
    return replaced


def _check_model(path: str, model: ModelConfig, task: TaskConfig) -> None:
    """Requires a model that reads and predicts what the task gives."""
    fitting = {"pcfg": ("bert",), "pcfg_language": ("gpt2",)}.get(task.kind, ("mlp", "gpt2"))
    require(
        model.kind in fitting,
        f"a model for the task {task.kind!r} as {path}: {' or '.join(fitting)}",
        model.kind,
        "change the model's kind or the task",
    )
    if isinstance(model, Gpt2Config) and model.tied_head:
        require(
            not isinstance(task, HierarchicalTaskConfig) or task.depth == 1,
            f"{path}.tied_head only where the classes are as many as the tokens, 2",
            f"the {2 ** getattr(task, 'depth', 1)} classes of task {task.kind!r}",
            "set it to False",
        )


def _check_probes(config: "Config") -> None:
    """Requires probes and selections that the task and the teacher have."""
    probes, kind = config.probes, config.task.kind
    has_support = isinstance(config.task, ParityTaskConfig | HierarchicalTaskConfig)
    wanted = [name for name in ("monomials", "attention") if getattr(probes, name) is not None]
    require(not wanted or has_support, f"no probes of a support for the task {kind!r}", wanted, "set them to None")
    wanted = [name for name in ("ngrams", "nonterminals") if getattr(probes, name) is not None]
    require(not wanted or not has_support, f"no probes of strings for the task {kind!r}", wanted, "set them to None")
    if probes.attention is not None:
        teacher = f"{config.teacher.kind} with {getattr(config.teacher, 'num_layers', 0)} layers"
        expected = "a gpt2 teacher of 2 layers for probes.attention"
        require(teacher == "gpt2 with 2 layers", expected, teacher, "set it to None")
    _check_saturation(config)
    depth = config.task.depth if isinstance(config.task, HierarchicalTaskConfig) else 1
    for name, strategy in config.strategies.items():
        require(
            strategy.selection.kind != "transition" or has_support,
            f"a task of one class per input for strategies.{name} with selection.kind 'transition'",
            f"task {kind!r}",
            "use 'phase', the drop of the loss",
        )
        probe = strategy.selection.measured_by
        require(
            probe is None or getattr(probes, probe) is not None,
            f"probes.{probe} for strategies.{name} with selection.kind {strategy.selection.kind!r}",
            "None",
            "what it measures on the teacher is what the strategy selects by",
        )
        require(
            strategy.crossing is None or not has_support,
            f"a task of strings for strategies.{name}.crossing",
            f"task {kind!r}",
            "use schedule 'till_saturate'",
        )
        beyond = [level for level in strategy.selection.levels or () if not 0 <= level < depth]
        require(not beyond, f"strategies.{name}.selection.levels from 0 to {depth - 1}", beyond, "the root is level 0")


def _check_saturation(config: "Config") -> None:
    """Requires adaptive rules that can decide anything before their limit of steps does."""
    for name, strategy in config.strategies.items():
        require(
            not strategy.is_adaptive or config.placement.residency != "streamed",
            f"placement.residency 'auto' or 'stacked' for the adaptive strategies.{name}",
            "streamed",
            "every replica may be at another checkpoint: they are stacked",
        )
        rule = strategy.saturation
        if rule is not None:
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


def digest_of_results(fields: Mapping[str, Any]) -> str:
    """Returns the digest of what determines the results in a configuration as plain data."""
    return digest_of(determining(fields))


def determining(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration as plain data without where its arrays live and what is said of it."""
    return {key: value for key, value in fields.items() if key not in ("placement", "remarks")}


def from_config_dict(config: Any) -> Config:
    """Converts a ConfigDict (or nested dicts) into the validated dataclasses, whose mappings keep the file's order.

    Raises:
      UserError: an unknown or missing key, a wrong type, or values that contradict each other.
    """
    return build(Config, as_written(config), "config")
