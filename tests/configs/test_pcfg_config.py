import functools

import jax
import jax.numpy as jnp
import pytest

from pdjax.chunk import train_chunk
from pdjax.config import from_config_dict
from pdjax.models import build_model
from pdjax.stages.students import check_curricula
from pdjax.stages.teacher import stored_steps
from pdjax.step import Guide, Program, Replicas, init_state
from pdjax.tasks import build_task

VARIANTS = ("", "smoke", "paper")


@pytest.fixture(scope="module")
def configs(load_config_file):
    get_config = load_config_file("pcfg").get_config
    return {variant: from_config_dict(get_config(variant)) for variant in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_locked_valid_and_has_its_own_name(load_config_file, configs, variant, tmp_path):
    config = load_config_file("pcfg").get_config(variant)
    assert config.is_locked
    assert configs[variant].name == "-".join(filter(None, ("pcfg", variant)))
    check_curricula(configs[variant], stored_steps(configs[variant], tmp_path))


def test_paper_has_the_papers_sizes(configs):
    """Sections 4.1, D.5 and D.6."""
    paper = configs["paper"]
    assert (paper.teacher.num_heads, paper.student.num_heads) == (32, 8)
    assert (paper.teacher.model_width, paper.student.model_width) == (256, 64)
    assert paper.teacher.num_layers == paper.student.num_layers == 4
    assert paper.teacher_training.steps == 8000
    assert paper.student_training.budgets == (2000, 4000, 8000, 16000)
    assert paper.teacher_training.batch_size == paper.student_training.batch_size == 512
    assert paper.task.root is None
    assert paper.task.mask_rate == 0.3
    assert not paper.teacher.attend_to_selected
    optimizer = paper.teacher_training.optimizer
    assert (optimizer.kind, optimizer.schedule, optimizer.warmup_fraction) == ("adam", "cosine", 0.06)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.clip_norm) == (0.9, 0.95, 1e-8, 1.0)
    assert paper.evaluation.num_batches * paper.evaluation.batch_size == 4096
    assert all(s.temperature == 1e-4 for s in paper.strategies.values() if s.schedule != "labels")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_chunk_traces_at_the_variants_sizes(configs, variant):
    """Shapes only: nothing is computed, so the paper's sizes cost no more than the others."""
    config = configs[variant]
    task = build_task(config.task)
    student, teacher = build_model(config.student, task), build_model(config.teacher, task)
    training = config.student_training
    program = Program(task, student, teacher, training.optimizer, training.batch_size, True, "data")
    seeds = jnp.arange(len(training.seeds))
    state = jax.eval_shape(functools.partial(init_state, program), seeds)
    checkpoints = jax.eval_shape(functools.partial(init_state, program._replace(student=teacher)), jnp.arange(8)).params
    guide = Guide(checkpoints, jnp.arange(8), jnp.arange(8))
    members = Replicas(seeds, *[jnp.ones(len(training.seeds))] * 3)
    chunk = functools.partial(train_chunk, program, config.loop.chunk_steps)
    after, metrics = jax.eval_shape(chunk, state, members, guide, jnp.int32(0), jnp.int32(100))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics.loss.sum.shape == (config.loop.chunk_steps, len(training.seeds))


def test_unknown_variant_says_what_there_is(load_config_file):
    with pytest.raises(ValueError, match=r"smoke.*huge"):
        load_config_file("pcfg").get_config("huge")


def test_docstring_holds_claim_command_cost_and_expectation(load_config_file):
    text = load_config_file("pcfg").__doc__
    for heading in ("Claim", "Command", "Cost", "Expected"):
        assert f"{heading}:" in text
