"""Correlations of a model's predictions with monomials of its input (figures 2, 9, 12 and 17).

The correlation with the monomial of a set S of coordinates is ``|E[p(x)_1 * prod over j in S of x_j]|``, with
``p(x)_1`` the probability of the first class at temperature 1 and x uniform on {-1, +1}^d. A model that has found
the support of a parity but not yet the parity itself correlates with the support's low-degree monomials.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pdjax.errors import UserError, require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.head import dense
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.types import Inputs, Model, Params

OFF_SUPPORT = -1
"""The group of monomials that are not in the support; others are numbered as the feature they are subsets of."""

Coordinates = tuple[int, ...]


@settings
class MonomialProbe(Probe):
    """Correlations of a teacher's predictions with monomials in and off the support (figures 2, 9, 12 and 17)."""

    name: ClassVar[str] = "monomials"
    of_students: ClassVar[bool] = False

    max_degree: Count = 2
    """of the monomials; every subset of the support up to this size"""
    off_support: Count = 100
    """random monomials off the support, for each degree from 2 on"""
    num_inputs: Count = 4096
    """fresh inputs behind each expectation"""
    batch_size: Count = 1024
    """inputs at once, which bounds the memory"""

    def __post_init__(self):
        require(
            self.num_inputs % self.batch_size == 0,
            f"batch_size that divides num_inputs = {self.num_inputs}",
            self.batch_size,
            "every batch counts the same: change one of the two",
        )

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires a task with a support."""
        support_of(task)

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns ``correlations`` [R, M] with the monomials of ``listing``."""
        membership = jnp.asarray(self._chosen(subject.task, subject.seed).membership(subject.task.num_positions))
        measure = jax.jit(functools.partial(correlations, subject.task, subject.model, self))
        return lambda params: {"correlations": measure(membership, params, jnp.int32(subject.seed))}

    def listing(self, task: Task, seed: int) -> dict[str, Any]:
        """Returns the monomials' ``members`` and ``groups``."""
        return self._chosen(task, seed)._asdict()

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``correlation`` by ``monomial``, with its ``degree`` and ``feature`` (the root's is 0, -1 off)."""
        for row in spread("correlation", record["correlations"], monomial=range(len(listing["members"]))):
            place = row["monomial"]
            yield {**row, "degree": len(listing["members"][place]), "feature": listing["groups"][place]}

    def _chosen(self, task: Task, seed: int) -> "Monomials":
        return choose_monomials(task.levels, support_of(task), task.num_positions, self, seed)  # pyright: ignore


def support_of(task: Task) -> Coordinates:
    """Returns the coordinates that a task with ``features`` depends on.

    Raises:
      UserError: it has none.
    """
    features = getattr(task, "features", None)
    if features is None or not hasattr(task, "levels"):
        raise UserError(
            "a task with features and levels, such as ParityTask",
            type(task).__name__,
            "leave out what is about a support",
        )
    # Features do not overlap: no coordinate comes twice.
    return tuple(sorted(j for feature in features for j in feature))


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
    features: Sequence[Coordinates], support: Coordinates, dimension: int, probe: MonomialProbe, seed: int
) -> Monomials:
    """Lists the monomials to correlate with.

    In the support: every subset of each feature with up to ``max_degree`` coordinates. Off the support: all single
    coordinates, and for each further degree ``off_support`` different random sets with at least one coordinate
    outside (all, where there are fewer).

    Args:
      features: the sets of coordinates whose subsets are in the support.
      support: all coordinates that the task depends on.
      dimension: of the input.
      probe: how many there are.
      seed: of the random ones.
    """
    members: list[Coordinates] = []
    groups: list[int] = []
    for group, feature in enumerate(features):
        for degree in range(1, min(probe.max_degree, len(feature)) + 1):
            subsets = list(itertools.combinations(feature, degree))
            members += subsets
            groups += [group] * len(subsets)
    outside = sorted(set(range(dimension)) - set(support))
    longest = max((len(member) for member in members), default=0)
    off: list[Coordinates] = [(j,) for j in outside]
    # By the seed alone, as the monomials are chosen again for their listing.
    generator = np.random.default_rng(seed)
    for degree in range(2, longest + 1):
        off += _random_sets(generator, degree, dimension, support, probe.off_support)
    return Monomials((*members, *off), (*groups, *[OFF_SUPPORT] * len(off)))


def _random_sets(
    generator: np.random.Generator, degree: int, dimension: int, support: Coordinates, count: int
) -> list[Coordinates]:
    """Returns distinct random sets of coordinates that are not subsets of the support."""
    inside = set(support)
    possible = math.comb(dimension, degree) - math.comb(len(inside), degree)
    # All of them. Drawing until there are `count` might never end.
    if possible <= count:
        return [s for s in itertools.combinations(range(dimension), degree) if not inside.issuperset(s)]
    sets: dict[Coordinates, None] = {}  # a set that keeps the order of drawing
    while len(sets) < count:
        candidate = tuple(sorted(generator.choice(dimension, degree, replace=False).tolist()))
        if not inside.issuperset(candidate):
            sets[candidate] = None
    return list(sets)


def values_of_monomials(inputs: Inputs, membership: Float[Array, "D M"]) -> Float[Array, "B M"]:
    """Returns the value, 1 or -1, of every monomial at every input.

    All monomials of a batch are one matrix product: the number of -1 among a monomial's coordinates, whose
    parity is the monomial's sign.
    """
    negative_BxD = inputs["tokens"] if "tokens" in inputs else inputs["vector"] < 0
    # Counts of at most d are exact in float32, and so are products with 0 and 1 however operands are rounded.
    return 1 - 2 * ((negative_BxD.astype(jnp.float32) @ membership) % 2)


@with_float32_products
def correlations(
    task: Task,
    model: Model,
    probe: MonomialProbe,
    membership: Float[Array, "D M"],
    params: Params,
    seed: Int[Array, ""],
) -> Float[Array, "R M"]:
    """Returns the correlations of R models at once, their parameters stacked, over ``num_inputs`` inputs."""

    def body(total: Float[Array, "R M"], index: Int[Array, ""]) -> tuple[Float[Array, "R M"], None]:
        batch = task.sample(named_key(seed, "monomials", index), probe.batch_size)
        monomials_BxM = values_of_monomials(batch.inputs, membership)

        def first_class(params: Params) -> Float[Array, "B"]:
            return jax.nn.softmax(dense(model.apply(params, batch.inputs)[0]))[:, 0]

        return total + over_replicas(first_class)(params) @ monomials_BxM, None

    replicas = jax.tree.leaves(params)[0].shape[0]
    zeros = jnp.zeros((replicas, membership.shape[1]))
    total, _ = jax.lax.scan(body, zeros, jnp.arange(probe.num_inputs // probe.batch_size))
    # After the sum over all batches: a mean of batches' absolute values would be above 0 by their noise.
    return jnp.abs(total) / probe.num_inputs
