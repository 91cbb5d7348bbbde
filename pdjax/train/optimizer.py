"""Optimizers: an optax direction, and a schedule that scales it.

The learning rate and the number of steps stay outside the optax state so that they can be arrays: replicas
of one compiled program differ in learning rate, and runs of different lengths share the program.
"""

import abc
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from pydantic import Field

from pdjax.distill.losses import Loss
from pdjax.models.base import Architecture
from pdjax.models.stack import LAYERS
from pdjax.settings import Choice, Positive, Share, settings
from pdjax.tasks.base import Task
from pdjax.types import Params


class Optimizer(Choice, abc.ABC):
    """How gradients become updates, and how their size changes over a training (section D.6)."""

    schedule: Literal["constant", "cosine"] = "constant"  # these three where an optimizer has no such field
    warmup_fraction: float = 0.0
    clip_norm: float | None = None

    def rule(self) -> optax.GradientTransformation:
        """Returns the transformation from gradients, clipped already, to an update direction: here none."""
        return optax.identity()

    def direction(self) -> optax.GradientTransformation:
        """Returns the transformation from gradients to an update direction, without the learning rate."""
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, self.rule())

    def check(self, model: Architecture, task: Task, losses: Sequence[Loss]) -> None:
        """Raises a ``UserError`` where it is not for a model of a task, or for what that learns from."""

    @property
    def turns(self) -> dict[str, int]:
        """Steps at which it begins to do something else, by the field that says so; chunks end there."""
        return {}

    def init(self, params: Params) -> optax.OptState:
        """Returns its state before the first step."""
        return self.direction().init(params)

    def update(
        self,
        gradients: Params,
        opt_state: optax.OptState,
        params: Params,
        rate: Float[Array, ""],
        step: Int[Array, ""],
        num_steps: Int[Array, ""],
    ) -> tuple[Params, optax.OptState]:
        """Returns what a step leaves of the parameters and of its own state.

        Args:
          gradients: of the parameters, before the step.
          opt_state: before it.
          params: before it.
          rate: the peak learning rate.
          step: how many were done before.
          num_steps: the length of the whole run.
        """
        # The direction points uphill and has no rate in it: that is an array by replica, and comes last.
        directions, opt_state = self.direction().update(gradients, opt_state, params)
        scale = rate * self.factor(step, num_steps)
        return jax.tree.map(lambda p, u: p - scale * u, params, directions), opt_state

    def factor(self, step: Int[Array, ""], num_steps: Int[Array, ""] | int) -> Float[Array, ""]:
        """Returns the factor on the peak learning rate at a 0-based step.

        ``cosine`` rises linearly from 0 over ``warmup_fraction * num_steps`` steps, then follows
        ``(1 + cos(pi * progress)) / 2`` down to 0 at ``num_steps``; ``constant`` keeps 1 after the warm-up.
        """
        # `num_steps` may be traced, hence `where` and no branch; both sides are computed, so neither may divide by 0.
        warmup = jnp.round(self.warmup_fraction * num_steps)
        rising = step / jnp.maximum(warmup, 1)
        if self.schedule == "constant":
            return jnp.where(step < warmup, rising, 1.0)
        progress = (step - warmup) / jnp.maximum(num_steps - warmup, 1)
        return jnp.where(step < warmup, rising, 0.5 * (1 + jnp.cos(jnp.pi * progress)))


@settings
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), by default with 6 % warm-up and half a cosine to 0."""

    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine: linear warm-up, then half a cosine to 0"""
    warmup_fraction: Share = 0.06
    """of all steps"""
    clip_norm: Positive | None = None
    """on the norm of the whole gradient; None does not clip"""
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """added to the direction, in weights (Loshchilov & Hutter 2019): of kernels and embeddings, not of biases and the
    scales of norms"""

    def rule(self) -> optax.GradientTransformation:
        """Returns optax's."""
        adam = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)
        # Without decay the state stays what it was before there was any.
        return optax.chain(adam, optax.add_decayed_weights(self.weight_decay, _kernels)) if self.weight_decay else adam


def _kernels(params: Params) -> Params:
    """Returns, for each parameter, whether it has several axes of its own: scanned layers are one more."""

    def of(path: tuple[Any, ...], leaf: Array) -> bool:
        return leaf.ndim - any(getattr(key, "key", None) == LAYERS for key in path) > 1

    return jax.tree_util.tree_map_with_path(of, params)


@settings
class Sgd(Optimizer):
    """Plain gradient descent."""

    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: linear warm-up, then half a cosine to 0"""
    warmup_fraction: Share = 0.0
    """of all steps"""
    clip_norm: Positive | None = None
    """on the norm of the whole gradient; None does not clip"""
