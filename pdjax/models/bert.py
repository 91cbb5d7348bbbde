"""BERT (Devlin et al. 2018) with its masked-language-model head, as section D.5 trains it.

Post-LN encoder, learned positions, exact GELU, decoder tied to the token embedding plus a bias; with ``token_types``
equal to Hugging Face's ``BertForMaskedLM`` (``pdjax.weights.layouts``) for tokens of one type. Without them the
embedding of token type 0, a constant, is part of the position embeddings.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from pydantic import Field

from pdjax.models.attention import HIDDEN, bias_at, segment_bias
from pdjax.models.head import output
from pdjax.models.layers import (
    ACTIVATIONS,
    Activation,
    Dense,
    Embedding,
    LayerNorm,
    SelfAttention,
    at_positions,
    normal_init,
    position_embeddings,
)
from pdjax.models.precision import Compute
from pdjax.models.stack import run_layers
from pdjax.models.transformer import Transformer
from pdjax.settings import Aside, Count, Positive, Share, settings
from pdjax.tasks.base import Task
from pdjax.types import Inputs, Logits


@settings
class Bert(Transformer):
    """A BERT encoder with a masked-language-model head (section D.5)."""

    reads: ClassVar[tuple[str, ...]] = ("tokens", "valid", "selected")
    answers_asked: ClassVar[bool] = True

    num_layers: Count = 4
    num_heads: Count = 8
    head_dim: Count | None = 8
    """None: width / num_heads"""
    width: Count | None = None
    """of the residual stream; None: num_heads * head_dim"""
    feed_forward_multiple: Count = 4
    """the width of the feed-forward layer, in widths of the residual stream"""
    dropout: Share = 0.0
    """0.1 in the released code, which left it on during evaluation too"""
    attend_to_selected: bool = True
    """False: selected positions are invisible as keys, as in the released code"""
    compute: Compute = "float32"
    """the type in which it computes: see ``Compute``"""
    scan_layers: bool = False
    """one layer is compiled and runs for all, so that many compile about as fast as one; parameters have the layers
    as an axis (see ``pdjax.models.stack``)"""
    rematerialize: Annotated[bool, Aside()] = False
    """layers keep nothing for the backward pass but what came in, and run again there: a third more to compute, and
    memory for one layer's activations instead of all"""
    activation: Activation = "gelu"
    """of the feed-forward layers and of the head"""
    epsilon: Positive = 1e-12
    """added to variances in layer norms"""
    tied_head: bool = True
    """the output layer is the token embedding"""
    vocabulary_rows: Count | None = None
    """of the token embedding, and of the output layer; more than tokens are padding, which no string has and nothing
    predicts. None: as many as tokens"""
    vocabulary_block: Count | None = None
    """the output layer goes over so many classes at a time, where the loss can (``pdjax.distill.vocabulary``). None:
    all at once"""
    token_types: Annotated[int, Field(ge=0)] = 0
    """rows of an embedding of token types, of which all tokens get the first. Published models have 2"""

    def module(self, task: Task) -> nn.Module:
        """Returns the encoder with a task's tokens and positions."""
        return BertModule(self, task.vocabulary, task.num_positions)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by the residual sum and a layer norm."""

    settings: Bert
    batch_and_length: tuple[int, int]

    @nn.compact
    def __call__(
        self,
        x_DxT: Float[Array, "D T"],
        bias: Float[Array, "#B #L L"],
        deterministic: bool,
        asked: Int[Array, "B Q"] | None = None,
    ) -> tuple[Float[Array, "D U"], Float[Array, "B H Q L"]]:
        """Encodes all positions, or only the ``asked`` ones; the others are then keys and values alone."""
        of, width = self.settings, x_DxT.shape[0]
        queries_DxU = x_DxT  # the residual stream goes on at the positions that ask, and only there
        if asked is not None:
            queries_DxU = at_positions(x_DxT, asked, self.batch_and_length)
            bias = bias_at(bias, asked)

        def dropped(y_DxT: Array) -> Array:
            return nn.Dropout(of.dropout)(y_DxT, deterministic=deterministic)

        attended, weights = SelfAttention(of.num_heads, of.dropout, self.batch_and_length, name="attention")(
            x_DxT, bias, deterministic, queries_DxU
        )
        x_DxU = LayerNorm(of.epsilon, name="attention_norm")(queries_DxU + dropped(attended))
        hidden_FxU = Dense(of.feed_forward_multiple * width, name="expand")(x_DxU)
        contracted = Dense(width, name="contract")(ACTIVATIONS[of.activation](hidden_FxU))
        return LayerNorm(of.epsilon, name="output_norm")(x_DxU + dropped(contracted)), weights


class BertModule(nn.Module):
    """Token logits for every position of a sequence."""

    settings: Bert
    vocabulary: int
    length: int

    @nn.compact
    def __call__(self, inputs: Inputs, deterministic: bool = True) -> tuple[Logits, Mapping[str, Any]]:
        """Returns logits, and the hidden states and attention weights of the layers.

        Logits are [B, L, V], or their factors with ``vocabulary_block``; ``hidden`` has [B, L, D], embeddings first.
        ``inputs`` holds ``tokens`` (integers), ``valid`` (not padding) and ``selected`` (positions to
        predict, hidden as keys when ``attend_to_selected`` is off), all [B, L]. With ``asked`` positions [B, Q],
        logits and the last layer's states and weights are of these alone: [B, Q, ...].

        Where a row holds several strings, ``segments`` (0 is padding) keep them apart: a position attends to those of
        its own alone. ``positions`` are then those within the strings. Both are integers, [B, L], and may be missing.
        """
        of, width = self.settings, self.settings.model_width
        batch, length = inputs["tokens"].shape
        bias = key_bias(inputs["valid"], inputs["selected"], of.attend_to_selected)
        if "segments" in inputs:
            bias = bias + segment_bias(inputs["segments"])
        tokens = Embedding(of.rows(self.vocabulary), width, name="tokens")
        positions = Embedding(self.length, width, name="positions")
        x_DxT = tokens(inputs["tokens"].reshape(-1))
        if of.token_types > 0:
            x_DxT = x_DxT + Embedding(of.token_types, width, name="token_types").table[0][:, None]
        x_DxT = x_DxT + position_embeddings(positions, inputs.get("positions"), (batch, length))
        x_DxT = LayerNorm(of.epsilon, name="embedding_norm")(x_DxT)
        x_DxT = nn.Dropout(of.dropout)(x_DxT, deterministic=deterministic)
        # Before the last layer every position is needed, as a key and value of the next.
        last = {"asked": inputs["asked"]} if "asked" in inputs else {}
        layer = functools.partial(EncoderLayer, of, (batch, length))
        hidden, attention = run_layers(self, layer, x_DxT, {"bias": bias, "deterministic": deterministic}, last)
        x_DxT = hidden[-1]
        y_DxT = ACTIVATIONS[of.activation](Dense(width, name="transform")(x_DxT))
        y_DxT = LayerNorm(of.epsilon, name="transform_norm")(y_DxT)
        decoder_bias = self.param("decoder_bias", nn.initializers.zeros, (len(tokens.table),))
        if of.tied_head:
            head_VxD = tokens.table
        else:
            head_VxD = self.param("head_kernel", normal_init, (width, len(tokens.table))).T
        rows = slice(self.vocabulary)  # the others pad the head
        logits = output(y_DxT, head_VxD[rows], decoder_bias[rows], (batch, -1), of.vocabulary_block)
        intermediates = {
            "hidden": tuple(h.T.reshape(batch, -1, width) for h in hidden),
            "attention": tuple(attention),
        }
        return logits, intermediates


def key_bias(
    valid: Bool[Array, "B L"], selected: Bool[Array, "B L"], attend_to_selected: bool
) -> Float[Array, "B 1 L"]:
    """Returns the addend to attention scores that hides padding, and selected positions if asked to."""
    # As keys only: a hidden position still asks, and is predicted from the others.
    visible = valid if attend_to_selected else valid & ~selected
    return jnp.where(visible, 0.0, HIDDEN)[:, None, :]
