"""What training has and changes: the fixed parts of a run, what its replicas differ in, and its state."""

import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pdjax.distill.losses import Labels, Loss, Outputs
from pdjax.keys import named_key
from pdjax.tasks.base import Bounds, Task, batch_shapes
from pdjax.train.optimizer import Optimizer
from pdjax.types import Batch, Examples, Inputs, Model, Params


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
    # Of each loss of the program, its numbers by name, [R] or, where some are ramps, [R, 4]; R counts its replicas.
    numbers: tuple[Mapping[str, Float[Array, "R *ramp"]], ...] = ({},)


MeanOver = Literal["batch", "sequence"]
"""What a loss is averaged over: all places of a batch that count, as in the authors' code; or those of each sequence,
and then over sequences, as equations 3 and 4 have it."""


class Program(NamedTuple):
    """The fixed parts of a training run, from which its compiled functions are made."""

    task: Task
    model: Model  # what is trained: a student, a teacher, a model of another size
    teacher_model: Model | None  # None: labels only
    optimizer: Optimizer
    batch_size: int
    shared_batches: bool
    data_name: str  # names the stream of batches, with a seed and the step
    # Without their numbers. Where there are several, the replicas of each stand together, so many as ``group_sizes``
    # says: which loss a replica has is fixed in the program, and nobody computes the others'.
    losses: tuple[Loss, ...] = (Labels(),)
    group_sizes: tuple[int, ...] = ()
    bounds: Bounds | None = None  # of batches that need not be whole (``pdjax.train.narrow``)
    micro_batches: int = 1  # pieces of a batch, whose gradients are taken one after the other
    mean_over: MeanOver = "batch"  # what losses are averaged over: all places that count, or each sequence's first
    batch_sharding: NamedSharding | None = None  # of what batches are sampled; None leaves it to the compiler

    @property
    def has_loss_params(self) -> bool:
        """Whether the loss has parameters too; the state's are then those of the ``model`` and of the ``loss``."""
        return any(loss.has_params for loss in self.losses)

    def of_model(self, params: Params) -> Params:
        """Returns the model's part of the state's parameters."""
        return params["model"] if self.has_loss_params else params

    def draw(self, key: PRNGKeyArray, batch_size: int, examples: Examples | None) -> Batch:
        """Returns the batch of a key (see ``Task.draw``), spread over the devices that share it."""
        batch = self.task.draw(key, batch_size, examples)
        if self.batch_sharding is None:
            return batch
        # Extras are for probes, which sample for themselves.
        inputs, targets, weights = jax.lax.with_sharding_constraint(batch[:3], self.batch_sharding)
        return Batch(inputs, targets, weights, batch.extras)


@functools.partial(jax.jit, static_argnums=0)  # one program: op by op it would compile hundreds of small ones
def init_state(program: Program, seeds: Int[Array, "R"]) -> TrainState:
    """Returns the state before the first step, one replica for each seed."""
    # Parameters depend on the inputs' shapes alone: no batch is drawn.
    inputs = batch_shapes(program.task, program.batch_size).inputs
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
    # By the seed and nothing else: students of one seed begin alike, whatever their loss, curriculum and learning rate.
    params = jax.vmap(lambda seed: program.model.init(named_key(seed, "init"), blank))(seeds)
    if program.has_loss_params:
        params = {"model": params, "loss": _loss_params(program, seeds, blank)}
    # Mapped, so that every leaf leads with R, counters too.
    opt_state = jax.vmap(program.optimizer.init)(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def _loss_params(program: Program, seeds: Int[Array, "R"], inputs: Inputs) -> Params:
    """Returns the parameters of the one loss of a program, one set for each seed."""
    (loss,) = program.losses

    # Shapes say all that a loss's parameters need: neither model runs.
    student = outputs_of(program.model, inputs)
    teacher = None if program.teacher_model is None else outputs_of(program.teacher_model, inputs)
    return jax.vmap(lambda seed: loss.init(named_key(seed, "loss"), student, teacher))(seeds)


def outputs_of(model: Model, inputs: Inputs) -> Outputs:
    """Returns the shapes of what a model says to inputs, of which the shapes are enough."""
    return jax.eval_shape(lambda inputs: Outputs(*model.apply(model.init(jax.random.key(0), inputs), inputs)), inputs)
