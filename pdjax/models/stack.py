"""Layers one behind the other: each with code of its own, or one that is compiled once and runs for all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pdjax.types import Params

LAYERS = "layers"
"""The parameters of scanned layers: those of one, with the layers as a leading axis of each."""


def run_layers(
    model: nn.Module,
    layer: Callable[..., nn.Module],
    x_DxT: Float[Array, "D T"],
    arguments: Mapping[str, Any],
    last: Mapping[str, Any],
) -> tuple[list[Float[Array, "D U"]], list[Float[Array, "B H Q L"]]]:
    """Runs the layers of a Transformer, within its ``__call__``.

    Args:
      model: the module; its ``settings`` say how many layers there are, whether they are scanned, and what they keep.
      layer: makes one, given where it belongs. A layer returns the stream behind it and its attention weights.
      x_DxT: the stream in front of the first.
      arguments: of every layer, by name.
      last: further ones of the last layer, by which what it returns is smaller.

    Returns:
      The streams in front of each layer and behind the last, and the attention weights of each.
    """
    of = model.settings  # pyright: ignore[reportAttributeAccessIssue]
    if of.scan_layers:
        return _scanned(model, layer(parent=None), of.num_layers, x_DxT, arguments, last)
    hidden, attention = [x_DxT], []
    for i in range(of.num_layers):
        others = last if i == of.num_layers - 1 else {}

        def run(layer: nn.Module, x_DxT: Array, others: Mapping[str, Any] = others) -> tuple[Array, Array]:
            return layer(x_DxT, **arguments, **others)  # pyright: ignore

        run = nn.remat(run) if of.rematerialize else run
        x_DxT, weights = run(layer(name=f"{LAYERS}_{i}"), x_DxT)
        hidden.append(x_DxT)
        attention.append(weights)
    return hidden, attention


def _scanned(
    model: nn.Module,
    layer: nn.Module,
    num_layers: int,
    x_DxT: Float[Array, "D T"],
    arguments: Mapping[str, Any],
    last: Mapping[str, Any],
) -> tuple[list[Float[Array, "D U"]], list[Float[Array, "B H Q L"]]]:
    def draw(key: PRNGKeyArray) -> Params:
        return jax.vmap(lambda key: layer.init(key, x_DxT, **arguments)["params"])(jax.random.split(key, num_layers))

    def run(x_DxT: Array, params: Params, key: PRNGKeyArray | None, **others: Any) -> tuple[Array, Array]:
        rngs = {} if key is None else {"dropout": key}
        return layer.apply({"params": params}, x_DxT, rngs=rngs, **arguments, **others)  # pyright: ignore

    keys = jax.random.split(model.make_rng("dropout"), num_layers) if model.has_rng("dropout") else None
    each = (model.param(LAYERS, draw), keys)
    # A last layer that returns less than the others cannot be one of the loop's: it comes behind it.
    looped = num_layers - 1 if last else num_layers

    def step(x_DxT: Array, of_layer: tuple[Params, PRNGKeyArray | None]) -> tuple[Array, tuple[Array, Array]]:
        after_DxT, weights = run(x_DxT, *of_layer)
        return after_DxT, (x_DxT, weights)

    # What a loop keeps for its backward pass is decided before XLA sees it, which otherwise recomputes what is cheap:
    # all that activations and norms pass through would be kept, more than the same layers one by one keep.
    keeps = "nothing_saveable" if model.settings.rematerialize else "dots_saveable"  # pyright: ignore
    step = jax.checkpoint(step, prevent_cse=False, policy=getattr(jax.checkpoint_policies, keeps))
    x_DxT, (before, weights) = jax.lax.scan(step, x_DxT, jax.tree.map(lambda leaf: leaf[:looped], each))
    hidden, attention = [*before, x_DxT], [*weights]
    if last:
        x_DxT, weights = run(x_DxT, *jax.tree.map(lambda leaf: leaf[-1], each), **last)
        hidden.append(x_DxT)
        attention.append(weights)
    return hidden, attention


def stacked(params: Params) -> Params:
    """Returns the parameters of a model as it has them with its layers scanned, on the host."""
    names = [name for name in params if name.startswith(f"{LAYERS}_")]
    layers = [params[f"{LAYERS}_{i}"] for i in range(len(names))]
    others = {name: part for name, part in params.items() if name not in names}
    return others | {LAYERS: jax.tree.map(lambda *leaves: np.stack(leaves), *layers)}


def unstacked(params: Params) -> Params:
    """Returns the inverse of ``stacked``, on the host; parameters of a model that scans nothing stay as they are."""
    layers = jax.tree.map(np.asarray, params.get(LAYERS, {}))
    count = len(jax.tree.leaves(layers)[0]) if layers else 0
    others = {name: part for name, part in params.items() if name != LAYERS}
    return others | {f"{LAYERS}_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(count)}
