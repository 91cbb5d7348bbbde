"""Layers on feature-major activations ``x_DxT``: dense, layer norm, embedding, self-attention."""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.models.attention import at_least_float32, attention, attention_weights
from pdjax.models.rotary import Rotary

INITIAL_SCALE = 0.02
normal_init = nn.initializers.normal(INITIAL_SCALE)

SMALL_TABLE = 128
"""Up to so many rows an embedding multiplies with one-hot columns, whose gradient is a product and no scatter.
On two CPU cores that saves 1 % of a training step."""


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact GELU, ``x * (1 + erf(x / sqrt 2)) / 2`` (Hendrycks & Gimpel 2016).

    Its derivative is computed together with the value, so that the backward pass evaluates no error function.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x):
    wide = x.astype(at_least_float32(x))
    cumulative = 0.5 * (1 + jax.lax.erf(wide * 0.5**0.5))
    density = jnp.exp(-0.5 * wide * wide) * (2 * jnp.pi) ** -0.5
    # d/dx of x Phi(x) is Phi(x) + x phi(x), with the normal distribution's Phi and phi.
    return (wide * cumulative).astype(x.dtype), (cumulative + wide * density).astype(x.dtype)


gelu.defvjp(_gelu_forward, lambda derivative, dy: (derivative * dy,))

Activation = Literal["gelu", "gelu_tanh", "relu"]
"""``gelu`` is exact, ``gelu_tanh`` its approximation in section 2 of Hendrycks & Gimpel (2016)."""

ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


ROWS = 512
"""So many rows of a large table's gradient are one product."""


@jax.custom_vjp
def look_up(table_VxD: Float[Array, "V D"], index_T: Int[Array, "T"]) -> Float[Array, "D T"]:
    """Returns rows of a table as columns.

    Its gradient adds columns to rows: where they are one after the other on a CPU, and by products with one-hot rows
    elsewhere. There a scatter whose sums are to be the same every time is a loop over all T on GPUs.
    """
    return jnp.take(table_VxD.T, index_T, axis=1)


def _look_up_backward(kept, d_DxT):
    table_VxD, index_T = kept
    d_VxD = jax.lax.platform_dependent(
        table_VxD, index_T, d_DxT, cpu=rows_by_scatter, default=functools.partial(rows_by_products, rows=ROWS)
    )
    return d_VxD, None


def rows_by_scatter(
    table_VxD: Float[Array, "V D"], index_T: Int[Array, "T"], d_DxT: Float[Array, "D T"]
) -> Float[Array, "V D"]:
    """Returns the gradient at a table, of which the shape alone matters, from that at what was looked up."""
    (d_VxD,) = jax.linear_transpose(lambda table: jnp.take(table.T, index_T, axis=1), table_VxD)(d_DxT)
    return d_VxD


def rows_by_products(
    table_VxD: Float[Array, "V D"], index_T: Int[Array, "T"], d_DxT: Float[Array, "D T"], rows: int
) -> Float[Array, "V D"]:
    """Returns the same, so many rows at a time."""
    num = len(table_VxD)

    def some(start: Int[Array, ""]) -> Float[Array, "N D"]:
        hot_NxT = (start + jnp.arange(rows)[:, None] == index_T[None]).astype(d_DxT.dtype)
        # A hand-written gradient is traced outside of the context that says how exact products are.
        return jnp.matmul(hot_NxT, d_DxT.T, precision="float32", preferred_element_type=table_VxD.dtype)

    blocks = jax.lax.map(some, jnp.arange(0, num, rows))
    return blocks.reshape(-1, table_VxD.shape[1])[:num]


look_up.defvjp(lambda table, index: (look_up(table, index), (table, index)), _look_up_backward)


def at_positions(
    x_DxT: Float[Array, "D T"], asked: Int[Array, "B Q"], batch_and_length: tuple[int, int]
) -> Float[Array, "D U"]:
    """Returns the tokens at the asked positions of each sequence."""
    x_DxBxL = x_DxT.reshape(-1, *batch_and_length)
    # [D, B, Q] to [D, U], sequence by sequence as the tokens were.
    return gather(x_DxBxL, asked).reshape(len(x_DxT), -1)


@jax.custom_vjp
def gather(x_DxBxL: Float[Array, "D B L"], asked: Int[Array, "B Q"]) -> Float[Array, "D B Q"]:
    """Returns what stands at the asked positions of each sequence; of its gradient see ``look_up``."""
    return jnp.take_along_axis(x_DxBxL, asked[None], axis=2)


def _gather_backward(kept, d_DxBxQ):
    x_DxBxL, asked = kept
    routes = {"cpu": positions_by_scatter, "default": positions_by_products}
    return jax.lax.platform_dependent(x_DxBxL, asked, d_DxBxQ, **routes), None


def positions_by_scatter(
    x_DxBxL: Float[Array, "D B L"], asked: Int[Array, "B Q"], d_DxBxQ: Float[Array, "D B Q"]
) -> Float[Array, "D B L"]:
    """Returns the gradient at sequences, of which the shape alone matters, from that at their asked positions."""
    (d_DxBxL,) = jax.linear_transpose(lambda x: jnp.take_along_axis(x, asked[None], axis=2), x_DxBxL)(d_DxBxQ)
    return d_DxBxL


def positions_by_products(
    x_DxBxL: Float[Array, "D B L"], asked: Int[Array, "B Q"], d_DxBxQ: Float[Array, "D B Q"]
) -> Float[Array, "D B L"]:
    """Returns the same."""
    hot_BxQxL = jax.nn.one_hot(asked, x_DxBxL.shape[2], dtype=d_DxBxQ.dtype)
    return jnp.einsum("dbq,bql->dbl", d_DxBxQ, hot_BxQxL, precision="float32").astype(x_DxBxL.dtype)


gather.defvjp(lambda x, asked: (gather(x, asked), (x, asked)), _gather_backward)


def position_embeddings(
    embedding: "Embedding", positions: Int[Array, "B L"] | None, batch_and_length: tuple[int, int]
) -> Float[Array, "D T"]:
    """Returns the vector of each token's position; without ``positions`` they are 0, 1, ... in every sequence."""
    if positions is not None:
        return embedding(positions.reshape(-1))
    batch, length = batch_and_length
    # Token b * L + l is position l of sequence b: the positions repeat for each sequence.
    return jnp.tile(embedding.table[:length].T, (1, batch))


class Dense(nn.Module):
    """``W^T x + b`` on the leading axis, for each token; the kernel is stored (in, out)."""

    features: int
    scale: float = INITIAL_SCALE  # the kernel's initial standard deviation

    @nn.compact
    def __call__(self, x_DxT: Float[Array, "D T"]) -> Float[Array, "E T"]:
        kernel = self.param("kernel", nn.initializers.normal(self.scale), (x_DxT.shape[0], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel.T @ x_DxT + bias[:, None]


class LayerNorm(nn.Module):
    """Normalises the leading axis of every token, then scales and shifts."""

    epsilon: float

    @nn.compact
    def __call__(self, x_DxT: Float[Array, "D T"]) -> Float[Array, "D T"]:
        scale = self.param("scale", nn.initializers.ones, (x_DxT.shape[0],))
        bias = self.param("bias", nn.initializers.zeros, (x_DxT.shape[0],))
        wide_DxT = x_DxT.astype(at_least_float32(x_DxT))
        centred = wide_DxT - jnp.mean(wide_DxT, axis=0, keepdims=True)
        # Of centred numbers: a mean of squares minus the square of the mean cancels digits where the mean is large.
        variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
        normalised = scale[:, None] * (centred * jax.lax.rsqrt(variance + self.epsilon)) + bias[:, None]
        return normalised.astype(x_DxT.dtype)


class Embedding(nn.Module):
    """Looks up one vector for each index; ``table`` is also what a tied output layer multiplies with."""

    num: int
    features: int

    def setup(self):
        self.table = self.param("embedding", normal_init, (self.num, self.features))

    def __call__(self, index_T: Int[Array, "T"]) -> Float[Array, "D T"]:
        if self.num > SMALL_TABLE:
            return look_up(self.table, index_T)
        return self.table.T @ jax.nn.one_hot(index_T, self.num, axis=0, dtype=self.table.dtype)


class SelfAttention(nn.Module):
    """Multi-head attention over a sequence, without the residual; also returns the weights."""

    num_heads: int
    dropout: float
    batch_and_length: tuple[int, int]  # how the T tokens fall into sequences
    head_dim: int | None = None  # None: width / num_heads
    averaged: bool = False  # the output projection sees the mean of the heads instead of all of them
    output_scale: float = INITIAL_SCALE
    rotary: Rotary | None = None

    @nn.compact
    def __call__(
        self,
        x_DxT: Float[Array, "D T"],
        bias: Float[Array, "#B #Q L"],
        deterministic: bool,
        queries_DxU: Float[Array, "D U"] | None = None,
        positions: Int[Array, "#B L"] | None = None,
        query_positions: Int[Array, "#B Q"] | None = None,
    ) -> tuple[Float[Array, "D U"], Float[Array, "B H Q L"]]:
        """Attends from ``queries_DxU``, Q positions of each sequence, or else from all of ``x_DxT``.

        ``positions`` and ``query_positions`` say where keys and queries stand; only rotary positions need to know.
        """
        width, batch = x_DxT.shape[0], self.batch_and_length[0]
        head_dim = self.head_dim if self.head_dim is not None else width // self.num_heads
        queries_DxU = x_DxT if queries_DxU is None else queries_DxU

        def heads(name: str, y_DxT: Float[Array, "D T"]) -> Float[Array, "H C B L"]:
            # Features lead and are head by head; tokens are sequence by sequence: no transposition is needed.
            return Dense(self.num_heads * head_dim, name=name)(y_DxT).reshape(self.num_heads, head_dim, batch, -1)

        q, k, v = heads("query", queries_DxU), heads("key", x_DxT), heads("value", x_DxT)
        if self.rotary is not None:
            assert positions is not None
            assert query_positions is not None
            q, k = self.rotary.turned(q, query_positions), self.rotary.turned(k, positions)
        # C numbers for each query instead of its scores, one for each key.
        q = q * head_dim**-0.5
        # For probes and dropout. Where a program uses neither, the compiler removes them.
        weights = attention_weights(q, k, bias)
        if self.dropout > 0 and not deterministic:
            dropped = nn.Dropout(self.dropout)(weights, deterministic=False)
            mixed = jnp.einsum("bhqk,hcbk->hcbq", dropped, v)
        else:
            mixed = attention(q, k, v, bias)
        # [C, B, L] averaged (figure 10 c), or [H, C, B, L], whose heads and dimensions become one axis.
        joined = jnp.mean(mixed, axis=0) if self.averaged else mixed
        return Dense(width, self.output_scale, name="output")(joined.reshape(-1, queries_DxU.shape[1])), weights
