"""CSV tables hold the recorded values, unrounded."""

import csv
import io
import math
from typing import Any

import pytest

from pdjax.report.claims import evaluate_claims
from pdjax.report.reading import read_results
from pdjax.report.tables import all_tables


def rows_of(workdir: Any, name: str) -> list[dict[str, str]]:
    """Returns a table's rows as the CSV holds them."""
    results = read_results(workdir.path)
    text = all_tables(results, evaluate_claims(results))[name].to_csv(index=False)
    return list(csv.DictReader(io.StringIO(text)))


def curricula_of(workdir: Any) -> list[tuple[str, ...]]:
    """Returns the rows of ``curricula``."""
    return [tuple(row.values()) for row in rows_of(workdir, "curricula")]


def test_students_equal_the_records(finished: Any):
    rows = {(row["strategy"], int(row["budget"])): row for row in rows_of(finished, "students")}
    assert rows.keys() == finished.FINAL.keys()
    for key, final in finished.FINAL.items():
        row = rows[key]
        assert tuple(float(row[f"accuracy_seed_{seed}"]) for seed in range(3)) == final
        assert float(row["accuracy_mean"]) == pytest.approx(sum(final) / 3)
        assert float(row["loss_mean"]) == pytest.approx(2 - sum(final) / 3)
        assert (float(row["learning_rate"]), float(row["run_seconds"]), row["count"]) == (1e-3, 2.5, "3")
    half = 4.303 * 0.02 / math.sqrt(3)  # labels at 100 steps: 0.40, 0.42, 0.44
    assert float(rows["labels", 100]["accuracy_low"]) == pytest.approx(0.42 - half, abs=1e-5)
    assert float(rows["labels", 100]["accuracy_high"]) == pytest.approx(0.42 + half, abs=1e-5)


def test_intervals_of_accuracies_stay_within_their_range(finished: Any):
    finished.student("two", 100, {100: (0.1, 0.9, 0.99)})
    (row,) = [r for r in rows_of(finished, "students") if (r["strategy"], r["budget"]) == ("two", "100")]
    assert (float(row["accuracy_low"]), float(row["accuracy_high"])) == (0, 1)


def test_an_unfinished_run_has_a_row_without_values(finished: Any):
    (finished.path / "students" / "two-200" / "result.json").unlink()
    (row,) = [r for r in rows_of(finished, "students") if (r["strategy"], r["budget"]) == ("two", "200")]
    assert row["state"] == "unfinished: evaluated to step 200 of 200"
    assert row["accuracy_mean"] == row["accuracy_seed_0"] == ""


def test_claims_have_one_row_per_comparison(finished: Any):
    rows = [row for row in rows_of(finished, "claims") if row["claim"] == "F1"]
    assert [(row["case"], row["quantity"], row["verdict"]) for row in rows] == [
        ("progressive (2, 50), 100 steps", "margin over labels only", "holds"),
        ("progressive (2, 50), 100 steps", "margin over one-shot", "holds"),
        ("progressive (2, 50), 200 steps", "margin over labels only", "undecided"),
        ("progressive (2, 50), 200 steps", "margin over one-shot", "undecided"),
    ]
    assert (float(rows[0]["mean"]), rows[0]["count"]) == (pytest.approx(0.1), "3")


def test_a_case_that_could_not_be_measured_says_why(finished: Any):
    (finished.path / "students" / "one_shot-100" / "result.json").unlink()
    row = rows_of(finished, "claims")[1]
    assert (row["verdict"], row["mean"], row["note"]) == ("not tested", "", "one-shot unfinished")


def test_curricula_say_from_when_to_when(finished: Any):
    rows = curricula_of(finished)
    assert ("one_shot", "100", "", "", "0", "100", "400") in rows
    assert ("two", "200", "", "", "0", "50", "200") in rows
    assert ("two", "200", "", "", "50", "200", "400") in rows
    assert len(rows) == 6  # two runs of one-shot, two of progressive with two rows each


def test_adaptive_curricula_have_rows_for_every_student(finished: Any):
    table = ((0, 100), (0, 200), (0, 300), (0, 400))
    final = {200: (0.5, 0.6, 0.7)}
    finished.student("two", 200, final, table=table, starts=[[0], [0, 50, 150], [0, 200]])
    rows = [row[2:] for row in curricula_of(finished) if row[:2] == ("two", "200")]
    assert rows == [
        ("0", "0.001", "0", "200", "100"),
        ("1", "0.001", "0", "50", "100"),
        ("1", "0.001", "50", "150", "200"),
        ("1", "0.001", "150", "200", "300"),
        ("2", "0.001", "0", "200", "100"),  # moving on with the last step has no effect
    ]
    finished.student("two", 200, {150: (0.5, 0.6, 0.7)}, table=table, starts=[[0], [0, 50], [0]], complete=False)
    assert ("two", "200", "0", "0.001", "0", "", "100") in curricula_of(finished)  # who knows until when


def test_students_that_move_on_together_share_rows(finished: Any):
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=((0, 100), (0, 400)), starts=[[0, 50]] * 3)
    rows = curricula_of(finished)
    assert rows[-2:] == [("two", "200", "", "", "0", "50", "100"), ("two", "200", "", "", "50", "200", "400")]


def test_sizes_are_in_increasing_order_with_every_learning_rate(workdir: Any):
    workdir.widths(["1000", "300"], [0.1, 0.2])
    workdir.start()
    replicas = [(1, 0.2), (0, 0.1), (0, 0.2), (1, 0.1)]
    workdir.size("width/300", {50: (0.3, 0.5, 0.5, 0.7), 100: (0.6, 0.9, 0.8, 1.0)}, replicas)
    rows = rows_of(workdir, "sizes")
    assert [(row["label"], row["learning_rate"], row["state"]) for row in rows] == [
        ("300", "0.1", "complete"),
        ("300", "0.2", "complete"),
        ("1000", "0.1", "not started"),
        ("1000", "0.2", "not started"),
    ]
    assert [float(row["accuracy_mean"]) for row in rows[:2]] == pytest.approx([0.95, 0.7])
    assert [float(row["accuracy_over_training"]) for row in rows[:2]] == pytest.approx([0.775, 0.55])
    half = 12.706 * 0.1 / 2  # t(0.975; 1) * s / sqrt(2) of 0.9 and 1.0
    assert float(rows[0]["accuracy_low"]) == pytest.approx(0.95 - half, abs=1e-4)
    assert rows[2]["accuracy_mean"] == ""


def test_runs_hold_seconds_and_memory(finished: Any):
    rows = rows_of(finished, "runs")
    assert len(rows) == 7
    assert {(row["seconds"], row["peak_memory_bytes"]) for row in rows} == {("2.5", str(300 << 20))}
