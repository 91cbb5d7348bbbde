"""Sinks get every point once, whatever was killed, and stop nothing."""

import dataclasses
import importlib.util
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from pdjax.configuration import experiment_of
from pdjax.errors import UserError
from pdjax.io.records import RunDescription
from pdjax.io.signals import Interrupt
from pdjax.io.sinks import Spared, open_sinks
from pdjax.io.writer import MetricsWriter, open_writer
from pdjax.stages.run import run_experiment
from pdjax.train.replicas import Replica
from pdjax.types import Mean, StepMetrics
from tests.minimal import get_config

RUN = RunDescription("student", "x", ("labels",), 4, (Replica(0, 0.1), Replica(1, 0.1)), (), (), "id")


def metrics(*losses):
    losses, counts = np.asarray(losses, np.float32), np.full(len(losses), 4, np.float32)
    return StepMetrics(Mean(losses * counts, counts), Mean(counts / 2, counts))


def open_at(directory, sinks, resume_step=None):
    return open_writer(directory, resume_step, None, sinks, RUN, {"task": {"degree": 5}})


def events(directory):
    """Yields the events of TensorBoard's files, by the directory of a replica."""
    for path in sorted((directory / "tensorboard").glob("*/events*")):
        content = path.read_bytes()
        while content:  # length (8), its checksum (4), event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            yield path.parent.name, event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def points(directory):
    return [
        (replica, value.tag, event.step, value.simple_value)
        for replica, event in events(directory)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def test_tensorboard_gets_every_point_once(tmp_path):
    writer = open_at(tmp_path, ("tensorboard",))
    for step in (1, 2, 3):
        writer.write("train", step, metrics(step, step / 4))
    writer.close()
    writer = open_at(tmp_path, ("tensorboard",), resume_step=2)  # as if it had been killed behind its state
    writer.write("train", 3, metrics(3, 3 / 4))
    writer.write("evaluation", 3, metrics(0.5, 0.25))
    writer.close()
    losses = [(replica, step, value) for replica, tag, step, value in points(tmp_path) if tag == "train/loss"]
    assert losses == [
        *(("0-seed0", step, step) for step in (1, 2, 3)),
        *(("1-seed1", step, step / 4) for step in (1, 2, 3)),
    ]
    assert ("1-seed1", "evaluation/loss", 3, 0.25) in points(tmp_path)
    assert len(points(tmp_path)) == 2 * 2 * 4  # replicas, metrics, records


def test_what_tensorboard_has_stays_where_the_records_are_refused(tmp_path):
    writer = open_at(tmp_path, ("tensorboard",))
    writer.write("train", 1, metrics(1, 2))
    writer.close()
    before = points(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="another digest for line 1"):
        open_at(tmp_path, ("tensorboard",), resume_step=1)
    assert points(tmp_path) == before != []


def test_tensorboard_gets_the_configuration(tmp_path):
    open_at(tmp_path, ("tensorboard",)).close()
    texts = [value.tensor.string_val[0] for _, event in events(tmp_path) for value in event.summary.value]
    assert len(texts) == 2
    assert all(b'"degree": 5' in text for text in texts)


class Wandb(types.ModuleType):
    """What is used of Weights & Biases: runs by their id, which take no step that goes back."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.opened = {}, []

    def init(self, **arguments):
        self.opened.append(arguments)
        logged = self.runs.setdefault(arguments["id"], [])
        starting_step = logged[-1][0] + 1 if logged else 0

        def log(values, step):
            assert step >= starting_step, "dropped"
            logged.append((step, values))

        return types.SimpleNamespace(log=log, finish=lambda: None, starting_step=starting_step)


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_goes_on_where_it_was_and_nothing_goes_back(wandb, tmp_path):
    writer = open_at(tmp_path, ("wandb",))
    for step in (1, 2, 3):
        writer.write("train", step, metrics(step, step))
    writer.close()
    writer = open_at(tmp_path, ("wandb",), resume_step=2)
    for step in (3, 4):
        writer.write("train", step, metrics(step, step))
    writer.close()
    ((identifier, logged),) = wandb.runs.items()
    assert [(step, values["train/loss/0"]) for step, values in logged if "train/loss/0" in values] == [
        (step, float(step)) for step in (1, 2, 3, 4)
    ]
    assert [opened["config"] for opened in wandb.opened] == [{"task": {"degree": 5}}] * 2
    open_at(tmp_path / "other", ("wandb",)).close()
    assert len(wandb.runs) == 2  # the same run of another directory is another one
    assert identifier in wandb.runs


def test_a_sink_that_fails_stops_nothing(tmp_path, caplog):
    class Failing:
        def write(self, *_):
            raise OSError("no\nnetwork")

        def close(self):
            raise AssertionError("not asked again")

    writer = MetricsWriter(tmp_path, None, sinks=lambda: [Spared("wandb", Failing())])
    for step in (1, 2):
        writer.write("train", step, metrics(1.0))
    writer.close()
    (record,) = caplog.records
    assert record.getMessage() == "wandb fails and gets no more of this run (OSError: no); metrics.jsonl has all of it"


def test_a_sink_that_cannot_be_opened_stops_nothing(wandb, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    assert open_sinks(("wandb",), tmp_path, "x", RUN.replicas, {}) == []
    assert "wandb fails and gets no more of this run (ZeroDivisionError: division by zero)" in caplog.text


def test_a_library_that_is_not_installed_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    experiment = experiment_of(get_config("few"))
    experiment = dataclasses.replace(experiment, loop=dataclasses.replace(experiment.loop, writers=("wandb",)))
    with pytest.raises(
        UserError, match=r"expected wandb for loop.writers 'wandb'; found it is not .*; pip install wandb"
    ):
        run_experiment(experiment, tmp_path / "work", ("teacher",), Interrupt())
    assert not (tmp_path / "work").exists()
