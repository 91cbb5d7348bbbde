"""Blocks of batch-1 SGD steps against the same steps one by one."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.part import Fourier, LowDegree
from pdjax.distill.teacher import Teacher
from pdjax.models.mlp import Mlp, MlpModule
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.train import blocked
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Adam, Sgd
from pdjax.train.state import Hyperparameters, Program, init_state

SGD = Sgd()
PARITY = ParityTask(12, 3)
STEPS = 200  # three blocks of 64 and a rest of 8


def program_of(task=PARITY, teacher=None, shared=True, optimizer=SGD, width=30, **changes):
    student = Mlp((width,)).build(task)
    teacher = None if teacher is None else teacher.build(task)
    losses = (Labels() if teacher is None else Distillation(),)
    return Program(task, student, teacher, optimizer, 1, shared, "data", losses)._replace(**changes)


def members(num, taught):
    numbers = {"temperature": jnp.full(num, 0.5), "label_weight": jnp.full(num, 0.25)} if taught else {}
    return Hyperparameters(jnp.arange(num), jnp.linspace(0.02, 0.05, num), (numbers,))


def teacher_of(program, starts, checkpoints=3):
    teachers = program._replace(model=program.teacher_model)
    params = init_state(teachers, jnp.arange(50, 50 + checkpoints)).params
    sharper = jax.tree.map(lambda leaf: 4 * leaf, params)  # than initial ones, so that a wrong checkpoint shows
    return Teacher(sharper, jnp.array(starts), jnp.arange(checkpoints) % checkpoints)


@functools.cache
def chunk(program, in_blocks=True, steps=STEPS):
    """Compiles a chunk of steps, in blocks or one by one."""
    compiled = jax.jit(functools.partial(train_chunk, program, steps))

    def call(state, hyperparameters, teacher, total=STEPS):
        with pytest.MonkeyPatch.context() as patch:
            if not in_blocks:
                patch.setattr(blocked, "applies", lambda program: False)
            return compiled(state, hyperparameters, teacher, jnp.int32(5), jnp.int32(total))

    return call


def run(program, num, teacher=None, in_blocks=True):
    hyperparameters = members(num, teacher is not None)
    return chunk(program, in_blocks)(init_state(program, hyperparameters.seed), hyperparameters, teacher)


def both_paths(program, num, teacher=None):
    return run(program, num, teacher), run(program, num, teacher, in_blocks=False)


def assert_close(one, other, tolerance):
    state, metrics = zip(one, other, strict=True)
    for a, b in zip(jax.tree.leaves(state[0].params), jax.tree.leaves(state[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)
    np.testing.assert_allclose(metrics[0].loss.sum, metrics[1].loss.sum, atol=30 * tolerance)
    assert np.mean(np.asarray(metrics[0].accuracy.sum) != np.asarray(metrics[1].accuracy.sum)) < 0.01
    assert int(state[0].step) == int(state[1].step)


def test_a_thousand_steps_equal_the_same_steps_one_by_one_up_to_rounding():
    """In float64, where rounding cannot push a unit across the kink of its ReLU, the paths are the same function."""
    with jax.enable_x64(True):
        program = program_of(ParityTask(20, 4), width=100)
        seeds = jnp.arange(1)
        start = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, init_state(program, seeds)
        )
        replicas = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), members(1, False))._replace(seed=seeds)
        in_blocks, one_by_one = (chunk(program, path, 1000)(start, replicas, None, 1000) for path in (True, False))
        moved = jnp.abs(one_by_one[0].params["hidden_0"]["kernel"] - start.params["hidden_0"]["kernel"])
        assert moved.max() > 0.05
        for a, b in zip(jax.tree.leaves(in_blocks[0].params), jax.tree.leaves(one_by_one[0].params), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)  # the inputs and metrics are float32 in either path


def test_float32_differs_by_rounding_alone():
    assert_close(*both_paths(program_of(), 1), tolerance=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("starts", [(0, 64, 128), (0, 10, 70), (0, 1, 2)])
def test_teachers_that_change_within_a_block_are_each_asked_at_their_steps(shared, starts):
    program = program_of(teacher=Mlp((40,)), shared=shared)
    assert_close(*both_paths(program, 3, teacher_of(program, starts)), tolerance=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_replicas_with_curricula_of_their_own(shared):
    program = program_of(teacher=Mlp((40,)), shared=shared)
    teacher = teacher_of(program, (0, 0, 0))._replace(starts=jnp.array([[0, 500, 500], [-1, 0, 500], [-2, -1, 0]]))
    in_blocks, one_by_one = both_paths(program, 3, teacher)
    assert_close(in_blocks, one_by_one, tolerance=1e-5)
    alike = run(program, 3, teacher._replace(starts=jnp.zeros(3, jnp.int32) + jnp.array([0, 500, 500])))
    last = np.asarray(alike[1].loss.sum)[:, 2] != np.asarray(one_by_one[1].loss.sum)[:, 2]
    assert last.mean() > 0.9  # the third replica really has another teacher


@pytest.mark.parametrize("shared", [True, False])
def test_parts_of_teachers(shared):
    whole = program_of(teacher=Mlp((40,)), shared=shared)
    teacher, part = teacher_of(whole, (0, 37, 150)), LowDegree(2)
    found = [Fourier(coefficients, np.zeros(6)) for coefficients in np.linspace(-2, 2, 12).reshape(2, 6)]
    checkpoints = part.params(PARITY, teacher.checkpoints, [*found, None])
    program = whole._replace(teacher_model=part.model(whole.teacher_model, PARITY))
    in_blocks, one_by_one = both_paths(program, 3, teacher._replace(checkpoints=checkpoints))
    assert_close(in_blocks, one_by_one, tolerance=1e-5)
    wholly = run(whole, 3, teacher)
    differing = np.any(np.asarray(wholly[1].loss.sum) != np.asarray(one_by_one[1].loss.sum), axis=1)
    assert differing[:150].all()  # students really see other teachers


def test_a_hierarchy_with_eight_classes_and_a_warm_up():
    rule = dataclasses.replace(SGD, schedule="cosine", warmup_fraction=0.2)
    program = program_of(HierarchicalTask(14, 2, 3, "random", 1), optimizer=rule)
    assert_close(*both_paths(program, 2), tolerance=1e-5)


def test_replicas_equal_their_runs_alone():
    program = program_of()
    together, _ = run(program, 3)
    alone = members(3, False)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], alone)
        after, _ = chunk(program)(init_state(program, one.seed), one, None)
        for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(after.params), strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-5)


def test_coordinates_off_the_support_are_interchangeable():
    """Training that sees the coordinates off the support in another order learns the same weights in that order."""
    program = program_of()
    order = np.array([0, 1, 2, 7, 3, 11, 4, 5, 6, 8, 9, 10])

    class Permuted:
        def __init__(self, task):
            self.num_classes, self.num_positions = task.num_classes, task.num_positions
            self.vocabulary, self.predicts = task.vocabulary, task.predicts
            self.task = task

        def draw(self, key, batch_size, examples):
            batch = self.task.draw(key, batch_size, examples)
            return batch._replace(inputs={name: leaf[:, order] for name, leaf in batch.inputs.items()})

    replicas = members(1, False)
    start = init_state(program, replicas.seed)
    kernel = start.params["hidden_0"]["kernel"]
    moved = start._replace(params=start.params | {"hidden_0": start.params["hidden_0"] | {"kernel": kernel[:, order]}})
    plain, permuted = (
        chunk(p)(s, replicas, None)
        for p, s in ((program, start), (program._replace(task=Permuted(program.task)), moved))
    )
    trained = plain[0].params["hidden_0"]["kernel"]
    np.testing.assert_allclose(permuted[0].params["hidden_0"]["kernel"], trained[:, order], atol=1e-5)
    assert jnp.abs(trained - kernel).max() > 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 2},
        {"optimizer": Adam("constant", 0.0)},
        {"optimizer": dataclasses.replace(SGD, clip_norm=1.0)},
    ],
)
def test_other_training_does_not_run_in_blocks(changes):
    assert blocked.applies(program_of())
    assert not blocked.applies(program_of(**changes))


def test_classes_derived_from_those_of_blocks_do_not_run_in_blocks():
    """They may do something else: nobody would notice that they are not asked."""

    class Heavy(Sgd):
        def rule(self):
            return optax.trace(0.9)

    class Rectified(MlpModule):
        pass

    model = Mlp((30,)).build(PARITY)
    other = dataclasses.replace(model, module=Rectified(model.module.widths, model.module.num_classes))
    assert not blocked.applies(program_of(optimizer=Heavy()))
    assert not blocked.applies(program_of(model=other))


def test_an_mlp_with_two_hidden_layers_does_not_run_in_blocks():
    assert not blocked.applies(program_of(model=Mlp((8, 8)).build(PARITY)))


@pytest.fixture(scope="module")
def traced():
    """One block of 64 steps of 333 hidden units, traced."""
    program, one = program_of(width=333), members(1, False)
    state = init_state(program, one.seed)
    return jax.jit(functools.partial(train_chunk, program, 64)).trace(state, one, None, jnp.int32(5), jnp.int32(64))


def test_no_step_copies_what_the_steps_before_have_left(traced):
    """As XLA of jax 0.10 did at every step of an unrolled loop, which then took seven times as long (1000 units)."""
    assert re.findall(r"= f32\[64,333\]\S* copy\(", traced.lower().compile().as_text()) == []


@pytest.mark.parametrize(("platform", "times"), [("cpu", 1), ("cuda", 8), ("tpu", 8)])
def test_accelerators_start_fewer_loops(traced, platform, times):
    """Several steps, each a product with the deltas so far, stand in their loop's body."""
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    product = "(tensor<64xf32>, tensor<64x333xf32>) -> tensor<333xf32>"
    holder = re.findall(r"func\.func \w+ @(\w+)", text[: text.index(product)])[-1]
    # jax writes a step out each time, or as a function that is called (0.10).
    assert text.count(product) * max(1, text.count(f"call @{holder}(")) == times
