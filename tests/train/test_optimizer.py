"""The schedule and the update direction against optax."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pdjax.settings import settings
from pdjax.train.optimizer import Adam, Optimizer, Sgd

ADAM = Adam(clip_norm=1.0, beta2=0.95)


def factors(optimizer, num_steps, steps):
    """The schedule at many steps, with the run's length as a traced argument as in training."""
    schedule = jax.vmap(lambda step, length: optimizer.factor(step, length), in_axes=(0, None))
    return np.asarray(jax.jit(schedule)(jnp.asarray(steps), jnp.int32(num_steps)))


@pytest.mark.parametrize(
    ("num_steps", "warmup_fraction", "warmup_steps"),
    [(100, 0.06, 6), (2000, 0.06, 120), (8000, 0.06, 480), (10, 0.5, 5), (100, 0.0, 0), (1, 0.0, 0), (30, 0.05, 2)],
)
def test_cosine_is_that_of_optax(num_steps, warmup_fraction, warmup_steps):
    steps = np.arange(num_steps + 1)
    theirs = jax.vmap(optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, num_steps, end_value=0.0))(steps)
    values = factors(dataclasses.replace(ADAM, warmup_fraction=warmup_fraction), num_steps, steps)
    np.testing.assert_allclose(values, theirs, atol=1e-6)


def test_cosine_by_hand():
    """8 steps, 2 of them warm-up: 0, 1/2, then (1 + cos(pi k / 6)) / 2."""
    values = factors(dataclasses.replace(ADAM, warmup_fraction=0.25), 8, np.arange(9))
    wanted = [0, 1 / 2, 1, (2 + math.sqrt(3)) / 4, 3 / 4, 1 / 2, 1 / 4, (2 - math.sqrt(3)) / 4, 0]
    np.testing.assert_allclose(values, wanted, atol=1e-6)


@pytest.mark.parametrize("num_steps", [100, 777, 250_000])
def test_the_length_may_be_a_number_or_an_array(num_steps):
    for step in (0, 1, num_steps // 20, num_steps // 2, num_steps):
        plain = ADAM.factor(jnp.int32(step), num_steps)
        np.testing.assert_allclose(factors(ADAM, num_steps, [step]), plain, atol=1e-6)


def test_runs_of_different_lengths_share_a_program():
    schedule = jax.jit(jax.vmap(lambda step, length: ADAM.factor(step, length)))
    values = schedule(jnp.array([3, 60, 100, 1000]), jnp.array([100, 1000, 100, 1000]))
    np.testing.assert_allclose(values, [1 / 2, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_warm_up_rises_in_equal_steps(kind):
    values = factors(dataclasses.replace(ADAM, schedule=kind, warmup_fraction=0.2), 100, np.arange(21))
    np.testing.assert_allclose(values, np.arange(21) / 20, atol=1e-6)


def test_cosine_falls_after_the_warm_up_and_ends_at_zero():
    values = factors(ADAM, 1000, np.arange(60, 1001))
    assert values[0] == 1
    assert np.all(np.diff(values) < 0)
    assert abs(values[-1]) < 1e-6


def test_constant_stays_at_one():
    np.testing.assert_array_equal(
        factors(dataclasses.replace(ADAM, schedule="constant", warmup_fraction=0.0), 50, np.arange(50)), 1
    )
    np.testing.assert_array_equal(factors(dataclasses.replace(ADAM, schedule="constant"), 50, np.arange(3, 50)), 1)


TREE = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.2])}


def gradients_of(step):
    """Of norms below and above 1, so that clipping sometimes acts."""
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape, scale=0.1 * 5**step), jnp.float32), TREE)


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_adam_is_that_of_optax(clip_norm):
    ours = dataclasses.replace(ADAM, clip_norm=clip_norm).direction()
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    theirs = optax.chain(clip, optax.adam(3e-3, b1=0.9, b2=0.95, eps=1e-8))
    our_params = their_params = TREE
    our_state, their_state = ours.init(TREE), theirs.init(TREE)
    for step in range(4):
        direction, our_state = ours.update(gradients_of(step), our_state, our_params)
        our_params = jax.tree.map(lambda p, d: p - 3e-3 * d, our_params, direction)
        updates, their_state = theirs.update(gradients_of(step), their_state, their_params)
        their_params = optax.apply_updates(their_params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), our_params, their_params)


def test_adam_by_hand():
    """Two steps on a single number: moments with bias correction."""
    transformation = dataclasses.replace(ADAM, clip_norm=None, epsilon=0.1).direction()
    params = {"x": jnp.float32(0)}
    state = transformation.init(params)
    first, state = transformation.update({"x": jnp.float32(2)}, state, params)
    second, _ = transformation.update({"x": jnp.float32(-1)}, state, params)
    np.testing.assert_allclose(first["x"], 2 / (2 + 0.1), rtol=1e-6)
    mean = (0.9 * 0.1 * 2 + 0.1 * -1) / (1 - 0.9**2)
    square = (0.95 * 0.05 * 4 + 0.05 * 1) / (1 - 0.95**2)
    np.testing.assert_allclose(second["x"], mean / (math.sqrt(square) + 0.1), rtol=1e-6)


def test_weights_decay_as_in_adamw_and_biases_do_not():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "layers": {"kernel": (2, 3, 4), "scale": (2, 3)}}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = jax.tree.map(draw, shapes, is_leaf=lambda shape: isinstance(shape, tuple))
    decayed = {"kernel": True, "bias": False, "layers": {"kernel": True, "scale": False}}
    rule = Adam("constant", 0.0, weight_decay=0.1)
    theirs = optax.adamw(1e-2, weight_decay=0.1, mask=decayed)
    ours, state, expected, other = params, rule.init(params), params, theirs.init(params)
    for step in range(3):
        gradients = jax.tree.map(lambda leaf: draw(leaf.shape), params)
        ours, state = rule.update(gradients, state, ours, jnp.array(1e-2), jnp.array(step), jnp.array(3))
        updates, other = theirs.update(gradients, other, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, expected)
    assert jax.tree.structure(Adam().init(params)) == jax.tree.structure(
        optax.chain(optax.scale_by_adam()).init(params)
    )


def test_an_optimizer_of_ones_own_has_a_rule_and_no_more():
    @settings
    class Sign(Optimizer):
        def rule(self):
            return optax.scale_by_sign()

    gradient = jnp.array([3.0, -0.5])
    direction = Sign().direction()
    updates, _ = direction.update(gradient, direction.init(gradient))
    assert updates.tolist() == [1.0, -1.0]
    np.testing.assert_array_equal(factors(Sign(), 8, np.arange(9)), 1.0)


def test_sgd_follows_the_plain_gradient():
    transformation = Sgd().direction()
    state = transformation.init(TREE)
    for step in range(3):
        direction, state = transformation.update(gradients_of(step), state, TREE)
        jax.tree.map(np.testing.assert_array_equal, direction, gradients_of(step))


def test_sgd_clips_the_norm_of_the_whole_gradient():
    """Norm of (3, 0, 0, 4) is 5, that of (0.3, 0.4) is 0.5."""
    transformation = Sgd(clip_norm=1.0).direction()
    state = transformation.init(TREE)
    long = {"w": jnp.array([[3.0, 0.0], [0.0, 0.0]]), "b": jnp.array([0.0, 4.0])}
    clipped, state = transformation.update(long, state, TREE)
    np.testing.assert_allclose(clipped["w"], [[0.6, 0.0], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [0.0, 0.8], rtol=1e-6)
    short = {"w": jnp.zeros((2, 2)), "b": jnp.array([0.3, 0.4])}
    jax.tree.map(np.testing.assert_array_equal, transformation.update(short, state, TREE)[0], short)
