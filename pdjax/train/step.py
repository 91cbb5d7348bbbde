"""One training step of one replica, and the evaluation; ``pdjax.train.chunk`` runs many steps of all replicas.

Labels only, one-shot, progressive: every strategy is this step with other data. What differs is the
*teacher*: its checkpoints with a curriculum over them, or None for a student of the labels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.distill import losses
from pdjax.keys import named_key
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.train import optimizer
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.types import Batch, Mean, Params, StepMetrics, mean_of, ratio


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
