"""Synthetic working directories: the files an experiment records, written by hand with known numbers.

Tests reach all of this through fixtures: which ``conftest`` an import finds depends on the other test directories.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from matplotlib.figure import Figure

from pdjax.distill.hinge import HingeLabels
from pdjax.distill.losses import Distillation, Labels, Loss
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Steps
from pdjax.distill.strategy import Strategy
from pdjax.experiment import (
    Ablation,
    Comparison,
    Experiment,
    Loop,
    SizedModel,
    SizePanel,
    Sizes,
    StudentTraining,
    TeacherTraining,
    Variant,
)
from pdjax.io.sealed import read_json, read_lines, write_json, write_lines
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.models.symmetric import SymmetricMlp
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.lemmas import LemmaProbe
from pdjax.probes.ngrams import NgramProbe
from pdjax.probes.nonterminals import NonterminalProbe
from pdjax.probes.samples import SamplesProbe
from pdjax.report import style, write_report
from pdjax.report.claims import Absent, Case, Claim
from pdjax.report.figures.drawing import ReportFigure
from pdjax.report.reading import read_results
from pdjax.settings import named, plain
from pdjax.tasks.base import Task
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.step import Evaluation
from pdjax.train.two_stage import TwoStage

BASE = Experiment(
    name="synthetic",
    task=PcfgTask(),
    teacher=Bert(1, 2, 4),
    student=Bert(1, 2, 4),
    teacher_training=TeacherTraining(steps=400, batch_size=8, learning_rate=1e-3, checkpoint_every=100),
    student_training=StudentTraining(seeds=(0, 1, 2), learning_rates=(1e-3,), budgets=(100, 200), batch_size=8),
    strategies=(
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("two", schedule=FixedDuration(50), selection=Equal(2)),
    ),
    comparisons=(Comparison("all", "All", ("labels", "one_shot", "two"), "figure 1"),),
    evaluation=Evaluation(50, num_batches=1, batch_size=8),
    loop=Loop(50, save_every=50),
)

PARITY = ParityTask(6, 2)

Replicas = Sequence[tuple[Any, ...]]
"""Seed and learning rate, and the loss where it is not that of the run's first strategy."""

ByStep = Mapping[int, Sequence[Any]]
"""What was measured on every model, by step."""


class Workdir:
    """Writes the recorded files of an ``experiment``, which can be changed before ``start``."""

    TEACHER: ClassVar = {100: (2.0, 0.3), 200: (1.5, 0.4), 300: (1.1, 0.6), 400: (1.0, 0.7)}
    """Held-out loss and accuracy of the teacher by step."""

    FINAL: ClassVar = {
        ("labels", 100): (0.40, 0.42, 0.44),
        ("one_shot", 100): (0.41, 0.42, 0.43),
        ("two", 100): (0.50, 0.51, 0.55),
        ("labels", 200): (0.50, 0.60, 0.55),
        ("one_shot", 200): (0.52, 0.58, 0.55),
        ("two", 200): (0.51, 0.60, 0.56),
    }
    """Final accuracies of three seeds: progressive is ahead at 100 steps and not clearly at 200."""

    TABLES: ClassVar = {"labels": (), "one_shot": ((0, 400),), "two": ((0, 200), (50, 400))}
    """Student step and checkpoint of every row of the strategies' curricula."""

    TRIED: ClassVar = 10.0**6
    """Samples at which searches end."""

    def __init__(self, path: Path):
        self.path = path
        self.experiment = BASE

    def change(self, **changes: Any) -> None:
        """Replaces fields of the experiment, or with a mapping the named fields of the settings that are there."""
        for name, value in changes.items():
            there = getattr(self.experiment, name)
            if isinstance(value, dict) and dataclasses.is_dataclass(there):
                changes[name] = dataclasses.replace(there, **value)
        self.experiment = dataclasses.replace(self.experiment, **changes)

    def add(self, *strategies: Strategy) -> None:
        """Adds strategies, or replaces those of the same names."""
        self.change(strategies=tuple((named(self.experiment.strategies) | named(strategies)).values()))

    def draw(self, *strategies: str) -> None:
        """Makes the comparison one of these strategies."""
        self.change(comparisons=(Comparison("all", "All", strategies, "figure 1"),))

    def start(self) -> None:
        """Writes what is recorded before any training."""
        self.configure()
        environment = {"command": ["pdjax", "--config", "a b.py"], "date": "2025-01-02T03:04:05+00:00"}
        environment |= {"versions": {"jax": "0.7.1", "python": "3.11"}, "device": "cpu", "cores": 2}
        self.write("environment.json", environment)

    def configure(self) -> None:
        """Writes the experiment's configuration alone."""
        self.write("config.json", plain(self.experiment))

    def select(self, strategies: Mapping[str, Sequence[int]], **evidence: Any) -> None:
        """Writes phases, other ``evidence`` (transition, spikes), and the chosen checkpoints."""
        phases = {"start": 100, "middle": 200, "end": 300, "reason": "the loss drops there"}
        chosen = {key: {"teacher_steps": steps, "reason": f"because of {key}"} for key, steps in strategies.items()}
        recorded = {"phases": phases, "transition": None, "spikes": None, **evidence}
        self.write("selection.json", {**recorded, "strategies": chosen})

    def teacher(self, curve: Mapping[int, tuple[float, float]] | None = None, complete: bool = True) -> None:
        """Writes the teacher's run; the teacher of the n-th extra seed is 0.01 n less accurate."""
        curve = self.TEACHER if curve is None else curve
        training = self.experiment.teacher_training
        seeds = training.seeds
        records = [(s, r, loss, a - 0.01 * r) for s, (loss, a) in curve.items() for r in range(len(seeds))]
        description = {"role": "teacher", "name": "teacher", "strategies": [], "budget": training.steps}
        self.run("teacher", description, [(seed, 1e-3) for seed in seeds], records, complete)

    def student(
        self,
        key: str,
        budget: int,
        curves: Mapping[int, Sequence[float]],
        replicas: Replicas = ((0, 1e-3), (1, 1e-3), (2, 1e-3)),
        table: Sequence[tuple[int, int]] = (),
        complete: bool = True,
        starts: Sequence[Sequence[int]] = (),
    ) -> None:
        """Writes a student run; ``curves`` holds the accuracy of every replica by step, the loss is 2 - accuracy.

        With ``starts`` of every replica the run is adaptive; the table then says which checkpoints there are.
        """
        name = f"{key}-{budget}"
        records = [(step, r, 2 - a, a) for step, values in curves.items() for r, a in enumerate(values)]
        description = {"role": "student", "name": name, "strategies": [key], "budget": budget}
        description |= {"starts": [start for start, _ in table], "teacher_steps": [step for _, step in table]}
        if starts:
            description["starts"] = [0]
            self.write(f"students/{name}/curriculum.json", {"starts": starts})
        self.run(f"students/{name}", description, replicas, records, complete)

    def shared(self, keys: Sequence[str], budget: int, finals: Mapping[str, Sequence[float]]) -> None:
        """Writes one complete run of strategies with one curriculum; those with the same loss have the same students.

        Args:
          keys: of the strategies; the first names the run.
          budget: in steps.
          finals: the final accuracy of every seed, by the first strategy of each loss.
        """
        losses = [self.experiment.strategy(key).loss for key in finals]
        seeds = range(len(next(iter(finals.values()))))
        replicas = [(seed, 1e-3, loss) for loss in losses for seed in seeds]
        finals_in_order = [accuracy for final in finals.values() for accuracy in final]
        records = [(budget, replica, 2 - a, a) for replica, a in enumerate(finals_in_order)]
        description = {"role": "student", "name": f"{keys[0]}-{budget}", "strategies": list(keys), "budget": budget}
        description |= {"starts": [0], "teacher_steps": [400]}
        self.run(f"students/{keys[0]}-{budget}", description, replicas, records, True)

    def size(self, name: str, curves: Mapping[int, Sequence[float]], replicas: Replicas, complete: bool = True) -> None:
        """Writes the run of a model of another size, named <panel>/<label>."""
        records = [(step, r, 2 - a, a) for step, values in curves.items() for r, a in enumerate(values)]
        assert self.experiment.sizes is not None
        description = {"role": "size", "name": name, "strategies": [name], "budget": self.experiment.sizes.steps}
        self.run(f"sizes/{name}", description, replicas, records, complete)

    def measure(
        self,
        run: str | None,
        ngrams: ByStep | None = None,
        nonterminals: ByStep | None = None,
        agreement: ByStep | None = None,
    ) -> None:
        """Writes what probes of strings measured on the teachers (None) or a run's students: of every model, by step.

        N-grams have [measure][n][percentile] with the n and percentiles of the configuration, M_robust first;
        non-terminals an accuracy for each of the levels 1, 2, ...; agreement the pair of share and divergence.
        """
        directory, key = ("probes", "seed") if run is None else (f"students/{run}/probes", "replica")
        names = self.experiment.teacher_training.seeds if run is None else range(99)
        listed: dict[str, Any] = {}
        if ngrams is not None:
            probe = self.experiment.probes["ngrams"]
            assert isinstance(probe, NgramProbe)
            listed["ngrams"] = {"n": probe.n, "percentiles": probe.percentiles}
        if nonterminals is not None:
            levels = [1 + index for index, _ in enumerate(next(iter(nonterminals.values()))[0])]
            listed["nonterminals"] = {"levels": levels}
        seals = {}
        for name, table in {"ngrams": ngrams, "nonterminals": nonterminals, "agreement": agreement}.items():
            rows = [
                (step, model, value) for step, by_model in (table or {}).items() for model, value in enumerate(by_model)
            ]
            records = [{key: names[model], "step": step, **_measured(name, value)} for step, model, value in rows]
            if records:
                seals[name] = write_lines(self.path / directory / f"{name}.jsonl", records)
        write_json(self.path / directory / "result.json", {"identity": "0", "listed": listed, "records": seals})

    def strings(self, n: Sequence[int] = (2, 4), students: Sequence[str] = ()) -> None:
        """Asks for all probes of strings, and for medians of M_robust and M_close."""
        ngrams = NgramProbe(tuple(n), num_sentences=8, num_positions=2, percentiles=(50,), batch_size=8)
        nonterminals = NonterminalProbe(num_heads=2, num_train=16, num_test=16, batch_size=8)
        self.change(
            student_training={"checkpoint_every": 50 if students else None},
            probes={"measured": (ngrams, nonterminals, AgreementProbe(1, 8)), "students": tuple(students)},
        )

    def search(self, firsts: Sequence[int], durations: Sequence[int], *also: Strategy) -> None:
        """Asks for (2, T) strategies with every first checkpoint and T, named c<first>_<T>, and others besides."""
        grid = [
            Strategy(f"c{first}_{t}", Distillation(0.0), FixedDuration(t), Steps((first,)))
            for first in firsts
            for t in durations
        ]
        self.add(*grid, *also)
        names = tuple(strategy.name for strategy in (*grid, *also))
        search = Comparison("search", "First checkpoints", names, "figure 4 (right)", kind="first_checkpoints")
        self.change(comparisons=(*self.experiment.comparisons, search))

    def ablation(self, key: str, variants: Mapping[str, Any], budgets: Sequence[int], **fields: Any) -> None:
        """Asks for an ablation, by default of all strategies and without a name for the experiment itself."""
        asked = tuple(Variant(name, changes) for name, changes in variants.items())
        strategies = tuple(strategy.name for strategy in self.experiment.strategies)
        defaults = {"strategies": strategies, "figure": "figure 26"}
        ablation = Ablation(key, key.title(), asked, budgets=tuple(budgets), **(defaults | fields))
        self.change(ablations=(*self.experiment.ablations, ablation))

    def variant(self, key: str, name: str) -> "Workdir":
        """Begins a variant of an ablation, and returns its working directory."""
        workdir = Workdir(self.path / "ablations" / key / name)
        workdir.experiment = self.experiment.variants()[f"{key}/{name}"]
        workdir.start()
        return workdir

    def further(self, seed: int) -> "Workdir":
        """Begins the experiment of a further teacher, and returns its working directory."""
        workdir = Workdir(self.path / "teachers" / str(seed))
        workdir.experiment = self.experiment.of_further_teachers()[seed]
        workdir.start()
        return workdir

    def probe(self, name: str, records: Sequence[Mapping[str, Any]], **listed: Any) -> None:
        """Writes what a probe measured, and what it lists besides (the monomials)."""
        path = self.path / "probes" / "result.json"
        others = read_json(path) if path.exists() else {"listed": {}, "records": {}}
        seal = write_lines(path.with_name(f"{name}.jsonl"), records)
        parts = {"listed": {**others["listed"], name: listed}, "records": {**others["records"], name: seal}}
        write_json(path, {"identity": "0", **parts})

    def theory(self, dimension: int, degree: int, aligned: bool = False) -> None:
        """Makes three teachers those of Algorithm 1, with the exact first stage until step 100, and asks for probes."""
        exact = TwoStage(100, support=tuple(range(degree)))
        self.change(
            task=ParityTask(dimension, degree),
            teacher=SymmetricMlp(16, aligned),
            student=SymmetricMlp(8),
            teacher_training={"extra_seeds": (1, 2), "optimizer": exact, "loss": HingeLabels()},
            probes={"measured": (LemmaProbe(), SamplesProbe())},
        )

    def problems(self, key: str, variants: Mapping[str, Mapping[str, Any]]) -> None:
        """Asks for an ablation of variants with all probes of the experiment."""
        probes = {"probes": {"measured": plain(self.experiment.probes.measured)}}
        self.ablation(key, {name: {**changes, **probes} for name, changes in variants.items()}, [100])

    def searched(self, samples: ByStep, labels: Sequence[float] = ()) -> None:
        """Writes what searches found, infinite where ``TRIED`` was not enough.

        Args:
          samples: of the students of every teacher, by its step.
          labels: of the students of labels.
        """
        seeds = self.experiment.teacher_training.seeds

        def columns(name: str, enough: str, values: Sequence[float]) -> dict[str, Any]:
            return {name: [min(v, self.TRIED) for v in values], enough: [int(math.isfinite(v)) for v in values]}

        beside = columns("label_samples", "labels_enough", labels) if labels else {}
        records = [
            {"seed": seed, "step": step, **columns("samples", "enough", values), **beside}
            for step, by_teacher in samples.items()
            for seed, values in zip(seeds, by_teacher, strict=True)
        ]
        self.probe("samples", records)

    def lemmas(self, values: ByStep) -> None:
        """Writes ``|E f x_j|`` in the support and off it, and the hinge loss, of every teacher by step."""
        task, seeds = self.experiment.task, self.experiment.teacher_training.seeds
        assert isinstance(task, ParityTask)
        k, d = task.degree, task.dimension
        records = [
            {"seed": seed, "step": step, "coefficient": [inside, -inside] * (k // 2) + [-off] * (d - k), "hinge": hinge}
            for step, by_teacher in values.items()
            for seed, (inside, off, hinge) in zip(seeds, by_teacher, strict=True)
        ]
        self.probe("lemmas", records)

    def parity(self, task: Task = PARITY) -> None:
        """Makes the task one of parities, the teacher a GPT-2 with 2 heads and the student one with 1."""
        self.change(task=task, teacher=Gpt2(2, 2, 8), student=Gpt2(2, 1, 8))

    def language(self, level: int = 3) -> None:
        """Makes the task the prediction of next tokens on a grammar, and the models GPT-2s."""
        self.parity(PcfgLanguageTask("cfg3f", level=level))

    def sizes(self, models: Mapping[str, Mapping[str, Architecture]], **fields: Any) -> None:
        """Asks for panels of models of other sizes, of two seeds and by default 100 steps."""
        panels = tuple(
            SizePanel(panel, tuple(SizedModel(label, model) for label, model in sized.items()))
            for panel, sized in models.items()
        )
        defaults = {"seeds": (0, 1), "learning_rates": (1e-3,), "steps": 100, "batch_size": 8}
        self.change(sizes=Sizes(panels, **(defaults | fields)))

    def widths(
        self, labels: Sequence[str], learning_rates: Sequence[float], panels: Sequence[str] = ("width",)
    ) -> None:
        """Asks for MLPs of the widths that the labels say, in every panel, in a task for them."""
        self.parity()
        models = {label: Mlp((int(label),)) for label in labels}
        self.sizes(dict.fromkeys(panels, models), learning_rates=tuple(learning_rates))

    def run(
        self,
        directory: str,
        description: dict[str, Any],
        replicas: Replicas,
        records: Sequence[tuple[int, int, float, float]],
        complete: bool,
    ) -> None:
        """Writes the files of one run."""
        description = {"starts": [], "teacher_steps": [], "identity": "0", **description}
        known = named(self.experiment.strategies)
        keys = [key for key in description["strategies"] if key in known]
        usual: Loss = known[keys[0]].loss if keys else Labels()
        description["replicas"] = [
            {"seed": seed, "learning_rate": rate, "loss": plain(loss[0] if loss else usual)}
            for seed, rate, *loss in replicas
        ]
        if directory.startswith("students/") and not (self.path / "selection.json").exists():
            self.write("selection.json", {"transitions": [None], "transition": None, "strategies": {}})
        self.write(f"{directory}/run.json", description)
        lines = [
            {"split": "evaluation", "step": step, "replica": replica, "loss": [loss, 1.0], "accuracy": [accuracy, 1.0]}
            for step, replica, loss, accuracy in records
        ]
        seal = write_lines(self.path / directory / "metrics.jsonl", lines)
        progress = [{"step": s, "seconds": 1.25, "peak_memory_bytes": m << 20} for s, m in ((50, 300), (100, 200))]
        write_lines(self.path / directory / "progress.jsonl", progress)
        result = self.path / directory / "result.json"
        if complete:
            self.write(f"{directory}/result.json", {"records": seal})
        else:
            result.unlink(missing_ok=True)

    def cases(self, claim: Claim) -> list[Case]:
        """Returns the verdicts on a claim that says something about the experiment."""
        cases = claim.measure(read_results(self.path))
        assert not isinstance(cases, Absent), cases.reason
        return cases

    def absence(self, claim: Claim) -> str:
        """Returns why a claim says nothing about the experiment."""
        absent = claim.measure(read_results(self.path))
        assert isinstance(absent, Absent)
        return absent.reason

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file."""
        write_json(self.path / name, value)

    def forget(self, probe: str) -> None:
        """Takes away what a probe has measured on the teachers."""
        path = self.path / "probes" / "result.json"
        result = read_json(path)
        del result["records"][probe]
        write_json(path, result)
        path.with_name(f"{probe}.jsonl").unlink()

    def replace(self, name: str, old: str, new: str) -> None:
        """Replaces what a JSON file, or the records of a run, say."""
        path = self.path / name
        if path.suffix == ".json":
            self.write(name, json.loads(json.dumps(read_json(path)).replace(old, new)))
            return
        seal = write_lines(path, [json.loads(json.dumps(r).replace(old, new)) for r in read_lines(path).records])
        if (result := path.with_name("result.json")).exists():
            write_json(result, {**read_json(result), "records": seal})


def _measured(name: str, value: Any) -> dict[str, Any]:
    """Returns the fields of a record of a probe of strings."""
    if name == "agreement":
        return {"top1": value[0], "divergence": value[1]}
    return {{"ngrams": "distances", "nonterminals": "accuracy"}[name]: value}


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """An empty working directory for the experiment ``BASE``."""
    return Workdir(tmp_path / "work")


@pytest.fixture(autouse=True)
def _unwritten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are checked by their text: figures are drawn, and written where a test looks at the ``report`` itself."""
    if "report" not in request.fixturenames:
        monkeypatch.setattr(style, "svg_bytes", lambda figure: b"<svg></svg>")
        monkeypatch.setattr(style, "png_bytes", lambda figure: b"png")


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[ReportFigure]], dict[str, Figure]]:
    """Returns a function that draws what a generator of figures yields, and returns matplotlib's figures by name."""
    caught: list[Figure] = []
    monkeypatch.setattr(style, "svg_bytes", lambda figure: caught.append(figure) or b"<svg></svg>")
    return lambda figures: {figure.name: caught[-1] for figure in figures}


@pytest.fixture
def finished(workdir: Workdir) -> Workdir:
    """A complete experiment with three seeds, budgets 100 and 200 and the results of ``Workdir.FINAL``."""
    return _finish(workdir)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a complete experiment, for tests that only read it."""
    return write_report(_finish(Workdir(tmp_path_factory.mktemp("finished"))).path)


def _finish(workdir: Workdir) -> Workdir:
    workdir.start()
    workdir.teacher()
    workdir.select({key: [step for _, step in table] for key, table in workdir.TABLES.items()})
    for (key, budget), final in workdir.FINAL.items():
        middle = [accuracy - 0.1 for accuracy in final]
        workdir.student(key, budget, {budget // 2: middle, budget: final}, table=workdir.TABLES[key])
    return workdir
