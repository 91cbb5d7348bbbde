"""What a model is shown around a place of a string: the whole string, all but an n-gram, or the n-gram alone.

A context is one row of tokens that says everything: ``ASKED`` at the position to predict, ``MASK`` where a token is
hidden, ``PAD`` behind what the model gets. Equal rows are equal questions, which a model is asked once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from pdjax.keys import named_key
from pdjax.tasks.pcfg import BOS, MASK, PAD, VOCABULARY
from pdjax.types import Batch, Inputs

ASKED = VOCABULARY  # the first number that is no token's


class Places(NamedTuple):
    """Strings, each with a position to predict."""

    tokens: Int[Array, "P L"]
    valid: Bool[Array, "P L"]
    position: Int[Array, "P"]


class Distinct(NamedTuple):
    """The different ones among Q contexts, shortest first: ``total`` of them, which only the data say."""

    row: Int[Array, "Q"]  # where the k-th different context is found, for k < total
    slot: Int[Array, "Q"]  # the k that each context is equal to
    total: Int[Array, ""]


def draw_places(key: PRNGKeyArray, batch: Batch, positions: int, masked: bool) -> Places:
    """Draws positions of each string of a batch, uniformly: for next-token models of those that count in the loss.

    At other positions nobody has taught them anything. Masked models learn all positions but [BOS].

    Returns:
      ``positions`` places for each string, one string after the other.
    """
    tokens, valid = batch.extras["tokens"], batch.inputs["valid"]
    terminal = valid & (jnp.arange(valid.shape[1]) > 0)[None]
    # Weights of next-token tasks stand one position before the token that they are about.
    counts = terminal if masked else jnp.pad(batch.weights > 0, ((0, 0), (1, 0)))[:, :-1]
    total = counts.sum(1, keepdims=True)
    uniform = jax.random.uniform(key, (len(tokens), positions))
    # Which of the places that count. The product may be rounded up to their number.
    rank = jnp.minimum((uniform * total).astype(jnp.int32), total - 1)
    # The first position up to which more than `rank` places count.
    position = jnp.sum(jnp.cumsum(counts, axis=1)[:, None] <= rank[:, :, None], axis=-1)
    return Places(jnp.repeat(tokens, positions, axis=0), jnp.repeat(valid, positions, axis=0), position.reshape(-1))


def contexts(places: Places, grams: tuple[int, ...], masked: bool) -> Int[Array, "C P L"]:
    """Returns the contexts of places: the full one, then for each n what M_robust compares it with, then M_close.

    Args:
      places: to predict.
      grams: the sizes n of n-grams.
      masked: whether a masked language model predicts, from both sides, or a next-token one, from the tokens before.
    """
    index = jnp.arange(places.tokens.shape[1])[None]
    distance = index - places.position[:, None]
    windows = jnp.stack([_window(distance, n, masked) for n in grams])
    # A next-token model keeps the token before the place: something must be there that predicts.
    removed = windows if masked else windows & (distance < -1)[None]
    # [C, P, L], the full context first; [BOS], at index 0, is never hidden.
    hidden = jnp.concatenate([jnp.zeros_like(windows[:1]), removed, ~windows]) & (index > 0)[None]
    # A next-token model is given nothing behind the place: equal beginnings are equal questions.
    given = places.valid if masked else distance < 0
    rows = jnp.where(hidden, MASK, places.tokens[None])
    rows = jnp.where(given[None], rows, PAD)
    # Last, over whatever token is there: no context shows what it asks for.
    return jnp.where(distance[None] == 0, ASKED, rows).astype(jnp.int8)


def _window(distance: Int[Array, "P L"], n: int, masked: bool) -> Bool[Array, "P L"]:
    """Returns where the n-grams lie: around the position (definition 4.2), or the n - 1 tokens before it."""
    if masked:
        return (distance >= -(n // 2)) & (distance <= (n - 1) // 2)
    return (distance > -n) & (distance < 0)


def num_tokens(rows: Int[Array, "B L"], masked: bool) -> Int[Array, "B"]:
    """Returns how many tokens of each context a model needs."""
    return jnp.sum(rows != PAD, axis=1) - (0 if masked else 1)


def model_inputs(rows: Int[Array, "B L"], masked: bool, length: int) -> Inputs:
    """Returns what a model reads to predict the asked token of each context, cut to ``length`` tokens.

    A masked language model sees [MASK] in place of hidden tokens, and is asked at the position itself; a next-token
    model does not see them as keys, and is asked at the position before.
    """
    position = jnp.argmax(rows == ASKED, axis=1)[:, None]
    rows = rows[:, :length].astype(jnp.int32)
    if masked:
        selected = (rows == MASK) | (rows == ASKED)
        tokens = jnp.where(selected, MASK, rows)
        return {"tokens": tokens, "valid": rows != PAD, "selected": selected, "asked": position}
    valid = (rows != PAD) & (rows != MASK) & (rows != ASKED)
    # `ASKED` has no embedding; what stands at hidden positions does not matter.
    return {"tokens": jnp.where(valid, rows, BOS), "valid": valid, "asked": position - 1}


def distinct(rows: Int[Array, "Q L"], length: Int[Array, "Q"]) -> Distinct:
    """Finds the different contexts.

    Rows are sorted by their lengths and by two random sums, which brings equal ones together; whether neighbours are
    equal is then seen from all of their tokens.
    """
    count, width = rows.shape
    # Fixed numbers and no setting: they change no result. Of different rows with the same length and sums, equal ones
    # may end up apart; then they are asked twice, and answered the same.
    weights = jax.random.bits(named_key(0, "contexts"), (2, 1, width), jnp.uint32)
    sums = jnp.sum(rows.astype(jnp.uint32)[None] * weights, axis=2, dtype=jnp.uint32)
    order = jax.lax.sort((length, *sums, jnp.arange(count)), num_keys=3)[3]
    together = rows[order]
    new = jnp.any(together[1:] != together[:-1], axis=1)
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new, dtype=jnp.int32)])
    # Several rows have one number: `min` makes the choice among them the same everywhere, a plain `set` would not.
    first = jnp.full(count, count).at[number].min(order)
    return Distinct(first, jnp.zeros(count, jnp.int32).at[order].set(number), number[-1] + 1)
