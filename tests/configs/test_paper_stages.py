"""No configuration of the paper's sizes stops half-way: all that is compiled traces, and checkpoints can be chosen.

What its training shows, before anyone has run it, are recorded trainings of a laptop's size, stretched to its length.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from pdjax.distill.phases import Phases, find_loss_phases, find_robust_peak, find_spikes, find_transition
from pdjax.probes.base import Subject
from pdjax.stages import runs
from pdjax.stages.runs import plan_runs
from pdjax.train.optimizer import Sgd
from pdjax.train.state import Program, init_state
from pdjax.train.step import evaluate

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAPERS = {
    "parity_mlp": ("paper", "paper-wide", "paper-fast", "paper-tune", "paper-study"),
    "parity_transformer": ("paper", "paper-16-heads", "paper-tune", "paper-study"),
    "hierarchical": ("paper", "paper-wide", "paper-tune", "paper-study"),
    "pcfg": ("paper", "paper-ablations", "paper-tune", "paper-study"),
    "pcfg_gpt": ("paper", "paper-tune", "paper-study"),
    "text": ("paper", "paper-tune", "paper-study"),
}
VARIANTS_LIKE = {"pcfg": ("pcfg_gpt", "pcfg_short"), "pcfg_gpt": ("pcfg_short",)}
"""Recorded trainings whose losses show no phases, as those on other grammars may."""

ALL = [(name, variant) for name, variants in PAPERS.items() for variant in variants]


@functools.cache
def recorded(name, table):
    """Returns a table of a recorded run's teacher, of the seed that students learn from."""
    rows = pd.read_csv(RESULTS / name / "tables" / f"{table}.csv")
    for column in ("role", "who"):
        rows = rows[rows[column] == "teacher"] if column in rows else rows
    return rows[rows.seed == 0]


def with_one_layer(model):
    return dataclasses.replace(model, num_layers=1) if hasattr(model, "num_layers") else model


def stretched(config, rows, column, steps):
    """Returns a recorded curve at steps of a longer training."""
    rows = rows.sort_values("step")
    return np.interp(steps, rows.step * config.teacher_training.steps / rows.step.max(), rows[column])


def curve_of(config, name, measure):
    """Returns steps of a configuration's evaluations, and what a recorded teacher showed at that share of its own."""
    training, rows = config.teacher_training, recorded(name, "teacher")
    steps = np.arange(0, training.steps + 1, config.evaluation.every)
    if "measure" in rows:  # a number a row
        return steps, stretched(config, rows[rows.measure == measure], "value", steps)
    return steps, stretched(config, rows, measure, steps)


def phases_of(config, name):
    """Returns what a teacher of a configuration shows that trains like a recorded one."""
    stored = np.array(config.teacher_training.checkpoints)
    steps, accuracy = curve_of(config, name, "accuracy")
    loss, transition, spikes, peak = find_loss_phases(*curve_of(config, name, "loss")), None, None, None
    if config.task.predicts == "example":
        kept = np.isin(steps, stored)
        transition = find_transition(steps[kept], accuracy[kept], 1 / config.task.num_classes)
    if hasattr(config.task, "depth"):
        rows = recorded(name, "correlations")
        rows = rows[rows.degree < config.task.degree].groupby(["group", "step"]).correlation_mean.mean().reset_index()
        curves = [stretched(config, of, "correlation_mean", stored) for _, of in rows.groupby("group")]  # -1 is off
        spikes = find_spikes(stored, np.stack(curves[1:], axis=1), curves[0])
    if "ngrams" in {probe.name for probe in config.probes.measured}:
        rows = recorded(name, "ngrams")
        rows = rows[rows.measure.isin(["robust", "M_robust"]) & (rows.percentile == 50)]
        curves = {int(n): stretched(config, of, "value", stored) for n, of in rows.groupby("n")}
        peak = find_robust_peak(stored, np.stack(list(curves.values()), axis=1), list(curves))
    return Phases(loss, transition, spikes, peak)


class Trajectory:
    """Stands for a store."""

    def __init__(self, stored):
        self.steps = lambda: list(stored)
        self.digest = "digest of {}".format


def teachers_of(base, name):
    """Yields each experiment with a teacher of its own, and the recorded ones that this may train like."""
    yield base, name
    for variant in base.variants().values():
        yield from ((variant, like) for like in dict.fromkeys((name, *VARIANTS_LIKE.get(name, ()))))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_checkpoints_can_be_chosen_for_every_strategy(experiment, tmp_path, monkeypatch, name, variant):
    for config, like in teachers_of(experiment(name, variant), name):
        stored, phases = config.teacher_training.checkpoints, phases_of(config, like)
        chosen = {one.name: one.selection.select(stored, phases) for one in config.strategies if one.loss.asks_teacher}
        monkeypatch.setattr(runs, "select_checkpoints", lambda *_, chosen=chosen: chosen)
        planned = plan_runs(config, tmp_path, Trajectory(stored))
        assert {key for _, run in planned for key in run.strategies} == {one.name for one in config.strategies}
        assert all({*run.teacher_steps} <= {*stored} for _, run in planned)


def held_out(task):
    """Returns held-out examples of zeros."""

    def read(stream, *sizes):
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), task.example_shapes(*sizes))

    return read


@functools.cache
def measured(task, architecture, teacher, probe):
    """Returns the shapes of what a probe measures on two models, by name; of their layers, which are alike, one."""

    def params_of(model):
        program = Program(task, model, None, Sgd(), 1, False, "data")
        return jax.eval_shape(functools.partial(init_state, program), jnp.arange(2)).params

    def measure(params, final):
        last = jax.tree.map(lambda leaf: leaf[0], final)
        return probe.prepare(Subject(task, model, teaching, last, 0, held_out(task)))(params)

    model, teaching = (with_layers(one, probe).build(task) for one in (architecture, teacher))
    return jax.eval_shape(measure, params_of(model), params_of(teaching))


def with_layers(model, probe):
    return model if probe.name == "attention" else with_one_layer(model)  # which looks at two


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_probes_and_evaluations_trace(experiment, name, variant):
    base = experiment(name, variant)
    for config in (base, *base.variants().values()):
        for probe in config.probes.measured:
            models = {config.teacher, *([config.student] if probe.of_students and config.probes.students else [])}
            for architecture in models:
                shapes = measured(config.task, architecture, config.teacher, probe)
                assert all(shape.shape[0] == 2 for shape in shapes.values())
        evaluated(config.task, config.student, config.evaluation)
        evaluated(config.task, config.teacher, config.evaluation)


@functools.cache
def evaluated(task, architecture, evaluation):
    sizes = evaluation.num_batches, evaluation.batch_size
    program = Program(task, with_one_layer(architecture).build(task), None, Sgd(), 1, False, "data")
    params = jax.eval_shape(functools.partial(init_state, program), jnp.arange(2)).params
    shapes = jax.eval_shape(
        functools.partial(evaluate, program, *sizes), params, jnp.int32(0), task.example_shapes(*sizes)
    )
    assert shapes.accuracy.sum.shape == (2,)


@pytest.mark.parametrize("name", ["pcfg", "text"])
def test_evaluations_are_close_enough_to_see_a_plateau_of_a_twentieth(experiment, name):
    """That of figure 4 is over by then; recorded ones, of a laptop's size, last five times as long."""
    config = experiment(name, "paper")
    steps, _ = curve_of(config, name, "loss")
    length = config.teacher_training.steps
    earlier = length * (steps / length) ** (1 / 2.4)
    loss = np.interp(earlier, *curve_of(config, name, "loss"))
    phases = find_loss_phases(steps, loss)
    assert phases is not None
    assert phases.start <= 0.05 * length < phases.middle
    assert find_loss_phases(steps[::5], loss[::5]) is None  # as with evaluations at checkpoints alone
