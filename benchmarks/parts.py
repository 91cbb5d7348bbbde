"""The parts of one training step of this package, and the products in it, for ``pcfg_step.py``.

Every part is repeated inside one compiled loop, as in a training chunk. Called on its own, a large function
pays for fresh memory on each call, which on a CPU can cost more than its arithmetic.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from timing import alternate

from pdjax.distill import losses
from pdjax.models.attention import attention
from pdjax.models.base import LinenModel
from pdjax.tasks.pcfg import PcfgTask
from pdjax.train.optimizer import Adam
from pdjax.types import Batch


def repeated(function: Callable[..., Any], argument: Any, fixed: Any, times: int) -> Callable[[], int]:
    """Returns a function that evaluates ``function(argument, fixed)`` a number of times in a compiled loop.

    A tiny multiple of all results is added to the next argument, so that no evaluation can be left out.
    """

    def body(argument: Any, fixed: Any) -> Any:
        total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(argument, fixed)))
        return jax.tree.map(lambda leaf: leaf + 1e-20 * total, argument)

    @jax.jit
    def loop(argument: Any, fixed: Any) -> Any:
        return jax.lax.fori_loop(0, times, lambda _, carried: body(carried, fixed), argument)

    def run() -> int:
        jax.block_until_ready(loop(argument, fixed))
        return times

    return run


def parts(model: LinenModel, params: Any, batch: Batch, adam: Adam, times: int) -> dict[str, Callable]:
    """Returns the parts of a step, by name; attention is a part of the passes, the optimizer is not."""
    settings = model.module.settings  # pyright: ignore[reportAttributeAccessIssue]
    sequences, length = batch.targets.shape
    transform = adam.direction()
    shape = (settings.num_heads, settings.model_width // settings.num_heads, sequences, length)
    q, k, v = jax.random.normal(jax.random.key(0), (3, *shape))
    bias = jnp.zeros((sequences, 1, length))

    def loss(params: Any, batch: Batch) -> jax.Array:
        values = losses.cross_entropy(model.apply(params, batch.inputs)[0], batch.targets)
        return jnp.sum(values * batch.weights) / jnp.sum(batch.weights)

    def attend(qkv: Any, bias: jax.Array) -> jax.Array:
        query, key, value = qkv
        return attention(query, key, value, bias)

    def attended(qkv: Any, bias: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(attend(qkv, bias)))

    def layered(function: Callable) -> Callable[[], int]:
        run = repeated(function, (q, k, v), bias, settings.num_layers * times)
        return lambda: run() // settings.num_layers  # per step, all layers

    return {
        "forward": repeated(lambda p, b: model.apply(p, b.inputs)[0], params, batch, times),
        "forward and backward": repeated(jax.grad(loss), params, batch, times),
        "attention, forward": layered(attend),
        "attention, forward and backward": layered(jax.grad(attended)),
        "clip and Adam": repeated(transform.update, params, transform.init(params), times),
    }


def matmul_flops(model: LinenModel, batch: Batch) -> int:
    """Returns the floating-point operations in the matrix products of one forward pass."""
    settings = model.module.settings  # pyright: ignore[reportAttributeAccessIssue]
    width, (sequences, length) = settings.model_width, batch.targets.shape
    tokens = sequences * length
    layer = 2 * tokens * (4 + 2 * settings.feed_forward_multiple) * width**2 + 4 * tokens * length * width
    ends = 2 * tokens * (width**2 + 2 * model.module.vocabulary * width)  # pyright: ignore[reportAttributeAccessIssue]
    return settings.num_layers * layer + ends


def sampling() -> dict[str, float]:
    """Returns sequences per second of the grammar sampler."""
    rates = {}
    for name, root, batch_size in (("cfg3b under 16", 16, 64), ("cfg3b", None, 512)):
        task = PcfgTask("cfg3b", root)
        draw = jax.jit(functools.partial(task.sample, batch_size=batch_size))
        keys = itertools.count()

        def run(draw: Callable = draw, keys: Any = keys) -> int:
            for _ in range(5):
                jax.block_until_ready(draw(jax.random.key(next(keys)))[:3])
            return 5

        rates[f"{name}, batch {batch_size}"] = 1e3 * batch_size / alternate({name: run}, 10)[name].median
    return rates
