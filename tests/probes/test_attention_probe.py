"""Path attention of patterns whose result is known."""

import jax.numpy as jnp
import numpy as np

from pdjax.probes.attention import attention_probe, path_attention
from pdjax.tasks.parity import ParityTask


def test_attention_along_a_path_is_the_product_of_its_two_weights():
    """The last position looks at position 1 alone, which looks at positions 0 and 2 with 1/4 and 3/4."""
    first = np.zeros((1, 1, 4, 4))
    first[0, 0, 1] = [0.25, 0.0, 0.75, 0.0]
    first[0, 0, 2] = [0.0, 1.0, 0.0, 0.0]
    second = np.zeros((1, 1, 4, 4))
    second[0, 0, 3, 1] = 1.0
    np.testing.assert_allclose(path_attention(first, second), [[0.25, 0.0, 0.75, 0.0]])
    np.testing.assert_allclose(path_attention(first, second[:, :, 3:]), [[0.25, 0.0, 0.75, 0.0]])


def test_heads_are_summed_before_the_product():
    first = np.tile(np.eye(3)[None, None], (1, 2, 1, 1))  # two heads, each position looks at itself
    second = np.zeros((1, 2, 3, 3))
    second[0, 0, 2, 0] = second[0, 1, 2, 1] = 1.0
    np.testing.assert_allclose(path_attention(first, second), [[2.0, 2.0, 0.0]])  # twice 1 on each


class Scaled:
    """Every position looks at all with the same weight; the parameter scales it, and odd inputs double it."""

    def apply(self, params, inputs):
        tokens = inputs["tokens"]
        batch, length = tokens.shape
        weight = params * (1 + (jnp.arange(batch) % 3 == 0)) / length
        uniform = jnp.broadcast_to(weight[:, None, None, None], (batch, 1, length, length))
        ones = jnp.ones((batch, 1, 1, length)) / length
        return None, {"attention": (uniform, ones)}


def test_medians_over_inputs_for_each_model_and_the_supports_total():
    task = ParityTask(4, 2)
    positions, support = attention_probe(task, Scaled(), 9, (0, 1), jnp.array([1.0, 0.5]), jnp.int32(0))
    np.testing.assert_allclose(positions, [[0.25] * 4, [0.125] * 4])  # two thirds of the inputs have this weight
    np.testing.assert_allclose(support, [0.5, 0.25])
