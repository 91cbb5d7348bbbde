"""The optimizer: an optax direction, and a schedule that scales it.

The learning rate and the number of steps stay outside the optax state so that they can be arrays: replicas
of one compiled program differ in learning rate, and runs of different lengths share the program.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pdjax.config import OptimizerConfig


def direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns the transformation from gradients to an update direction, without the learning rate."""
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    if config.kind == "sgd":
        return optax.chain(*clip, optax.identity())
    return optax.chain(*clip, optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))


def schedule(config: OptimizerConfig, step: Int[Array, ""], num_steps: Int[Array, ""] | int) -> Float[Array, ""]:
    """Returns the factor on the peak learning rate at a 0-based step.

    ``cosine`` rises linearly from 0 over ``warmup_fraction * num_steps`` steps, then follows
    ``(1 + cos(pi * progress)) / 2`` down to 0 at ``num_steps``; ``constant`` keeps 1 after the warm-up.
    """
    warmup = jnp.round(config.warmup_fraction * num_steps)
    rising = step / jnp.maximum(warmup, 1)
    if config.schedule == "constant":
        return jnp.where(step < warmup, rising, 1.0)
    progress = (step - warmup) / jnp.maximum(num_steps - warmup, 1)
    return jnp.where(step < warmup, rising, 0.5 * (1 + jnp.cos(jnp.pi * progress)))
