"""M_robust and M_close of masked language models on text (section 4.2, figure 6 middle): equations 5 and 6.

Places are ordinary tokens of held-out rows; n-grams are of the tokens of their piece, of which [CLS] and [SEP] are
none: they always stay.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pdjax.keys import named_key
from pdjax.models.head import dense
from pdjax.models.replicas import over_replicas
from pdjax.tasks.text import TextTask, positions_of
from pdjax.types import Examples, Inputs, Model, Params


def text_distances(
    task: TextTask,
    model: Model,
    grams: Sequence[int],
    num_positions: int,
    batch_size: int,
    params: Params,
    seed: Int[Array, ""],
    examples: Examples,
) -> Float[Array, "R M N P"]:
    """Returns M_robust and M_close of R models at once, their parameters stacked, for each n and place.

    Args:
      task: whose tokens these are.
      model: answers at ``asked`` positions alone.
      grams: the sizes n of n-grams.
      num_positions: places of each row, drawn with repetition.
      batch_size: contexts at once, of 1 + 2 for each n at every place, which bounds the memory.
      params: of R models.
      seed: of the places, the same for every model.
      examples: rows, [1, S, L].
    """
    tokens, segments = (examples[name][0].astype(jnp.int32) for name in ("tokens", "segments"))
    ordinary = (segments > 0) & (tokens != task.corpus.first) & (tokens != task.corpus.last)
    position = _places(seed, ordinary, num_positions)
    row = jnp.repeat(jnp.arange(len(tokens)), num_positions)
    # Blocks of equally many places: the last one repeats the first ones.
    size = max(1, batch_size // (1 + 2 * len(grams)))
    blocks = -(-len(row) // size)
    chosen = jnp.arange(blocks * size) % len(row)

    def distances(places: Int[Array, "B"]) -> Float[Array, "R C B"]:
        here, at = row[places], position[places]
        hidden_CxBxL = _hidden(at, grams, ordinary[here], segments[here])
        inputs = _inputs(task, hidden_CxBxL, tokens[here], segments[here], at)

        def predictions(params: Params) -> Float[Array, "C B V"]:
            logits = dense(model.apply(params, inputs)[0])[:, 0]
            return jax.nn.softmax(logits).reshape(*hidden_CxBxL.shape[:2], -1)

        p_RxCxBxV = over_replicas(predictions)(params)
        # Context 0 hides nothing but the place itself: all others are compared with it.
        return 0.5 * jnp.sum(jnp.abs(p_RxCxBxV[:, 1:] - p_RxCxBxV[:, :1]), axis=-1)

    apart = jax.lax.map(distances, chosen.reshape(blocks, size))
    apart_RxCxP = jnp.moveaxis(apart, 0, 2).reshape(*apart.shape[1:3], -1)[..., : len(row)]
    return apart_RxCxP.reshape(len(apart_RxCxP), 2, len(grams), -1)


def _places(seed: Int[Array, ""], ordinary: Bool[Array, "S L"], num_positions: int) -> Int[Array, "P"]:
    """Returns positions of each row, each of its ordinary tokens as likely; one row's after the other's."""
    count = jnp.sum(ordinary, axis=1, keepdims=True)
    uniform = jax.random.uniform(named_key(seed, "ngrams"), (len(ordinary), num_positions))
    # The product may be rounded up to their number.
    rank = jnp.minimum((uniform * count).astype(jnp.int32), count - 1)
    # The first position up to which more than `rank` tokens are ordinary.
    return jnp.sum(jnp.cumsum(ordinary, axis=1)[:, None] <= rank[:, :, None], axis=-1).reshape(-1)


def _hidden(
    position: Int[Array, "B"], grams: Sequence[int], ordinary: Bool[Array, "B L"], segments: Int[Array, "B L"]
) -> Bool[Array, "C B L"]:
    """Returns what each context hides: the place alone, then for each n its n-gram, then all but its n-gram."""
    distance = jnp.arange(ordinary.shape[1])[None] - position[:, None]
    same = ordinary & (segments == jnp.take_along_axis(segments, position[:, None], axis=1))
    place = distance == 0
    windows = jnp.stack([(distance >= -(n // 2)) & (distance <= (n - 1) // 2) for n in grams])
    return jnp.concatenate([place[None], windows & same[None], (~windows & same[None]) | place[None]])


def _inputs(
    task: TextTask,
    hidden: Bool[Array, "C B L"],
    tokens: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    position: Int[Array, "B"],
) -> Inputs:
    """Returns what a model reads: all contexts of all places as one batch, asked at the place."""

    def repeated(array: Array) -> Array:
        return jnp.broadcast_to(array[None], (len(hidden), *array.shape)).reshape(-1, *array.shape[1:])

    selected, segments = hidden.reshape(-1, tokens.shape[1]), repeated(segments)
    return {
        "tokens": jnp.where(selected, task.corpus.mask, repeated(tokens)),
        "valid": segments > 0,
        "selected": selected,
        "segments": segments,
        "positions": positions_of(segments),
        "asked": repeated(position[:, None]),
    }
