"""Names shared by every module: the dimension glossary, batches, means and protocols.

Dimension glossary, used in jaxtyping annotations and in suffixes such as ``x_DxT``::

    B  batch (sequences or examples)      R  replicas of a sweep
    L  length (positions of a sequence)   K  checkpoints of a trajectory held on the device
    D  width of the model                 H  attention heads
    C  dimensions of one head             F  width of the feed-forward layer
    V  vocabulary or classes              N  steps of one chunk
    T  tokens of a batch, B * L           U  tokens that ask, where only some positions do
    M  monomials                          E  evaluations or checkpoints of a recorded run
    W  width of an MLP's hidden layer     S  seeds, or rows of a curriculum
    P  places: positions of strings       J  levels of a grammar

Activations inside the Transformers are *feature-major* (``x_DxT``): the features lead and all tokens of the
batch are one contiguous row. Layer norms and biases of a narrow student then run along long rows instead of
rows of sixteen numbers, and every weight gradient is a product of two long rows. On two CPU cores a whole
training step is 1.3 to 1.4 times faster than with token-major activations, and also 1.6 times faster than
with three axes (``x_DxBxL``), whose products XLA does not flatten.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

Params = Any
"""A pytree of float32 arrays, as ``model.init`` returns it."""

Inputs = Mapping[str, Array]
"""What a model reads, by name; tasks and models agree on the names."""

Logits = Any
"""What a model finds of its classes: an array [*places, V], or its factors (``pdjax.models.head.Factored``)."""

TEACHER = "teacher"
"""The named scope of what asks a teacher: by it plans tell its products from the student's."""

SELDOM = "seldom"
"""The named scope of a condition whose dearer branch runs seldom: plans count the other one."""

Examples = Mapping[str, Array]
"""What the host has read for a task whose examples lie in files, by name; arrays lead with the examples."""


class Batch(NamedTuple):
    """One batch of a task.

    ``inputs`` is what the model reads, ``targets`` the right class at every predicted place, ``weights``
    is 1 where a prediction counts and 0 elsewhere, and ``extras`` holds what probes need. Nothing in
    ``extras`` costs anything unless it is used: the compiler removes it.
    """

    inputs: Inputs
    targets: Int[Array, "*places"]
    weights: Float[Array, "*places"]
    extras: Mapping[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean carried as its two sums, so that means of uneven parts combine without bias."""

    sum: Float[Array, "*shape"]
    count: Float[Array, "*shape"]


class StepMetrics(NamedTuple):
    """What one training step measures on its batch, before the update."""

    loss: Mean
    accuracy: Mean


class Model(Protocol):
    """Pure functions around a set of parameters; the parameters live outside."""

    def init(self, key: PRNGKeyArray, inputs: Inputs) -> Params:
        """Draws initial parameters for inputs of these shapes."""
        ...

    def apply(
        self, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
    ) -> tuple[Logits, Mapping[str, Any]]:
        """Returns logits and intermediates; dropout is off without a key."""
        ...


def mean_of(values: Float[Array, "*places"], weights: Float[Array, "*places"]) -> Mean:
    """Returns the weighted sum and the total weight."""
    return Mean(jnp.sum(values * weights), jnp.sum(weights))


def ratio(mean: Mean) -> Float[Array, "*shape"]:
    """Returns ``sum / count``, and 0 where nothing was counted."""
    # Counts are sums of weights of 0 or 1: the maximum changes no other count than 0. There a plain quotient would put
    # NaN into the gradient, although `where` takes the other branch.
    return jnp.where(mean.count > 0, mean.sum / jnp.maximum(mean.count, 1), 0.0)


def exact_ratio(total: ArrayLike, count: ArrayLike) -> Float[np.ndarray, "*shape"]:
    """Returns a mean of its two sums in float64 on the host, and NaN where nothing was counted.

    Records hold the two numbers: a decision that is made from this is made again from them.
    """
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
