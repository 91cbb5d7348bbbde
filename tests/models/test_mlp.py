import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.base import num_parameters
from pdjax.models.mlp import Mlp
from pdjax.tasks.parity import ParityTask


@pytest.fixture(scope="module")
def task():
    return ParityTask(100, 6)


@pytest.mark.parametrize("widths", [(40,), (40, 30)])
def test_logits_are_the_textbook_composition(task, widths):
    model = Mlp(widths).build(task)
    inputs = task.sample(jax.random.key(1), 5).inputs
    params = model.init(jax.random.key(0), inputs)
    logits, intermediates = model.apply(params, inputs)
    x = np.asarray(inputs["vector"], np.float64)
    for i, width in enumerate(widths):
        layer = jax.tree.map(np.asarray, params[f"hidden_{i}"])
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
        assert x.shape == (5, width)
        np.testing.assert_allclose(intermediates["hidden"][i], x, atol=1e-5)
    output = jax.tree.map(np.asarray, params["output"])
    np.testing.assert_allclose(logits, x @ output["kernel"] + output["bias"], atol=1e-5)


def test_initial_values_are_uniform_within_one_over_the_root_of_the_fan_in(task):
    """Section C.1: weights and biases U(+-1/sqrt(fan in))."""
    params = Mlp((400,)).build(task).init(jax.random.key(0), task.sample(jax.random.key(0), 1).inputs)
    assert num_parameters(params) == 100 * 400 + 400 + 400 * 2 + 2
    for leaf, fan_in in ((params["hidden_0"]["kernel"], 100), (params["output"]["kernel"], 400)):
        bound = fan_in**-0.5
        assert jnp.abs(leaf).max() <= bound
        assert jnp.abs(leaf).max() > 0.97 * bound
        np.testing.assert_allclose(jnp.std(leaf), bound / 3**0.5, rtol=0.05)  # of a uniform distribution
        assert abs(float(leaf.mean())) < 4 * bound / (3 * leaf.size) ** 0.5
    assert 0 < jnp.abs(params["hidden_0"]["bias"]).max() <= 0.1
    assert 0 < jnp.abs(params["output"]["bias"]).max() <= 0.05
