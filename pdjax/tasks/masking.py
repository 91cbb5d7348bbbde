"""Masked prediction (definition 4.1): which positions are selected, and what replaces them.

For strings of a grammar every position is selected by itself, as in the paper; for text an exact number of each
sequence's, so that those that are predicted can be gathered into an array of one size, and none is left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

MASKED_SHARE = 0.8
RANDOM_SHARE = 0.1  # the remaining tenth keeps its token


class Masked(NamedTuple):
    """Tokens after masking, and the positions to predict."""

    tokens: Int[Array, "B L"]
    selected: Bool[Array, "B L"]


def mask_tokens(
    key: PRNGKeyArray,
    tokens: Int[Array, "B L"],
    selectable: Bool[Array, "B L"],
    rate: float,
    mask_token: int,
    num_ordinary: int,
) -> Masked:
    """Selects every selectable position with probability ``rate``, independently.

    A selected token becomes [mask] with probability 0.8, an ordinary token drawn uniformly from
    0 .. num_ordinary - 1 with 0.1, and stays with 0.1.
    """
    selection, action, choice = jax.random.uniform(key, (3, *tokens.shape))
    selected = selectable & (selection < rate)
    random_token = (choice * num_ordinary).astype(tokens.dtype)
    return Masked(_replaced(tokens, selected, action, random_token, mask_token), selected)


class MaskedExactly(NamedTuple):
    """Tokens after masking, and the positions to predict: Q of each sequence, of which the first so many count."""

    tokens: Int[Array, "B L"]
    selected: Bool[Array, "B L"]
    asked: Int[Array, "B Q"]
    counted: Bool[Array, "B Q"]


def mask_exactly(
    key: PRNGKeyArray,
    tokens: Int[Array, "B L"],
    selectable: Bool[Array, "B L"],
    units: Int[Array, "B L"],
    counts: Int[np.ndarray, "M"],
    mask_token: int,
    ordinary: Callable[[Int[Array, "B L"]], Int[Array, "B L"]],
    num_ordinary: int,
) -> MaskedExactly:
    """Selects an exact number of each sequence's selectable positions, each set of them as likely as any other.

    What replaces a selected token is as in ``mask_tokens``.

    Args:
      key: random.
      tokens: of the sequences.
      selectable: where a token may be selected: at most M - 1 positions of a sequence.
      units: of every position a number from 0 to L - 1, equal for those that are selected together, such as a word's.
        Of the last unit, what is too many stays: its last positions.
      counts: how many of 0, 1 .. M - 1 selectable positions are selected, never decreasing; the last is Q.
      mask_token: [MASK].
      ordinary: from numbers below ``num_ordinary`` to the tokens that may replace others.
      num_ordinary: how many these are.
    """
    selection_key, action_key, choice_key = jax.random.split(key, 3)
    length = tokens.shape[1]
    # A random order of the units, and within one that of its positions, in one number which no two positions share.
    rank_BxL = jnp.argsort(jnp.argsort(jax.random.uniform(selection_key, tokens.shape), axis=1), axis=1)
    order_BxL = jnp.take_along_axis(rank_BxL, units, axis=1) * length + jnp.arange(length)[None]
    order_BxL = jnp.where(selectable, order_BxL, length * length)
    asked_BxQ = jnp.argsort(order_BxL, axis=1)[:, : counts[-1]]
    count_Bx1 = jnp.asarray(counts)[jnp.sum(selectable, axis=1)][:, None]
    counted_BxQ = jnp.arange(counts[-1])[None] < count_Bx1
    # By comparisons: on a GPU a scatter that is the same every time goes through all places one by one.
    here_BxQxL = asked_BxQ[..., None] == jnp.arange(length)[None, None]
    selected_BxL = jnp.any(here_BxQxL & counted_BxQ[..., None], axis=1)
    random_token = ordinary(jax.random.randint(choice_key, tokens.shape, 0, num_ordinary, tokens.dtype))
    replaced = _replaced(tokens, selected_BxL, jax.random.uniform(action_key, tokens.shape), random_token, mask_token)
    return MaskedExactly(replaced, selected_BxL, asked_BxQ, counted_BxQ)


def _replaced(
    tokens: Int[Array, "B L"],
    selected: Bool[Array, "B L"],
    action: Float[Array, "B L"],
    random_token: Int[Array, "B L"],
    mask_token: int,
) -> Int[Array, "B L"]:
    """Returns the tokens with the selected ones replaced; ``action``, in [0, 1), says by what."""
    # Random tokens are drawn for every position, as shapes are static, and used where it is due. It may be the token
    # that was there.
    kept_or_random = jnp.where(action < MASKED_SHARE + RANDOM_SHARE, random_token, tokens)
    return jnp.where(selected, jnp.where(action < MASKED_SHARE, mask_token, kept_or_random), tokens)
