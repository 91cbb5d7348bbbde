"""Layers on feature-major activations ``x_DxT``: dense, layer norm, embedding, self-attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.models.attention import attention, attention_weights

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
    cumulative = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    density = jnp.exp(-0.5 * x * x) * (2 * jnp.pi) ** -0.5
    return x * cumulative, cumulative + x * density


gelu.defvjp(_gelu_forward, lambda derivative, dy: (derivative * dy,))


class Dense(nn.Module):
    """``W^T x + b`` on the leading axis, for each token; the kernel is stored (in, out)."""

    features: int

    @nn.compact
    def __call__(self, x_DxT: Float[Array, "D T"]) -> Float[Array, "E T"]:
        kernel = self.param("kernel", normal_init, (x_DxT.shape[0], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel.T @ x_DxT + bias[:, None]


class LayerNorm(nn.Module):
    """Normalises the leading axis of every token, then scales and shifts."""

    epsilon: float

    @nn.compact
    def __call__(self, x_DxT: Float[Array, "D T"]) -> Float[Array, "D T"]:
        scale = self.param("scale", nn.initializers.ones, (x_DxT.shape[0],))
        bias = self.param("bias", nn.initializers.zeros, (x_DxT.shape[0],))
        centred = x_DxT - jnp.mean(x_DxT, axis=0, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
        return scale[:, None] * (centred * jax.lax.rsqrt(variance + self.epsilon)) + bias[:, None]


class Embedding(nn.Module):
    """Looks up one vector for each index; ``table`` is also what a tied output layer multiplies with."""

    num: int
    features: int

    def setup(self):
        self.table = self.param("embedding", normal_init, (self.num, self.features))

    def __call__(self, index_T: Int[Array, "T"]) -> Float[Array, "D T"]:
        if self.num > SMALL_TABLE:
            return jnp.take(self.table.T, index_T, axis=1)
        return self.table.T @ jax.nn.one_hot(index_T, self.num, axis=0)


class SelfAttention(nn.Module):
    """Multi-head attention over a sequence, without the residual; also returns the weights."""

    num_heads: int
    dropout: float
    batch_and_length: tuple[int, int]  # how the T tokens fall into sequences

    @nn.compact
    def __call__(
        self, x_DxT: Float[Array, "D T"], bias: Float[Array, "#B #L L"], deterministic: bool
    ) -> tuple[Float[Array, "D T"], Float[Array, "B H L L"]]:
        width = x_DxT.shape[0]

        def heads(name: str) -> Float[Array, "H C B L"]:
            return Dense(width, name=name)(x_DxT).reshape(self.num_heads, -1, *self.batch_and_length)

        q, k, v = heads("query"), heads("key"), heads("value")
        q = q * (width // self.num_heads) ** -0.5
        weights = attention_weights(q, k, bias)
        if self.dropout > 0 and not deterministic:
            dropped = nn.Dropout(self.dropout)(weights, deterministic=False)
            mixed = jnp.einsum("bhqk,hcbk->hcbq", dropped, v)
        else:
            mixed = attention(q, k, v, bias)
        return Dense(width, name="output")(mixed.reshape(width, -1)), weights
