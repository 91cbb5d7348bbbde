"""Masked prediction (definition 4.1): which positions are selected, and what replaces them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

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
    # Drawn for every position, as shapes are static, and used where it is due. It may be the token that was there.
    random_token = (choice * num_ordinary).astype(tokens.dtype)
    kept_or_random = jnp.where(action < MASKED_SHARE + RANDOM_SHARE, random_token, tokens)
    replaced = jnp.where(action < MASKED_SHARE, mask_token, kept_or_random)
    return Masked(jnp.where(selected, replaced, tokens), selected)
