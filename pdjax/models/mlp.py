"""Multi-layer perceptron on vectors, as section C.1 trains it."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from pdjax.models.base import LinenArchitecture
from pdjax.models.precision import Compute
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.types import Inputs


@settings
class Mlp(LinenArchitecture):
    """Linear layers with ReLU between them, weights and biases uniform in +-1/sqrt(fan in) (section C.1)."""

    reads: ClassVar[tuple[str, ...]] = ("vector",)

    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (100,)
    """of the hidden layers"""
    compute: Compute = "float32"
    """the type in which it computes: see ``Compute``"""

    def module(self, task: Task) -> nn.Module:
        """Returns the layers for a task's classes."""
        return MlpModule(self.widths, task.num_classes)


class Linear(nn.Module):
    """``x W + b`` for each example; the kernel is stored (in, out), all uniform in +-1/sqrt(in) at first."""

    features: int

    @nn.compact
    def __call__(self, x_BxD: Float[Array, "B D"]) -> Float[Array, "B E"]:
        # As PyTorch's linear layers begin: the bias, too, which in Flax's is 0 at first.
        fan_in = x_BxD.shape[-1]

        def uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
            return jax.random.uniform(key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)

        kernel = self.param("kernel", uniform, (fan_in, self.features))
        bias = self.param("bias", uniform, (self.features,))
        return x_BxD @ kernel + bias[None]


class MlpModule(nn.Module):
    """Linear layers with ReLU between them."""

    widths: tuple[int, ...]  # of the hidden layers
    num_classes: int

    @nn.compact
    def __call__(self, inputs: Inputs, deterministic: bool = True) -> tuple[Float[Array, "B V"], Mapping[str, Any]]:
        """Returns class logits, and the activations of the hidden layers; ``inputs`` holds ``vector``, [B, D].

        There is no dropout, so ``deterministic`` changes nothing.
        """
        x, hidden = inputs["vector"], []
        for i, width in enumerate(self.widths):
            x = jax.nn.relu(Linear(width, name=f"hidden_{i}")(x))
            hidden.append(x)
        return Linear(self.num_classes, name="output")(x), {"hidden": tuple(hidden)}
