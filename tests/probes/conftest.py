"""What the probes of strings share: short strings of cfg3b, for masked and for next-token models."""

import jax
import jax.numpy as jnp
import pytest

from pdjax.tasks.pcfg import PcfgTask
from pdjax.types import Batch


class NextToken:
    """The strings of a masked task, whole, for a model that predicts the next token."""

    def __init__(self, task):
        self.task = task
        self.rules, self.num_positions, self.vocabulary, self.num_classes, self.predicts = (
            task.rules,
            task.num_positions,
            task.vocabulary,
            task.num_classes,
            task.predicts,
        )

    def sample(self, key, batch_size):
        batch = self.task.sample(key, batch_size)
        inputs = {"tokens": batch.extras["tokens"], "valid": batch.inputs["valid"]}
        targets = jnp.roll(batch.targets, -1, axis=1)
        weights = jnp.pad(inputs["valid"][:, 1:], ((0, 0), (0, 1))).astype(jnp.float32)
        return Batch(inputs, targets, weights, batch.extras)


@pytest.fixture(scope="session")
def task():
    """Strings of 8 to 18 terminals, behind [BOS]."""
    return PcfgTask("cfg3b", 13)


@pytest.fixture(scope="session")
def next_token(task):
    """The same for next-token models."""
    return NextToken(task)


@pytest.fixture(scope="session")
def randomly():
    """Draws parameters large enough that every part of a model matters."""

    def draw(model, inputs, seed=0):
        shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
        leaves, tree = jax.tree.flatten(shapes)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        return tree.unflatten(
            [0.4 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        )

    return draw
