"""CSV tables hold the recorded values, unrounded."""

import csv
import math
from typing import Any

import pytest

from pdjax.report.claims import evaluate_claims
from pdjax.report.results import read_results
from pdjax.report.tables import Table, all_tables


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
        ("(2, T), 100 steps", "margin over labels", "holds"),
        ("(2, T), 100 steps", "margin over one-shot", "holds"),
        ("(2, T), 200 steps", "margin over labels", "undecided"),
        ("(2, T), 200 steps", "margin over one-shot", "undecided"),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(0.1)


def test_teacher_equals_the_records(finished: Any):
    rows = rows_of(finished, "teacher")
    assert {int(row["step"]): (float(row["loss"]), float(row["accuracy"])) for row in rows} == finished.TEACHER


def test_curricula_say_from_when_to_when(finished: Any):
    rows = [tuple(row.values()) for row in rows_of(finished, "curricula")]
    assert ("one_shot", "100", "", "", "0", "100", "400") in rows
    assert ("two", "200", "", "", "0", "50", "200") in rows
    assert ("two", "200", "", "", "50", "200", "400") in rows
    assert len(rows) == 6  # two runs of one-shot, two of (2, T) with two rows each


def test_runs_hold_seconds_and_memory(finished: Any):
    rows = rows_of(finished, "runs")
    assert len(rows) == 7
    assert {(row["seconds"], row["peak_memory_bytes"]) for row in rows} == {("2.5", str(300 << 20))}


def test_nothing_measured_is_an_empty_cell():
    assert Table("t", ("a", "b", "c"), [(None, math.nan, 0.1)]).csv() == "a,b,c\n,,0.1\n"
