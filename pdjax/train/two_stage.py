"""Algorithm 1: one step of the first layer at the mean gradient of many batches, then the output weights alone.

At batch 1 neither stage changes what a block of steps has to multiply by: in the first stage nothing moves, in the
second the hidden layer rests. A block is therefore one product for all of its examples, whatever its length, and
10^8 of them take no more memory than one block.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pdjax.distill.hinge import HingeLabels
from pdjax.distill.losses import Loss, Outputs
from pdjax.errors import require
from pdjax.models.base import Architecture
from pdjax.models.symmetric import SymmetricMlp, SymmetricModule, logits_of
from pdjax.settings import Count, Positive, settings
from pdjax.tasks.base import FedTask, Task
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import majority_coefficient
from pdjax.train.optimizer import Optimizer
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.train.step import batch_metrics, numbers_at
from pdjax.types import Batch, Params, StepMetrics, ratio


@settings
class TwoStage(Optimizer):
    """Algorithm 1 for a network with one hidden layer; the learning rate is that of the second stage, eta_2.

    The first stage ends with ``w <- -eta_1 g``, as the lemmas take it. Printed it is ``w - eta_1 (g + 2 lambda_1 w)``
    with lambda_1 = 1, which with the lemma's eta_1 would throw w far away: w is to decay by itself, not by the rate.
    Biases are fixed.
    """

    first_steps: Count = 1024
    """steps of the first stage, whose mean gradient is one step; with batches of one B_1, its samples"""
    first_rate: Positive | None = None
    """eta_1; None takes for each neuron the one after which its largest weight is ``largest``"""
    largest: Positive = 0.125
    """1 / 2k in Lemma B.2; it knows the gradient from labels alone, and a teacher's is of another size"""
    support: tuple[int, ...] = ()
    """of a parity whose labels are learned from: then the exact gradient (Claim B.3) takes the place of the mean"""

    def check(self, model: Architecture, task: Task, losses: Sequence[Loss]) -> None:
        """Requires the network of the theory, and for an exact gradient labels of the very parity."""
        remedy = "choose another optimizer, or SymmetricMlp"
        require(isinstance(model, SymmetricMlp), "a SymmetricMlp for Algorithm 1", type(model).__name__, remedy)
        trained = [type(loss).__name__ for loss in losses if loss.has_params]
        require(not trained, "losses without parameters for Algorithm 1", trained, "choose other losses")
        if not self.support:
            return
        assert isinstance(task, ParityTask)  # which is all that such a model is for
        require(
            sorted(self.support) == list(task.features[0]),
            f"the task's support {task.features[0]} in support",
            self.support,
            "give that, or () for the mean gradient",
        )
        taught = [type(loss).__name__ for loss in losses if not isinstance(loss, HingeLabels)]
        remedy = "give () for the mean: the exact gradient is that of labels"
        require(not taught, "HingeLabels alone for the exact gradient", taught, remedy)

    @property
    def turns(self) -> dict[str, int]:
        """The end of the first stage."""
        return {"first_steps": self.first_steps}

    def init(self, params: Params) -> optax.OptState:
        """Returns the sum of the first layer's gradients so far, over ``first_steps``; named as the parameter is."""
        return {"hidden_0": {"kernel": jnp.zeros_like(params["hidden_0"]["kernel"])}}

    def update(
        self,
        gradients: Params,
        opt_state: optax.OptState,
        params: Params,
        rate: Float[Array, ""],
        step: Int[Array, ""],
        num_steps: Int[Array, ""],
    ) -> tuple[Params, optax.OptState]:
        """Returns what a step leaves of the parameters and of the sum."""

        def first() -> tuple[Params, optax.OptState]:
            return self.add(gradients["hidden_0"]["kernel"], opt_state, params, step + 1)

        def second() -> tuple[Params, optax.OptState]:
            return with_output(params, params["output"]["kernel"] - rate * gradients["output"]["kernel"]), opt_state

        # All replicas are at one step: one of the two runs.
        return jax.lax.cond(step < self.first_steps, first, second)

    def add(
        self, gradient: Float[Array, "D W"], total: Params, params: Params, done: Int[Array, ""]
    ) -> tuple[Params, optax.OptState]:
        """Adds gradients of the first stage, and takes its step where these were the last.

        Args:
          gradient: of the first layer, summed over one or several steps.
          total: so far, as ``init`` makes it.
          params: which are those of the start.
          done: the steps done with these.
        """
        summed, hidden = total["hidden_0"]["kernel"] + gradient / self.first_steps, params["hidden_0"]
        mean = population_gradient(params, self.support) if self.support else summed
        if self.first_rate is None:
            height = jnp.max(jnp.abs(mean), axis=0, keepdims=True)
            # A neuron without a gradient gets no weights.
            moved = -mean * jnp.where(height > 0, self.largest / height, 0.0)
        else:
            moved = -self.first_rate * mean
        kernel = jnp.where(done == self.first_steps, moved, hidden["kernel"])
        return {**params, "hidden_0": {**hidden, "kernel": kernel}}, {"hidden_0": {"kernel": summed}}


def with_output(params: Params, kernel: Array) -> Params:
    """Returns parameters with other output weights."""
    return {**params, "output": {**params["output"], "kernel": kernel}}


def population_gradient(params: Params, support: tuple[int, ...]) -> Float[Array, "D W"]:
    """Returns the gradient of the expected hinge loss of a parity at the symmetric initialisation (Claim B.3).

    At coordinate j of neuron i it is ``-1/2 a_i zeta_(k-1) chi_(S - j)(w_i)`` for j in the support S, and
    ``-1/2 a_i zeta_(k+1) chi_(S + j)(w_i)`` off it. The claim prints these for the gradient of f times y, of which the
    loss's is the negative: the minus before its right-hand sides is one too many.

    Args:
      params: of a ``SymmetricModule``, as they are drawn.
      support: S, the coordinates of the parity; k of them.
    """
    w_DxW, a_W = params["hidden_0"]["kernel"], params["output"]["kernel"][:, 0]
    dimension, degree = len(w_DxW), len(support)
    inside = jnp.zeros(dimension).at[jnp.array(support)].set(1)
    below, above = (majority_coefficient(dimension, degree + by) for by in (-1, 1))
    # chi_S times w_j is chi of S without j where j is in S, and of S with j where it is not: w_j is a sign.
    chi_DxW = jnp.prod(w_DxW[jnp.array(support)], axis=0)[None] * w_DxW
    return -0.5 * a_W[None] * (inside * below + (1 - inside) * above)[:, None] * chi_DxW


def applies(program: Program) -> bool:
    """Whether training can run in blocks: Algorithm 1 at batch 1 on its own network, inputs that are drawn."""
    if isinstance(program.task, FedTask) or program.has_loss_params:
        return False
    if any(loss.reads_intermediates for loss in program.losses):
        return False
    module = getattr(program.model, "module", None)
    return type(program.optimizer) is TwoStage and program.batch_size == 1 and type(module) is SymmetricModule


def block_steps(program: Program) -> int:
    """Returns the number of steps of a block."""
    # Measured: longer ones win no more than a few percent.
    return 256


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

    A first stage has to end where a block does, as chunks see to (``turns``). ``batches`` and ``teacher_logits`` lead
    with the steps of the block.
    """
    rule = program.optimizer
    assert isinstance(rule, TwoStage)
    x_NxD = batches.inputs["vector"][:, 0]  # batch 1: one example a step
    steps = state.step + jnp.arange(len(x_NxD))

    def measured(output: Float[Array, ""], t: Int[Array, ""]) -> tuple[Float[Array, ""], StepMetrics]:
        """The loss of the t-th step, of its f."""
        batch = jax.tree.map(lambda leaf: leaf[t], batches)
        teacher = None if teacher_logits is None else Outputs(teacher_logits[t], {})
        numbers = numbers_at(replica.numbers[0], steps[t])
        metrics = batch_metrics(loss, Outputs(logits_of(output[None]), {}), teacher, batch, numbers)
        return ratio(metrics.loss), metrics

    hidden, a_W = state.params["hidden_0"], state.params["output"]["kernel"][:, 0]

    def activations(kernel: Float[Array, "D W"]) -> Float[Array, "N W"]:
        return jax.nn.relu(x_NxD @ kernel + hidden["bias"][None])

    def first() -> tuple[Params, optax.OptState, StepMetrics]:
        def total(kernel: Float[Array, "D W"]) -> tuple[Float[Array, ""], StepMetrics]:
            losses, metrics = jax.vmap(measured)(activations(kernel) @ a_W, jnp.arange(len(x_NxD)))
            return jnp.sum(losses), metrics

        gradient, metrics = jax.grad(total, has_aux=True)(hidden["kernel"])
        return *rule.add(gradient, state.opt_state, state.params, steps[-1] + 1), metrics

    def second() -> tuple[Params, optax.OptState, StepMetrics]:
        h_NxW = activations(hidden["kernel"])

        def one_step(a_W: Float[Array, "W"], t: Int[Array, ""]) -> tuple[Float[Array, "W"], StepMetrics]:
            slope, metrics = jax.grad(measured, has_aux=True)(h_NxW[t] @ a_W, t)
            return a_W - replica.learning_rate * slope * h_NxW[t], metrics

        last, metrics = jax.lax.scan(one_step, a_W, jnp.arange(len(x_NxD)), unroll=4)
        return with_output(state.params, last[:, None]), state.opt_state, metrics

    params, opt_state, metrics = jax.lax.cond(state.step < rule.first_steps, first, second)
    return TrainState(state.step + len(x_NxD), params, opt_state), metrics
