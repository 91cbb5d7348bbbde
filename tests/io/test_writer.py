import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.io import writer as writers
from pdjax.io.records import RunDescription, read_costs
from pdjax.io.sealed import read_lines
from pdjax.io.writer import MetricsWriter, open_writer
from pdjax.train.replicas import Replica
from pdjax.types import Mean, StepMetrics


def metrics(losses, count=4.0):
    losses = np.asarray(losses, np.float32)
    counts = np.full_like(losses, count)
    return StepMetrics(Mean(losses * counts, counts), Mean(counts / 2, counts))


def lines(directory):
    return read_lines(directory / "metrics.jsonl").records


def test_writes_sums_and_counts_for_each_replica(tmp_path):
    writer = MetricsWriter(tmp_path, None)
    writer.write("train", 5, metrics([0.5, 2.0]))
    writer.close()
    assert lines(tmp_path) == [
        {"split": "train", "step": 5, "replica": 0, "loss": [2.0, 4.0], "accuracy": [2.0, 4.0]},
        {"split": "train", "step": 5, "replica": 1, "loss": [8.0, 4.0], "accuracy": [2.0, 4.0]},
    ]


def test_resuming_drops_what_lies_behind_the_step(tmp_path):
    writer = MetricsWriter(tmp_path, None)
    for step in (1, 2, 3):
        writer.write("train", step, metrics([1.0]))
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"split": "tr')
    writer = MetricsWriter(tmp_path, 2)
    writer.write("train", 3, metrics([7.0]))
    writer.close()
    assert [(r["step"], r["loss"][0]) for r in lines(tmp_path)] == [(1, 4.0), (2, 4.0), (3, 28.0)]


def test_resuming_needs_the_records_behind_which_the_state_was_saved(tmp_path):
    writer = MetricsWriter(tmp_path, None)
    seals = []
    for step in (1, 2, 3):
        writer.write("train", step, metrics([1.0]))
        seals.append(writer.seal)
    writer.close()
    MetricsWriter(tmp_path, 2, seals[1]).close()
    assert [r["step"] for r in lines(tmp_path)] == [1, 2]
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(
        UserError, match=rf"found other records .*\(of these, 2 are there\); .* remove {tmp_path} and run"
    ):
        MetricsWriter(tmp_path, 3, seals[2])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_costs_of_all_processes_stay(tmp_path):
    """Also of those that were killed before they had saved anything."""
    for seconds in (1.5, 2.0):
        writer = MetricsWriter(tmp_path, None)
        writer.write_cost(10, seconds, 2**20)
        writer.close()
        with open(tmp_path / "progress.jsonl", "a") as file:
            file.write('{"step": 20, "sec')
    assert [(cost["step"], cost["seconds"], cost["peak_memory_bytes"]) for cost in read_costs(tmp_path)] == [
        (10, 1.5, 2**20),
        (10, 2.0, 2**20),
    ]


def test_the_first_process_alone_writes(tmp_path, monkeypatch):
    """Whether a second one that wrote too could be seen in the file is a matter of which of them opens it last."""
    description = RunDescription("student", "s", ("s",), 10, (Replica(0, 0.1),), (), (), "0")
    for first in (False, True):
        monkeypatch.setattr(writers, "is_first", lambda first=first: first)
        writer = open_writer(tmp_path, None, None, (), description, {})
        writer.write("train", 5, metrics([1.0]))
        writer.write_cost(5, 1.0, 2**20)
        writer.flush()
        writer.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == (
            ["metrics.jsonl", "progress.jsonl"] if first else []
        )


def test_starting_afresh_forgets_everything(tmp_path):
    for _ in range(2):
        writer = MetricsWriter(tmp_path, None)
        writer.write("train", 1, metrics([1.0]))
        writer.close()
    assert len(lines(tmp_path)) == 1


def test_count_zero_is_not_a_mean(tmp_path):
    seen = []

    class Spy:
        def write(self, split, step, replica, values):
            seen.append(values)

        def close(self):
            seen.append("closed")

    writer = MetricsWriter(tmp_path, None, sinks=lambda: [Spy()])
    writer.write("train", 1, metrics([1.0], count=0.0))
    writer.close()
    assert np.isnan(seen[0]["loss"])
    assert seen[1] == "closed"
    with pytest.raises(ValueError, match="closed"):
        writer.write("train", 2, metrics([1.0]))
