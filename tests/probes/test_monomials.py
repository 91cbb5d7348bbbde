"""Correlations of hand-made predictors, whose exact values are known."""

import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.mlp import Mlp
from pdjax.probes.monomials import OFF_SUPPORT, MonomialProbe, choose_monomials, correlations
from pdjax.tasks.parity import ParityTask

DIMENSION, SUPPORT = 8, (0, 1, 2)
CONFIG = MonomialProbe(max_degree=3, off_support=20, num_inputs=4096, batch_size=1024)


class AllInputs:
    """Every input once in each batch: expectations are then exact."""

    inputs: ClassVar = np.array(list(itertools.product((0, 1), repeat=DIMENSION)))

    def sample(self, key, batch_size):
        tokens = jnp.asarray(np.tile(self.inputs, (batch_size // len(self.inputs), 1)))
        task = ParityTask(DIMENSION, 3)
        return task.sample(key, 1)._replace(inputs={"tokens": tokens, "vector": (1 - 2 * tokens).astype(jnp.float32)})


class Predictor:
    """Puts the probability that its first parameter times a function of the input says on the first class."""

    def __init__(self, function):
        self.function = function

    def apply(self, params, inputs):
        p = self.function(inputs["vector"]) * params + 0.5 * (1 - params)
        return jnp.stack([jnp.log(p), jnp.log(1 - p)], axis=1), {}


def measure(function, monomials, scales=(1.0,)):
    membership = jnp.asarray(monomials.membership(DIMENSION))
    return np.asarray(
        correlations(AllInputs(), Predictor(function), CONFIG, membership, jnp.array(scales), jnp.int32(0))
    )


@pytest.fixture(scope="module")
def monomials():
    return choose_monomials((SUPPORT,), SUPPORT, DIMENSION, CONFIG, seed=0)


def test_a_predictor_of_one_coordinate_correlates_with_it_alone(monomials):
    (coefficients,) = measure(lambda x: 0.5 + 0.3 * x[:, 1], monomials)
    expected = [0.3 if member == (1,) else 0.0 for member in monomials.members]
    np.testing.assert_allclose(coefficients, expected, atol=1e-5)


def test_a_predictor_of_the_parity_correlates_with_the_whole_support_alone(monomials):
    (coefficients,) = measure(lambda x: 0.5 - 0.45 * x[:, 0] * x[:, 1] * x[:, 2], monomials)
    expected = [0.45 if member == SUPPORT else 0.0 for member in monomials.members]
    np.testing.assert_allclose(coefficients, expected, atol=1e-5)


def test_a_predictor_of_the_majority_has_the_majoritys_fourier_coefficients(monomials):
    """Maj(x1, x2, x3) = (x1 + x2 + x3 - x1 x2 x3) / 2 (O'Donnell, Analysis of Boolean Functions, section 1.1)."""
    (coefficients,) = measure(lambda x: 0.5 + 0.4 * jnp.sign(x[:, 0] + x[:, 1] + x[:, 2]), monomials)
    inside = {(0,): 0.2, (1,): 0.2, (2,): 0.2, SUPPORT: 0.2}
    np.testing.assert_allclose(coefficients, [inside.get(member, 0.0) for member in monomials.members], atol=1e-5)


def test_several_models_at_once_are_measured_each_for_itself(monomials):
    coefficients = measure(lambda x: 0.5 + 0.3 * x[:, 1], monomials, scales=(1.0, 0.5, 0.0))
    column = monomials.members.index((1,))
    np.testing.assert_allclose(coefficients[:, column], [0.3, 0.15, 0.0], atol=1e-5)


def test_a_constant_predictor_correlates_with_nothing_beyond_the_noise_of_the_sample(monomials):
    task = ParityTask(DIMENSION, 3)
    membership = jnp.asarray(monomials.membership(DIMENSION))
    model = Predictor(lambda x: 0.9 + 0 * x[:, 0])
    coefficients = np.asarray(correlations(task, model, CONFIG, membership, jnp.ones(1), jnp.int32(3)))
    assert 0 < coefficients.max() < 0.9 * 5 / math.sqrt(CONFIG.num_inputs)


def test_every_subset_of_the_support_and_the_asked_number_off_it(monomials):
    inside = [m for m, group in zip(monomials.members, monomials.groups, strict=True) if group == 0]
    off = [m for m, group in zip(monomials.members, monomials.groups, strict=True) if group == OFF_SUPPORT]
    assert inside == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert [m for m in off if len(m) == 1] == [(3,), (4,), (5,), (6,), (7,)]
    for degree in (2, 3):
        chosen = [m for m in off if len(m) == degree]
        assert len(set(chosen)) == len(chosen) == 20
        assert all(not set(m) <= set(SUPPORT) and len(set(m)) == degree for m in chosen)


def test_where_there_are_fewer_sets_off_the_support_all_are_taken():
    few = choose_monomials(((0, 1),), (0, 1), 3, CONFIG, seed=0)
    off = [m for m, group in zip(few.members, few.groups, strict=True) if group == OFF_SUPPORT]
    assert off == [(2,), (0, 2), (1, 2)]


def test_each_feature_is_a_group_of_its_own():
    monomials = choose_monomials(((0, 1), (4, 5)), (0, 1, 2, 3, 4, 5), 8, CONFIG, seed=0)
    by_group = {
        g: [m for m, group in zip(monomials.members, monomials.groups, strict=True) if group == g] for g in (0, 1)
    }
    assert by_group == {0: [(0,), (1,), (0, 1)], 1: [(4,), (5,), (4, 5)]}


def test_coordinates_outside_the_support_are_interchangeable():
    """A model whose rows for them are permuted correlates with the permuted monomials: the same numbers, moved."""
    task = ParityTask(DIMENSION, 3)
    model = Mlp((16,)).build(task)
    params = model.init(jax.random.key(0), AllInputs().sample(jax.random.key(0), 256).inputs)
    order = np.array([0, 1, 2, 5, 3, 7, 4, 6])
    moved = jax.tree.map(lambda leaf: leaf, params)
    moved["hidden_0"]["kernel"] = params["hidden_0"]["kernel"][order]
    members = [(j,) for j in range(DIMENSION)]
    membership = jnp.eye(DIMENSION)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, moved)
    coefficients = np.asarray(correlations(AllInputs(), model, CONFIG, membership, both, jnp.int32(0)))
    assert len(members) == coefficients.shape[1]
    assert coefficients.max() > 1e-3
    np.testing.assert_allclose(coefficients[1], coefficients[0][order], atol=1e-5)
