"""A teacher cut down to its most likely classes, against the losses that see all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.kept import Cut, Kept, compare_kept, keep
from pdjax.distill.losses import SHARP, TIES, Distillation, Labels, Outputs, Ramp, ReverseKL, TopK
from pdjax.models.head import Factored, dense
from pdjax.types import Batch

V, D, PLACES = 11, 3, (2, 5)
TARGETS = jnp.array([[0, 3, 10, 7, 1], [4, 4, 9, 2, 8]])


def factors(seed, block=4, scale=1.0):
    random = np.random.default_rng(seed)
    states, head, bias = (random.normal(size=shape) * scale for shape in ((D, *PLACES), (V, D), (V,)))
    return Factored(*(jnp.asarray(part, jnp.float32) for part in (states, head, bias)), block, "float32")


def tied():
    """A teacher whose most likely classes tie within a block, across blocks, and all of them."""
    logits = np.asarray(dense(factors(1))).copy()
    for place, classes in {(0, 0): (2, 3), (0, 1): (1, 5, 9), (1, 4): range(8)}.items():
        logits[place][list(classes)] = 7.0
    # Of these factors the product is exactly them.
    flat = jnp.asarray(logits.reshape(-1, V).T)
    return Factored(jnp.eye(10, dtype=jnp.float32).reshape(10, *PLACES), flat, None, 4, "float32")


def objective(loss, teacher, numbers):
    """Returns the sum of weighted losses, as a function of the student's factors."""
    weights = jnp.arange(1.0, 11.0).reshape(PLACES)

    def total(student):
        values, best = loss.values_and_best(
            Outputs(student, {}), Outputs(teacher, {}), Batch({}, TARGETS, weights, {}), numbers, None
        )
        return jnp.sum(values * weights), (values, best)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def numbers_of(loss):
    return {name: jnp.float32(value) for name, value in loss.numbers.items()}


@pytest.mark.parametrize("as_factors", [True, False], ids=["blocks", "dense"])
@pytest.mark.parametrize("temperature", [0.0, 1e-20])
def test_the_most_likely_classes_teach_what_the_whole_sharp_teacher_does(temperature, as_factors):
    """Of a student in blocks and of one with all logits: bit for bit, but for how a sum of several ties is rounded."""
    loss, teacher, student = Distillation(temperature), tied(), factors(2)
    kept, ties = jax.jit(lambda logits: keep(logits, loss.cut))(teacher)
    assert ties[0].tolist()[:2] == [2, 3]
    assert ties[1, 4] == 8
    assert np.asarray(kept.log_rest == -jnp.inf).all()
    np.testing.assert_allclose(np.exp(kept.log_p).sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal((kept.log_p > -np.inf).sum(-1), ties)  # what has no mass says so
    small = Kept(kept.classes, kept.log_p, None)
    if not as_factors:
        teacher, student = dense(teacher), dense(student)
    (_, (values, best)), gradient = objective(loss, small, numbers_of(loss))(student)
    (_, (expected, right)), whole = objective(loss, teacher, numbers_of(loss))(student)
    np.testing.assert_array_equal(best, right)
    np.testing.assert_allclose(values, expected, rtol=2e-6)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    alone = np.asarray(ties) == 1
    at_logits = (gradient.states.T, whole.states.T) if as_factors else (gradient, whole)
    ours, theirs = (
        np.moveaxis(np.asarray(part), (0, 1), (1, 0)) if as_factors else np.asarray(part) for part in at_logits
    )
    np.testing.assert_array_equal(ours[alone], theirs[alone])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_k_classes_and_the_rest_teach_what_top_k_does(temperature, k, scale):
    loss, teacher, student = TopK(k, temperature, 0.25), factors(3, 3, scale), factors(4, 5)
    kept, _ = jax.jit(lambda logits: keep(logits, loss.cut))(teacher)
    mass = np.exp(kept.log_p).sum(-1) + np.exp(kept.log_rest)
    np.testing.assert_allclose(mass, 1, rtol=1e-6)
    (_, (expected, _)), whole = objective(loss, dense(teacher), numbers_of(loss))(dense(student))
    (_, (values, _)), dense_gradient = objective(loss, kept, numbers_of(loss))(dense(student))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dense_gradient, whole, rtol=1e-4, atol=1e-5)
    (_, (values, _)), gradient = objective(loss, kept, numbers_of(loss))(student)
    (_, (_, _)), reference = jax.jit(
        jax.value_and_grad(lambda s: objective(loss, kept, numbers_of(loss))(dense(s))[0], has_aux=True)
    )(student)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_student_that_leaves_nothing_to_other_classes():
    """They are 200 nats below those that are kept: float32 has no number for their share, but for its logarithm."""
    loss, teacher = TopK(2, 1.0), factors(3)
    kept, _ = keep(teacher, loss.cut)
    logits = np.asarray(dense(factors(4))).reshape(-1, V).copy()
    np.put_along_axis(logits, np.asarray(kept.classes).reshape(-1, 2), [200.0, 201.0], axis=1)
    states = jnp.eye(10, dtype=jnp.float32).reshape(10, *PLACES)
    student = Factored(states, jnp.asarray(logits.T), None, 4, "float32")  # of these the product is exactly they
    (expected, _), whole = objective(loss, dense(teacher), numbers_of(loss))(dense(student))
    (total, _), gradient = objective(loss, kept, numbers_of(loss))(student)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient.head.T, whole.reshape(-1, V), rtol=1e-4, atol=1e-5)


def test_what_is_kept_are_the_largest_logits_whatever_the_blocks():
    logits = np.asarray(dense(factors(5))).reshape(-1, V)
    for block in (1, 4, 11, 30):
        kept, _ = keep(factors(5, block), Cut(3, 1.0, False))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :3]
        np.testing.assert_array_equal(kept.classes.reshape(-1, 3), order)
        expected = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(order), axis=1)
        np.testing.assert_allclose(kept.log_p.reshape(-1, 3), expected, atol=1e-6)


def test_of_a_small_vocabulary_fewer_classes_are_kept():
    """A grammar has seven tokens, and up to eight may tie."""
    logits = jnp.array([[1.0, 2.0, 2.0]])
    kept, ties = keep(logits, Cut(TIES, 0.0, True))
    assert ties.tolist() == [2]
    assert kept.classes[0, :2].tolist() == [1, 2]
    np.testing.assert_allclose(np.exp(kept.log_p), [[0.5, 0.5] + [0.0] * 6])
    student = jnp.array([[0.3, -1.0, 2.0]])
    found = compare_kept(student, jnp.array([0]), Kept(kept.classes, kept.log_p, None))
    expected = float(-np.log(2) - jax.nn.log_softmax(student)[0, 1:].mean())
    assert found.divergence[0] == pytest.approx(expected, rel=1e-5)


def test_which_losses_can_be_taught_from_a_cache():
    assert Distillation(0.0).cut == Cut(TIES, 0.0, True)
    assert Distillation(SHARP, 0.5).cut == Cut(TIES, SHARP, True)
    assert TopK(5, 2.0).cut == Cut(5, 2.0, False)
    others = (Distillation(1e-4), Distillation(Ramp(0.0, 1.0)), TopK(5, Ramp(1.0, 2.0)), TopK(5, 0.0), ReverseKL())
    assert [loss.cut for loss in (*others, Labels())] == [None] * 6
