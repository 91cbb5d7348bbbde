"""Algorithm 1: its stages one by one and in blocks, and its exact gradient against all inputs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.hinge import Hinge, HingeLabels
from pdjax.distill.losses import HiddenMatching
from pdjax.distill.teacher import Teacher
from pdjax.errors import UserError
from pdjax.models.mlp import Mlp
from pdjax.models.symmetric import SymmetricMlp, output_of
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import first_rate, majority_coefficient, off_support_ratio
from pdjax.train import chunk, sharding, two_stage
from pdjax.train.state import Hyperparameters, Program, init_state
from pdjax.train.two_stage import TwoStage, population_gradient

PARITY = ParityTask(9, 4, support="random", support_seed=3)
SUPPORT = PARITY.features[0]
MODEL = SymmetricMlp(16)
RULE = TwoStage(first_steps=40, first_rate=first_rate(9, 4, 16))


def program_of(rule=RULE, loss=None, taught=False, shared=True):
    model, loss = MODEL.build(PARITY), loss or (Hinge() if taught else HingeLabels())
    return Program(PARITY, model, model if taught else None, rule, 1, shared, "data", (loss,))


def members(num, taught):
    numbers = {"label_weight": jnp.linspace(0.0, 0.5, num)} if taught else {}
    return Hyperparameters(jnp.arange(num), jnp.linspace(0.05, 0.1, num), (numbers,))


def teacher():
    params = init_state(program_of(), jnp.array([7, 8])).params
    params["output"]["kernel"] *= jnp.linspace(1, 5, 16)[None, :, None]  # no longer 0 everywhere
    return Teacher(params, jnp.array([0, 57]), jnp.arange(2))


@functools.cache
def trained(program, num, steps, in_blocks=True):
    taught = program.teacher_model is not None
    start = members(num, taught)
    with pytest.MonkeyPatch.context() as patch:
        if not in_blocks:
            patch.setattr(two_stage, "applies", lambda program: False)
        patch.setattr(two_stage, "block_steps", lambda program: 8)
        run = jax.jit(functools.partial(chunk.train_chunk, program, steps))
        arguments = (teacher() if taught else None, jnp.int32(5), jnp.int32(steps))
        return run(init_state(program, start.seed), start, *arguments)


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_blocks_equal_steps_one_by_one(taught, shared):
    """Over the end of the first stage, and with a switch of teachers within a block."""
    program = program_of(taught=taught, shared=shared)
    (state, metrics), (other, expected) = (trained(program, 2, 90, in_blocks) for in_blocks in (True, False))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), state, other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), metrics, expected)


def test_first_stage_is_one_step_at_the_mean_gradient_and_biases_stay():
    """By hand in numpy: labels, and the network's own gate."""
    program, rule = program_of(), RULE
    start = init_state(program, jnp.arange(2)).params
    state, _ = trained(program, 2, rule.first_steps)
    x, y = examples(program, rule.first_steps)
    for replica in range(2):
        w, b, a = weights(start, replica)
        open_NxW = x @ w + b > 0
        mean = -np.einsum("nd,nw,n->dw", x, open_NxW, y) / len(x) * a  # f is 0, so that every example counts
        after = weights(state.params, replica)
        np.testing.assert_allclose(after[0], -rule.first_rate * mean, atol=1e-5)
        np.testing.assert_array_equal(after[1], b)
        np.testing.assert_array_equal(after[2], a)


def test_second_stage_moves_output_weights_alone():
    program = program_of()
    before, _ = trained(program, 2, RULE.first_steps)
    after, metrics = trained(program, 2, RULE.first_steps + 1)
    x, y = (part[-1] for part in examples(program, RULE.first_steps + 1))
    for replica, rate in enumerate(members(2, False).learning_rate):
        w, b, a = weights(before.params, replica)
        h = np.maximum(x @ w + b, 0)
        loss = max(0.0, 1 - h @ a * y)
        expected = a + float(rate) * (loss > 0) * y * h
        for one, other in zip(weights(after.params, replica), (w, b, expected), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        np.testing.assert_allclose(metrics.loss.sum[-1, replica], loss, atol=1e-5)


def test_exact_gradient_is_the_mean_over_all_inputs():
    x = 1.0 - 2 * ((np.arange(2**9)[:, None] >> np.arange(9)[None]) & 1)
    y = np.prod(x[:, SUPPORT], axis=1)
    params = init_state(program_of(), jnp.array([4])).params
    w, b, a = weights(params, 0)
    expected = -np.einsum("nd,nw,n->dw", x, x @ w + b > 0, y) / len(x) * a
    exact = population_gradient(jax.tree.map(lambda leaf: leaf[0], params), SUPPORT)
    np.testing.assert_allclose(exact, expected, atol=1e-7)
    assert np.abs(expected).min() == pytest.approx(abs(majority_coefficient(9, 5)) / 32)  # above, and no 0 in it


def test_exact_step_has_the_lengths_of_the_lemma():
    """1 / 2k in the support, that times (k - 1) / (d - k) off it (Lemma B.2 without noise)."""
    rule = TwoStage(first_steps=8, first_rate=RULE.first_rate, support=SUPPORT)
    for in_blocks in (True, False):
        state, _ = trained(program_of(rule), 2, 8, in_blocks)
        lengths = np.abs(state.params["hidden_0"]["kernel"])
        inside = np.isin(np.arange(9), SUPPORT)
        np.testing.assert_allclose(lengths[:, inside], 1 / 8, rtol=1e-5)
        np.testing.assert_allclose(lengths[:, ~inside], off_support_ratio(9, 4) / 8, rtol=1e-5)


def test_without_a_rate_each_neuron_gets_that_of_its_largest_weight():
    """Of the exact gradient that is eta_1 of the lemma; of a mean, the same direction."""
    for support in (SUPPORT, ()):
        given, without = (TwoStage(first_steps=8, first_rate=rate, support=support) for rate in (RULE.first_rate, None))
        one, other = (trained(program_of(rule), 2, 8)[0].params["hidden_0"]["kernel"] for rule in (given, without))
        scale = np.abs(one).max(axis=1, keepdims=True)
        np.testing.assert_allclose(other, one / scale / 8, atol=1e-6)
        if support:
            np.testing.assert_allclose(scale, 1 / 8, rtol=1e-5)


def test_what_it_is_not_for_is_refused():
    RULE.check(MODEL, PARITY, (Hinge(),))
    exact = TwoStage(support=SUPPORT)
    exact.check(MODEL, PARITY, (HingeLabels(),))
    with pytest.raises(UserError, match="a SymmetricMlp for Algorithm 1; found Mlp"):
        RULE.check(Mlp(), PARITY, (HingeLabels(),))
    with pytest.raises(UserError, match=r"the task's support \(.*\) in support; found \(0, 1, 2, 3\)"):
        TwoStage(support=(0, 1, 2, 3)).check(MODEL, PARITY, (HingeLabels(),))
    with pytest.raises(UserError, match=r"HingeLabels alone for the exact gradient; found \['Hinge'\]"):
        exact.check(MODEL, PARITY, (HingeLabels(), Hinge()))
    with pytest.raises(UserError, match=r"losses without parameters for Algorithm 1; found \['HiddenMatching'\]"):
        RULE.check(MODEL, PARITY, (HiddenMatching(),))
    with pytest.raises(UserError, match="an even degree k"):
        MODEL.check(ParityTask(9, 3))
    with pytest.raises(UserError, match="an odd dimension d"):
        MODEL.check(ParityTask(10, 4))


def test_sums_of_gradients_lie_where_their_weights_do():
    """A model in parts has rules by the paths of its parameters, which optimizer states repeat."""
    mesh = sharding.build_mesh(sharding.MeshSizes(replica=1, model=2), 1, 1, jax.devices()[:2])
    state = jax.eval_shape(functools.partial(init_state, program_of()), jax.ShapeDtypeStruct((1,), jnp.int32))
    params, sums = (sharding.sharded(mesh, tree, (sharding.REPLICA,), True) for tree in (state.params, state.opt_state))
    assert sums["hidden_0"]["kernel"].spec == params["hidden_0"]["kernel"].spec
    assert sharding.MODEL in sums["hidden_0"]["kernel"].spec
    assert sharding.MODEL in params["output"]["kernel"].spec


def test_aligned_weights_are_1_on_the_support_alone():
    shared = dataclasses.replace(MODEL, aligned=True).build(PARITY)
    params = shared.init(jax.random.key(0), {"vector": jnp.zeros((1, 9))})
    ones = np.all(np.asarray(params["hidden_0"]["kernel"]) == 1, axis=1)
    assert np.flatnonzero(ones).tolist() == list(SUPPORT)


def test_network_is_0_at_first_and_its_halves_mirror_each_other():
    params = init_state(program_of(), jnp.arange(3)).params
    w, b, a = params["hidden_0"]["kernel"], params["hidden_0"]["bias"], params["output"]["kernel"][..., 0]
    assert set(np.unique(w)) == {-1, 1}
    assert set(np.unique(4 * b).astype(int)) <= set(range(-3, 4))
    np.testing.assert_array_equal(np.abs(a), 1 / 16)
    for whole, sign in ((w, 1), (b, 1), (a, -1)):
        np.testing.assert_array_equal(whole[..., :8], sign * whole[..., 8:])
    x, _ = examples(program_of(), 20)
    logits, _ = MODEL.build(PARITY).apply(jax.tree.map(lambda leaf: leaf[0], params), {"vector": jnp.array(x)})
    np.testing.assert_allclose(output_of(logits), 0, atol=1e-6)


def weights(params, replica):
    hidden, output = params["hidden_0"], params["output"]
    leaves = (hidden["kernel"], hidden["bias"], output["kernel"][..., 0])
    return tuple(np.asarray(leaf[replica], np.float64) for leaf in leaves)


def examples(program, steps):
    """Returns the inputs and labels of the first steps of the shared stream."""
    batches = [chunk.draw_batch(program, jnp.int32(5), jnp.int32(t), None) for t in range(steps)]
    x = np.concatenate([np.asarray(batch.inputs["vector"], np.float64) for batch in batches])
    return x, np.prod(x[:, SUPPORT], axis=1)
