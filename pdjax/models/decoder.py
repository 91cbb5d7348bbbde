"""Causal decoders, shared by GPT-2 and GPT-NeoX: layers on a residual stream, and a head without bias."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pdjax.errors import require
from pdjax.models.attention import HIDDEN, bias_at, segment_bias
from pdjax.models.base import input_names
from pdjax.models.head import output
from pdjax.models.layers import (
    ACTIVATIONS,
    INITIAL_SCALE,
    Dense,
    Embedding,
    LayerNorm,
    SelfAttention,
    at_positions,
    normal_init,
    position_embeddings,
)
from pdjax.models.rotary import Rotary
from pdjax.models.stack import run_layers
from pdjax.models.transformer import Transformer
from pdjax.tasks.base import Task
from pdjax.types import Inputs, Logits


class Decoder(Transformer):
    """Settings of a pre-LN decoder; for a task of one class per input, the last position decides."""

    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    answers_asked: ClassVar[bool] = True

    parallel_residual: bool = False

    @property
    def rotary(self) -> Rotary | None:
        """How queries and keys know their positions; None: the embeddings do."""
        return None

    def check(self, task: Task) -> None:
        """Raises a ``UserError`` for tasks whose answers stand in the input."""
        super().check(task)
        require(
            "selected" not in input_names(task),
            f"a model that sees both sides of the positions that {type(task).__name__} asks for",
            f"{type(self).__name__}, which sees those before them",
            "choose Bert",
        )

    def module(self, task: Task) -> nn.Module:
        """Returns the decoder with a task's tokens, classes and positions."""
        return DecoderModule(self, task.vocabulary, task.num_classes, task.num_positions, task.predicts == "example")


class DecoderLayer(nn.Module):
    """Self-attention and feed-forward, each on a layer norm of the residual stream it adds to.

    With a parallel residual both are of the stream as it comes in; else the feed-forward's has the attention in it.
    """

    settings: Decoder
    batch_and_length: tuple[int, int]

    @nn.compact
    def __call__(
        self,
        x_DxT: Float[Array, "D T"],
        bias: Float[Array, "#B L L"],
        positions: Int[Array, "#B L"],
        deterministic: bool,
        asked: Int[Array, "B Q"] | None = None,
        last_only: bool = False,
    ) -> tuple[Float[Array, "D U"], Float[Array, "B H Q L"]]:
        """Decodes all positions, the last one, or the ``asked`` ones; the others are then keys and values alone."""
        of, width = self.settings, x_DxT.shape[0]
        # Each layer adds to the residual stream twice: its variance at first does not grow with the number of layers.
        residual_scale = INITIAL_SCALE * (2 * of.num_layers) ** -0.5

        def dropped(y_DxT: Array) -> Array:
            return nn.Dropout(of.dropout)(y_DxT, deterministic=deterministic)

        # All positions, as all are keys; of the residual stream only those that ask go on.
        keys_DxT = LayerNorm(of.epsilon, name="attention_norm")(x_DxT)
        queries_DxU, query_positions = keys_DxT, positions
        if last_only:
            x_DxT, queries_DxU = (y.reshape(width, *self.batch_and_length)[:, :, -1] for y in (x_DxT, keys_DxT))
            # [#B, 1, L]: the last position sees all keys before it, and itself.
            bias, query_positions = bias[:, -1:], positions[:, -1:]
        elif asked is not None:
            x_DxT, queries_DxU = (at_positions(y, asked, self.batch_and_length) for y in (x_DxT, keys_DxT))
            bias, query_positions = bias_at(bias, asked), jnp.take_along_axis(positions, asked, axis=1)
        attended, weights = SelfAttention(
            of.num_heads,
            of.dropout,
            self.batch_and_length,
            of.dimensions_per_head,
            of.averages_heads,
            residual_scale,
            of.rotary,
            name="attention",
        )(keys_DxT, bias, deterministic, queries_DxU, positions, query_positions)
        after_DxT = x_DxT + dropped(attended)
        y_DxT = LayerNorm(of.epsilon, name="feed_forward_norm")(x_DxT if of.parallel_residual else after_DxT)
        hidden_FxT = Dense(of.feed_forward_multiple * width, name="expand")(y_DxT)
        contracted = Dense(width, residual_scale, name="contract")(ACTIVATIONS[of.activation](hidden_FxT))
        return after_DxT + dropped(contracted), weights


class DecoderModule(nn.Module):
    """Logits for every position of a sequence, or for the last one only."""

    settings: Decoder
    vocabulary: int
    num_classes: int
    length: int
    last_only: bool

    @nn.compact
    def __call__(self, inputs: Inputs, deterministic: bool = True) -> tuple[Logits, Mapping[str, Any]]:
        """Returns logits, and the residual streams and attention weights of the layers.

        Logits are [B, L, V] ([B, V] with ``last_only``), or their factors with ``vocabulary_block``.
        ``inputs`` holds ``tokens`` (integers) and, where sequences are padded, ``valid`` (not padding), both
        [B, L]. ``hidden`` has [B, L, D], embeddings first, without the final layer norm; ``attention`` has
        [B, H, L, L]. With ``last_only`` the last layer's are [B, 1, D] and [B, H, 1, L]. With ``asked`` positions
        [B, Q], logits and the last layer's states and weights are of these alone: [B, Q, ...].

        Where a row holds several strings, ``segments`` (0 is padding) keep them apart: a position attends to those of
        its own alone. ``positions`` are then those within the strings. Both are integers, [B, L], and may be missing.
        """
        of, width = self.settings, self.settings.model_width
        batch, length = inputs["tokens"].shape
        bias = causal_bias(length, inputs.get("valid"))
        if "segments" in inputs:
            bias = bias + segment_bias(inputs["segments"])
        tokens = Embedding(of.rows(self.vocabulary), width, name="tokens")
        x_DxT = tokens(inputs["tokens"].reshape(-1))
        if of.rotary is None:
            positions = Embedding(self.length, width, name="positions")
            x_DxT = x_DxT + position_embeddings(positions, inputs.get("positions"), (batch, length))
        x_DxT = nn.Dropout(of.dropout)(x_DxT, deterministic=deterministic)
        turns = inputs.get("positions", jnp.arange(length)[None])  # of rotary positions
        arguments = {"bias": bias, "positions": turns, "deterministic": deterministic}
        # Before the last layer every position is needed, as a key and value of the next.
        last: dict[str, Any] = {"asked": inputs["asked"]} if "asked" in inputs else {}
        if self.last_only:
            last = {"last_only": True}
        layer = functools.partial(DecoderLayer, of, (batch, length))
        hidden, attention = run_layers(self, layer, x_DxT, arguments, last)
        x_DxT = hidden[-1]
        y_DxT = LayerNorm(of.epsilon, name="final_norm")(x_DxT)
        if of.tied_head:
            head_VxD = tokens.table
        else:
            # Classes need not be tokens: a parity's are the leaves of its tree.
            head_VxD = self.param("head_kernel", normal_init, (width, of.rows(self.num_classes))).T
        # Rows that pad the vocabulary are of no token: none is predicted, and no softmax has them.
        places = (batch,) if self.last_only else (batch, -1)
        logits = output(y_DxT, head_VxD[: self.num_classes], None, places, of.vocabulary_block)
        intermediates = {
            "hidden": tuple(h.T.reshape(batch, -1, width) for h in hidden),
            "attention": tuple(attention),
        }
        return logits, intermediates


def causal_bias(length: int, valid: Bool[Array, "B L"] | None = None) -> Float[Array, "#B L L"]:
    """Returns the addend to attention scores that hides later keys, and padding where ``valid`` marks it."""
    visible = jnp.tri(length, dtype=bool)[None]
    # Padding behind a string is later than all of it, hence hidden already; probes hide tokens in between, too.
    if valid is not None:
        visible = visible & valid[:, None, :]
    return jnp.where(visible, 0.0, HIDDEN)
