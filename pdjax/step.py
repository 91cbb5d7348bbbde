"""One training step of one replica, and the evaluation; ``pdjax.chunk`` runs many steps of all replicas.

Labels only, one-shot, progressive: every strategy is this step with other data. What differs is the
*teacher*: its checkpoints with a curriculum over them, or None for a student of the labels.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pdjax import losses, optimizer
from pdjax.config import OptimizerConfig
from pdjax.curriculum import checkpoint_index
from pdjax.precision import with_float32_products
from pdjax.types import Batch, Mean, Model, Params, StepMetrics, Task, mean_of, named_key, ratio

REPLICA_AXIS = "replica"
"""The mesh axis that the replicas of a sweep are spread over."""


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


class Teacher(NamedTuple):
    """Teacher checkpoints on the device and the curriculum over them (see ``pdjax.curriculum``).

    ``checkpoints`` stacks parameters along a leading axis of K, or is a pair of them (see ``pdjax.residency``);
    row s of the curriculum, which holds from student step ``starts[s]`` on, uses slot ``slots[s]`` of the
    stack or pair. In an adaptive curriculum every replica has starts of its own, ``[R, S]``; they change
    between chunks only.
    """

    checkpoints: Params | tuple[Params, Params]
    starts: Int[Array, "S"] | Int[Array, "R S"]
    slots: Int[Array, "S"]

    @property
    def adaptive(self) -> bool:
        """Whether every replica has its own starts."""
        return self.starts.ndim == 2

    def slot_at(self, starts: Int[Array, "S"], step: Int[Array, ""]) -> Int[Array, ""]:
        """Returns the slot in the stack of the checkpoint that holds at a student step."""
        return self.slots[checkpoint_index(starts, step)]

    def checkpoint(self, slot: Int[Array, ""]) -> Params:
        """Returns the parameters in a slot of the stack or pair."""
        if isinstance(self.checkpoints, tuple):
            first, second = self.checkpoints
            return jax.lax.cond(slot == 0, lambda: first, lambda: second)
        return jax.tree.map(lambda leaves: leaves[slot], self.checkpoints)


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


def batch_loss(
    logits: Float[Array, "*places V"],
    teacher_logits: Float[Array, "*places V"] | None,
    batch: Batch,
    temperature: Float[Array, ""],
    label_weight: Float[Array, ""],
) -> StepMetrics:
    """Returns the loss over the places that count (equations 1 to 4), and the top-1 accuracy there."""
    if teacher_logits is None:
        values = losses.cross_entropy(logits, batch.targets)
    else:
        values = losses.mixed(logits, teacher_logits, batch.targets, temperature, label_weight)
    correct = (jnp.argmax(logits, axis=-1) == batch.targets).astype(jnp.float32)
    return StepMetrics(mean_of(values, batch.weights), mean_of(correct, batch.weights))


def train_step(
    program: Program,
    state: TrainState,
    batch: Batch,
    teacher_logits: Float[Array, "*places V"] | None,
    replica: Hyperparameters,
    num_steps: Int[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """One step of one replica: gradient of the mean loss, optimizer update.

    ``num_steps`` is the length of the whole run, for the learning-rate schedule. The metrics are those of
    the parameters before the update.
    """
    dropout_key = named_key(replica.seed, "dropout", state.step)

    def objective(params: Params) -> tuple[Float[Array, ""], StepMetrics]:
        logits, _ = program.model.apply(params, batch.inputs, dropout_key)
        metrics = batch_loss(logits, teacher_logits, batch, replica.temperature, replica.label_weight)
        return ratio(metrics.loss), metrics

    gradients, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.direction(program.optimizer).update(gradients, state.opt_state, state.params)
    rate = replica.learning_rate * optimizer.schedule(program.optimizer, state.step, num_steps)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    return TrainState(state.step + 1, params, opt_state), metrics


def over_replicas(function: Callable[..., Any]) -> Callable[..., Any]:
    """``vmap``, except that a single replica runs without the extra axis.

    The products of a batch of one are the same, but XLA's CPU backend runs them up to 1.5 times slower.
    """

    def mapped(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function, spmd_axis_name=REPLICA_AXIS)(*arguments)
        alone = function(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], alone)

    return mapped


@with_float32_products
def evaluate(program: Program, num_batches: int, batch_size: int, params: Params, seed: Int[Array, ""]) -> StepMetrics:
    """Returns cross-entropy and accuracy of all replicas on held-out batches, the same for every model."""

    def body(total: StepMetrics, index: Int[Array, ""]) -> tuple[StepMetrics, None]:
        batch = program.sample(named_key(seed, "evaluation", index), batch_size)

        def one(params: Params) -> StepMetrics:
            zero = jnp.zeros(())
            return batch_loss(program.model.apply(params, batch.inputs)[0], None, batch, zero, zero)

        return jax.tree.map(jnp.add, total, over_replicas(one)(params)), None

    replicas = jax.tree.leaves(params)[0].shape[0]
    zeros = Mean(jnp.zeros(replicas), jnp.zeros(replicas))
    return jax.lax.scan(body, StepMetrics(zeros, zeros), jnp.arange(num_batches))[0]
