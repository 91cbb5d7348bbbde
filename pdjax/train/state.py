"""What training has and changes: the fixed parts of a run, what its replicas differ in, and its state."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pdjax.config import OptimizerConfig
from pdjax.keys import named_key
from pdjax.train import optimizer
from pdjax.types import Batch, Model, Params, Task


class TrainState(NamedTuple):
    """What training changes; parameters and optimizer state lead with the replica axis.

    ``step`` counts the steps done. No random key is here: see ``named_key``.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


class Hyperparameters(NamedTuple):
    """Everything that the replicas of a sweep may differ in, as arrays."""

    seed: Int[Array, "R"]
    learning_rate: Float[Array, "R"]
    temperature: Float[Array, "R"]
    label_weight: Float[Array, "R"]


class Program(NamedTuple):
    """The fixed parts of a training run, from which its compiled functions are made."""

    task: Task
    model: Model  # what is trained: a student, a teacher, a model of another size
    teacher_model: Model | None  # None: labels only
    optimizer: OptimizerConfig
    batch_size: int
    shared_batches: bool
    data_name: str  # names the stream of batches, with a seed and the step
    batch_sharding: NamedSharding | None = None  # of what batches are sampled; None leaves it to the compiler

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws a fresh batch, spread over the devices that share it."""
        batch = self.task.sample(key, batch_size)
        if self.batch_sharding is None:
            return batch
        inputs, targets, weights = jax.lax.with_sharding_constraint(batch[:3], self.batch_sharding)
        return Batch(inputs, targets, weights, batch.extras)


@functools.partial(jax.jit, static_argnums=0)  # one program: op by op it would compile hundreds of small ones
def init_state(program: Program, seeds: Int[Array, "R"]) -> TrainState:
    """Returns the state before the first step, one replica for each seed."""
    inputs = jax.eval_shape(lambda: program.task.sample(jax.random.key(0), program.batch_size)).inputs
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
    params = jax.vmap(lambda seed: program.model.init(named_key(seed, "init"), blank))(seeds)
    opt_state = jax.vmap(optimizer.direction(program.optimizer).init)(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)
