"""Batches without what does not count: positions behind all strings, and places of which nothing is asked.

Shapes are static, and a batch whose strings are all of the longest kind needs every position. Most do not: a program
has two branches, one for batches within bounds that nearly all keep, and one for the others. Both give the same
results up to rounding, as padding is hidden to attention and weighs nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from pdjax.tasks.base import Bounds
from pdjax.types import Batch


def narrowly(bounds: Bounds | None, function: Callable[[Batch], Any], batch: Batch) -> Any:
    """Returns what a function finds of a batch, or of what counts of it where that is within the bounds.

    Args:
      bounds: None where there are none to profit from.
      function: gives the same for both.
      batch: one, [B, L], or several with a further axis in front.
    """
    if bounds is None:
        return function(batch)
    return jax.lax.cond(
        fits(bounds, batch), lambda batch: function(narrowed(bounds, batch)), function, batch._replace(extras={})
    )


def fits(bounds: Bounds, batch: Batch) -> Bool[Array, ""]:
    """Whether all that counts of a batch is within the bounds."""
    within = ~jnp.any(batch.inputs["valid"][..., bounds.length :])
    if bounds.asked is None:
        return within
    return within & (jnp.max(jnp.sum(batch.weights > 0, axis=-1)) <= bounds.asked)


def narrowed(bounds: Bounds, batch: Batch) -> Batch:
    """Returns what counts of a batch that fits: so many positions, and of so many of them the predictions."""
    inputs = {name: leaf[..., : bounds.length] for name, leaf in batch.inputs.items()}
    targets, weights = batch.targets[..., : bounds.length], batch.weights[..., : bounds.length]
    if bounds.asked is None:
        return Batch(inputs, targets, weights, {})
    # Those that count come first, in their order; of the others some fill up, and weigh nothing.
    asked = jnp.argsort(weights <= 0, axis=-1, stable=True)[..., : bounds.asked]
    targets, weights = (jnp.take_along_axis(leaf, asked, axis=-1) for leaf in (targets, weights))
    return Batch({**inputs, "asked": asked}, targets, weights, {})
