"""The output layer: all logits at once, or their two factors for what goes over many classes in blocks.

Logits of all places and of a vocabulary of tens of thousands are by far the largest array of a small model. A model
with ``vocabulary_block`` gives the factors instead; losses that know how (``pdjax.distill.vocabulary``) multiply so
many rows of the head at a time, and everything else asks for all logits with ``dense``. Of 30,522 classes 2,048 at a
time are a good number: on two CPU cores fewer or more are no faster (``benchmarks/vocabulary.py``).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from pdjax.models.attention import at_least_float32
from pdjax.models.precision import current
from pdjax.types import Logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factored:
    """Logits as a product that nobody has computed: ``head @ states + bias`` at every place."""

    states: Float[Array, "D *places"]
    head: Float[Array, "V D"]
    bias: Float[Array, "V"] | None
    block: int = dataclasses.field(metadata={"static": True})  # classes at a time
    # How exact the product is, in jax's words: it is traced outside of the model, which says so.
    precision: str | None = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the logits, [*places, V]."""
        return (*self.states.shape[1:], len(self.head))

    @property
    def flat(self) -> Float[Array, "D U"]:
        """The states at all places, one after the other."""
        return self.states.reshape(len(self.states), -1)

    def rows(self, start: ArrayLike, size: int) -> Float[Array, "size D"]:
        """Returns the head of ``size`` classes."""
        return jax.lax.dynamic_slice_in_dim(self.head, start, size)

    def logits(self, start: ArrayLike, size: int) -> Float[Array, "size U"]:
        """Returns the logits of ``size`` classes at all places, in float32 whatever the factors are."""
        wide = at_least_float32(self.states)
        with jax.default_matmul_precision(self.precision):
            logits = jnp.matmul(self.rows(start, size), self.flat, preferred_element_type=wide)
        if self.bias is None:
            return logits
        return logits + jax.lax.dynamic_slice_in_dim(self.bias, start, size)[:, None].astype(wide)


def output(
    states_DxU: Float[Array, "D U"],
    head_VxD: Float[Array, "V D"],
    bias_V: Float[Array, "V"] | None,
    places: tuple[int, ...],
    block: int | None,
) -> Logits:
    """Returns what a model finds of its classes: all logits, or with a block their factors.

    Args:
      states_DxU: of the last layer.
      head_VxD: the output layer, without rows that pad it.
      bias_V: of the classes; None: without.
      places: what the U places are; one may be -1.
      block: how many classes at a time; None: all at once.
    """
    if block is not None:
        return Factored(states_DxU.reshape(len(states_DxU), *places), head_VxD, bias_V, block, current())
    logits_VxU = head_VxD @ states_DxU
    if bias_V is not None:
        logits_VxU = logits_VxU + bias_V[:, None]
    return logits_VxU.T.reshape(*places, len(head_VxD))


def dense(logits: Logits) -> Float[Array, "*places V"]:
    """Returns the logits of all classes as one array, whether or not a model gave their factors."""
    if not isinstance(logits, Factored):
        return logits
    return logits.logits(0, len(logits.head)).T.reshape(logits.shape)
