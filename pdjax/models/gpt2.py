"""GPT-2 (Radford et al. 2019), as sections C.2 and E train it.

Pre-LN decoder, learned positions, GELU by its tanh approximation, causal attention, a head without bias; equal
to Hugging Face's ``GPT2LMHeadModel`` (``pdjax.models.hf``) when the heads are concatenated.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pdjax.config import Gpt2Config
from pdjax.errors import require
from pdjax.models.attention import HIDDEN
from pdjax.models.layers import INITIAL_SCALE, Dense, Embedding, LayerNorm, SelfAttention, at_positions, normal_init
from pdjax.types import Inputs

EPSILON = 1e-5


class DecoderLayer(nn.Module):
    """Self-attention and feed-forward, each on a layer norm of the residual stream it adds to."""

    config: Gpt2Config
    batch_and_length: tuple[int, int]
    last_only: bool  # only the last position of each sequence asks and goes on; the others are keys and values

    @nn.compact
    def __call__(
        self,
        x_DxT: Float[Array, "D T"],
        bias: Float[Array, "#B L L"],
        deterministic: bool,
        asked: Int[Array, "B Q"] | None = None,
    ) -> tuple[Float[Array, "D U"], Float[Array, "B H Q L"]]:
        """Decodes all positions, the last one, or the ``asked`` ones; the others are then keys and values alone."""
        config, width = self.config, x_DxT.shape[0]
        residual_scale = INITIAL_SCALE * (2 * config.num_layers) ** -0.5

        def dropped(y_DxT: Array) -> Array:
            return nn.Dropout(config.dropout)(y_DxT, deterministic=deterministic)

        keys_DxT = LayerNorm(EPSILON, name="attention_norm")(x_DxT)
        queries_DxU = keys_DxT
        if self.last_only:
            x_DxT, queries_DxU = (y.reshape(width, *self.batch_and_length)[:, :, -1] for y in (x_DxT, keys_DxT))
            bias = bias[:, -1:]
        elif asked is not None:
            x_DxT, queries_DxU = (at_positions(y, asked, self.batch_and_length) for y in (x_DxT, keys_DxT))
            bias = jnp.take_along_axis(bias, asked[:, :, None], axis=1)
        attended, weights = SelfAttention(
            config.num_heads,
            config.dropout,
            self.batch_and_length,
            config.dimensions_per_head,
            config.heads == "average",
            residual_scale,
            name="attention",
        )(keys_DxT, bias, deterministic, queries_DxU)
        x_DxT = x_DxT + dropped(attended)
        y_DxT = LayerNorm(EPSILON, name="feed_forward_norm")(x_DxT)
        hidden_FxT = Dense(config.feed_forward_multiple * width, name="expand")(y_DxT)
        contracted = Dense(width, residual_scale, name="contract")(jax.nn.gelu(hidden_FxT, approximate=True))
        return x_DxT + dropped(contracted), weights


class Gpt2(nn.Module):
    """Logits for every position of a sequence, or for the last one only."""

    config: Gpt2Config
    vocabulary: int
    num_classes: int
    length: int
    last_only: bool

    @nn.compact
    def __call__(
        self, inputs: Inputs, deterministic: bool = True
    ) -> tuple[Float[Array, "*places V"], Mapping[str, Any]]:
        """Returns logits ([B, V] with ``last_only``), and the residual streams and attention weights of the layers.

        ``inputs`` holds ``tokens`` (integers) and, where sequences are padded, ``valid`` (not padding), both
        [B, L]. ``hidden`` has [B, L, D], embeddings first, without the final layer norm; ``attention`` has
        [B, H, L, L]. With ``last_only`` the last layer's are [B, 1, D] and [B, H, 1, L]. With ``asked`` positions
        [B, Q], logits and the last layer's states and weights are of these alone: [B, Q, ...].
        """
        config, width = self.config, self.config.model_width
        require(
            not config.tied_head or self.num_classes == self.vocabulary,
            f"as many classes as tokens ({self.vocabulary}) with a tied head",
            f"{self.num_classes} classes",
            "set tied_head to False",
        )
        batch, length = inputs["tokens"].shape
        bias = causal_bias(length, inputs.get("valid"))
        tokens = Embedding(self.vocabulary, width, name="tokens")
        positions = Embedding(self.length, width, name="positions")
        x_DxT = tokens(inputs["tokens"].reshape(-1)) + jnp.tile(positions.table[:length].T, (1, batch))
        x_DxT = nn.Dropout(config.dropout)(x_DxT, deterministic=deterministic)
        hidden, attention = [x_DxT], []
        for i in range(config.num_layers):
            last = i == config.num_layers - 1
            layer = DecoderLayer(config, (batch, length), self.last_only and last, name=f"layers_{i}")
            x_DxT, weights = layer(x_DxT, bias, deterministic, inputs.get("asked") if last else None)
            hidden.append(x_DxT)
            attention.append(weights)
        y_DxT = LayerNorm(EPSILON, name="final_norm")(x_DxT)
        if config.tied_head:
            logits_VxT = tokens.table @ y_DxT
        else:
            logits_VxT = self.param("head_kernel", normal_init, (width, self.num_classes)).T @ y_DxT
        intermediates = {
            "hidden": tuple(h.T.reshape(batch, -1, width) for h in hidden),
            "attention": tuple(attention),
        }
        shape = (batch,) if self.last_only else (batch, -1)
        return logits_VxT.T.reshape(*shape, self.num_classes), intermediates


def causal_bias(length: int, valid: Bool[Array, "B L"] | None = None) -> Float[Array, "#B L L"]:
    """Returns the addend to attention scores that hides later keys, and padding where ``valid`` marks it."""
    visible = jnp.tri(length, dtype=bool)[None]
    if valid is not None:
        visible = visible & valid[:, None, :]
    return jnp.where(visible, 0.0, HIDDEN)
