"""Batch-1 SGD on an MLP with one hidden layer, many steps for each pass over the weights.

A step of plain SGD with batch 1 reads and writes all weights to do almost nothing with them: the first layer
changes by a product of two vectors, ``W - eta x delta^T``. A block of N steps needs the layer only once. With
``Z = X W + b`` for the block's N inputs, all from the weights before the block, the pre-activations at step t are

    z_t = Z_t - sum over s < t of eta_s (x_s . x_t + 1) delta_s        (the 1 is the bias)

where ``delta_s`` is the loss's gradient at the pre-activations of step s. At the end ``W`` changes by one product
of rank N. Nothing is approximated: only the order of sums differs from the step-by-step path. The output layer is
small and changes at every step.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.distill.losses import Loss, Outputs
from pdjax.models.mlp import MlpModule
from pdjax.tasks.base import FedTask
from pdjax.train.optimizer import Sgd
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.train.step import batch_metrics, numbers_at
from pdjax.types import Batch, StepMetrics, ratio

NARROW = 4096
"""Up to this width the deltas of a block stay in the processor's cache, and longer blocks win."""


def applies(program: Program) -> bool:
    """Whether training can run in blocks: plain SGD, batch 1, an MLP with one hidden layer, inputs that are drawn."""
    rule, widths = program.optimizer, _hidden_widths(program)
    if getattr(program.model, "compute", "float32") != "float32":  # sums of rounded steps are no rounded sums
        return False
    if isinstance(program.task, FedTask):  # a block draws its batches itself
        return False
    # A block has no hidden states to show to a loss, and trains two layers and nothing else.
    if program.has_loss_params or any(loss.reads_intermediates for loss in program.losses):
        return False
    # Clipping needs the norm of each step's gradient at the first layer, which a block never forms.
    # Of these very classes: one that is derived from them may have another rule or activation.
    return type(rule) is Sgd and rule.clip_norm is None and program.batch_size == 1 and len(widths) == 1


def block_steps(program: Program) -> int:
    """Returns the number of steps of a block: measured best on two CPU cores for narrow and wide layers."""
    return 64 if _hidden_widths(program)[0] <= NARROW else 32


def _hidden_widths(program: Program) -> tuple[int, ...]:
    """Returns the widths of an MLP's hidden layers, and none for another model."""
    module = getattr(program.model, "module", None)
    return module.widths if type(module) is MlpModule else ()


class _Carry(NamedTuple):
    """What changes within a block."""

    kernel: Float[Array, "V W"]  # of the output layer, classes leading: its rows are long
    bias: Float[Array, "V"]
    deltas: Float[Array, "N W"]  # of the steps done, 0 for those to come


def train_block(
    program: Program,
    loss: Loss,
    state: TrainState,
    batches: Batch,
    teacher_logits: Float[Array, "N 1 V"] | None,
    replica: Hyperparameters,
    num_steps: Int[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """N steps of one replica, equal to N single steps up to rounding.

    ``batches`` and ``teacher_logits`` lead with the steps of the block.
    """
    # The names are those of `MlpModule`.
    hidden, output = state.params["hidden_0"], state.params["output"]
    x_NxD = batches.inputs["vector"][:, 0]  # batch 1: one example a step
    steps = state.step + jnp.arange(len(x_NxD))  # of the student
    rates = replica.learning_rate * jax.vmap(lambda t: program.optimizer.factor(t, num_steps))(steps)
    before_NxW = x_NxD @ hidden["kernel"] + hidden["bias"][None]
    # [t, s] is eta_s (x_s . x_t + 1) for s < t and 0 elsewhere: times the deltas, it is the sum that z_t lacks in Z_t.
    overlap_NxN = jnp.tril(x_NxD @ x_NxD.T + 1, -1) * rates[None]

    def one_step(carry: _Carry, t: Int[Array, ""]) -> tuple[_Carry, StepMetrics]:
        batch = jax.tree.map(lambda leaf: leaf[t], batches)
        step_logits = None if teacher_logits is None else teacher_logits[t]
        numbers = numbers_at(replica.numbers[0], state.step + t)
        z_W = before_NxW[t] - overlap_NxN[t] @ carry.deltas  # z_t
        h_W = jnp.maximum(z_W, 0)
        logits_C = carry.kernel @ h_W + carry.bias

        # Only the loss is differentiated by jax. From its gradient at the logits on, backpropagation is written out:
        # jax's would form the gradient of the first layer's weights, which a block is to avoid.
        def objective(logits_C: Float[Array, "V"]) -> tuple[Float[Array, ""], StepMetrics]:
            teacher = None if step_logits is None else Outputs(step_logits, {})
            metrics = batch_metrics(loss, Outputs(logits_C[None], {}), teacher, batch, numbers)
            return ratio(metrics.loss), metrics

        gradient_C, metrics = jax.grad(objective, has_aux=True)(logits_C)
        # Through the output layer as it was before this step: one step's gradients are all at the same weights. At 0
        # the derivative is that of `jax.nn.relu`, 0; that of `jnp.maximum` would be 1/2.
        delta_W = jnp.where(z_W > 0, gradient_C @ carry.kernel, 0.0)
        scaled_C = rates[t] * gradient_C
        after = _Carry(
            carry.kernel - scaled_C[:, None] * h_W[None],
            carry.bias - scaled_C,
            carry.deltas.at[t].set(delta_W),
        )
        return after, metrics

    def steps_in_order(first: _Carry, unroll: int) -> tuple[_Carry, StepMetrics]:
        return jax.lax.scan(one_step, first, jnp.arange(len(x_NxD)), unroll=unroll)

    # Accelerators wait for the start of every kernel, and start fewer where several steps stand in a loop's body. On
    # CPUs, XLA of jax 0.10 fuses the setting of a row with the next step's product in such a body, which then needs the
    # rows of before as well, and copies all of them at every step.
    last, metrics = jax.lax.platform_dependent(
        _Carry(output["kernel"].T, output["bias"], jnp.zeros_like(before_NxW)),
        cpu=partial(steps_in_order, unroll=1),
        default=partial(steps_in_order, unroll=8),
    )
    # Sums of the block's N rank-one updates, eta_s x_s delta_s^T, as one product that passes over the layer once.
    scaled_NxW = rates[:, None] * last.deltas
    params = {
        "hidden_0": {
            "kernel": hidden["kernel"] - x_NxD.T @ scaled_NxW,
            "bias": hidden["bias"] - jnp.sum(scaled_NxW, axis=0),
        },
        "output": {"kernel": last.kernel.T, "bias": last.bias},
    }
    # Plain SGD has no state that could change.
    return TrainState(state.step + len(x_NxD), params, state.opt_state), metrics
