"""The two-layer network of the theory (appendix B), with its symmetric initialisation."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pdjax.errors import require
from pdjax.models.base import LinenArchitecture
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import check_pair
from pdjax.types import Inputs


@settings
class SymmetricMlp(LinenArchitecture):
    """``f(x) = sum_i a_i relu(w_i . x + b_i)``, which is 0 everywhere at first (appendix B).

    Half of the neurons have w uniform in {-1, +1}^d, b uniform in {-1 + 1/k, ..., 1 - 1/k} and a uniform in
    {-1/m, +1/m}; the other half repeats w and b with a negated. The biases are read as 1/k apart: the second stage is
    to fit the parity by the neurons of one pattern of signs, and 2/k apart these cannot.
    """

    reads: ClassVar[tuple[str, ...]] = ("vector",)

    width: Count = 128
    """m, the neurons: an even number"""
    aligned: bool = False
    """whether w is +1 on the parity's support in all neurons. The proof of lemma B.5 assumes such signs of one neuron
    without loss of generality, and then uses them of all: what these contribute to E f x_j adds up, where that of
    random signs cancels"""

    def __post_init__(self):
        require(self.width % 2 == 0, "an even width", self.width, "neurons come in pairs: add one")

    def check(self, task: Task) -> None:
        """Requires a sparse parity of an even degree in an odd dimension."""
        super().check(task)
        require(isinstance(task, ParityTask), "a ParityTask", type(task).__name__, "biases depend on its degree")
        assert isinstance(task, ParityTask)
        check_pair(task.dimension, task.degree)

    def module(self, task: Task) -> nn.Module:
        """Returns the network for a parity."""
        assert isinstance(task, ParityTask)
        return SymmetricModule(self.width, task.degree, task.features[0] if self.aligned else ())


class MirroredLayer(nn.Module):
    """``x W + b`` for each example, the two halves of the neurons equal at first."""

    width: int
    degree: int  # k of the parity
    aligned: tuple[int, ...]  # coordinates at which all w are +1

    @nn.compact
    def __call__(self, x_BxD: Float[Array, "B D"]) -> Float[Array, "B W"]:
        half, degree = self.width // 2, self.degree

        def signs(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "D W"]:
            drawn = jax.random.rademacher(key, (shape[0], half), jnp.float32)
            return jnp.tile(drawn.at[jnp.array(self.aligned, int)].set(1.0), (1, 2))

        def grid(key: PRNGKeyArray, shape: tuple[int]) -> Float[Array, "W"]:
            return jnp.tile(jax.random.randint(key, (half,), 1 - degree, degree) / degree, 2)

        kernel = self.param("kernel", signs, (x_BxD.shape[-1], self.width))
        return x_BxD @ kernel + self.param("bias", grid, (self.width,))[None]


class Sum(nn.Module):
    """``h . a`` for each example, where a cancels out at first if both halves of h are equal."""

    @nn.compact
    def __call__(self, h_BxW: Float[Array, "B W"]) -> Float[Array, "B"]:
        def mirrored(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "W 1"]:
            signs = jax.random.rademacher(key, (shape[0] // 2, 1), jnp.float32) / shape[0]
            return jnp.concatenate([signs, -signs])

        return (h_BxW @ self.param("kernel", mirrored, (h_BxW.shape[-1], 1)))[:, 0]


class SymmetricModule(nn.Module):
    """The network, its output as the logits of two classes."""

    width: int
    degree: int
    aligned: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, inputs: Inputs, deterministic: bool = True) -> tuple[Float[Array, "B 2"], Mapping[str, Any]]:
        """Returns logits, and the activations of the hidden layer; ``inputs`` holds ``vector``, [B, D].

        There is no dropout, so ``deterministic`` changes nothing.
        """
        h = jax.nn.relu(MirroredLayer(self.width, self.degree, self.aligned, name="hidden_0")(inputs["vector"]))
        return logits_of(Sum(name="output")(h)), {"hidden": (h,)}


def logits_of(output: Float[Array, "*places"]) -> Float[Array, "*places 2"]:
    """Returns f as logits of the classes +1 and -1, which differ by it: class 0 is right where the parity is +1."""
    return jnp.stack([output / 2, -output / 2], axis=-1)


def output_of(logits: Float[Array, "*places 2"]) -> Float[Array, "*places"]:
    """Returns f of the logits of two classes, whatever model they are of: by how much the first is above the second."""
    return logits[..., 0] - logits[..., 1]
