"""The recorded results of an experiment, as the report compares them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pdjax.distill.strategy import Strategy
from pdjax.experiment import Ablation, Comparison, Experiment, Sizes, StudentTraining
from pdjax.io.records import RunRecord
from pdjax.io.selection import SelectionRecord
from pdjax.models.base import Architecture
from pdjax.models.mlp import Mlp
from pdjax.models.transformer import Transformer
from pdjax.report.groups import Group, RunState, best
from pdjax.report.table import models_of, probed_values, table_of, values_of
from pdjax.settings import named

Probed = Mapping[str, tuple[Sequence[dict[str, Any]], Mapping[str, Any]]]
"""The records of a run by probe, and what their numbers belong to."""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """Everything the report is written from."""

    experiment: Experiment
    environment: Mapping[str, Any]
    selection: SelectionRecord | None  # None: nothing was chosen (yet)
    tuned: Mapping[str, Any]  # what a tuning has chosen; empty where there is none (yet)
    teacher: RunRecord | None
    students: tuple[RunRecord, ...]
    sizes: tuple[RunRecord, ...]  # models of other sizes, each named <panel>/<label>
    probed: Mapping[str, Probed]  # by the name of the run; of teachers "teacher"
    variants: Mapping[tuple[str, str], "Results"]  # those begun, by ablation and variant; never nested further
    teachers: Mapping[int, "Results"]  # of further teachers, those begun, by seed; never nested further
    left_out: Mapping[int, str]  # why teachers have no students, by seed
    peak_memory_bytes: Mapping[str, int]  # of each recorded run, by name; the teacher's is "teacher"
    shares_teacher: bool  # whether the teacher is that of the experiment of which this is a variant

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """Everything that was measured, as ``pdjax.findings`` describes it, of all teachers, without variants."""
        tables = [table_of(self._models(), self._values())]
        for seed, results in self.teachers.items():
            tables.append(results.table.assign(model=f"teachers/{seed}/" + results.table.model))
        return pd.concat([table for table in tables if not table.empty] or tables[:1], ignore_index=True)

    @functools.cached_property
    def by_teacher(self) -> Mapping[int, "Results"]:
        """The results of each teacher alone, by its seed, this one's first; those of further ones where they began."""
        alone = dataclasses.replace(self.experiment, further_teachers=())
        own = dataclasses.replace(self, experiment=alone, teachers={}, left_out={}, variants={})
        return {self.experiment.teacher_training.seed: own, **self.teachers}

    @functools.cached_property
    def with_students(self) -> Mapping[int, "Results"]:
        """The same without those that were left out."""
        return {seed: one for seed, one in self.by_teacher.items() if seed not in self.left_out}

    @property
    def awaited(self) -> list[int]:
        """The further teachers that have not begun."""
        return [seed for seed in self.experiment.further_teachers if seed not in self.teachers]

    def _is_complete(self, rows: pd.DataFrame) -> bool:
        """Whether students of every teacher are there, and done."""
        asked = {self.experiment.teacher_training.seed, *self.experiment.further_teachers} - {*self.left_out}
        return bool(rows.complete.all()) and asked <= {*rows.teacher_seed}

    @property
    def table_with_variants(self) -> pd.DataFrame:
        """The same with the variants of ablations, and a column that names them."""
        every = {"": self, **{f"{ablation}/{name}": results for (ablation, name), results in self.variants.items()}}
        tables = [results.table.assign(variant=name) for name, results in every.items()]
        joined = pd.concat([table for table in tables if not table.empty] or tables[:1], ignore_index=True)
        return joined[["variant", *(name for name in joined if name != "variant")]]

    def _models(self) -> Iterator[pd.DataFrame]:
        seed = self.experiment.teacher_training.seed
        if self.teacher is not None:
            yield models_of("teacher", "teacher", self.teacher)
        for (key, _), run in self.runs.items():
            name = f"students/{run.description.name}"
            strategy = self.strategies[key]
            yield models_of("student", name, run, seed, key, strategy.loss, self.experiment.rates(strategy))
        for (panel, label), run in self.size_runs.items():
            if run is not None:
                yield models_of("size", f"sizes/{run.description.name}", run, seed, f"{panel}/{label}")

    def _values(self) -> Iterator[pd.DataFrame]:
        task, probes = self.experiment.task, named(self.experiment.probes.measured)
        runs = {"teacher": self.teacher} | {f"students/{run.description.name}": run for run in self.students}
        runs |= {f"sizes/{run.description.name}": run for run in self.sizes}
        for name, run in runs.items():
            if run is None:
                continue
            yield values_of(name, run)
            names = [r.seed if name == "teacher" else index for index, r in enumerate(run.description.replicas)]
            for probe, (records, listing) in self.probed.get(run.description.name, {}).items():
                yield probed_values(name, names, probes[probe], records, listing, task)

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
    def learning_rates(self) -> tuple[float | None, ...]:
        """The learning rates at which strategies are compared; None alone: each has its own."""
        experiment = self.experiment
        return (None,) if experiment.has_own_rates else experiment.student_training.learning_rates

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

    def name(self, strategy: str, learning_rate: float | None) -> str:
        """Returns the strategy's label, with the learning rate where there are several."""
        label = self.labels[strategy]
        return label if len(self.learning_rates) == 1 else f"{label}, learning rate {learning_rate}"

    def joined_name(self, alike: Sequence[str], learning_rate: float | None) -> str:
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
        students = self.table[self.table.role == "student"]
        found = dict(iter(students.groupby(["strategy", "learning_rate", "budget"])))
        several = bool(self.experiment.further_teachers)
        return {
            (key, rate, budget): Group(key, rate, budget, self._is_complete(rows), rows, several)
            for key, budget in self.asked
            for rate in self.experiment.rates(self.strategies[key])
            if (rows := found.get((key, rate, budget))) is not None
        }

    def best_rate(self, strategy: str, budget: int) -> float | None:
        """Returns the learning rate of a strategy's most accurate students; None where nothing is evaluated.

        It is chosen by the seeds that figures then show, and nothing corrects for that.
        """
        groups = [group for (key, _, of), group in self.groups.items() if (key, of) == (strategy, budget)]
        return best(groups).learning_rate if groups else None

    def group(self, strategy: str, learning_rate: float | None, budget: int) -> Group | None:
        """Returns a strategy's students with a learning rate, the best where that is None; None: nothing evaluated."""
        rate = self.best_rate(strategy, budget) if learning_rate is None else learning_rate
        return None if rate is None else self.groups.get((strategy, rate, budget))

    def finished(self, strategy: str, learning_rate: float | None, budget: int) -> Group | None:
        """Returns what ``group`` does if its run is complete, otherwise None."""
        group = self.group(strategy, learning_rate, budget)
        return group if group is not None and group.complete else None

    def alike(self, strategy: str, learning_rate: float | None, budget: int) -> list[str]:
        """Returns the strategies whose students are those of a strategy, which is among them: they are one evidence."""
        reference = self.group(strategy, learning_rate, budget)
        if reference is None:
            return [strategy]
        return [key for (key, _, _), group in self.groups.items() if group.is_same(reference)]

    def cases(self, strategies: Sequence[str]) -> list[tuple[list[str], float | None, int]]:
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

    def teacher_curve(self, measure: str = "accuracy", seed: int | None = None) -> pd.DataFrame:
        """Returns what was measured of a teacher over training; by default of the one that students learn from."""
        seed = self.experiment.teacher_training.seed if seed is None else seed
        rows = self.table[(self.table.role == "teacher") & (self.table.measure == measure)]
        return rows[rows.seed == seed]

    @property
    def last_teacher_step(self) -> int:
        """The teacher's last step, as recorded; as configured where nothing is."""
        if self.teacher is None:
            return self.experiment.teacher_training.steps
        return max(self.teacher.description.budget, *self.teacher.evaluation.steps.tolist())

    @property
    def states(self) -> list[RunState]:
        """The state of the teacher, where one is trained or recorded for this, and of every run in the config."""
        states = self._own_states()
        for seed, results in self.teachers.items():
            states += [
                dataclasses.replace(state, name=f"teachers/{seed}/{state.name}")
                for state in results.states
                if state.name == "teacher" or seed not in self.left_out
            ]
        return states

    def _own_states(self) -> list[RunState]:
        states = []
        if not self.shares_teacher and (
            self.teacher is not None or self.experiment.teacher_training.trajectory is None
        ):
            steps = self.experiment.teacher_training.steps if self.teacher is None else self.teacher.description.budget
            states.append(RunState("teacher", steps, self.teacher, self.peak_memory_bytes.get("teacher", 0)))
        left_out = self.experiment.teacher_training.seed in self.left_out
        for strategy, budget in () if left_out else self.asked:
            run = self.runs.get((strategy, budget))
            name = f"{strategy}-{budget}" if run is None else run.description.name
            missing = 0 if run is None else self._missing(run, self.experiment.student_training)
            state = RunState(name, budget, run, self.peak_memory_bytes.get(name, 0), missing)
            if all(state.name != other.name for other in states):  # strategies with the same curriculum are one run
                states.append(state)
        for (panel, label), run in self.size_runs.items():
            assert self.experiment.sizes is not None
            name = f"{panel}/{label}" if run is None else run.description.name
            missing = 0 if run is None else self._missing(run, self.experiment.sizes)
            states.append(
                RunState(name, self.experiment.sizes.steps, run, self.peak_memory_bytes.get(name, 0), missing)
            )
        return states

    def _missing(self, run: RunRecord, training: StudentTraining | Sizes) -> int:
        """Returns how many models of a run's strategies are asked for that it does not have."""
        there = {(replica.seed, replica.learning_rate, replica.loss) for replica in run.description.replicas}
        strategies = [self.strategies[name] for name in run.description.strategies if name in self.strategies]
        of = [(one.loss, self.experiment.rates(one)) for one in strategies]
        of = of or [(loss, training.learning_rates) for loss in {loss for *_, loss in there}]  # of a size
        asked = {(seed, rate, loss) for loss, rates in of for rate in rates for seed in training.seeds}
        return len(asked - there)

    @functools.cached_property
    def size_runs(self) -> Mapping[tuple[str, str], RunRecord | None]:
        """The runs of all models that ``config.sizes`` asks for, by panel and label; None: not started."""
        if self.experiment.sizes is None:
            return {}
        recorded = {name: run for run in self.sizes for name in run.description.strategies}
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
        sizes = self.table[self.table.role == "size"]
        found = dict(iter(sizes.groupby(["strategy", "learning_rate"])))
        return {
            (panel, label, rate): Group(f"{panel}/{label}", rate, rows.budget.iloc[0], bool(rows.complete.all()), rows)
            for panel, label in self.size_runs
            for rate in (() if self.experiment.sizes is None else self.experiment.sizes.learning_rates)
            if (rows := found.get((f"{panel}/{label}", rate))) is not None
        }

    def best_size(self, panel: str, label: str) -> Group | None:
        """Returns the models of a size with the learning rate that is best for them; None: none is evaluated."""
        rates = [group for (*key, _), group in self.size_groups.items() if key == [panel, label]]
        return best(rates) if rates else None

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
        asked |= {run.description.name for run in self.size_runs.values() if run is not None}
        recorded = (*self.students, *self.sizes)
        return [run.description.name for run in recorded if run.description.name not in asked]


def _size(model: Architecture) -> tuple[int, ...]:
    """Returns what models of a panel differ in, the most important first; others stay in the order of the panel."""
    if isinstance(model, Mlp):
        return (len(model.widths), *model.widths)
    if isinstance(model, Transformer):
        return (model.num_layers, model.model_width, model.num_heads, model.head_dim or 0, model.feed_forward_multiple)
    return ()
