"""Sparse parity and its hierarchical generalisation (definition 3.1, section C.3), sampled fresh at every step."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pdjax.config import HierarchicalTaskConfig, ParityTaskConfig
from pdjax.keys import named_key
from pdjax.types import Batch

Feature = tuple[int, ...]
"""Coordinates whose product decides a branch."""


class ParityTask:
    """Uniform inputs on {-1, +1}^d whose class is the leaf that a binary tree of parities leads to.

    Sparse parity is a tree of one node. Its class is 0 if the product over the support is +1, else 1 (the
    classes 1 and 2 of definition 3.1). In a hierarchical task the product -1 of a node goes left and +1 goes
    right; nodes are numbered breadth first and leaves from left to right.

    ``inputs`` holds the same coordinates as ``vector`` (floats, [B, d]) for an MLP and as ``tokens`` (0 for +1,
    1 for -1; [B, d]) for a Transformer: what a model does not read costs nothing. There is one prediction for
    each input; every one counts.
    """

    predicts: Literal["positions", "example"] = "example"
    vocabulary = 2

    def __init__(self, config: ParityTaskConfig | HierarchicalTaskConfig):
        self.config = config
        self.length = config.dimension
        self.depth = config.depth if isinstance(config, HierarchicalTaskConfig) else 1
        self.num_classes = 2**self.depth
        nodes = self.num_classes - 1
        order = np.arange(config.dimension)
        if config.support == "random":
            key = named_key(config.support_seed, "support")
            order = np.asarray(jax.random.permutation(key, config.dimension))
        taken = order[: nodes * config.degree].reshape(nodes, config.degree)
        self.features: tuple[Feature, ...] = tuple(tuple(sorted(row)) for row in taken.tolist())

    @property
    def levels(self) -> tuple[Feature, ...]:
        """The features on the way to class 0, from the root down: those that decide about that class."""
        # The way to the first leaf: node 1, then always the left child 2 j.
        return tuple(self.features[2**level - 1] for level in range(self.depth))

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws inputs and labels them."""
        words = jax.random.bits(key, (batch_size, -(-self.length // 32)), jnp.uint32)
        bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & 1
        tokens = bits.reshape(batch_size, -1)[:, : self.length].astype(jnp.int32)
        x = (1 - 2 * tokens).astype(jnp.float32)
        targets = self.label(x)
        return Batch({"vector": x, "tokens": tokens}, targets, jnp.ones(batch_size), {})

    def label(self, x: Float[Array, "B D"]) -> Int[Array, "B"]:
        """Returns the class of each input."""
        products = jnp.stack([jnp.prod(x[:, jnp.array(feature)], axis=1) for feature in self.features])
        if isinstance(self.config, ParityTaskConfig):
            return (products[0] < 0).astype(jnp.int32)
        right = (products > 0).astype(jnp.int32)
        node = jnp.zeros(len(x), jnp.int32)  # breadth first, the root is 0: the children of j are 2 j + 1 and 2 j + 2
        for _ in range(self.depth):
            node = 2 * node + 1 + jnp.take_along_axis(right, node[None], axis=0)[0]
        return node - (self.num_classes - 1)
