"""Hinge losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.hinge import Hinge, HingeLabels
from pdjax.distill.losses import Outputs, Ramp
from pdjax.errors import UserError
from pdjax.settings import make
from pdjax.types import Batch

F, G = np.array([0.0, 0.5, -2.0, 3.0]), np.array([0.4, -1.0, -3.0, 0.1])
TARGETS = np.array([0, 1, 1, 1])  # +1, -1, -1, -1
BATCH = Batch({}, jnp.array(TARGETS), jnp.ones(4), {})


def outputs(values):
    """Logits that differ by the values, and not around 0."""
    return Outputs(jnp.stack([jnp.array(values) + 0.7, jnp.full(len(values), 0.7)], axis=-1), {})


def test_values_are_the_formulas():
    from_labels = HingeLabels().values(outputs(F), None, BATCH, {}, None)
    np.testing.assert_allclose(from_labels, [1, 1.5, 0, 4], atol=1e-6)
    for alpha in (0.0, 0.25):
        taught = Hinge(alpha).values(outputs(F), outputs(G), BATCH, {"label_weight": jnp.array(alpha)}, None)
        expected = alpha * np.array([1, 1.5, 0, 4]) + (1 - alpha) * np.array([1, 1.5, 0, 0.7])
        np.testing.assert_allclose(taught, expected, atol=1e-6)


def test_gradient_is_that_of_the_side_and_none_reaches_the_teacher():
    def mean(f, g):
        return jnp.sum(Hinge().values(outputs(f), outputs(g), BATCH, {"label_weight": jnp.array(0.0)}, None))

    to_student, to_teacher = jax.grad(mean, argnums=(0, 1))(F, G)
    np.testing.assert_allclose(to_student, [-0.4, 1, 0, -0.1], atol=1e-6)
    np.testing.assert_array_equal(to_teacher, 0)


def test_what_is_not_for_it_is_refused():
    with pytest.raises(UserError, match="HingeLabels is training from labels alone"):
        make(Hinge, {"label_weight": 1.0})
    with pytest.raises(UserError, match=r"label_weight from 0 to 1; found \(0.5, 2.0\)"):
        make(Hinge, {"label_weight": Ramp(0.5, 2.0)})
    three = Outputs(jnp.zeros((4, 3)), {})
    with pytest.raises(UserError, match="two classes for a hinge loss; found 3"):
        HingeLabels().check(three, three)
    Hinge().check(outputs(F), outputs(G))
    assert (Hinge().label, Hinge(0.5).label) == ("hinge", "hinge, label weight 0.5")
