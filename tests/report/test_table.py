"""The one table: every recorded number is a row of it, once for every strategy that it belongs to."""

import dataclasses
import importlib.util
from typing import Any, ClassVar

import pandas as pd
import pytest

import pdjax.report
from pdjax.distill.strategy import Strategy
from pdjax.findings import COLUMNS
from pdjax.probes.attention import AttentionProbe
from pdjax.probes.base import Columns, Probe, Subject
from pdjax.probes.monomials import MonomialProbe
from pdjax.report.reading import read_results
from pdjax.settings import settings
from pdjax.tasks.parity import ParityTask


@settings
class Spectrum(Probe):
    """A probe of a user, which says nothing of how its numbers are to be read."""

    name: ClassVar[str] = "spectrum"

    def prepare(self, subject: Subject) -> Any:
        """Measures nothing here: the records are written by hand."""

        def measure(params: Any) -> Columns:
            return {}

        return measure


def table_of(workdir: Any) -> pd.DataFrame:
    """Returns the table of a working directory."""
    return read_results(workdir.path).table


def by(table: pd.DataFrame, *columns: str) -> dict[Any, float]:
    """Returns values by what tells them apart."""
    indexed = table.set_index(list(columns)).value
    assert indexed.index.is_unique
    return indexed.to_dict()


def test_every_evaluation_is_a_row(finished: Any):
    table = table_of(finished)
    assert tuple(table) == COLUMNS
    students = table[table.role == "student"]
    assert len(students) == 2 * 2 * 3 * len(finished.FINAL)  # measures, steps, seeds
    measured = by(students, "strategy", "budget", "seed", "step", "measure")
    for (key, budget), final in finished.FINAL.items():
        for seed, accuracy in enumerate(final):
            assert measured[key, budget, seed, budget, "accuracy"] == accuracy
            assert measured[key, budget, seed, budget, "loss"] == 2 - accuracy
            assert measured[key, budget, seed, budget // 2, "accuracy"] == accuracy - 0.1
    teacher = by(table[table.role == "teacher"], "step", "measure")
    assert teacher == {
        (step, measure): value
        for step, values in finished.TEACHER.items()
        for measure, value in zip(("loss", "accuracy"), values, strict=True)
    }
    assert set(students.loss) == {"Labels", "Distillation(temperature=0.0001, label_weight=0)"}
    assert (set(students.teacher_seed), set(students.learning_rate)) == ({0}, {1e-3})
    assert table.complete.all()


def test_teachers_have_their_own_seeds_and_students_that_of_theirs(finished: Any):
    finished.change(teacher_training={"seed": 3, "extra_seeds": (7,)})
    finished.start()
    finished.teacher()
    table = table_of(finished)
    assert by(table[table.measure == "accuracy"].query("role == 'teacher'"), "teacher_seed", "seed", "step") == {
        **{(3, 3, step): accuracy for step, (_, accuracy) in finished.TEACHER.items()},
        **{(7, 7, step): accuracy - 0.01 for step, (_, accuracy) in finished.TEACHER.items()},
    }
    assert set(table[table.role == "student"].teacher_seed) == {3}


def test_shared_students_have_rows_of_every_strategy(finished: Any):
    finished.add(Strategy("again"))
    finished.start()
    finished.shared(["one_shot", "again"], 100, {"one_shot": (0.1, 0.2, 0.3)})
    table = table_of(finished).query("budget == 100 and measure == 'accuracy'")
    shared = {key: rows.sort_values("seed") for key, rows in table.groupby("strategy") if key in ("one_shot", "again")}
    assert shared["one_shot"].value.tolist() == shared["again"].value.tolist() == [0.1, 0.2, 0.3]
    assert shared["one_shot"].model.tolist() == shared["again"].model.tolist()


def test_models_of_other_sizes_are_called_by_panel_and_label(workdir: Any):
    workdir.widths(["300"], [0.1, 0.2])
    workdir.start()
    workdir.size("width/300", {100: (0.6, 0.9)}, [(1, 0.2), (0, 0.1)], complete=False)
    sizes = table_of(workdir).query("role == 'size' and measure == 'accuracy'")
    assert by(sizes, "strategy", "seed", "learning_rate") == {("width/300", 1, 0.2): 0.6, ("width/300", 0, 0.1): 0.9}
    assert not sizes.complete.any()


def test_probes_have_columns_of_their_own(finished: Any):
    finished.strings(n=(2, 4), students=("two",))
    finished.start()
    ngrams = {400: [[[[0.1], [0.2]], [[0.3], [0.4]]]]}
    finished.measure(None, ngrams=ngrams, nonterminals={400: [(0.5, 0.6)]}, agreement={400: [(0.7, 0.8)]})
    finished.measure("two-100", nonterminals={0: [(0.0, 0.1)] * 3, 100: [(0.2, 0.3), (0.4, 0.5), (0.6, 0.7)]})
    table = table_of(finished)
    teacher = table[(table.role == "teacher") & (table.step == 400)]
    grams = teacher[teacher.measure.isin(["M_robust", "M_close"])]
    assert by(grams, "measure", "n", "percentile") == {
        ("M_robust", 2, 50): 0.1,
        ("M_robust", 4, 50): 0.2,
        ("M_close", 2, 50): 0.3,
        ("M_close", 4, 50): 0.4,
    }
    assert by(teacher[teacher.measure == "non-terminals"], "level") == {1: 0.5, 2: 0.6}
    assert by(teacher[teacher.measure.isin(["agreement", "divergence"])], "measure") == {
        "agreement": 0.7,
        "divergence": 0.8,
    }
    students = table[(table.role == "student") & (table.measure == "non-terminals")]
    assert set(students.strategy) == {"two"}
    measured = by(students, "seed", "step", "level")
    assert (measured[2, 0, 2], measured[0, 100, 1], measured[2, 100, 2]) == (0.1, 0.2, 0.7)
    assert table[table.measure == "accuracy"][["n", "percentile", "level"]].isna().all(axis=None)


def test_correlations_and_attention_say_what_is_in_the_support(workdir: Any):
    workdir.parity(ParityTask(4, 2))
    workdir.change(probes={"measured": (MonomialProbe(2, 2, 8, 8), AttentionProbe())})
    workdir.start()
    workdir.teacher()
    records = [{"seed": 0, "step": 10, "correlations": [0.1, 0.2, 0.3]}]
    workdir.probe("monomials", records, members=[[0], [0, 1], [2, 3]], groups=[0, 0, -1])
    workdir.probe("attention", [{"seed": 0, "step": 10, "positions": [1.0, 2.0, 0.25, 0.75], "support": 3.1}])
    table = table_of(workdir)
    correlations = table[table.measure == "correlation"]
    assert by(correlations, "monomial", "degree", "feature") == {(0, 1, 0): 0.1, (1, 2, 0): 0.2, (2, 2, -1): 0.3}
    attention = by(table[table.measure == "attention"], "position", "feature")
    assert attention == {(0, 0): 1.0, (1, 0): 2.0, (2, -1): 0.25, (3, -1): 0.75}
    assert table[table.measure == "attention to the support"].value.tolist() == [3.1]


def test_a_probe_of_a_user_has_rows_without_a_word(finished: Any):
    finished.change(probes={"measured": (Spectrum(),)})
    finished.start()
    finished.probe("spectrum", [{"seed": 0, "step": 400, "norm": 2.5, "values": [[1, 2], [3, 4]]}])
    rows = table_of(finished).query("step == 400 and role == 'teacher' and measure.str.startswith('spectrum')")
    assert by(rows[rows.measure == "spectrum.norm"], "measure") == {"spectrum.norm": 2.5}
    places = by(rows[rows.measure == "spectrum.values"], "spectrum.axis_0", "spectrum.axis_1")
    assert places == {(0, 0): 1, (0, 1): 2, (1, 0): 3, (1, 1): 4}


def test_results_joins_directories_and_variants(finished: Any, tmp_path: Any):
    finished.ablation("masks", {"wide": {"task": {"mask_rate": 0.5}}}, (100,))
    finished.start()
    finished.variant("masks", "wide").student("labels", 100, {100: (0.7, 0.8, 0.9)})
    other = dataclasses.replace(finished.experiment, ablations=())
    second = type(finished)(tmp_path / "second")
    second.experiment = other
    second.start()
    second.student("labels", 100, {100: (0.1, 0.2, 0.3)})
    table = pdjax.report.results(finished.path, second.path)
    assert list(table)[:2] == ["workdir", "variant"]
    ends = table.query("strategy == 'labels' and budget == 100 and step == 100 and measure == 'accuracy'")
    ends = {key: rows.sort_values("seed").value.tolist() for key, rows in ends.groupby(["workdir", "variant"])}
    assert ends == {
        (str(finished.path), ""): [0.40, 0.42, 0.44],
        (str(finished.path), "masks/wide"): [0.7, 0.8, 0.9],
        (str(second.path), ""): [0.1, 0.2, 0.3],
    }


def test_nothing_recorded_is_an_empty_table(workdir: Any):
    workdir.start()
    table = pdjax.report.results(workdir.path)
    assert table.empty
    assert tuple(table) == ("workdir", "variant", *COLUMNS)


def test_the_saved_table_is_the_table(report: Any):
    saved = pd.read_csv(report.parent / "results.csv", keep_default_na=False)
    table = read_results(report.parents[1]).table_with_variants
    assert saved.value.tolist() == table.value.tolist()
    assert saved[["variant", *COLUMNS]].astype(str).equals(table.astype(str))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="asks for pyarrow")
def test_the_table_is_saved_as_parquet_too(report: Any):
    saved = pd.read_parquet(report.parent / "results.parquet")
    assert saved.value.tolist() == pd.read_csv(report.parent / "results.csv").value.tolist()
