"""What the tests of all files of configs/ ask for."""

import functools

import jax
import jax.numpy as jnp
import pytest

from pdjax.chunk import train_chunk
from pdjax.config import Config, from_config_dict
from pdjax.models import build_model
from pdjax.stages.runs import check_curricula
from pdjax.stages.teacher import stored_steps
from pdjax.step import Guide, Program, Replicas, init_state
from pdjax.tasks import build_task


@pytest.fixture(scope="session")
def experiment(load_config_file):
    """Returns the converted configuration of a file of configs/ and a variant."""

    @functools.cache
    def convert(name: str, variant: str) -> Config:
        return from_config_dict(load_config_file(name).get_config(variant))

    return convert


@pytest.fixture
def check_variant(load_config_file, experiment, tmp_path):
    """Checks that a variant is locked, valid, named after itself, and draws each of its strategies somewhere."""

    def check(name: str, variant: str) -> None:
        assert load_config_file(name).get_config(variant).is_locked
        config = experiment(name, variant)
        assert config.name == "-".join(filter(None, (name, variant)))
        check_curricula(config, stored_steps(config, tmp_path))
        drawn = {key for comparison in config.comparisons.values() for key in comparison.strategies}
        assert drawn == set(config.strategies)

    return check


def trace(config, model, training, seeds, guide):
    """Traces a chunk of a model's training; returns its metrics as shapes."""
    task = build_task(config.task)
    program = Program(
        task=task,
        student=build_model(model, task),
        teacher=None if guide is None else build_model(config.teacher, task),
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        shared_batches=getattr(training, "shared_batches", False),
        data_name="data",
    )
    members = Replicas(jnp.arange(seeds), *[jnp.ones(seeds)] * 3)
    state = jax.eval_shape(functools.partial(init_state, program), members.seed)
    chunk = functools.partial(train_chunk, program, config.loop.chunk_steps)
    after, metrics = jax.eval_shape(chunk, state, members, guide, jnp.int32(0), jnp.int32(100))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics.loss.sum.shape == metrics.accuracy.sum.shape == (config.loop.chunk_steps, seeds)


@pytest.fixture(scope="session")
def trace_chunks():
    """Traces the chunks of teachers, students and other sizes.

    Shapes only: nothing is computed, so the paper's sizes cost no more than the others.
    """

    def check(config: Config) -> None:
        task, teaching, training = build_task(config.task), config.teacher_training, config.student_training
        teacher = build_model(config.teacher, task)
        inputs = jax.eval_shape(lambda: task.sample(jax.random.key(0), 1)).inputs
        init = jax.vmap(teacher.init, in_axes=(0, None))
        checkpoints = jax.eval_shape(init, jax.random.split(jax.random.key(0), 8), inputs)
        replicas = len(training.seeds) * len(training.learning_rates)
        guide = Guide(checkpoints, jnp.arange(8), jnp.arange(8))
        adaptive = guide._replace(starts=jnp.tile(guide.starts, (replicas, 1)))
        schedules = {strategy.schedule for strategy in config.strategies.values()}
        trace(config, config.teacher, teaching, 1 + len(teaching.extra_seeds), None)
        trace(config, config.student, training, replicas, None)
        trace(config, config.student, training, replicas, guide)
        if schedules & {"till_saturate", "till_robust"}:
            trace(config, config.student, training, replicas, adaptive)
        if config.sizes is not None:
            members = len(config.sizes.seeds) * len(config.sizes.learning_rates)
            for models in config.sizes.panels.values():
                for model in models.values():
                    trace(config, model, config.sizes, members, None)

    return check
