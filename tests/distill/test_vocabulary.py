"""Losses over blocks of the vocabulary, against those of all logits at once."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from pdjax.distill.losses import Distillation, HiddenMatching, JensenShannon, Labels, Outputs, ReverseKL, TopK
from pdjax.models.head import Factored, dense
from pdjax.settings import settings
from pdjax.train.flops import _parts, count_products
from pdjax.types import Batch

CLASSES, WIDTH, PLACES = 11, 3, (2, 4)
BLOCKS = (1, 4, 11, 50)  # 4 does not divide the classes, and 50 is more than there are
FORWARD = [(Distillation(), temperature) for temperature in (0.0, 1e-20, 1e-4, 1.0)]
REVERSE = [(ReverseKL(), temperature) for temperature in (1e-20, 1e-4, 1.0)]
LOSSES = [(Labels(), 1.0), *FORWARD, *REVERSE]
TARGETS = np.random.default_rng(0).integers(CLASSES, size=PLACES)
WEIGHTS = 1 + np.arange(np.prod(PLACES), dtype=np.float32).reshape(PLACES)


def factored(seed, block, scale=1.0, bias=True):
    """Factors of random logits of this order."""
    draw = np.random.default_rng(seed).normal
    states, head, offsets = (
        draw(size=shape).astype(np.float32) for shape in ((WIDTH, *PLACES), (CLASSES, WIDTH), (CLASSES,))
    )
    return Factored(scale * states, head, scale * offsets if bias else None, block, "float32")


def constant(logits, block):
    """Factors of these logits at every place."""
    return Factored(np.zeros((WIDTH, *PLACES), np.float32), factored(9, block).head, np.float32(logits), block, None)


def values_and_best(loss, student, teacher, temperature):
    numbers = {name: jnp.float32(value) for name, value in loss.numbers.items()}
    numbers |= {"temperature": temperature, "label_weight": jnp.float32(0.25)}
    batch = Batch({}, jnp.asarray(TARGETS), jnp.ones(PLACES), {})
    return loss.values_and_best(Outputs(student, {}), Outputs(teacher, {}), batch, numbers, None)


def weighted(loss, student, teacher, temperature):
    """One number, in which every place has a weight of its own, and what it is made of."""
    values, best = values_and_best(loss, student, teacher, temperature)
    return jnp.sum(WEIGHTS * values), (values, best)


@functools.partial(jax.jit, static_argnums=0)
def in_blocks(loss, student, teacher, temperature):
    gradients, (values, best) = jax.grad(weighted, argnums=1, has_aux=True)(loss, student, teacher, temperature)
    return values, best, gradients


@functools.partial(jax.jit, static_argnums=0)
def at_once(loss, student, teacher, temperature):
    """The same of all logits; the gradient goes on to their factors."""

    def multiplied(student):
        return weighted(loss, dense(student), dense(teacher), temperature)

    gradients, (values, best) = jax.grad(multiplied, has_aux=True)(student)
    return values, best, gradients


def assert_close(one, other, rtol=2e-6):
    """Relative to the largest number of each array: those beside it are sums that cancel."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, np.abs(b).max()))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES, ids=repr)
def test_blocks_change_no_value_class_or_gradient(loss, temperature, block, scale):
    """A divergence of 1e24 at the lowest temperature in reverse, too; all numbers are finite."""
    student, teacher = factored(1, block, scale), factored(2, block, scale, bias=False)
    values, best, gradients = in_blocks(loss, student, teacher, temperature)
    expected, classes, wanted = at_once(loss, student, teacher, temperature)
    np.testing.assert_array_equal(best, classes)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((values, gradients)))
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6 * scale)
    assert_close(gradients, wanted)


TIES = {
    "within a block": [0, 2, 2, 1, 0, 1, -1, 0, 0, 1, 0],
    "across blocks": [0, 2, 0, 1, 0, 1, 2, 0, 0, 1, 2],
    "of all classes": [3] * CLASSES,
}


@pytest.mark.parametrize("name", TIES)
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize(("loss", "temperature"), LOSSES, ids=repr)
def test_ties(loss, temperature, block, name):
    """Of a student or of a teacher; both take the first, and the teacher's share its mass."""
    tied, other = constant(TIES[name], block), factored(1, block)
    for student, teacher in ((other, tied), (tied, other), (tied, tied)):
        values, best, gradients = in_blocks(loss, student, teacher, temperature)
        expected, classes, wanted = at_once(loss, student, teacher, temperature)
        np.testing.assert_array_equal(best, classes)
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6)
        assert_close(gradients, wanted)


@pytest.mark.parametrize("temperature", [0.0, 1e-20])
def test_ties_across_blocks_by_hand(temperature):
    """The teacher has a third at each of classes 1, 6 and 10: log of that, minus the mean of the student's."""
    student = factored(1, 4)
    values, best, _ = in_blocks(Distillation(), student, constant(TIES["across blocks"], 4), temperature)
    log_q = scipy.special.log_softmax(np.float64(dense(student)), axis=-1)
    divergence = -np.log(3) - log_q[..., [1, 6, 10]].mean(axis=-1)
    from_labels = -np.take_along_axis(log_q, TARGETS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(values, 0.25 * from_labels + 0.75 * divergence, rtol=1e-5)
    np.testing.assert_array_equal(best, np.argmax(log_q, axis=-1))


@pytest.mark.parametrize(("loss", "temperature"), [(Labels(), 1.0), *FORWARD[2:], *REVERSE[1:]], ids=repr)
def test_in_float64_hardly_a_digit_is_lost(loss, temperature):
    with jax.enable_x64(True):
        student, teacher = (jax.tree.map(np.float64, factored(seed, 4)) for seed in (1, 2))
        (values, _, gradients), (expected, _, wanted) = (
            function(loss, student, teacher, np.float64(temperature)) for function in (in_blocks, at_once)
        )
        assert {leaf.dtype for leaf in jax.tree.leaves((values, gradients))} == {jnp.dtype("float64")}
        np.testing.assert_allclose(values, expected, rtol=1e-13)
        assert_close(gradients, wanted, rtol=1e-13)


def test_a_teacher_and_its_temperature_have_no_gradient():
    for loss in (Distillation(), ReverseKL()):
        slope = jax.grad(lambda *arguments, loss=loss: weighted(loss, *arguments)[0], argnums=(1, 2))
        for leaf in jax.tree.leaves(slope(factored(1, 4), factored(2, 4), jnp.float32(1.0))):
            np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


# Replicas


def stacked(seeds, block):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[factored(seed, block) for seed in seeds])


@pytest.mark.parametrize("loss", [Distillation(), ReverseKL()], ids=repr)
def test_replicas_with_temperatures_of_their_own(loss):
    """Under vmap, with one teacher for all; the first one's temperature is the lowest that its loss has."""
    temperatures = jnp.array([0.0 if loss == Distillation() else 1e-20, 1e-4, 1.0])
    students, teacher = stacked((1, 2, 3), 4), factored(4, 4)
    together = jax.vmap(functools.partial(in_blocks, loss), in_axes=(0, None, 0))(students, teacher, temperatures)
    for i in range(3):
        alone = in_blocks(loss, factored(i + 1, 4), teacher, temperatures[i])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-6, atol=2e-6 * max(1, np.abs(b).max()))


def test_the_teachers_products_are_not_repeated_by_replica():
    """Twice for each class and place, in value and gradient, however many students; of these each has four."""
    product = 2 * CLASSES * WIDTH * np.prod(PLACES)
    for replicas in (1, 3):
        function = jax.vmap(functools.partial(in_blocks, Distillation()), in_axes=(0, None, 0))
        students, temperatures = stacked(range(replicas), 4), jnp.ones(replicas)
        count = count_products(function, students, factored(4, 4), temperatures)
        assert count == {"teacher": 2 * product, "student": replicas * 4 * product}


# What is not made, and what is


def largest_array(function, *arguments):
    """The size of the largest array that a function makes, loops and branches included."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            yield from itertools.chain.from_iterable(sizes(part) for part in _parts(equation))

    return max(sizes(jax.make_jaxpr(function)(*arguments).jaxpr))


@pytest.mark.parametrize("loss", [Labels(), Distillation(), ReverseKL()], ids=repr)
def test_no_array_has_all_places_and_all_classes(loss):
    """The largest is the gradient of the head, or one block at all places."""
    arguments = factored(1, 4), factored(2, 4), jnp.float32(1.0)
    all_logits = CLASSES * np.prod(PLACES)
    assert largest_array(functools.partial(in_blocks, loss), *arguments) == max(CLASSES * WIDTH, 4 * np.prod(PLACES))
    assert largest_array(functools.partial(at_once, loss), *arguments) >= all_logits


@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
def test_operands_of_bfloat16(compute):
    """Against the rounded operands in float32: values to 1e-5, gradients to the last of bfloat16's 8 bits."""
    student, teacher = (jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), factored(seed, 4)) for seed in (1, 2))
    exact = [jax.tree.map(lambda leaf: leaf.astype(jnp.float32), part) for part in (student, teacher)]
    values, best, gradients = in_blocks(Distillation(), *(exact if compute == "float32" else (student, teacher)), 1.0)
    expected, classes, wanted = at_once(Distillation(), *exact, 1.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(compute)}
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(best, classes)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(
            a.astype(jnp.float32), b, atol=(2**-7 if compute == "bfloat16" else 1e-6) * np.abs(b).max()
        )


# Other losses, and models with other settings


@settings
class Doubled(Distillation):
    """A user's: its divergence is no longer the one that there are blocks for."""

    def divergence(self, student, teacher, numbers):
        return 2 * super().divergence(student, teacher, numbers)


@settings
class Flattened(Labels):
    """A user's: labels with other values."""

    def values(self, student, teacher, batch, numbers, params):
        return super().values(student, teacher, batch, numbers, params) / 2


@pytest.mark.parametrize("loss", [JensenShannon(), TopK(3), Doubled(), Flattened()], ids=repr)
def test_other_losses_see_all_logits(loss):
    student, teacher = factored(1, 4), factored(2, 4)
    for a, b in zip(in_blocks(loss, student, teacher, 0.5), at_once(loss, student, teacher, 0.5), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("loss", [Labels(), Distillation(), ReverseKL()], ids=repr)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_one_model_may_give_factors_and_the_other_logits(loss, who):
    student, teacher = factored(1, 4), factored(2, 3)
    given = (dense(student), teacher) if who == "teacher" else (student, dense(teacher))
    found = jax.jit(functools.partial(values_and_best, loss))(*given, 0.5)
    for a, b in zip(found, at_once(loss, student, teacher, 0.5)[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


def test_both_may_have_blocks_of_their_own():
    """The student's count."""
    for a, b in zip(
        *(in_blocks(Distillation(), factored(1, 4), factored(2, block), 0.5)[:2] for block in (4, 50)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_hidden_matching_adds_its_distance():
    student, teacher = factored(1, 4), factored(2, 4)
    numbers = {"temperature": 1.0, "label_weight": 0.0, "hidden_weight": 2.0}
    batch = Batch({}, jnp.asarray(TARGETS), jnp.ones(PLACES), {})
    hidden = {"hidden": (jnp.ones((*PLACES, WIDTH)),)}
    params = {"projection": 3 * jnp.eye(WIDTH)}
    both = (Outputs(logits, hidden) for logits in (student, teacher))
    values, _ = HiddenMatching().values_and_best(*both, batch, numbers, params)
    both = (Outputs(dense(logits), {}) for logits in (student, teacher))
    divergence, _ = Distillation().values_and_best(*both, batch, numbers, None)
    np.testing.assert_allclose(values, divergence + 2 * (3 - 1) ** 2, rtol=1e-6)
