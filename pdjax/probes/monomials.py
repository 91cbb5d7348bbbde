"""Correlations of a model's predictions with monomials of its input (figures 2, 9, 12 and 17).

The correlation with the monomial of a set S of coordinates is ``|E[p(x)_1 * prod over j in S of x_j]|``, with
``p(x)_1`` the probability of the first class at temperature 1 and x uniform on {-1, +1}^d. A model that has found
the support of a parity but not yet the parity itself correlates with the support's low-degree monomials.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pdjax.config import MonomialsConfig
from pdjax.keys import named_key
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.types import Model, Params, Task

OFF_SUPPORT = -1
"""The group of monomials that are not in the support; others are numbered as the feature they are subsets of."""

Coordinates = tuple[int, ...]


class Monomials(NamedTuple):
    """Sets of coordinates, each with its group: the place of its feature, or ``OFF_SUPPORT``."""

    members: tuple[Coordinates, ...]
    groups: tuple[int, ...]

    def membership(self, dimension: int) -> Float[np.ndarray, "D M"]:
        """Returns 1 where a coordinate belongs to a monomial, else 0."""
        table = np.zeros((dimension, len(self.members)), np.float32)
        for column, coordinates in enumerate(self.members):
            table[list(coordinates), column] = 1
        return table


def choose_monomials(
    features: Sequence[Coordinates], support: Coordinates, dimension: int, config: MonomialsConfig, seed: int
) -> Monomials:
    """Lists the monomials to correlate with.

    In the support: every subset of each feature with up to ``max_degree`` coordinates. Off the support: all single
    coordinates, and for each further degree ``off_support`` different random sets with at least one coordinate
    outside (all, where there are fewer).

    Args:
      features: the sets of coordinates whose subsets are in the support.
      support: all coordinates that the task depends on.
      dimension: of the input.
      config: how many there are.
      seed: of the random ones.
    """
    members: list[Coordinates] = []
    groups: list[int] = []
    for group, feature in enumerate(features):
        for degree in range(1, min(config.max_degree, len(feature)) + 1):
            subsets = list(itertools.combinations(feature, degree))
            members += subsets
            groups += [group] * len(subsets)
    outside = sorted(set(range(dimension)) - set(support))
    longest = max((len(member) for member in members), default=0)
    off: list[Coordinates] = [(j,) for j in outside]
    generator = np.random.default_rng(seed)
    for degree in range(2, longest + 1):
        off += _random_sets(generator, degree, dimension, support, config.off_support)
    return Monomials((*members, *off), (*groups, *[OFF_SUPPORT] * len(off)))


def _random_sets(
    generator: np.random.Generator, degree: int, dimension: int, support: Coordinates, count: int
) -> list[Coordinates]:
    """Returns distinct random sets of coordinates that are not subsets of the support."""
    inside = set(support)
    possible = math.comb(dimension, degree) - math.comb(len(inside), degree)
    if possible <= count:
        return [s for s in itertools.combinations(range(dimension), degree) if not inside.issuperset(s)]
    sets: dict[Coordinates, None] = {}
    while len(sets) < count:
        candidate = tuple(sorted(generator.choice(dimension, degree, replace=False).tolist()))
        if not inside.issuperset(candidate):
            sets[candidate] = None
    return list(sets)


@with_float32_products
def correlations(
    task: Task,
    model: Model,
    config: MonomialsConfig,
    membership: Float[Array, "D M"],
    params: Params,
    seed: Int[Array, ""],
) -> Float[Array, "R M"]:
    """Returns the correlations of R models at once, their parameters stacked, over ``num_inputs`` inputs.

    All monomials of a batch are one matrix product: the number of -1 among a monomial's coordinates, whose
    parity is the monomial's sign.
    """

    def body(total: Float[Array, "R M"], index: Int[Array, ""]) -> tuple[Float[Array, "R M"], None]:
        batch = task.sample(named_key(seed, "monomials", index), config.batch_size)
        negatives_BxM = batch.inputs["tokens"].astype(jnp.float32) @ membership
        monomials_BxM = 1 - 2 * (negatives_BxM % 2)

        def first_class(params: Params) -> Float[Array, "B"]:
            return jax.nn.softmax(model.apply(params, batch.inputs)[0])[:, 0]

        return total + over_replicas(first_class)(params) @ monomials_BxM, None

    replicas = jax.tree.leaves(params)[0].shape[0]
    zeros = jnp.zeros((replicas, membership.shape[1]))
    total, _ = jax.lax.scan(body, zeros, jnp.arange(config.num_inputs // config.batch_size))
    return jnp.abs(total) / config.num_inputs
