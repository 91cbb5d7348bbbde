"""Layers against numpy, and the two routes of an embedding against each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models import layers
from pdjax.models.layers import Dense, Embedding, LayerNorm, gelu

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_dense():
    kernel, bias, x = normal(5, 3), normal(3), normal(5, 11)
    out = Dense(3).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.array([[kernel[:, e] @ x[:, t] + bias[e] for t in range(11)] for e in range(3)])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_layer_norm():
    scale, bias, x = normal(6), normal(6), 3 * normal(6, 9) + 2
    out = LayerNorm(0.1).apply({"params": {"scale": scale, "bias": bias}}, x)
    for t in range(9):
        column = x[:, t].astype(np.float64)
        expected = (column - column.mean()) / np.sqrt(column.var() + 0.1) * scale + bias
        np.testing.assert_allclose(out[:, t], expected, atol=1e-5)


def test_layer_norm_of_a_constant_is_its_bias():
    bias = normal(4)
    out = LayerNorm(1e-12).apply({"params": {"scale": normal(4), "bias": bias}}, np.full((4, 3), 7.0, np.float32))
    np.testing.assert_array_equal(out, np.tile(bias[:, None], (1, 3)))


def test_layer_norm_removes_shift_and_scale_from_the_gradient():
    scale, x, dy = normal(8), normal(8, 5), normal(8, 5)
    params = {"params": {"scale": scale, "bias": normal(8)}}
    gradient = jax.grad(lambda x: jnp.sum(LayerNorm(0.0).apply(params, x) * dy))(x)
    np.testing.assert_allclose(gradient.sum(0), 0.0, atol=1e-5)
    np.testing.assert_allclose((gradient * (x - x.mean(0))).sum(0), 0.0, atol=1e-5)
    assert np.abs(gradient).max() > 0.1


def test_gelu_and_its_derivative():
    x = np.linspace(-6, 6, 49, dtype=np.float32)
    cumulative = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()])
    density = np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(gelu(x), x * cumulative, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), cumulative + x * density, atol=1e-6)


def test_embedding_is_a_look_up():
    table, index = normal(7, 4), np.array([6, 0, 3, 3, 5])
    out = Embedding(7, 4).apply({"params": {"embedding": table}}, index)
    np.testing.assert_allclose(out, table[index].T, atol=1e-7)


@pytest.mark.parametrize("num", [7, 129])
def test_both_routes_of_an_embedding_agree(monkeypatch, num):
    table, weight = normal(num, 4), normal(4, 12)
    index = RNG.integers(0, num, 12)
    index[:3] = num - 1  # repeated: its gradient is a sum

    def route(limit):
        monkeypatch.setattr(layers, "SMALL_TABLE", limit)

        def loss(table):
            out = Embedding(num, 4).apply({"params": {"embedding": table}}, index)
            return jnp.sum(jnp.sin(out) * weight), out

        uses_product = "dot_general" in str(jax.make_jaxpr(loss)(table))
        (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(table)
        return uses_product, out, gradient

    (one_hot, product, product_gradient), (not_one_hot, taken, taken_gradient) = route(num), route(num - 1)
    assert one_hot
    assert not not_one_hot
    np.testing.assert_allclose(product, taken, atol=1e-7)
    np.testing.assert_allclose(product_gradient, taken_gradient, atol=1e-5)
    unused = np.setdiff1d(np.arange(num), index)
    assert not product_gradient[unused].any()
    assert np.abs(product_gradient[num - 1]).max() > 0


@pytest.mark.parametrize("rows", [4, 5, 100])
def test_both_gradients_of_a_look_up_agree(rows):
    """By additions, as on a CPU, and by products; indices repeat, and blocks of rows need not divide the table."""
    table, index, d = normal(11, 3), np.array([6, 0, 3, 3, 10, 3]), normal(3, 6)
    expected = jax.grad(lambda table: jnp.sum(layers.look_up(table, index) * d))(table)
    np.testing.assert_allclose(layers.rows_by_scatter(table, index, d), expected, atol=1e-6)
    np.testing.assert_allclose(layers.rows_by_products(table, index, d, rows), expected, atol=1e-6)
    by_hand = np.zeros((11, 3))
    np.add.at(by_hand, index, d.T)
    np.testing.assert_allclose(expected, by_hand, atol=1e-6)


def test_both_gradients_at_asked_positions_agree():
    x, asked, d = normal(3, 2, 5), np.array([[4, 0, 4], [1, 2, 3]]), normal(3, 2, 3)
    expected = jax.grad(lambda x: jnp.sum(layers.gather(x, asked) * d))(x)
    np.testing.assert_allclose(layers.positions_by_scatter(x, asked, d), expected, atol=1e-6)
    np.testing.assert_allclose(layers.positions_by_products(x, asked, d), expected, atol=1e-6)
    by_hand = np.zeros((3, 2, 5))
    for b, q in np.ndindex(asked.shape):
        by_hand[:, b, asked[b, q]] += d[:, b, q]
    np.testing.assert_allclose(expected, by_hand, atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_scatters_are_for_cpus(platform):
    """Elsewhere they are slow, or come out another way every time."""
    table, x = jnp.ones((200, 4)), jnp.ones((4, 2, 5))
    index, asked = jnp.array([3, 0, 3]), jnp.array([[4], [0]])

    def loss(table, x):
        return layers.look_up(table, index).sum() + layers.gather(x, asked).sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).trace(table, x).lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count('"stablehlo.scatter"(') == (2 if platform == "cpu" else 0)
    assert ("stablehlo.dot_general" in lowered) == (platform != "cpu")
