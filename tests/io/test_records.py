"""What a run leaves on disk, read back from files written by hand."""

import json

import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.errors import UserError
from pdjax.io import records
from pdjax.io.records import RunDescription
from pdjax.io.sealed import write_json, write_lines
from pdjax.train.replicas import Replica

DESCRIPTION = {
    "role": "student",
    "name": "progressive_40",
    "strategies": ["progressive", "soft"],
    "budget": 40,
    "replicas": [
        {
            "seed": 0,
            "learning_rate": 0.01,
            "loss": {"class": "pdjax.distill:Distillation", "temperature": temperature, "label_weight": 0.0},
        }
        for temperature in (0.0, 2.0)
    ],
    "starts": [0, 20],
    "teacher_steps": [100, 800],
    "identity": "5e1f",
}

METRICS = [
    {"split": split, "step": step, "replica": replica, "loss": loss, "accuracy": accuracy}
    for split, step, replica, loss, accuracy in (
        ("train", 20, 0, [30.0, 20.0], [5.0, 20.0]),
        ("train", 20, 1, [8.0, 16.0], [4.0, 16.0]),
        ("evaluation", 40, 1, [3.0, 10.0], [7.0, 10.0]),
        ("evaluation", 0, 0, [20.0, 10.0], [1.0, 10.0]),
        ("evaluation", 0, 1, [22.0, 10.0], [0.0, 10.0]),
        ("train", 40, 0, [0.0, 0.0], [0.0, 0.0]),
    )
]


@pytest.fixture
def directory(tmp_path):
    write_json(tmp_path / "run.json", DESCRIPTION)
    write_lines(tmp_path / "metrics.jsonl", METRICS)
    costs = ({"step": 20, "seconds": 1.5}, {"step": 40, "seconds": 0.25})
    write_lines(tmp_path / "progress.jsonl", costs)
    return tmp_path


def finish(directory):
    seal = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])["sha256"]
    write_json(directory / "result.json", {"step": 40, "identity": "5e1f", "records": seal})


def test_read_run_describes_it(directory):
    assert records.read_run(directory).description == RunDescription(
        role="student",
        name="progressive_40",
        strategies=("progressive", "soft"),
        budget=40,
        replicas=(Replica(0, 0.01, Distillation(0.0)), Replica(0, 0.01, Distillation(2.0))),
        starts=(0, 20),
        teacher_steps=(100, 800),
        identity="5e1f",
    )


def test_read_run_divides_sums_by_their_own_counts(directory):
    """Absent records and records of nothing are NaN, and rows are in the order of steps."""
    train = records.read_run(directory).train
    np.testing.assert_array_equal(train.steps, [20, 40])
    np.testing.assert_array_equal(train.loss, [[1.5, 0.5], [np.nan, np.nan]])
    np.testing.assert_array_equal(train.accuracy, [[0.25, 0.25], [np.nan, np.nan]])
    evaluation = records.read_run(directory).evaluation
    np.testing.assert_array_equal(evaluation.steps, [0, 40])
    np.testing.assert_array_equal(evaluation.loss, [[2.0, 2.2], [np.nan, 0.3]])
    np.testing.assert_array_equal(evaluation.accuracy, [[0.1, 0.0], [np.nan, 0.7]])


def test_read_run_adds_the_time_of_all_its_processes(directory):
    assert records.read_run(directory).seconds == 1.75


def test_the_curriculum_of_every_replica_is_the_described_one(directory):
    assert records.read_run(directory).starts == ((0, 20), (0, 20))


def test_the_curriculum_of_an_adaptive_run_is_what_each_replica_has_reached(directory):
    """The description knows the first row alone; replicas reach different numbers of checkpoints."""
    write_json(directory / "run.json", {**DESCRIPTION, "starts": [0]})
    assert records.read_run(directory).starts == ((0,), (0,))  # stopped before its first decision
    write_json(directory / "curriculum.json", {"starts": [[0, 20, 30], [0]]})
    run = records.read_run(directory)
    assert run.starts == ((0, 20, 30), (0,))
    assert run.description.starts == (0,)


def test_a_run_is_complete_once_it_has_a_result(directory):
    assert not records.read_run(directory).complete
    finish(directory)
    assert records.read_run(directory).complete


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "curriculum.json"])
def test_what_a_complete_run_has_lost_is_noticed(directory, name):
    """Even what an unfinished one need not have yet."""
    write_json(directory / "run.json", {**DESCRIPTION, "starts": [0]})
    write_json(directory / "curriculum.json", {"starts": [[0, 20], [0]]})
    finish(directory)
    assert records.read_run(directory).starts == ((0, 20), (0,))
    (directory / name).unlink()
    with pytest.raises(UserError, match=rf"expected .*/{name} as it was written; found .*remove {directory} and run"):
        records.read_run(directory)


def test_records_that_a_complete_run_has_lost_at_the_end_are_noticed(directory):
    finish(directory)
    lines = (directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    (directory / "metrics.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=r"found other records than were written \(5 are there\)"):
        records.read_run(directory)


def test_a_run_without_records_has_empty_curves(directory):
    (directory / "metrics.jsonl").unlink()
    (directory / "progress.jsonl").unlink()
    run = records.read_run(directory)
    assert run.train.steps.shape == (0,)
    assert run.evaluation.loss.shape == (0, 2)
    assert run.seconds == 0


def test_read_students_by_name(tmp_path):
    for name in ("b_20", "a_40"):
        write_json(tmp_path / "students" / name / "run.json", {**DESCRIPTION, "name": name})
    (tmp_path / "students" / "unfinished").mkdir()
    assert [run.description.name for run in records.read_students(tmp_path)] == ["a_40", "b_20"]


def test_read_sizes_by_panel_and_label(tmp_path):
    assert records.read_sizes(tmp_path) == []
    for name in ("width/20", "heads/8", "heads/16"):
        write_json(tmp_path / "sizes" / name / "run.json", {**DESCRIPTION, "role": "size", "name": name})
        write_lines(tmp_path / "sizes" / name / "metrics.jsonl", METRICS)
    (tmp_path / "sizes" / "heads" / "unfinished").mkdir()
    runs = records.read_sizes(tmp_path)
    assert [run.description.name for run in runs] == ["heads/16", "heads/8", "width/20"]
    assert all(run.evaluation.loss[0, 1] == 2.2 for run in runs)
    assert records.read_students(tmp_path) == []
