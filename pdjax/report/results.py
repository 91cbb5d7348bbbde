"""The recorded results of an experiment, grouped as the report compares them."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pdjax.distill.losses import Labels
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Ablation, Comparison, Experiment
from pdjax.io.probe_records import AttentionRecord, MonomialRecord, StringProbes
from pdjax.io.records import RunRecord
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.report.groups import Group, RunState, replicas_by_rate
from pdjax.settings import named
from pdjax.tasks.pcfg import GrammarTask


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything the report is written from."""

    experiment: Experiment
    environment: Mapping[str, Any]
    selection: Mapping[str, Any]
    teacher: RunRecord | None
    students: tuple[RunRecord, ...]
    sizes: tuple[RunRecord, ...]  # models of other sizes, each named <panel>/<label>
    monomials: MonomialRecord | None
    attention: AttentionRecord | None
    teacher_probes: StringProbes
    student_probes: Mapping[str, StringProbes]  # by the name of the run
    ablations: Mapping[tuple[str, str], "Results"]  # those begun, by ablation and variant; never nested further
    peak_memory_bytes: Mapping[str, int]  # of each recorded run, by name; the teacher's is "teacher"
    shares_teacher: bool  # whether the teacher is that of the experiment of which this is a variant

    @functools.cached_property
    def strategies(self) -> Mapping[str, Strategy]:
        """The strategies by name."""
        return named(self.experiment.strategies)

    @functools.cached_property
    def comparisons(self) -> Mapping[str, Comparison]:
        """The comparisons by name."""
        return named(self.experiment.comparisons)

    @functools.cached_property
    def asked_ablations(self) -> Mapping[str, Ablation]:
        """The ablations by name, begun or not."""
        return named(self.experiment.ablations)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The students' learning rates."""
        return self.experiment.student_training.learning_rates

    @property
    def budgets(self) -> tuple[int, ...]:
        """The students' budgets in steps, in increasing order."""
        return self.experiment.budgets

    @functools.cached_property
    def labels(self) -> Mapping[str, str]:
        """How to name each strategy; the key is added where two strategies chose the same label."""
        chosen = {key: strategy.label for key, strategy in self.strategies.items()}
        values = list(chosen.values())
        return {key: label if values.count(label) == 1 else f"{label} ({key})" for key, label in chosen.items()}

    def name(self, strategy: str, learning_rate: float) -> str:
        """Returns the strategy's label, with the learning rate where there are several."""
        label = self.labels[strategy]
        return label if len(self.learning_rates) == 1 else f"{label}, learning rate {learning_rate}"

    def joined_name(self, alike: Sequence[str], learning_rate: float) -> str:
        """Returns the labels of strategies whose students are the same, with the learning rate as ``name`` does."""
        return " = ".join([*(self.labels[key] for key in alike[:-1]), self.name(alike[-1], learning_rate)])

    @functools.cached_property
    def runs(self) -> Mapping[tuple[str, int], RunRecord]:
        """The started student runs that the configuration asks for, by (strategy, budget), in its order."""
        started = {
            (strategy, run.description.budget): run for run in self.students for strategy in run.description.strategies
        }
        return {key: started[key] for key in self.asked if key in started}

    @property
    def asked(self) -> list[tuple[str, int]]:
        """The pairs of strategy and budget that the configuration asks for, in its order."""
        return [
            (key, budget)
            for key, strategy in self.strategies.items()
            for budget in self.budgets
            if self.experiment.asks(strategy, budget)
        ]

    def asks(self, strategy: str, budget: int) -> bool:
        """Whether the configuration asks for students of a strategy with a budget."""
        return (strategy, budget) in self.asked

    @functools.cached_property
    def compared(self) -> tuple[str, ...]:
        """The strategies that comparisons draw over training, in the order of the config; without comparisons all."""
        comparisons = self.comparisons.values()
        drawn = {key for comparison in comparisons if comparison.kind == "training" for key in comparison.strategies}
        return tuple(key for key in self.strategies if key in drawn or not comparisons)

    @functools.cached_property
    def prominent(self) -> tuple[str, ...]:
        """All strategies but those that nothing but a search for the best first checkpoint has.

        Those that comparisons draw over training come first, then those that others draw.
        """
        comparisons = sorted(self.comparisons.values(), key=lambda comparison: comparison.kind != "training")
        searched = {key for c in comparisons if c.kind == "first_checkpoints" for key in c.strategies}
        drawn = [key for c in comparisons if c.kind != "first_checkpoints" for key in c.strategies]
        return tuple(dict.fromkeys([*drawn, *(key for key in self.strategies if key not in searched)]))

    @functools.cached_property
    def groups(self) -> Mapping[tuple[str, float, int], Group]:
        """The groups of all started runs by (strategy, learning rate, budget), in the order of the config."""
        groups = {}
        for (strategy, budget), run in self.runs.items():
            replicas = replicas_by_rate(run, self.strategies[strategy].loss)
            for rate in self.learning_rates:
                if replicas.get(rate):
                    groups[strategy, rate, budget] = Group(strategy, rate, budget, run, replicas[rate])
        return groups

    def finished(self, strategy: str, learning_rate: float, budget: int) -> Group | None:
        """Returns a group if its run is complete, otherwise None."""
        group = self.groups.get((strategy, learning_rate, budget))
        return group if group is not None and group.run.complete else None

    def alike(self, strategy: str, learning_rate: float, budget: int) -> list[str]:
        """Returns the strategies whose students are those of a strategy, which is among them: they are one evidence."""
        reference = self.groups.get((strategy, learning_rate, budget))
        if reference is None:
            return [strategy]
        return [key for (key, _, _), group in self.groups.items() if group.is_same(reference)]

    def cases(self, strategies: Sequence[str]) -> list[tuple[list[str], float, int]]:
        """Returns what a claim about strategies is decided for: strategy, learning rate and budget.

        Strategies whose students are the same are one case.
        """
        cases = []
        for key, rate, budget in itertools.product(strategies, self.learning_rates, self.budgets):
            alike = [k for k in self.alike(key, rate, budget) if k in strategies]
            if self.asks(key, budget) and alike[0] == key:
                cases.append((alike, rate, budget))
        return cases

    @property
    def teacher_accuracy(self) -> float | None:
        """The teacher's held-out accuracy after its last step; None if that is not recorded (yet)."""
        if self.teacher is None or self.teacher.description.budget not in self.teacher.evaluation.steps:
            return None
        return float(self.teacher.evaluation.accuracy[-1, 0])

    @property
    def states(self) -> list[RunState]:
        """The state of the teacher, where one is trained or recorded for this, and of every run in the config."""
        states = []
        if not self.shares_teacher and (
            self.teacher is not None or self.experiment.teacher_training.trajectory is None
        ):
            steps = self.experiment.teacher_training.steps if self.teacher is None else self.teacher.description.budget
            states.append(RunState("teacher", steps, self.teacher, self.peak_memory_bytes.get("teacher", 0)))
        for strategy, budget in self.asked:
            run = self.runs.get((strategy, budget))
            name = f"{strategy}-{budget}" if run is None else run.description.name
            state = RunState(name, budget, run, self.peak_memory_bytes.get(name, 0))
            if all(state.name != other.name for other in states):  # strategies with the same curriculum are one run
                states.append(state)
        for (panel, label), run in self.size_runs.items():
            assert self.experiment.sizes is not None
            name = f"{panel}/{label}"
            states.append(RunState(name, self.experiment.sizes.steps, run, self.peak_memory_bytes.get(name, 0)))
        return states

    @functools.cached_property
    def size_runs(self) -> Mapping[tuple[str, str], RunRecord | None]:
        """The runs of all models that ``config.sizes`` asks for, by panel and label; None: not started."""
        if self.experiment.sizes is None:
            return {}
        recorded = {run.description.name: run for run in self.sizes}
        panels = self.panels.items()
        return {(panel, label): recorded.get(f"{panel}/{label}") for panel, labels in panels for label in labels}

    @functools.cached_property
    def panels(self) -> Mapping[str, tuple[str, ...]]:
        """The labels of the models of every panel of ``config.sizes``, in increasing size."""
        panels = () if self.experiment.sizes is None else self.experiment.sizes.panels
        return {
            panel.name: tuple(sized.name for sized in sorted(panel.models, key=lambda sized: _size(sized.model)))
            for panel in panels
        }

    @functools.cached_property
    def size_groups(self) -> Mapping[tuple[str, str, float], Group]:
        """The evaluated models of other sizes by panel, label and learning rate; their strategy is <panel>/<label>."""
        groups = {}
        for (panel, label), run in self.size_runs.items():
            if run is not None and run.evaluation.steps.size:
                for rate, replicas in replicas_by_rate(run, Labels()).items():
                    groups[panel, label, rate] = Group(f"{panel}/{label}", rate, run.description.budget, run, replicas)
        return groups

    @functools.cached_property
    def support(self) -> tuple[int, ...] | None:
        """The positions that the task depends on; None without recorded monomials.

        The monomials hold every single coordinate off the support, but not those of all features of a tree.
        """
        if self.monomials is None:
            return None
        members = self.monomials.members
        off = {m[0] for m, group in zip(members, self.monomials.groups, strict=True) if len(m) == 1 and group < 0}
        count = getattr(self.experiment.task, "dimension", None) or 1 + max(max(member) for member in members)
        return tuple(sorted(set(range(count)) - off))

    @property
    def has_strings(self) -> bool:
        """Whether the task is one of strings of a grammar."""
        return isinstance(self.experiment.task, GrammarTask)

    @property
    def counted(self) -> str:
        """What an accuracy is a share of."""
        return self.experiment.task.counted

    @property
    def seconds(self) -> float:
        """Wall-clock time of all runs, without that of ablations."""
        return sum(state.record.seconds for state in self.states if state.record is not None)

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


def _size(model: Architecture) -> tuple[int, ...]:
    """Returns what models of a panel differ in, the most important first; others stay in the order of the panel."""
    if isinstance(model, Mlp):
        return (len(model.widths), *model.widths)
    if isinstance(model, Bert | Gpt2):
        return (model.num_layers, model.model_width, model.num_heads, model.head_dim or 0, model.feed_forward_multiple)
    return ()
