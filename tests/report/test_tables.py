"""CSV tables hold the recorded values, unrounded."""

import csv
import math
from typing import Any

import pytest

from pdjax.report.claims import evaluate_claims
from pdjax.report.reading import read_results
from pdjax.report.tables import Table, all_tables
from pdjax.tasks.parity import ParityTask


def rows_of(workdir: Any, name: str) -> list[dict[str, str]]:
    """Returns a table's rows as the CSV holds them."""
    results = read_results(workdir.path)
    (table,) = [table for table in all_tables(results, evaluate_claims(results)) if table.name == name]
    return list(csv.DictReader(table.csv().splitlines()))


def test_students_equal_the_records(finished: Any):
    rows = {(row["strategy"], int(row["budget"])): row for row in rows_of(finished, "students")}
    assert rows.keys() == finished.FINAL.keys()
    for key, final in finished.FINAL.items():
        row = rows[key]
        assert tuple(float(row[f"accuracy_seed_{seed}"]) for seed in range(3)) == final
        assert float(row["accuracy_mean"]) == pytest.approx(sum(final) / 3)
        assert float(row["loss_mean"]) == pytest.approx(2 - sum(final) / 3)
        assert (float(row["learning_rate"]), float(row["run_seconds"]), row["seeds"]) == (1e-3, 2.5, "3")
    half = 4.303 * 0.02 / math.sqrt(3)  # labels at 100 steps: 0.40, 0.42, 0.44
    assert float(rows["labels", 100]["accuracy_low"]) == pytest.approx(0.42 - half, abs=1e-5)
    assert float(rows["labels", 100]["accuracy_high"]) == pytest.approx(0.42 + half, abs=1e-5)


def test_an_unfinished_run_has_a_row_without_values(finished: Any):
    (finished.path / "students" / "two-200" / "result.json").unlink()
    (row,) = [r for r in rows_of(finished, "students") if (r["strategy"], r["budget"]) == ("two", "200")]
    assert row["state"] == "unfinished: evaluated to step 200 of 200"
    assert row["accuracy_mean"] == row["accuracy_seed_0"] == ""


def test_claims_have_one_row_per_comparison(finished: Any):
    rows = rows_of(finished, "claims")
    assert [(row["case"], row["quantity"], row["verdict"]) for row in rows] == [
        ("progressive (2, 50), 100 steps", "margin over labels only", "holds"),
        ("progressive (2, 50), 100 steps", "margin over one-shot", "holds"),
        ("progressive (2, 50), 200 steps", "margin over labels only", "undecided"),
        ("progressive (2, 50), 200 steps", "margin over one-shot", "undecided"),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(0.1)


def test_teacher_equals_the_records(finished: Any):
    finished.change(teacher_training={"extra_seeds": (7,)})
    finished.start()
    finished.teacher()
    every = rows_of(finished, "teacher")
    assert [float(row["accuracy"]) for row in every if row["seed"] == "7"] == pytest.approx([0.29, 0.39, 0.59, 0.69])
    rows = [row for row in every if row["seed"] == "0"]
    assert {int(row["step"]): (float(row["loss"]), float(row["accuracy"])) for row in rows} == finished.TEACHER


def test_curricula_say_from_when_to_when(finished: Any):
    rows = [tuple(row.values()) for row in rows_of(finished, "curricula")]
    assert ("one_shot", "100", "", "", "0", "100", "400") in rows
    assert ("two", "200", "", "", "0", "50", "200") in rows
    assert ("two", "200", "", "", "50", "200", "400") in rows
    assert len(rows) == 6  # two runs of one-shot, two of progressive with two rows each


def test_adaptive_curricula_have_rows_for_every_student(finished: Any):
    table = ((0, 100), (0, 200), (0, 300), (0, 400))
    final = {200: (0.5, 0.6, 0.7)}
    finished.student("two", 200, final, table=table, starts=[[0], [0, 50, 150], [0, 200]])
    rows = [tuple(row.values())[2:] for row in rows_of(finished, "curricula") if (row["budget"]) == "200"][1:]
    assert rows == [
        ("0", "0.001", "0", "200", "100"),
        ("1", "0.001", "0", "50", "100"),
        ("1", "0.001", "50", "150", "200"),
        ("1", "0.001", "150", "200", "300"),
        ("2", "0.001", "0", "200", "100"),  # moving on with the last step has no effect
    ]
    finished.student("two", 200, {150: (0.5, 0.6, 0.7)}, table=table, starts=[[0], [0, 50], [0]], complete=False)
    rows = [tuple(row.values())[2:] for row in rows_of(finished, "curricula") if (row["budget"]) == "200"][1:]
    assert rows[0] == ("0", "0.001", "0", "", "100")  # who knows until when


def test_students_that_move_on_together_share_rows(finished: Any):
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=((0, 100), (0, 400)), starts=[[0, 50]] * 3)
    rows = [tuple(row.values()) for row in rows_of(finished, "curricula")]
    assert rows[-2:] == [("two", "200", "", "", "0", "50", "100"), ("two", "200", "", "", "50", "200", "400")]


def test_sizes_are_in_increasing_order_with_every_learning_rate(workdir: Any):
    workdir.widths(["1000", "300"], [0.1, 0.2])
    workdir.start()
    replicas = [(1, 0.2), (0, 0.1), (0, 0.2), (1, 0.1)]
    workdir.size("width/300", {50: (0.3, 0.5, 0.5, 0.7), 100: (0.6, 0.9, 0.8, 1.0)}, replicas)
    rows = rows_of(workdir, "sizes")
    assert [(row["label"], row["learning_rate"]) for row in rows] == [
        ("300", "0.1"),
        ("300", "0.2"),
        ("1000", "0.1"),
        ("1000", "0.2"),
    ]
    assert [row["state"] for row in rows] == ["complete"] * 2 + ["not started"] * 2
    assert [float(row["accuracy_mean"]) for row in rows[:2]] == pytest.approx([0.95, 0.7])
    assert [float(row["accuracy_over_training"]) for row in rows[:2]] == pytest.approx([0.775, 0.55])
    half = 12.706 * 0.1 / 2  # t(0.975; 1) * s / sqrt(2) of 0.9 and 1.0
    assert float(rows[0]["accuracy_low"]) == pytest.approx(0.95 - half, abs=1e-4)
    assert rows[2]["accuracy_mean"] == ""


def test_correlations_are_means_and_deviations_over_monomials(workdir: Any):
    workdir.start()
    records = [{"seed": 3, "step": step, "correlations": [0.1, 0.3, 0.2, 0.5, step / 100]} for step in (10, 20)]
    workdir.probe("monomials", records, members=[[0], [1], [0, 1], [2], [0, 2]], groups=[0, 0, 0, -1, -1])
    rows = {tuple(map(int, list(row.values())[:4])): list(row.values())[4:] for row in rows_of(workdir, "correlations")}
    assert len(rows) == 8
    assert [float(value) for value in rows[3, 10, 0, 1]] == pytest.approx([2, 0.2, 0.1])
    assert [float(value) for value in rows[3, 20, -1, 2]] == pytest.approx([1, 0.2, 0.0])


@pytest.mark.parametrize("monomials", [True, False])
def test_attention_off_the_support_is_known_with_monomials(workdir: Any, monomials: bool):
    workdir.parity(ParityTask(4, 2))
    workdir.start()
    workdir.probe("attention", [{"seed": 0, "step": 10, "positions": [1.0, 2.0, 0.25, 0.75], "support": 3.1}])
    if monomials:
        members, groups = [[0], [1], [2], [3]], [0, 0, -1, -1]
        records = [{"seed": 0, "step": 10, "correlations": [0.1] * 4}]
        workdir.probe("monomials", records, members=members, groups=groups)
    (row,) = rows_of(workdir, "attention")
    assert list(row.values()) == ["0", "10", "3.1", "0.5" if monomials else ""]


def test_runs_hold_seconds_and_memory(finished: Any):
    rows = rows_of(finished, "runs")
    assert len(rows) == 7
    assert {(row["seconds"], row["peak_memory_bytes"]) for row in rows} == {("2.5", str(300 << 20))}


def test_nothing_measured_is_an_empty_cell():
    assert Table("t", ("a", "b", "c"), [(None, math.nan, 0.1)]).csv() == "a,b,c\n,,0.1\n"
