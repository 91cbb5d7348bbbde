"""A source's own losses: which file and which loss are taken, over which steps, and what is refused."""

import json
import logging

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.history import history_of
from pdjax.weights.series import SourceCheckpoint

STEPS = (50, 100, 150)


@pytest.fixture
def series(tmp_path):
    checkpoints = tuple(SourceCheckpoint(step, tmp_path / f"checkpoint-{step}", f"checkpoint-{step}") for step in STEPS)
    for checkpoint in checkpoints:
        checkpoint.folder.mkdir()
    return checkpoints


def entries(name, *pairs):
    return [{"epoch": 1.0, name: loss, "step": step} for step, loss in pairs]


def write(checkpoint, *log, step=None, text=None):
    """Writes what a Trainer keeps with a checkpoint; ``log`` is all that it logged."""
    state = {"global_step": checkpoint.step if step is None else step, "best_metric": None, "log_history": list(log)}
    (checkpoint.folder / "trainer_state.json").write_text(json.dumps(state) if text is None else text)


TRAINING = entries("loss", (10, 3.5), (50, 3.0), (100, 2.0), (150, 1.5))
HELD_OUT = entries("eval_loss", (50, 3.1), (100, 2.1), (150, 1.6))


def check(history, name, steps, losses):
    assert history is not None
    assert history.name == name
    for values, expected in ((history.steps, steps), (history.losses, losses)):
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected)


def test_without_a_file(series):
    assert history_of(series) is None


def test_held_out_losses_come_first(series):
    write(series[2], *TRAINING, *HELD_OUT, {"step": 150, "train_loss": 2.2, "train_runtime": 9.0})
    check(history_of(series), "eval_loss", STEPS, [3.1, 2.1, 1.6])


@pytest.mark.parametrize("held_out", [HELD_OUT[:2], HELD_OUT[1:], []])
def test_training_losses_where_held_out_ones_reach_less_far(series, held_out):
    write(series[2], *TRAINING, *held_out)
    check(history_of(series), "loss", [10, *STEPS], [3.5, 3.0, 2.0, 1.5])


def test_losses_of_a_part_alone_are_not_used(series, caplog):
    caplog.set_level(logging.INFO, "pdjax")
    write(series[2], *TRAINING[:-1], *HELD_OUT[1:])
    file = series[2].folder / "trainer_state.json"
    assert history_of(series) is None
    assert caplog.messages == [f"Not using the losses in {file}: none reach from step 50 to 150"]


def test_one_loss_is_no_history(series):
    write(series[0], *HELD_OUT[:1])
    assert history_of(series[:1]) is None


def test_the_last_file_counts(series):
    write(series[0], text="damaged, and not read")
    write(series[1], *entries("loss", (50, 9.0), (150, 9.0)))
    check(history_of(series), "loss", [50, 150], [9.0, 9.0])
    write(series[2], *TRAINING)
    check(history_of(series), "loss", [10, *STEPS], [3.5, 3.0, 2.0, 1.5])


def test_a_resumed_training_replaces_what_it_repeats(series):
    """Resumed from step 50, with other steps to log at: 75 was said of a training that did not go on."""
    before = entries("loss", (25, 4.0), (50, 3.0), (75, 2.9), (100, 2.8))
    write(series[2], *before, *entries("loss", (50, 3.1), (90, 2.0), (150, 1.0)))
    check(history_of(series), "loss", [25, 50, 90, 150], [4.0, 3.1, 2.0, 1.0])


def refused(series):
    with pytest.raises(UserError) as error:
        history_of(series)
    return str(error.value).replace(str(series[2].folder / "trainer_state.json"), "FILE")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_losses_that_are_not_finite(series, loss):
    write(series[2], *TRAINING, *HELD_OUT[:1], *entries("eval_loss", (100, loss), (150, 1.0)))
    assert refused(series) == (
        f"expected a finite eval_loss at every step in FILE; found {loss} at step 100; leave out the checkpoints from "
        "there on, or remove the file, and losses are measured"
    )
    write(series[2], *HELD_OUT, *entries("loss", (10, loss)))
    check(history_of(series), "eval_loss", STEPS, [3.1, 2.1, 1.6])


DAMAGES = {
    "[]": "a JSON object in FILE; found list",
    '{"global_step": 150}': "a log_history of JSON objects in FILE; found NoneType",
    '{"global_step": 150, "log_history": [1]}': "a log_history of JSON objects in FILE; found list",
    '{"global_step": 150, "log_history": [{"loss": 1.5}]}': (
        "a step and a number with each loss in FILE; found step None, loss 1.5"
    ),
    '{"global_step": 150, "log_history": [{"loss": "1.5", "step": 5}]}': (
        "a step and a number with each loss in FILE; found step 5, loss '1.5'"
    ),
    '{"global_step": 150, "log_history": [{"loss": true, "step": 5}]}': (
        "a step and a number with each loss in FILE; found step 5, loss True"
    ),
}


@pytest.mark.parametrize("text", DAMAGES)
def test_damages(series, text):
    write(series[2], text=text)
    assert refused(series) == f"expected {DAMAGES[text]}; copy or download the file again"
