"""Parity tasks against definitions written down independently, for all inputs of small dimensions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.tasks.parity import HierarchicalTask, ParityTask


def parity(dimension, degree, support="first", seed=0):
    return ParityTask(dimension, degree, support, seed)


def hierarchical(dimension, degree, depth, support="first", seed=0):
    return HierarchicalTask(dimension, degree, depth, support, seed)


def all_inputs(dimension):
    return np.array(list(itertools.product((-1.0, 1.0), repeat=dimension)), np.float32)


def leaf_of(x, features):
    """Walks the tree as section C.3 describes it: node j's children are 2j and 2j + 1, -1 goes left."""
    node = 1
    while node <= len(features):
        node = 2 * node + (1 if math.prod(x[j] for j in features[node - 1]) > 0 else 0)
    return node - (len(features) + 1)


@pytest.mark.parametrize("support", ["first", "random"])
@pytest.mark.parametrize(("dimension", "degree"), [(1, 1), (5, 2), (7, 7), (8, 3)])
def test_parity_is_the_sign_of_the_product(dimension, degree, support):
    task = parity(dimension, degree, support)
    x = all_inputs(dimension)
    (feature,) = task.features
    expected = [0 if math.prod(row[j] for j in feature) > 0 else 1 for row in x]
    assert np.asarray(task.label(jnp.asarray(x))).tolist() == expected
    assert task.num_classes == 2


@pytest.mark.parametrize("support", ["first", "random"])
@pytest.mark.parametrize(("dimension", "degree", "depth"), [(3, 1, 2), (9, 3, 2), (7, 1, 3), (8, 2, 1)])
def test_hierarchical_class_is_the_leaf_that_the_tree_leads_to(dimension, degree, depth, support):
    task = hierarchical(dimension, degree, depth, support)
    x = all_inputs(dimension)
    expected = [leaf_of(row, task.features) for row in x]
    assert np.asarray(task.label(jnp.asarray(x))).tolist() == expected
    assert sorted(set(expected)) == list(range(2**depth))
    assert np.bincount(expected).tolist() == [2 ** (dimension - depth)] * 2**depth  # all classes are equally likely


def test_nodes_own_consecutive_coordinates_breadth_first():
    task = hierarchical(100, 5, 3)
    assert task.features == tuple(tuple(range(5 * j, 5 * j + 5)) for j in range(7))
    # Figure 17: what decides about the first class is x1..x5, x6..x10 and x16..x20.
    assert [(level[0] + 1, level[-1] + 1) for level in task.levels] == [(1, 5), (6, 10), (16, 20)]
    assert parity(100, 6).levels == (tuple(range(6)),)


def test_a_random_support_has_no_coordinate_twice_and_follows_the_seed():
    supports = {parity(12, 5, "random", seed).features for seed in range(20)}
    assert len(supports) > 15
    assert parity(12, 5, "random", 3).features == parity(12, 5, "random", 3).features
    taken = [j for feature in hierarchical(15, 5, 2, "random").features for j in feature]
    assert sorted(taken) == list(range(15))


@pytest.mark.parametrize("dimension", [5, 32, 40, 100])
def test_inputs_are_uniform_signs_in_both_forms(dimension):
    batch = parity(dimension, 3).sample(jax.random.key(0), 4096)
    x, tokens = np.asarray(batch.inputs["vector"]), np.asarray(batch.inputs["tokens"])
    assert x.shape == tokens.shape == (4096, dimension)
    assert set(np.unique(x)) == {-1.0, 1.0}
    np.testing.assert_array_equal(x, 1 - 2 * tokens)  # +1 is token 0, -1 is token 1
    assert np.abs(x.mean(axis=0)).max() < 5 / 64  # 5 standard errors
    correlations = x.T @ x / 4096 - np.eye(dimension)
    assert np.abs(correlations).max() < 5.5 / 64
    np.testing.assert_array_equal(batch.weights, 1)
    np.testing.assert_array_equal(batch.targets, (np.prod(x[:, :3], axis=1) < 0).astype(int))


def test_batches_are_a_function_of_the_key():
    task = parity(10, 3)
    one, same, other = (task.sample(jax.random.key(k), 8).inputs["tokens"] for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()


def test_coordinates_are_no_tokens_with_names():
    assert ParityTask().tokens is None
