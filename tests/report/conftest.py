"""Synthetic working directories: the files an experiment records, written by hand with known numbers.

Tests reach all of this through fixtures: which ``conftest`` an import finds depends on the other test directories.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pdjax.config import from_config_dict
from pdjax.config.building import placement
from pdjax.report import style, write_report

_OPTIMIZER = {
    "kind": "adam",
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "clip_norm": 1.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
}
_BERT = {
    "kind": "bert",
    "num_layers": 1,
    "num_heads": 2,
    "head_dim": 4,
    "width": None,
    "feed_forward_multiple": 4,
    "dropout": 0.0,
    "attend_to_selected": True,
    "compute": "float32",
}


def strategy(schedule: str, label: str, **changes: Any) -> dict[str, Any]:
    """Returns a strategy's configuration."""
    return {
        "schedule": schedule,
        "label": label,
        "selection": {"kind": "final", "count": None, "steps": None, "points": None, "levels": None},
        "duration": 100 if schedule == "fixed_duration" else None,
        "kappa": None,
        "saturation": None,
        "crossing": None,
        "temperature": 1.0,
        "label_weight": 1.0 if schedule == "labels" else 0.0,
        "budgets": None,
        **changes,
    }


BASE = {
    "name": "synthetic",
    "seed": 0,
    "task": {
        "kind": "pcfg",
        "grammar": "cfg3b",
        "root": None,
        "length": None,
        "mask_rate": 0.3,
        "select_bos": False,
    },
    "teacher": _BERT,
    "student": _BERT,
    "teacher_training": {
        "seed": 0,
        "extra_seeds": [],
        "steps": 400,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every": 100,
        "trajectory": None,
        "optimizer": _OPTIMIZER,
    },
    "student_training": {
        "seeds": [0, 1, 2],
        "learning_rates": [1e-3],
        "budgets": [100, 200],
        "batch_size": 8,
        "shared_batches": True,
        "checkpoint_every": None,
        "optimizer": _OPTIMIZER,
    },
    "strategies": {
        "labels": strategy("labels", "labels"),
        "one_shot": strategy("one_shot", "one-shot"),
        "two": strategy("fixed_duration", "(2, T)"),
    },
    "comparisons": {
        "all": {
            "kind": "training",
            "title": "All",
            "figure": "figure 1",
            "strategies": ["labels", "one_shot", "two"],
        }
    },
    "ablations": {},
    "probes": {
        "seed": 0,
        "monomials": None,
        "attention": None,
        "ngrams": None,
        "nonterminals": None,
        "agreement": None,
        "students": [],
        "longest_alone": False,
    },
    "sizes": None,
    "evaluation": {"every": 50, "num_batches": 1, "batch_size": 8},
    "loop": {"chunk_steps": 50, "save_every": 50, "writers": []},
    "placement": placement(),
    "remarks": {},
}

Replicas = Sequence[tuple[float, ...]]
"""Seed and learning rate, and temperature and label weight where they are not those of the run's first strategy."""

ByStep = Mapping[int, Sequence[Any]]
"""What was measured on every model, by step."""


class Workdir:
    """Writes the recorded files of an experiment; ``config`` can be changed before ``start``."""

    TEACHER: ClassVar = {100: (2.0, 0.3), 200: (1.5, 0.4), 300: (1.1, 0.6), 400: (1.0, 0.7)}
    """Held-out loss and accuracy of the teacher by step."""

    FINAL: ClassVar = {
        ("labels", 100): (0.40, 0.42, 0.44),
        ("one_shot", 100): (0.43, 0.41, 0.42),
        ("two", 100): (0.50, 0.51, 0.55),
        ("labels", 200): (0.50, 0.60, 0.55),
        ("one_shot", 200): (0.52, 0.58, 0.55),
        ("two", 200): (0.51, 0.60, 0.56),
    }
    """Final accuracies of three seeds: (2, T) is ahead at 100 steps and not clearly at 200."""

    TABLES: ClassVar = {"labels": (), "one_shot": ((0, 400),), "two": ((0, 200), (50, 400))}
    """Student step and checkpoint of every row of the strategies' curricula."""

    strategy = staticmethod(strategy)

    def __init__(self, path: Path):
        self.path = path
        self.config: dict[str, Any] = copy.deepcopy(BASE)

    def start(self) -> None:
        """Writes what is recorded before any training."""
        self.write("config.json", self.config)
        environment = {"command": ["pdjax", "--config", "a b.py"], "date": "2025-01-02T03:04:05+00:00"}
        environment |= {"versions": {"jax": "0.7.1", "python": "3.11"}, "device": "cpu", "cores": 2}
        self.write("environment.json", environment)

    def select(self, strategies: Mapping[str, Sequence[int]], **evidence: Any) -> None:
        """Writes phases, other ``evidence`` (transition, spikes), and the chosen checkpoints."""
        phases = {"start": 100, "middle": 200, "end": 300, "reason": "the loss drops there"}
        chosen = {key: {"teacher_steps": steps, "reason": f"because of {key}"} for key, steps in strategies.items()}
        recorded = {"phases": phases, "transition": None, "spikes": None, **evidence}
        self.write("selection.json", {**recorded, "strategies": chosen})

    def teacher(self, curve: Mapping[int, tuple[float, float]] | None = None, complete: bool = True) -> None:
        """Writes the teacher's run; the teacher of the n-th extra seed is 0.01 n less accurate."""
        curve = self.TEACHER if curve is None else curve
        training = self.config["teacher_training"]
        seeds = [training["seed"], *training["extra_seeds"]]
        records = [(s, r, loss, a - 0.01 * r) for s, (loss, a) in curve.items() for r in range(len(seeds))]
        description = {"role": "teacher", "name": "teacher", "strategies": [], "budget": training["steps"]}
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
        losses = [[self.config["strategies"][key][f] for f in ("temperature", "label_weight")] for key in finals]
        seeds = range(len(next(iter(finals.values()))))
        replicas = [(seed, 1e-3, *loss) for loss in losses for seed in seeds]
        finals_in_order = [accuracy for final in finals.values() for accuracy in final]
        records = [(budget, replica, 2 - a, a) for replica, a in enumerate(finals_in_order)]
        description = {"role": "student", "name": f"{keys[0]}-{budget}", "strategies": list(keys), "budget": budget}
        description |= {"starts": [0], "teacher_steps": [400]}
        self.run(f"students/{keys[0]}-{budget}", description, replicas, records, True)

    def size(self, name: str, curves: Mapping[int, Sequence[float]], replicas: Replicas, complete: bool = True) -> None:
        """Writes the run of a model of another size, named <panel>/<label>."""
        records = [(step, r, 2 - a, a) for step, values in curves.items() for r, a in enumerate(values)]
        description = {"role": "size", "name": name, "strategies": [], "budget": self.config["sizes"]["steps"]}
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
        training = self.config["teacher_training"]
        names = [training["seed"], *training["extra_seeds"]] if run is None else list(range(99))
        listed: dict[str, Any] = {"identity": "0"}
        if ngrams is not None:
            listed |= {name: self.config["probes"]["ngrams"][name] for name in ("n", "percentiles")}
        if nonterminals is not None:
            listed["levels"] = [1 + index for index, _ in enumerate(next(iter(nonterminals.values()))[0])]
        self.write(f"{directory}/result.json", listed)
        for name, table in {"ngrams": ngrams, "nonterminals": nonterminals, "agreement": agreement}.items():
            rows = [
                (step, model, value) for step, by_model in (table or {}).items() for model, value in enumerate(by_model)
            ]
            records = [{key: names[model], "step": step, **_measured(name, value)} for step, model, value in rows]
            if records:
                lines = "".join(json.dumps(record) + "\n" for record in records)
                (self.path / directory / f"{name}.jsonl").write_text(lines)

    def strings(self, n: Sequence[int] = (2, 4), students: Sequence[str] = ()) -> None:
        """Asks for all probes of strings, and for medians of M_robust and M_close."""
        ngrams = {"n": list(n), "num_sentences": 8, "num_positions": 2, "percentiles": [50], "batch_size": 8}
        nonterminals = {"num_heads": 2, "num_train": 16, "num_test": 16, "batch_size": 8, "learning_rate": 0.01}
        probes = {"ngrams": ngrams, "nonterminals": nonterminals, "students": list(students)}
        self.config["probes"] |= {**probes, "agreement": {"num_batches": 1, "batch_size": 8}}
        self.config["student_training"]["checkpoint_every"] = 50 if students else None

    def search(self, firsts: Sequence[int], durations: Sequence[int], **also: dict[str, Any]) -> None:
        """Asks for (2, T) strategies with every first checkpoint and T, named c<first>_<T>, and others besides."""
        chosen = {"kind": "steps", "count": None, "points": None, "levels": None}
        grid = {
            f"c{first}_{t}": strategy(
                "fixed_duration", f"{first}, {t}", duration=t, selection={**chosen, "steps": [first]}, temperature=0.0
            )
            for first in firsts
            for t in durations
        }
        self.config["strategies"] |= {**grid, **also}
        search = {"kind": "first_checkpoints", "title": "First checkpoints", "figure": "figure 4 (right)"}
        self.config["comparisons"]["search"] = {**search, "strategies": [*grid, *also]}

    def ablation(self, key: str, variants: Mapping[str, Any], budgets: Sequence[int], **fields: Any) -> None:
        """Asks for an ablation, by default of all strategies and without a name for the experiment itself."""
        base = {"title": key.title(), "figure": "figure 26", "base": None, "sizes": False}
        strategies = list(self.config["strategies"])
        asked = {**base, "strategies": strategies, **fields, "variants": dict(variants), "budgets": list(budgets)}
        self.config["ablations"][key] = asked

    def variant(self, key: str, name: str) -> "Workdir":
        """Begins a variant of an ablation, and returns its working directory."""
        workdir = Workdir(self.path / "ablations" / key / name)
        workdir.config = from_config_dict(self.config).variant(key, name).as_dict()
        workdir.start()
        return workdir

    def probe(self, name: str, records: Sequence[Mapping[str, Any]], **listed: Any) -> None:
        """Writes what a probe measured, and what it lists besides (the monomials)."""
        if listed:
            self.write(f"probes/{name}.json", listed)
        self.write("probes/result.json", {"identity": "0"})
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (self.path / "probes" / f"{name}.jsonl").write_text(lines)

    def parity(self, **task: Any) -> None:
        """Makes the task a parity of 6 coordinates, the teacher a GPT-2 with 2 heads and the student one with 1."""
        base = {"kind": "parity", "dimension": 6, "degree": 2, "support": "first", "support_seed": 0}
        model = {"kind": "gpt2", "num_layers": 2, "head_dim": 8, "width": None, "feed_forward_multiple": 4}
        model |= {"dropout": 0.0, "tied_head": False, "heads": "concatenate", "compute": "float32"}
        self.config |= {"task": {**base, **task}}
        self.config |= {"teacher": {**model, "num_heads": 2}, "student": {**model, "num_heads": 1}}

    def language(self) -> None:
        """Makes the task the prediction of next tokens on a grammar, and the models GPT-2s."""
        self.parity()
        self.config["task"] = {"kind": "pcfg_language", "grammar": "cfg3f", "root": None, "length": None, "level": 3}

    def sizes(self, labels: Sequence[str], learning_rates: Sequence[float]) -> None:
        """Asks for MLPs of the widths that the labels say, 100 steps each, in a task for them."""
        self.parity()
        models = {label: {"kind": "mlp", "widths": [int(label)], "compute": "float32"} for label in labels}
        training = {"batch_size": 8, "shared_batches": True, "optimizer": _OPTIMIZER}
        grid = {"seeds": [0, 1], "learning_rates": list(learning_rates), "steps": 100}
        self.config["sizes"] = {"panels": {"width": models}, **grid, **training}

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
        keys = [key for key in description["strategies"] if key in self.config["strategies"]]
        chosen = self.config["strategies"][keys[0]] if keys else {"schedule": "labels"}
        taught = chosen["schedule"] != "labels"
        loss = {name: chosen[name] for name in ("temperature", "label_weight")} if taught else {}
        names = ("temperature", "label_weight")
        description["replicas"] = [
            {"seed": seed, "learning_rate": rate, **loss, **dict(zip(names, values, strict=False))}
            for seed, rate, *values in replicas
        ]
        self.write(f"{directory}/run.json", description)
        lines = [
            {"split": "evaluation", "step": step, "replica": replica, "loss": [loss, 1.0], "accuracy": [accuracy, 1.0]}
            for step, replica, loss, accuracy in records
        ]
        (self.path / directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        progress = [{"step": s, "seconds": 1.25, "peak_memory_bytes": m << 20} for s, m in ((50, 300), (100, 200))]
        (self.path / directory / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in progress))
        result = self.path / directory / "result.json"
        if complete:
            self.write(f"{directory}/result.json", {})
        else:
            result.unlink(missing_ok=True)

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


def _measured(name: str, value: Any) -> dict[str, Any]:
    """Returns the fields of a record of a probe of strings."""
    if name == "agreement":
        return {"top1": value[0], "divergence": value[1]}
    return {{"ngrams": "distances", "nonterminals": "accuracy"}[name]: value}


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """An empty working directory for the configuration ``BASE``."""
    return Workdir(tmp_path / "work")


@pytest.fixture(autouse=True)
def _unwritten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are checked by their text: figures are drawn, and written where a test looks at the ``report`` itself."""
    if "report" not in request.fixturenames:
        monkeypatch.setattr(style, "svg_bytes", lambda figure: b"<svg></svg>")
        monkeypatch.setattr(style, "png_bytes", lambda figure: b"png")


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
