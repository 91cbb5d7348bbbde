"""Sparse parity and its hierarchical generalisation (definition 3.1, section C.3), sampled fresh at every step."""

import abc
import functools
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.settings import Count, Seed, settings
from pdjax.tasks.base import Task
from pdjax.types import Batch

Feature = tuple[int, ...]
"""Coordinates whose product decides a branch."""


class Parities(Task):
    """Uniform inputs on {-1, +1}^d whose class is the leaf that a binary tree of parities leads to.

    The product -1 of a node goes left and +1 goes right; nodes are numbered breadth first and leaves from left to
    right.

    ``inputs`` holds the same coordinates as ``vector`` (floats, [B, d]) for an MLP and as ``tokens`` (0 for +1,
    1 for -1; [B, d]) for a Transformer: what a model does not read costs nothing. There is one prediction for
    each input; every one counts.
    """

    predicts: ClassVar[Literal["positions", "example"]] = "example"
    dimension: int
    degree: int
    depth: int
    support: Literal["first", "random"]
    support_seed: int

    @property
    def num_classes(self) -> int:
        """The leaves of the tree."""
        return 2**self.depth

    @property
    def vocabulary(self) -> int:
        """A coordinate has two values."""
        return 2

    @property
    def num_positions(self) -> int:
        """The coordinates."""
        return self.dimension

    @functools.cached_property
    def features(self) -> tuple[Feature, ...]:
        """The coordinates of every node, breadth first."""
        nodes = self.num_classes - 1
        order = np.arange(self.dimension)
        if self.support == "random":
            with jax.ensure_compile_time_eval():  # first asked for while a program is traced, it is a constant there
                order = np.asarray(jax.random.permutation(named_key(self.support_seed, "support"), self.dimension))
        # Parts of one order, so that features never overlap.
        taken = order[: nodes * self.degree].reshape(nodes, self.degree)
        return tuple(tuple(sorted(row)) for row in taken.tolist())

    @property
    def levels(self) -> tuple[Feature, ...]:
        """The features on the way to class 0, from the root down: those that decide about that class."""
        # The way to the first leaf: node 1, then always the left child 2 j.
        return tuple(self.features[2**level - 1] for level in range(self.depth))

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws inputs and labels them."""
        # One random word has 32 coordinates, where floats would take a word for each.
        words = jax.random.bits(key, (batch_size, -(-self.dimension // 32)), jnp.uint32)
        bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & 1
        tokens = bits.reshape(batch_size, -1)[:, : self.dimension].astype(jnp.int32)
        x = (1 - 2 * tokens).astype(jnp.float32)
        return Batch({"vector": x, "tokens": tokens}, self.label(x), jnp.ones(batch_size), {})

    @abc.abstractmethod
    def label(self, x: Float[Array, "B D"]) -> Int[Array, "B"]:
        """Returns the class of each input."""

    def products(self, x: Float[Array, "B D"]) -> Float[Array, "nodes B"]:
        """Returns the parity of every node."""
        # Products of +1 and -1, exact in float32.
        return jnp.stack([jnp.prod(x[:, jnp.array(feature)], axis=1) for feature in self.features])


Dimension = Annotated[int, Field(ge=1, le=2**20)]  # the support is drawn from a permutation of so many


@settings
class ParityTask(Parities):
    """Sparse parity (definition 3.1), a tree of one node: class 0 if the product over the support is +1, else 1.

    These are the classes 1 and 2 of the definition.
    """

    dimension: Dimension = 50
    """d, the coordinates of an input"""
    degree: Count = 5
    """k, the coordinates of the support"""
    support: Literal["first", "random"] = "first"
    """the first k coordinates, or k that are drawn without replacement"""
    support_seed: Seed = 0
    """of the random support"""

    learned: ClassVar[float | None] = 0.9
    depth: ClassVar[int] = 1  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self):
        require(
            self.degree <= self.dimension,
            f"degree of at most dimension = {self.dimension}",
            self.degree,
            "the support is a set of coordinates: lower the degree or raise the dimension",
        )

    def label(self, x: Float[Array, "B D"]) -> Int[Array, "B"]:
        """Returns the class of each input."""
        return (self.products(x)[0] < 0).astype(jnp.int32)


@settings
class HierarchicalTask(Parities):
    """Hierarchical parity (section C.3): a binary tree of sparse parities on disjoint coordinates."""

    dimension: Dimension = 50
    """d, the coordinates of an input"""
    degree: Count = 3
    """k, the coordinates of each node's feature"""
    depth: Count = 3
    """D, the levels of the tree; its 2**D leaves are the classes"""
    support: Literal["first", "random"] = "first"
    """node j has the coordinates [(j - 1) k, j k), or those of a random permutation"""
    support_seed: Seed = 0
    """of the random permutation"""

    def __post_init__(self):
        nodes = 2**self.depth - 1
        require(
            nodes * self.degree <= self.dimension,
            f"dimension of at least {nodes * self.degree}, {nodes} features of {self.degree} coordinates "
            "that do not overlap",
            self.dimension,
            "lower the depth or the degree, or raise the dimension",
        )

    def label(self, x: Float[Array, "B D"]) -> Int[Array, "B"]:
        """Returns the class of each input."""
        right = (self.products(x) > 0).astype(jnp.int32)
        node = jnp.zeros(len(x), jnp.int32)  # breadth first, the root is 0: the children of j are 2 j + 1 and 2 j + 2
        for _ in range(self.depth):
            node = 2 * node + 1 + jnp.take_along_axis(right, node[None], axis=0)[0]
        return node - (self.num_classes - 1)  # leaves come behind the 2**depth - 1 inner nodes
