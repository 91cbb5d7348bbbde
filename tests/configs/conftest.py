"""What the tests of all files of configs/ ask for."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.phases import LossPhases, Phases, RobustPeak, Spike, Transition
from pdjax.distill.teacher import Teacher
from pdjax.experiment import Experiment
from pdjax.plan.experiment import most_checkpoints
from pdjax.stages import runs
from pdjax.stages.runs import foresee_runs, plan_runs
from pdjax.stages.teacher import stored_steps
from pdjax.train.chunk import train_chunk
from pdjax.train.state import Hyperparameters, Program, init_state


@pytest.fixture
def check_variant(load_config_file, experiment, tmp_path):
    """Checks that a variant is locked, valid, named after itself, and draws each of its strategies somewhere."""

    def check(name: str, variant: str) -> None:
        assert load_config_file(name).get_config(variant).is_locked
        config = experiment(name, variant)
        assert config.name == "-".join(filter(None, (name, variant)))
        foresee_runs(config, stored_steps(config, tmp_path))
        drawn = {key for comparison in config.comparisons for key in comparison.strategies}
        assert drawn == (set() if config.tuning else {strategy.name for strategy in config.strategies})

    return check


def with_one_layer(model):
    return dataclasses.replace(model, num_layers=1) if hasattr(model, "num_layers") else model


@functools.cache
def trace(task, model, teacher, training, seeds, adaptive):
    """Traces a chunk of three steps, and checks its shapes; variants that share a program share this.

    Of a model's layers, which are alike, one is traced; tests/plan lowers the papers' chunks with all of them.

    Args:
      task: what is learned.
      model: of the student.
      teacher: None for training from the labels.
      training: optimizer, size of the batches, and whether replicas share them.
      seeds: the number of replicas, of which more than two are traced as two are.
      adaptive: whether each has a curriculum of its own.
    """
    model, teacher = with_one_layer(model), with_one_layer(teacher)
    optimizer, batch_size, shared = training
    program, teaching = Program(task, model.build(task), None, optimizer, batch_size, shared, "data"), None
    loss = Labels() if teacher is None else Distillation()
    members = Hyperparameters(jnp.arange(seeds), jnp.ones(seeds), (dict.fromkeys(loss.numbers, jnp.ones(seeds)),))
    state = jax.eval_shape(functools.partial(init_state, program), members.seed)
    if teacher is not None:
        program = program._replace(teacher_model=teacher.build(task), losses=(loss.family,))
        asked = program._replace(model=program.teacher_model)
        checkpoints = jax.eval_shape(functools.partial(init_state, asked), jnp.arange(8)).params
        starts = jnp.tile(jnp.arange(8), (seeds, 1)) if adaptive else jnp.arange(8)
        teaching = Teacher(checkpoints, starts, jnp.arange(8))
    chunk = functools.partial(train_chunk, program, 3)
    examples = task.example_shapes(3, *(() if shared else (seeds,)), batch_size)
    after, metrics = jax.eval_shape(chunk, state, members, teaching, jnp.int32(0), jnp.int32(100), examples)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics.loss.sum.shape == metrics.accuracy.sum.shape == (3, seeds)


@pytest.fixture(scope="session")
def trace_chunks():
    """Traces the chunks of teachers, students and other sizes.

    Shapes only: nothing is computed, so the paper's sizes cost no more than the others.
    """

    def check(config: Experiment) -> None:
        teaching, learning = config.teacher_training, config.student_training
        teacher_training = (teaching.optimizer, teaching.batch_size, False)
        trace(config.task, config.teacher, None, teacher_training, min(2, 1 + len(teaching.extra_seeds)), False)
        training = (learning.optimizer, learning.batch_size, learning.shared_batches)
        replicas = min(2, len(learning.seeds) * len(learning.learning_rates))
        # Students of the labels are a part of these.
        for adaptive in {strategy.is_adaptive for strategy in config.strategies}:
            trace(config.task, config.student, config.teacher, training, replicas, adaptive)
        # The laptop's sizes of these models are run, in small, by the smokes.
        if config.sizes is not None and "paper" in config.name:
            training = (config.sizes.optimizer, config.sizes.batch_size, config.sizes.shared_batches)
            members = min(2, len(config.sizes.seeds) * len(config.sizes.learning_rates))
            for _, model in config.sizes.models():
                trace(config.task, model, None, training, members, False)

    return check


class Trajectory:
    """Stands for a store."""

    def __init__(self, stored):
        self.stored = stored

    def steps(self):
        return list(self.stored)

    def digest(self, step):
        return f"digest of {step}"


def shown(steps):
    """Returns a training that shows everything, at four steps."""
    first, second, third, fourth = steps
    return Phases(
        loss=LossPhases(first, second, fourth, ""),
        transition=Transition(first, second, third, ""),
        spikes=tuple(Spike(step, "") for step in steps),
        robust_peak=RobustPeak(fourth, True, ""),
    )


@pytest.fixture
def check_foreseen_runs(experiment, tmp_path, monkeypatch):
    """Checks the runs and checkpoints that are foreseen, in all ablations too, against those that there are later.

    The teacher's training, which decides about some of them, shows everything at four checkpoints or all at one.
    """

    def check(name: str, variant: str) -> None:
        base = experiment(name, variant)
        for config in (base, *base.variants().values()):
            stored = config.teacher_training.checkpoints
            foreseen = foresee_runs(config, stored)
            for steps in ([*stored[:4], *[stored[-1]] * 3][:4], [stored[0]] * 4):
                chosen = {s.name: s.selection.select(stored, shown(steps)) for s in config.strategies}
                monkeypatch.setattr(runs, "select_checkpoints", lambda *_, chosen=chosen: chosen)
                real = [run for _, run in plan_runs(config, tmp_path, Trajectory(stored))]
                given = all(s.selection.is_given for s in config.strategies)
                compare(foreseen, real, given)
                used = len({step for run in real for step in run.teacher_steps})
                assert used == most_checkpoints(config) if given else used <= most_checkpoints(config)

    def compare(foreseen, real, given):
        if given:
            assert [(g.budget, g.strategies, g.replicas) for g in foreseen] == [
                (run.budget, run.strategies, run.replicas) for run in real
            ]
        for run in real:
            parts = [g for g in foreseen if g.budget == run.budget and {*g.strategies} & {*run.strategies}]
            assert sorted(itertools.chain(*(part.strategies for part in parts))) == sorted(run.strategies)
            assert len(run.replicas) <= sum(len(part.replicas) for part in parts)

    return check
