"""Agreement of models whose logits we choose with teachers whose logits we choose."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.keys import named_key
from pdjax.probes.agreement import AgreementProbe, agreement
from pdjax.settings import make
from pdjax.tasks.parity import ParityTask
from pdjax.types import ratio

CONFIG = AgreementProbe(num_batches=3, batch_size=16)


class ByToken:
    """Its parameters are the logits for each token of the input, at every position."""

    def apply(self, params, inputs):
        return params[inputs["tokens"]], {}


class ByFirst:
    """Its parameters are the logits of the input for each first token."""

    def apply(self, params, inputs):
        return params[inputs["tokens"][:, 0]], {}


def table(seed, classes=7):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(classes, classes)), jnp.float32)


def measure(task, model, params, teacher_params):
    function = functools.partial(agreement, task, model, model, CONFIG)
    return jax.jit(function)(params, teacher_params, jnp.int32(1))


def held_out(task):
    """The batches that are measured on, as numpy."""
    return [
        jax.tree.map(np.asarray, task.sample(named_key(1, "agreement", index), CONFIG.batch_size))
        for index in range(CONFIG.num_batches)
    ]


def expected(task, params, teacher_params):
    """Same class and divergence over the places that count, one at a time."""
    same, divergence = [], []
    for batch in held_out(task):
        for b, i in zip(*np.nonzero(batch.weights), strict=True):
            student, teacher = (
                np.asarray(t, np.float64)[batch.inputs["tokens"][b, i]] for t in (params, teacher_params)
            )
            p, q = (np.exp(x) / np.exp(x).sum() for x in (teacher, student))
            same.append(student.argmax() == teacher.argmax())
            divergence.append(sum(p_c * math.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True)))
    return np.mean(same), np.mean(divergence), len(same)


def test_several_students_of_one_teacher_place_by_place(task):
    students = [table(1), table(2), 0.1 * table(1)]
    agreements = measure(task, ByToken(), jnp.stack(students), table(3))
    for row, student in enumerate(students):
        same, divergence, count = expected(task, student, table(3))
        assert ratio(agreements.same)[row] == pytest.approx(same, abs=1e-6)
        assert ratio(agreements.divergence)[row] == pytest.approx(divergence, rel=1e-4)
        assert agreements.same.count[row] == agreements.divergence.count[row] == count


def test_a_model_agrees_with_itself_entirely(task):
    for params in (table(1), 3 * table(2)):
        agreements = measure(task, ByToken(), params[None], params)
        np.testing.assert_array_equal(ratio(agreements.same), [1])
        np.testing.assert_allclose(ratio(agreements.divergence), [0], atol=1e-6)


def test_divergence_by_hand_and_from_the_teacher():
    """Teacher (3/4, 1/4), students (1/2, 1/2) and (1/4, 3/4): KL = 3/4 log(3/2) + 1/4 log(1/2), and log(3) / 2."""
    parity = ParityTask(4, 2)
    teacher = jnp.log(jnp.array([[0.75, 0.25]] * 2))
    students = jnp.log(jnp.array([[[0.5, 0.5]] * 2, [[0.25, 0.75]] * 2]))
    agreements = measure(parity, ByFirst(), students, teacher)
    uniform = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    np.testing.assert_allclose(ratio(agreements.divergence), [uniform, math.log(3) / 2], rtol=1e-5)
    np.testing.assert_array_equal(ratio(agreements.same), [1, 0])  # the first of equal classes is the most likely
    assert (agreements.same.count == 48).all()  # one prediction for each input


@pytest.mark.parametrize("name", ["num_batches", "batch_size"])
def test_bad_configurations(name):
    with pytest.raises(UserError, match=f"expected {name} of at least 1; found 0"):
        make(AgreementProbe, {"num_batches": 1, "batch_size": 1, name: 0})
