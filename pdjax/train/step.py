"""One training step of one replica in its parts, and the evaluation; ``pdjax.train.chunk`` runs many of all replicas.

Labels only, one-shot, progressive: every strategy is this step with other data. What differs is the
*teacher*: its checkpoints with a curriculum over them, or None for a student of the labels.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.distill.losses import Labels, Loss, Numbers, Outputs
from pdjax.keys import named_key
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.settings import Count, settings
from pdjax.train.narrow import narrowly
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.types import Batch, Examples, Mean, Params, StepMetrics, mean_of, ratio


@settings
class Evaluation:
    """Held-out evaluation: the same fresh examples for every model of the experiment."""

    every: Count = 100
    """steps between evaluations; the last step is always evaluated"""
    num_batches: Count = 8
    batch_size: Count = 64


LABELS = Labels()

EVALUATION = "evaluation"
"""The name of the stream of held-out batches."""


def batch_metrics(
    loss: Loss, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, loss_params: Params = None
) -> StepMetrics:
    """Returns the loss over the places that count, and the top-1 accuracy there."""
    values, best = loss.values_and_best(student, teacher, batch, numbers, loss_params)
    correct = (best == batch.targets).astype(jnp.float32)
    return StepMetrics(mean_of(values, batch.weights), mean_of(correct, batch.weights))


def numbers_at(numbers: Mapping[str, Float[Array, "*ramp"]], step: Int[Array, ""]) -> Numbers:
    """Returns the numbers of a replica's loss at a student step: those that are ramps have four parts."""

    def at(first: Array, last: Array, begin: Array, end: Array) -> Float[Array, ""]:
        return first + (last - first) * jnp.clip((step - begin) / (end - begin), 0, 1)

    # The shape says whether any replica's number is a ramp (see `place_hyperparameters`): it is known when this is
    # traced.
    return {name: at(*value) if value.ndim else value for name, value in numbers.items()}


def gradients_of(
    program: Program,
    loss: Loss,
    params: Params,
    step: Int[Array, ""],
    batch: Batch,
    teacher: Outputs | None,
    replica: Hyperparameters,
    piece: Int[Array, ""] | None = None,
) -> tuple[Params, StepMetrics]:
    """Returns the gradients of one replica's mean loss over a batch, or of the sum over a piece of one.

    Args:
      program: of the run.
      loss: of this replica; ``replica.numbers`` are its alone.
      params: of the replica, with those of its loss if that has any.
      step: how many were done before.
      batch: of this step, or the piece.
      teacher: what the teacher of the moment says to it.
      replica: its hyperparameters.
      piece: which one, where the batch is cut into several: dropout draws for each of them.

    Returns:
      Gradients of the parameters, and metrics before their update.
    """
    if program.mean_over == "sequence":
        batch = batch._replace(weights=by_sequence(batch.weights))
    dropout_key = named_key(replica.seed, "dropout", step)
    if piece is not None:
        dropout_key = jax.random.fold_in(dropout_key, piece)
    numbers = numbers_at(replica.numbers[0], step)

    def objective(params: Params) -> tuple[Float[Array, ""], StepMetrics]:
        student = Outputs(*program.model.apply(program.of_model(params), batch.inputs, dropout_key))
        loss_params = params["loss"] if program.has_loss_params else None
        metrics = batch_metrics(loss, student, teacher, batch, numbers, loss_params)
        # How many count is known when all pieces are.
        return ratio(metrics.loss) if piece is None else metrics.loss.sum, metrics

    return jax.grad(objective, has_aux=True)(params)


def by_sequence(weights: Float[Array, "B *places"]) -> Float[Array, "B *places"]:
    """Returns weights by which a mean is over sequences, within each over its places that count (equations 3 and 4).

    A sequence in which nothing counts is left out.
    """
    places = tuple(range(1, weights.ndim))
    return weights / jnp.maximum(jnp.sum(weights, axis=places, keepdims=True), 1)


def updated(
    program: Program,
    state: TrainState,
    gradients: Params,
    learning_rate: Float[Array, ""],
    num_steps: Int[Array, ""],
) -> TrainState:
    """Returns the state of one replica behind a step, from the gradients of its mean loss.

    ``num_steps`` is the length of the whole run, for the learning-rate schedule.
    """
    update = program.optimizer.update
    params, opt_state = update(gradients, state.opt_state, state.params, learning_rate, state.step, num_steps)
    return TrainState(state.step + 1, params, opt_state)


@with_float32_products
def evaluate(
    program: Program,
    num_batches: int,
    batch_size: int,
    params: Params,
    seed: Int[Array, ""],
    examples: Examples | None = None,
) -> StepMetrics:
    """Returns cross-entropy and accuracy of all replicas on held-out batches, the same for every model.

    ``examples`` are the held-out ones that the host has read, [num_batches, batch_size, ...].
    """
    models = program.of_model(params)

    def body(total: StepMetrics, numbered: tuple[Int[Array, ""], Examples | None]) -> tuple[StepMetrics, None]:
        index, read = numbered
        # Held out: training draws its batches under other names.
        batch = program.draw(named_key(seed, EVALUATION, index), batch_size, read)

        def of(batch: Batch) -> StepMetrics:
            # Of the labels whatever the loss: models of different losses are compared by the same numbers.
            def one(params: Params) -> StepMetrics:
                return batch_metrics(LABELS, Outputs(*program.model.apply(params, batch.inputs)), None, batch, {})

            return over_replicas(one)(models)

        def add(total: StepMetrics, piece: Batch) -> tuple[StepMetrics, None]:
            # Sums and counts, divided once at the end: the mean of batches with unequal counts would be biased.
            return jax.tree.map(jnp.add, total, narrowly(program.bounds, of, piece)), None

        if program.micro_batches == 1:
            return add(total, batch)
        # What has no room for the activations of a whole batch in training has none here.
        return jax.lax.scan(add, total, jax.tree.map(functools.partial(cut, program.micro_batches, 0), batch))

    replicas = jax.tree.leaves(models)[0].shape[0]
    zeros = Mean(jnp.zeros(replicas), jnp.zeros(replicas))
    return jax.lax.scan(body, StepMetrics(zeros, zeros), (jnp.arange(num_batches), examples))[0]


def cut(count: int, axis: int, whole: Array) -> Array:
    """Returns an array with the pieces of an axis as a new leading one."""
    shape = whole.shape
    return jnp.moveaxis(whole.reshape(*shape[:axis], -1, count, *shape[axis + 1 :]), axis + 1, 0)
