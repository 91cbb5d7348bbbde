"""Losses against float64 references, and the teacher's distribution at every temperature down to 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from pdjax.distill import losses
from pdjax.distill.losses import (
    Distillation,
    HiddenMatching,
    JensenShannon,
    Loss,
    Number,
    Outputs,
    Ramp,
    ReverseKL,
    TopK,
)
from pdjax.errors import require
from pdjax.settings import settings
from pdjax.train import sharding
from pdjax.train.replicas import Replica, place_hyperparameters
from pdjax.train.step import numbers_at
from pdjax.types import Batch

TEMPERATURES = (1.0, 0.1, 1e-4, 1e-20, 0.0)

# Compiled once for each shape, with the temperature as an argument as in training.
soften = jax.jit(losses.soften)
distillation = jax.jit(losses.distillation)
distillation_gradient = jax.jit(jax.grad(lambda *arguments: losses.distillation(*arguments).sum(), argnums=(0, 1)))
cross_entropy_gradient = jax.jit(jax.grad(lambda logits, p: -jnp.sum(p * jax.nn.log_softmax(logits))))


@functools.partial(jax.jit, static_argnums=0)
def values(loss, student, teacher, targets, numbers):
    """The loss at every place, its numbers arguments as in training."""
    batch = Batch({}, targets, jnp.ones(targets.shape), {})
    return loss.values(Outputs(student, {}), Outputs(teacher, {}), batch, numbers, None)


def mixed(student, teacher, targets, temperature, weight):
    return values(Distillation(), student, teacher, targets, {"temperature": temperature, "label_weight": weight})


values_gradient = jax.jit(jax.grad(lambda *arguments: values(*arguments).sum(), argnums=(1, 2)), static_argnums=0)


def mixed_gradient(student, teacher, targets, temperature, weight):
    numbers = {"temperature": temperature, "label_weight": weight}
    return values_gradient(Distillation(), student, teacher, targets, numbers)


def random_logits(seed, *shape, scale=3.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


def soften_in_float64(logits, temperature):
    """Temperature 0 shares everything among the largest logits."""
    logits = np.asarray(logits, np.float64)
    largest = logits == logits.max(axis=-1, keepdims=True)
    if temperature == 0:
        return largest / largest.sum(axis=-1, keepdims=True)
    return scipy.special.softmax(logits / temperature, axis=-1)


def kl_in_float64(student, teacher, temperature):
    log_student = scipy.special.log_softmax(np.asarray(student, np.float64), axis=-1)
    probabilities = soften_in_float64(teacher, temperature)
    return scipy.special.rel_entr(probabilities, np.exp(log_student)).sum(axis=-1)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 1000)])
def test_cross_entropy_against_float64(shape):
    logits = random_logits(0, *shape)
    targets = np.random.default_rng(1).integers(shape[-1], size=shape[:-1]).astype(np.int32)
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    wanted = -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    entropy = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    assert entropy.shape == shape[:-1]
    np.testing.assert_allclose(entropy, wanted, rtol=2e-6)


def test_cross_entropy_by_hand():
    """Probabilities 1/4, 1/4, 1/2."""
    logits = jnp.log(jnp.array([1.0, 1.0, 2.0]))
    nats = [losses.cross_entropy(logits, jnp.int32(target)) for target in range(3)]
    np.testing.assert_allclose(nats, [np.log(4), np.log(4), np.log(2)], rtol=1e-6)


def test_cross_entropy_of_large_logits_is_the_gap():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    np.testing.assert_array_equal(losses.cross_entropy(logits, jnp.array([1])), [2e4])
    np.testing.assert_array_equal(losses.cross_entropy(logits, jnp.array([0])), [0.0])


def test_gradient_of_cross_entropy_is_prediction_minus_label():
    logits = random_logits(2, 4, 7)
    targets = np.array([0, 6, 3, 3])
    gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.asarray(targets)).sum())(jnp.asarray(logits))
    wanted = scipy.special.softmax(logits.astype(np.float64), axis=-1) - np.eye(7)[targets]
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("logits", "temperature", "probabilities"),
    [
        ([0.0, np.log(2), 0.0], 1.0, [1 / 4, 1 / 2, 1 / 4]),
        ([0.0, np.log(2) / 10, 0.0], 0.1, [1 / 4, 1 / 2, 1 / 4]),
        ([5.0, 5.0 - 1e-4 * np.log(3)], 1e-4, [3 / 4, 1 / 4]),
        ([1.0, 2.0, 3.0], 1e-4, [0, 0, 1]),
        ([1.0, 2.0, 3.0], 1e-20, [0, 0, 1]),
        ([1.0, 2.0, 3.0], 0.0, [0, 0, 1]),
        # The smallest step of float32 above 1 decides already.
        ([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0], 1e-20, [0, 1, 0]),
        ([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0], 0.0, [0, 1, 0]),
        # Exact ties share equally.
        ([2.0, 2.0, 1.0, 2.0], 1e-20, [1 / 3, 1 / 3, 0, 1 / 3]),
        ([2.0, 2.0, 1.0, 2.0], 0.0, [1 / 3, 1 / 3, 0, 1 / 3]),
        ([-7.0, -7.0], 0.0, [1 / 2, 1 / 2]),
        ([0.0, 0.0, 0.0, 0.0], 1e-4, [1 / 4] * 4),
        # Large and negative.
        ([1e4, -1e4, 1e4], 1e-20, [1 / 2, 0, 1 / 2]),
        ([1e4, -1e4, 9999.0], 0.0, [1, 0, 0]),
        ([1e4, -1e4, 1e4 - 1], 1.0, [1 / (1 + np.exp(-1)), 0, 1 / (1 + np.exp(1))]),
        ([-1e4, -2e4, -3e4], 1e-20, [1, 0, 0]),
        ([-1e4, -1e4, -3e4], 0.1, [1 / 2, 1 / 2, 0]),
    ],
)
def test_soften(logits, temperature, probabilities):
    softened, negative_entropy = losses.soften(jnp.array(logits, jnp.float32), temperature)
    # The quotient carries the rounding of logits of order 5: 5e-7 / 1e-4.
    np.testing.assert_allclose(softened, probabilities, rtol=3e-3 if temperature == 1e-4 else 2e-6)
    positive = np.array([p for p in probabilities if p > 0])
    np.testing.assert_allclose(negative_entropy, np.sum(positive * np.log(positive)), rtol=3e-3, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_soften_against_float64(temperature):
    logits = random_logits(3, 50, 7)
    probabilities, negative_entropy = soften(jnp.asarray(logits), temperature)
    wanted = soften_in_float64(logits, temperature)
    np.testing.assert_allclose(probabilities, wanted, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(negative_entropy, -scipy.stats.entropy(wanted, axis=-1), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soften_is_a_distribution_with_finite_entropy(temperature, scale):
    probabilities, negative_entropy = soften(jnp.asarray(random_logits(4, 50, 7, scale=scale)), temperature)
    assert np.all(probabilities >= 0)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, rtol=1e-6)
    assert np.all(np.isfinite(negative_entropy))
    assert np.all(negative_entropy <= 0)


@pytest.mark.parametrize("compile_", [jax.jit, lambda f: f])
def test_temperatures_as_an_array_of_replicas(compile_):
    """0 and 1 beside each other in one vmapped program, as in a sweep over temperatures."""
    temperatures = jnp.array([0.0, 1.0, 1e-20, 0.1])
    logits = jnp.array([[1.0, 1.0, 0.0], [3.0, 1.0, 2.0]])
    softened, _ = compile_(jax.vmap(losses.soften, in_axes=(None, 0)))(logits, temperatures)
    wanted = np.stack([soften_in_float64(logits, t) for t in (0, 1, 0, 0.1)])
    np.testing.assert_allclose(softened, wanted, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [7, 1000])
def test_distillation_against_float64(classes, temperature):
    student, teacher = random_logits(5, 50, classes), random_logits(6, 50, classes)
    if temperature in (1e-20, 0.0):  # a tie in half of the rows
        teacher[::2, 1] = teacher[::2].max(axis=-1)
    if temperature == 1e-4:  # gaps of at least 2500 temperatures, so that the quotient's rounding does not matter
        teacher = np.round(teacher * 4) / 4
    divergence = distillation(jnp.asarray(student), jnp.asarray(teacher), temperature)
    np.testing.assert_allclose(divergence, kl_in_float64(student, teacher, temperature), rtol=2e-5, atol=2e-6)


def test_distillation_by_hand():
    """p_T = (1/2, 1/4, 1/4), p_S uniform: log 3 - (3/2) log 2."""
    student, teacher = jnp.zeros(3), jnp.log(jnp.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(distillation(student, teacher, 1.0), np.log(3) - 1.5 * np.log(2), rtol=1e-6)


def test_the_temperature_is_not_applied_to_the_student():
    """At temperature 0.5 a teacher with half of the student's logits has the student's distribution."""
    student = jnp.asarray(random_logits(7, 50, 7))
    np.testing.assert_allclose(distillation(student, student / 2, 0.5), 0, atol=1e-6)
    assert np.all(distillation(student, student, 0.5) > 1e-3)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_distillation_is_not_negative(temperature):
    student = jnp.asarray(random_logits(8, 50, 7))
    teacher = student + jnp.asarray(random_logits(9, 50, 7, scale=1e-3))  # close: the sums nearly cancel
    for one, other in ((student, teacher), (teacher, student), (student, 3 * teacher), (student, student)):
        assert np.all(distillation(one, other, temperature) >= -1e-6)


def test_distillation_of_a_teacher_into_itself_is_zero():
    logits = jnp.asarray(random_logits(10, 50, 7))
    np.testing.assert_allclose(distillation(logits, logits, 1.0), 0, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_of_distillation_is_that_of_cross_entropy_against_the_teacher(temperature):
    """Both are p_S - p_T."""
    student, teacher = random_logits(11, 50, 7), np.round(random_logits(12, 50, 7) * 4) / 4
    fixed = jnp.asarray(soften_in_float64(teacher, temperature), jnp.float32)
    gradient, _ = distillation_gradient(jnp.asarray(student), jnp.asarray(teacher), temperature)
    np.testing.assert_allclose(gradient, cross_entropy_gradient(jnp.asarray(student), fixed), atol=2e-5)
    np.testing.assert_allclose(gradient, scipy.special.softmax(student, axis=-1) - fixed, atol=2e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_no_gradient_into_the_teacher(temperature):
    student, teacher = jnp.asarray(random_logits(13, 50, 7)), jnp.asarray(random_logits(14, 50, 7))
    targets = jnp.zeros(50, jnp.int32)
    for into_student, into_teacher in (
        distillation_gradient(student, teacher, temperature),
        mixed_gradient(student, teacher, targets, temperature, 0.5),
    ):
        assert np.all(np.abs(into_student).sum(axis=-1) > 0)
        np.testing.assert_array_equal(into_teacher, np.zeros((50, 7)))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradients_are_finite(temperature, scale):
    student, teacher = random_logits(15, 50, 7, scale=scale), random_logits(16, 50, 7, scale=scale)
    teacher[:10, 0] = teacher[:10, 1:].max(axis=-1)
    student, teacher = jnp.asarray(student), jnp.asarray(teacher)
    gradient, _ = mixed_gradient(student, teacher, jnp.zeros(50, jnp.int32), temperature, 0.5)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient) <= 1 + 1e-6)
    np.testing.assert_allclose(np.sum(gradient, axis=-1), 0, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1e-20])
def test_mixed(temperature):
    student, teacher = random_logits(17, 50, 7), random_logits(18, 50, 7)
    targets = np.random.default_rng(19).integers(7, size=50)
    labels = -scipy.special.log_softmax(student.astype(np.float64), axis=-1)[np.arange(50), targets]
    distilled = kl_in_float64(student, teacher, temperature)
    for weight, wanted in ((1.0, labels), (0.0, distilled), (0.5, (labels + distilled) / 2)):
        loss = mixed(*map(jnp.asarray, (student, teacher, targets)), temperature, weight)
        np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-6)


def test_mixing_weights_as_an_array_of_replicas():
    student, teacher = jnp.zeros((1, 3)), jnp.log(jnp.array([[2.0, 1.0, 1.0]]))
    weights = jnp.array([0.0, 0.5, 1.0])
    mix = jax.vmap(mixed, in_axes=(None, None, None, None, 0))
    loss = mix(student, teacher, jnp.array([2]), 1.0, weights)
    kl = np.log(3) - 1.5 * np.log(2)
    np.testing.assert_allclose(loss[:, 0], [kl, (kl + np.log(3)) / 2, np.log(3)], rtol=1e-6)


def test_the_sum_of_each_replica_is_its_own():
    """Of eight replicas with 4,608 places each, which jaxlib 0.10.2 gave the last the first one's sum."""
    students, teacher = random_logits(20, 8, 4608, 4), random_logits(21, 4608, 4)
    summed = jax.jit(jax.vmap(lambda student: losses.distillation(student, teacher, 1.0).sum()))(students)
    alone = [kl_in_float64(student, teacher, 1.0).sum() for student in students]
    np.testing.assert_allclose(summed, alone, rtol=1e-5)


def test_numbers_of_ones_own_loss_have_limits_of_its_own():
    @settings
    class Hinge(Loss):
        margin: Number = 1.0

        def __post_init__(self):
            require(self.margin >= 1, "margin >= 1", self.margin, "raise it")

        def values(self, student, teacher, batch, numbers, params):
            return jnp.zeros(())

    assert Hinge(2.0) != Hinge(3.0)
    assert Hinge(2.0).family == Hinge(3.0).family
    assert hash(Hinge(2.0).family) == hash(Hinge(3.0).family)


# Other divergences


def divergence(loss, student, teacher):
    """The loss with its own numbers, none of them ramps, from the teacher alone."""
    numbers = {name: jnp.float32(value) for name, value in loss.numbers.items()}
    targets = jnp.zeros(student.shape[:-1], jnp.int32)
    return values(loss.family, jnp.asarray(student), jnp.asarray(teacher), targets, numbers)


def in_float64(student, teacher, temperature):
    """The student's and the teacher's distribution."""
    return scipy.special.softmax(np.asarray(student, np.float64), axis=-1), soften_in_float64(teacher, temperature)


@pytest.mark.parametrize("temperature", [2.0, 1.0, 0.1])
def test_reverse_kl_against_float64(temperature):
    student, teacher = random_logits(22, 50, 7), random_logits(23, 50, 7)
    q, p = in_float64(student, teacher, temperature)
    wanted = scipy.special.rel_entr(q, p).sum(axis=-1)
    np.testing.assert_allclose(divergence(ReverseKL(temperature), student, teacher), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-20, 0.0])
@pytest.mark.parametrize("beta", [0.5, 0.1, 0.9])
def test_jensen_shannon_against_float64(beta, temperature):
    student, teacher = random_logits(24, 50, 7), random_logits(25, 50, 7)
    q, p = in_float64(student, teacher, temperature)
    m = beta * p + (1 - beta) * q
    wanted = beta * scipy.special.rel_entr(p, m).sum(axis=-1) + (1 - beta) * scipy.special.rel_entr(q, m).sum(axis=-1)
    loss = JensenShannon(beta, temperature)
    np.testing.assert_allclose(divergence(loss, student, teacher), wanted, rtol=2e-5, atol=2e-6)


ENDS = [(1e-4, Distillation(1.0), ReverseKL(1.0)), (1 - 1e-4, ReverseKL(1.0), Distillation(1.0))]


@pytest.mark.parametrize(("beta", "end", "other"), ENDS)
def test_jensen_shannon_goes_to_the_two_divergences_at_its_ends(beta, end, other):
    """Divided by the smaller of beta and 1 - beta; what is left is of their order."""
    student, teacher = random_logits(26, 50, 7, scale=1.0), random_logits(27, 50, 7, scale=1.0)
    wanted, opposite = (divergence(loss, student, teacher) for loss in (end, other))
    scaled = divergence(JensenShannon(beta, 1.0), student, teacher) / min(beta, 1 - beta)
    np.testing.assert_allclose(scaled, wanted, atol=5e-3)
    assert np.abs(wanted - opposite).max() > 0.1


def top_k_in_float64(student, teacher, temperature, k):
    """KL over k classes and the rest as one, place by place; of equal logits the first come first."""
    q, p = in_float64(student, teacher, temperature)
    wanted = []
    for logits, *rows in zip(teacher, p, q, strict=True):
        order = np.argsort(-logits, kind="stable")
        few = [np.append(row[order[:k]], row[order[k:]].sum()) for row in rows]
        wanted.append(scipy.special.rel_entr(*few).sum())
    return wanted


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-20, 0.0])
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_top_k_against_float64(k, temperature):
    student, teacher = random_logits(28, 50, 7), np.round(random_logits(29, 50, 7))  # with many ties
    wanted = top_k_in_float64(student, teacher, temperature, k)
    np.testing.assert_allclose(divergence(TopK(k, temperature), student, teacher), wanted, rtol=2e-5, atol=2e-6)


def test_of_ties_top_k_takes_the_first():
    """Teacher (1/8, 3/8, 1/8, 3/8): k = 3 keeps the first class and not the third."""
    teacher, student = np.log(np.array([[1.0, 3.0, 1.0, 3.0]])), np.log(np.array([[4.0, 1.0, 2.0, 1.0]]))
    wanted = 1 / 8 * np.log(1 / 4) + 2 * 3 / 8 * np.log(3) + 1 / 8 * np.log(1 / 2)
    np.testing.assert_allclose(divergence(TopK(3, 1.0), student, teacher), [wanted], rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1e-20, 0.0])
def test_top_k_of_all_classes_is_distillation(temperature):
    student, teacher = random_logits(30, 50, 7), np.round(random_logits(31, 50, 7))
    wanted = divergence(Distillation(temperature), student, teacher)
    for k in (7, 8, 100):
        np.testing.assert_allclose(divergence(TopK(k, temperature), student, teacher), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize(
    "loss",
    [JensenShannon(0.5, 0.0), JensenShannon(0.1, 1.0), TopK(2, 0.0), TopK(7, 0.0), TopK(3, 1.0), ReverseKL(1.0)],
    ids=repr,
)
def test_values_and_gradients_of_other_divergences_are_finite(loss, scale):
    """A gradient shifts no logits as a whole, and moves nothing in the teacher."""
    student, teacher = random_logits(32, 50, 7, scale=scale), random_logits(33, 50, 7, scale=scale)
    teacher[:10, 0] = teacher[:10, 1:].max(axis=-1)
    assert np.isfinite(divergence(loss, student, teacher)).all()
    numbers = {name: jnp.float32(value) for name, value in loss.numbers.items()}
    targets = jnp.zeros(50, jnp.int32)
    gradient, into_teacher = values_gradient(loss.family, jnp.asarray(student), jnp.asarray(teacher), targets, numbers)
    assert np.isfinite(gradient).all()
    assert scale > 100 or np.abs(gradient).max() > 1e-3  # at 1e4 both are sure of a class everywhere
    np.testing.assert_allclose(np.sum(gradient, axis=-1), 0, atol=1e-5 * max(1, np.abs(gradient).max()))
    np.testing.assert_array_equal(into_teacher, np.zeros((50, 7)))


def test_hidden_states_stand_at_the_places_of_the_logits():
    """Asked 2 of 5 positions, as a BERT says it: all layers but the last have states at all of them."""
    everywhere, asked = jnp.ones((4, 5, 8)), jnp.ones((4, 2, 8))
    hidden = {"hidden": (everywhere, asked)}
    HiddenMatching().check(Outputs(jnp.ones((4, 2, 7)), hidden), Outputs(jnp.ones((4, 2, 7)), hidden))
    for logits in (jnp.ones((4, 5, 7)), jnp.ones((4, 7))):  # of one class for each input the last position's states
        said = Outputs(logits, hidden)
        HiddenMatching(student_layer=0, teacher_layer=0).check(said, said)
    message = r"expected a {}_layer with states at the places of its logits, \[4, 2\]; found layer 0 with \[4, 5\]; "
    said = Outputs(jnp.ones((4, 2, 7)), hidden)
    for who in ("student", "teacher"):
        with pytest.raises(ValueError, match=message.format(who)):
            HiddenMatching(**{f"{who}_layer": 0}).check(said, said)


# Their numbers


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distillation(-1.0), r"temperature of at least 0; found \(-1.0,\)"),
        (lambda: Distillation(float("nan")), "a finite number, or a Ramp"),
        (lambda: Distillation(1.0, 1.0), "label_weight below 1"),
        (lambda: TopK(2, 1.0, Ramp(0.0, 1.5)), r"label_weight from 0 to 1; found \(0.0, 1.5\)"),
        (lambda: ReverseKL(0.0), r"temperature above 0; found \(0.0,\)"),
        (lambda: ReverseKL(Ramp(1.0, 0.0)), r"temperature above 0; found \(1.0, 0.0\)"),
        (lambda: JensenShannon(0.0), "beta between 0 and 1"),
        (lambda: JensenShannon(1.0), "beta between 0 and 1"),
        (lambda: Ramp(1.0, 0.0, begin=5, end=5), "an end behind begin = 5; found 5"),
    ],
)
def test_numbers_that_make_no_loss(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("step", "temperature"), [(0, 2.0), (10, 2.0), (15, 1.75), (20, 1.5), (30, 1.0), (31, 1.0)])
def test_a_ramp_beside_a_number(step, temperature):
    """As they lie on the mesh: replicas of one program, the first with a ramp from step 10 to step 30."""
    members = [Replica(0, 1e-3, Distillation(Ramp(2.0, 1.0, 10, 30), 0.25)), Replica(1, 1e-3, Distillation(0.5, 0.75))]
    mesh = sharding.build_mesh(sharding.MeshSizes(), 2, 1)
    (numbers,) = place_hyperparameters(mesh, members).numbers
    at = jax.vmap(numbers_at, in_axes=(0, None))(numbers, jnp.int32(step))
    np.testing.assert_allclose(at["temperature"], [temperature, 0.5], rtol=1e-6)
    np.testing.assert_allclose(at["label_weight"], [0.25, 0.75], rtol=1e-6)
