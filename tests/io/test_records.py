"""What a run leaves on disk, read back from files written by hand."""

import json
import os

import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.io import records
from pdjax.io.records import RunDescription
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

METRICS = """\
{"split": "train", "step": 20, "replica": 0, "loss": [30.0, 20.0], "accuracy": [5.0, 20.0]}
{"split": "train", "step": 20, "replica": 1, "loss": [8.0, 16.0], "accuracy": [4.0, 16.0]}
{"split": "evaluation", "step": 40, "replica": 1, "loss": [3.0, 10.0], "accuracy": [7.0, 10.0]}
{"split": "evaluation", "step": 0, "replica": 0, "loss": [20.0, 10.0], "accuracy": [1.0, 10.0]}
{"split": "evaluation", "step": 0, "replica": 1, "loss": [22.0, 10.0], "accuracy": [0.0, 10.0]}
{"split": "train", "step": 40, "replica": 0, "loss": [0.0, 0.0], "accuracy": [0.0, 0.0]}
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(DESCRIPTION))
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    (tmp_path / "progress.jsonl").write_text('{"step": 20, "seconds": 1.5}\n{"step": 40, "seconds": 0.25}\n')
    return tmp_path


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
    (directory / "run.json").write_text(json.dumps({**DESCRIPTION, "starts": [0]}))
    assert records.read_run(directory).starts == ((0,), (0,))  # stopped before its first decision
    (directory / "curriculum.json").write_text('{"starts": [[0, 20, 30], [0]]}')
    run = records.read_run(directory)
    assert run.starts == ((0, 20, 30), (0,))
    assert run.description.starts == (0,)


def test_a_run_is_complete_once_it_has_a_result(directory):
    assert not records.read_run(directory).complete
    (directory / "result.json").write_text("{}")
    assert records.read_run(directory).complete


def test_a_run_without_records_has_empty_curves(directory):
    (directory / "metrics.jsonl").unlink()
    (directory / "progress.jsonl").unlink()
    run = records.read_run(directory)
    assert run.train.steps.shape == (0,)
    assert run.evaluation.loss.shape == (0, 2)
    assert run.seconds == 0


def test_read_students_by_name(tmp_path):
    for name in ("b_20", "a_40"):
        (tmp_path / "students" / name).mkdir(parents=True)
        (tmp_path / "students" / name / "run.json").write_text(json.dumps({**DESCRIPTION, "name": name}))
    (tmp_path / "students" / "unfinished").mkdir()
    assert [run.description.name for run in records.read_students(tmp_path)] == ["a_40", "b_20"]


def test_read_sizes_by_panel_and_label(tmp_path):
    assert records.read_sizes(tmp_path) == []
    for name in ("width/20", "heads/8", "heads/16"):
        (tmp_path / "sizes" / name).mkdir(parents=True)
        (tmp_path / "sizes" / name / "run.json").write_text(json.dumps({**DESCRIPTION, "role": "size", "name": name}))
        (tmp_path / "sizes" / name / "metrics.jsonl").write_text(METRICS)
    (tmp_path / "sizes" / "heads" / "unfinished").mkdir()
    runs = records.read_sizes(tmp_path)
    assert [run.description.name for run in runs] == ["heads/16", "heads/8", "width/20"]
    assert all(run.evaluation.loss[0, 1] == 2.2 for run in runs)
    assert records.read_students(tmp_path) == []


def test_write_json_makes_directories_and_reads_back(tmp_path):
    path = tmp_path / "a" / "b" / "value.json"
    value = {"x": [1, 2.5, None], "y": {"z": "é"}}
    records.write_json(path, value)
    assert records.read_json(path) == value
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_write_json_replaces(tmp_path):
    path = tmp_path / "value.json"
    records.write_json(path, {"long": list(range(100))})
    records.write_json(path, {})
    assert path.read_text() == "{}\n"


def test_write_json_of_what_has_no_json_form_touches_nothing(tmp_path):
    path = tmp_path / "value.json"
    records.write_json(path, {"old": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        records.write_json(path, {"fine": 1, "not": {1, 2}})
    assert records.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_write_json_is_on_disk_as_a_whole_before_a_reader_sees_it(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    records.write_json(path, {"old": 1})
    synced, replaced = [], []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def watched_replace(source, target):
        replaced.append((json.loads(source.read_text()), json.loads(target.read_text()), source.stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    records.write_json(path, {"new": 2})
    assert replaced == [({"new": 2}, {"old": 1}, synced[0])]
    assert records.read_json(path) == {"new": 2}


def test_write_json_stopped_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    records.write_json(path, {"old": 1})

    def killed(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            records.write_json(path, {"new": 2})
    assert records.read_json(path) == {"old": 1}
    records.write_json(path, {"new": 3})
    assert records.read_json(path) == {"new": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_read_jsonl(tmp_path):
    assert records.read_jsonl(tmp_path / "missing.jsonl") == []
    (tmp_path / "two.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    assert records.read_jsonl(tmp_path / "two.jsonl") == [{"a": 1}, {"a": 2}]
