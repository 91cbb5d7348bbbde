"""The recorded results of an experiment, grouped as the report compares them."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pdjax.config import Config, MlpConfig, ModelConfig, SizesConfig, StudentTrainingConfig, from_config_dict
from pdjax.errors import UserError
from pdjax.probe_records import AttentionRecord, MonomialRecord, read_attention, read_monomials
from pdjax.records import Replica, RunRecord, read_json, read_jsonl, read_run, read_sizes, read_students


@dataclasses.dataclass(frozen=True)
class Arm:
    """The models that differ in nothing but the seed: one strategy (or size), learning rate and budget."""

    strategy: str
    learning_rate: float
    budget: int  # steps
    run: RunRecord
    columns: tuple[int, ...]  # which replicas of the run

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the R replicas."""
        return tuple(self.run.description.replicas[c].seed for c in self.columns)

    @property
    def steps(self) -> Int[np.ndarray, "E"]:
        """The student steps of the held-out evaluations."""
        return self.run.evaluation.steps

    @property
    def accuracy(self) -> Float[np.ndarray, "E R"]:
        """Held-out accuracy, a fraction."""
        return self.run.evaluation.accuracy[:, self.columns]

    @property
    def loss(self) -> Float[np.ndarray, "E R"]:
        """Held-out loss in nats per selected position, or per input."""
        return self.run.evaluation.loss[:, self.columns]

    @property
    def final_accuracy(self) -> Float[np.ndarray, "R"]:
        """Held-out accuracy after the last step; only of a complete run."""
        return self.accuracy[-1]


@dataclasses.dataclass(frozen=True)
class RunState:
    """How far a run that the configuration asks for has come."""

    name: str
    budget: int  # steps
    record: RunRecord | None  # None: not started
    peak_memory_bytes: int

    @property
    def evaluated_step(self) -> int:
        """The last evaluated step."""
        return int(max(self.record.evaluation.steps, default=0)) if self.record is not None else 0

    @property
    def complete(self) -> bool:
        """Whether the run is done."""
        return self.record is not None and self.record.complete

    @property
    def text(self) -> str:
        """The state in words."""
        if self.record is None:
            return "not started"
        step = f"{self.evaluated_step:,} of {self.budget:,}"
        return "complete" if self.complete else f"unfinished: evaluated to step {step}"


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything the report is written from."""

    config: Config
    environment: Mapping[str, Any]
    selection: Mapping[str, Any]
    teacher: RunRecord | None
    students: tuple[RunRecord, ...]
    sizes: tuple[RunRecord, ...]  # models of other sizes, each named <panel>/<label>
    monomials: MonomialRecord | None
    attention: AttentionRecord | None
    peak_memory_bytes: Mapping[str, int]  # of each recorded run, by name; the teacher's is "teacher"

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The students' learning rates."""
        return self.config.student_training.learning_rates

    @property
    def budgets(self) -> tuple[int, ...]:
        """The students' budgets in steps, in increasing order."""
        return tuple(sorted(self.config.student_training.budgets))

    @functools.cached_property
    def labels(self) -> Mapping[str, str]:
        """How to name each strategy; the key is added where two strategies chose the same label."""
        chosen = {key: strategy.label for key, strategy in self.config.strategies.items()}
        values = list(chosen.values())
        return {key: label if values.count(label) == 1 else f"{label} ({key})" for key, label in chosen.items()}

    def name(self, strategy: str, learning_rate: float) -> str:
        """Returns the strategy's label, with the learning rate where there are several."""
        label = self.labels[strategy]
        return label if len(self.learning_rates) == 1 else f"{label}, learning rate {learning_rate}"

    @functools.cached_property
    def runs(self) -> Mapping[tuple[str, int], RunRecord]:
        """The started student runs that the configuration asks for, by (strategy, budget), in its order."""
        started = {(run.description.strategy, run.description.budget): run for run in self.students}
        asked = [(strategy, budget) for strategy in self.config.strategies for budget in self.budgets]
        return {key: started[key] for key in asked if key in started}

    @functools.cached_property
    def arms(self) -> Mapping[tuple[str, float, int], Arm]:
        """The arms of all started runs by (strategy, learning rate, budget), in the order of the config."""
        arms = {}
        for (strategy, budget), run in self.runs.items():
            columns = _columns_by_rate(run)
            for rate in self.learning_rates:
                if rate in columns:
                    arms[strategy, rate, budget] = Arm(strategy, rate, budget, run, columns[rate])
        return arms

    def finished(self, strategy: str, learning_rate: float, budget: int) -> Arm | None:
        """Returns an arm if its run is complete, otherwise None."""
        arm = self.arms.get((strategy, learning_rate, budget))
        return arm if arm is not None and arm.run.complete else None

    @property
    def teacher_accuracy(self) -> float | None:
        """The teacher's held-out accuracy after its last step; None if that is not recorded (yet)."""
        if self.teacher is None or self.teacher.description.budget not in self.teacher.evaluation.steps:
            return None
        return float(self.teacher.evaluation.accuracy[-1, 0])

    @property
    def states(self) -> list[RunState]:
        """The state of the teacher, where one is trained or recorded, and of every student run in the config."""
        states = []
        if self.teacher is not None or self.config.teacher_training.trajectory is None:
            steps = self.config.teacher_training.steps if self.teacher is None else self.teacher.description.budget
            states.append(RunState("teacher", steps, self.teacher, self.peak_memory_bytes.get("teacher", 0)))
        for strategy in self.config.strategies:
            for budget in self.budgets:
                run = self.runs.get((strategy, budget))
                name = f"{strategy}-{budget}" if run is None else run.description.name
                states.append(RunState(name, budget, run, self.peak_memory_bytes.get(name, 0)))
        for (panel, label), run in self.size_runs.items():
            assert self.config.sizes is not None
            name = f"{panel}/{label}"
            states.append(RunState(name, self.config.sizes.steps, run, self.peak_memory_bytes.get(name, 0)))
        return states

    @functools.cached_property
    def size_runs(self) -> Mapping[tuple[str, str], RunRecord | None]:
        """The runs of all models that ``config.sizes`` asks for, by panel and label; None: not started."""
        if self.config.sizes is None:
            return {}
        recorded = {run.description.name: run for run in self.sizes}
        panels = self.panels.items()
        return {(panel, label): recorded.get(f"{panel}/{label}") for panel, labels in panels for label in labels}

    @functools.cached_property
    def panels(self) -> Mapping[str, tuple[str, ...]]:
        """The labels of the models of every panel of ``config.sizes``, in increasing size.

        A recorded configuration has its keys in alphabetical order, with "1000" before "300".
        """
        panels = {} if self.config.sizes is None else self.config.sizes.panels
        return {panel: tuple(sorted(models, key=lambda m: _size(models[m]))) for panel, models in panels.items()}

    @functools.cached_property
    def size_arms(self) -> Mapping[tuple[str, str, float], Arm]:
        """The evaluated models of other sizes by panel, label and learning rate; their strategy is <panel>/<label>."""
        arms = {}
        for (panel, label), run in self.size_runs.items():
            if run is not None and run.evaluation.steps.size:
                for rate, columns in _columns_by_rate(run).items():
                    arms[panel, label, rate] = Arm(f"{panel}/{label}", rate, run.description.budget, run, columns)
        return arms

    @functools.cached_property
    def support(self) -> tuple[int, ...] | None:
        """The positions that the task depends on; None without recorded monomials.

        The monomials hold every single coordinate off the support, but not those of all features of a tree.
        """
        if self.monomials is None:
            return None
        members = self.monomials.members
        off = {m[0] for m, group in zip(members, self.monomials.groups, strict=True) if len(m) == 1 and group < 0}
        count = getattr(self.config.task, "dimension", None) or 1 + max(max(member) for member in members)
        return tuple(sorted(set(range(count)) - off))

    @property
    def counted(self) -> str:
        """What an accuracy is a share of."""
        return "selected positions" if self.config.task.kind == "pcfg" else "inputs"

    @property
    def unfinished(self) -> list[str]:
        """The names of the runs that the configuration asks for and that are not complete."""
        return [state.name for state in self.states if not state.complete]

    @property
    def strays(self) -> list[str]:
        """Recorded runs that the configuration does not ask for; no figure or table shows them."""
        asked = {run.description.name for run in self.runs.values()}
        asked |= {f"{panel}/{label}" for panel, label in self.size_runs}
        recorded = (*self.students, *self.sizes)
        return [run.description.name for run in recorded if run.description.name not in asked]


def _size(model: ModelConfig) -> tuple[int, ...]:
    """Returns what models of a panel differ in, the most important first."""
    if isinstance(model, MlpConfig):
        return (len(model.widths), *model.widths)
    return (model.num_layers, model.model_width, model.num_heads, model.head_dim or 0, model.feed_forward_multiple)


def _columns_by_rate(run: RunRecord) -> dict[float, tuple[int, ...]]:
    """Returns the replicas of every learning rate, in increasing order of their seeds."""
    replicas = run.description.replicas
    rates = dict.fromkeys(replica.learning_rate for replica in replicas)
    in_order = sorted(range(len(replicas)), key=lambda c: replicas[c].seed)
    return {rate: tuple(c for c in in_order if replicas[c].learning_rate == rate) for rate in rates}


def read_results(workdir: Path) -> Results:
    """Reads an experiment's working directory.

    Raises:
      UserError: there is no configuration, or a complete run lacks its last evaluation.
    """
    if not (workdir / "config.json").exists():
        raise UserError(
            "an experiment's working directory, with config.json in it",
            str(workdir),
            "give the directory that the experiment was started with",
        )
    config = from_config_dict(read_json(workdir / "config.json"))
    teacher = _read_teacher(config, workdir / "teacher")
    students = tuple(read_students(workdir))
    sizes = tuple(read_sizes(workdir))
    memory = {run.description.name: _peak_memory(workdir / "students" / run.description.name) for run in students}
    memory |= {run.description.name: _peak_memory(workdir / "sizes" / run.description.name) for run in sizes}
    for run in students:
        _check_replicas(config.student_training, run, f"students/{run.description.name}")
        _check_end(run)
    for run in sizes:
        if config.sizes is not None:
            _check_replicas(config.sizes, run, f"sizes/{run.description.name}")
        _check_end(run)
    return Results(
        config=config,
        environment=_read_optional(workdir / "environment.json"),
        selection=_read_optional(workdir / "selection.json"),
        teacher=teacher,
        students=students,
        sizes=sizes,
        monomials=read_monomials(workdir),
        attention=read_attention(workdir),
        peak_memory_bytes={**memory, "teacher": _peak_memory(workdir / "teacher")},
    )


def _read_teacher(config: Config, directory: Path) -> RunRecord | None:
    if not (directory / "run.json").exists():
        return None
    run = read_run(directory)
    if config.teacher_training.trajectory is None:
        return run
    # A curve copied from an existing trajectory is complete when it reaches the end; nothing ran here.
    return dataclasses.replace(run, complete=run.complete or run.description.budget in run.evaluation.steps)


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}


def _peak_memory(directory: Path) -> int:
    records = read_jsonl(directory / "progress.jsonl")
    return max((record.get("peak_memory_bytes", 0) for record in records), default=0)


def _check_replicas(training: StudentTrainingConfig | SizesConfig, run: RunRecord, place: str) -> None:
    asked = {Replica(seed, rate) for seed in training.seeds for rate in training.learning_rates}
    surplus = set(run.description.replicas) - asked
    if surplus:
        raise UserError(
            "runs with seeds and learning rates of config.json",
            f"{sorted(surplus, key=str)} in {place}",
            "the run belongs to another configuration; move it out of the working directory",
        )


def _check_end(run: RunRecord) -> None:
    description, evaluation = run.description, run.evaluation
    final = evaluation.accuracy[evaluation.steps == description.budget]
    if run.complete and not (final.size and np.all(np.isfinite(final))):
        raise UserError(
            f"held-out results of every replica at step {description.budget} of the complete run {description.name}",
            f"those of {int(np.isfinite(final).sum())} of {len(description.replicas)}",
            "metrics.jsonl is damaged; remove the run's directory and start the experiment again",
        )
