"""How well hidden states tell the non-terminals above them (definition 4.3 and section D.3, figure 5 right).

For each level, a probe predicts the level's non-terminal at the right end of its span from the frozen states e_k of
all positions of a string:

    G(i) = sum over heads r and positions k of w_r(i, k) f_r(e_k) + b,   w_r(i, .) = softmax over k of <P_ir, P_kr>,

with linear f_r and an attention of positions alone, those of the string: padding is no key. It is trained by logistic
regression with Adam, for the states of several models at once, on the same strings, each until its accuracy on other
strings rises no more: a probe that is stopped before says how fast it learns, not what the states tell.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.probes.ngrams import strings_of
from pdjax.settings import Count, Positive, settings
from pdjax.tasks.base import Task
from pdjax.tasks.derivation import span_ends
from pdjax.tasks.pcfg import GrammarTask
from pdjax.types import Batch, Inputs, Model, Params

SMALLEST_SUM = 1e-30
"""Of exponentials of scores, the largest of which is 1."""


@settings
class NonterminalProbe(Probe):
    """Classifiers that tell non-terminals from hidden states (section D.3, figure 5 right)."""

    name: ClassVar[str] = "nonterminals"

    num_heads: Count = 16
    """of the classifier's attention"""
    num_train: Count = 3200
    """strings of a round of its training"""
    num_test: Count = 512
    """strings of that, and as many others of the accuracy that is reported"""
    batch_size: Count = 64
    learning_rate: Positive = 1e-2
    """of Adam"""
    min_gain: Positive = 0.002
    """it is trained round after round while its accuracy on strings of neither, the mean over levels, rises so much"""
    most_rounds: Count = 8

    def __post_init__(self):
        for name in ("num_train", "num_test"):
            require(
                getattr(self, name) % self.batch_size == 0,
                f"batch_size that divides {name} = {getattr(self, name)}",
                self.batch_size,
                "every batch counts the same: change one of the two",
            )

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires strings of a grammar."""
        strings_of(task)

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns the ``accuracy`` [R, levels] on held-out strings."""
        measure = jax.jit(functools.partial(nonterminal_accuracy, strings_of(subject.task), subject.model, self))
        return lambda params: {"accuracy": measure(params, jnp.int32(subject.seed))}

    def listing(self, task: Task, seed: int) -> dict[str, Any]:
        """Returns the ``levels``."""
        return {"levels": probed_levels(strings_of(task))}

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``non-terminals`` (accuracy of the probes, a fraction) by ``level``; the root is 0."""
        return spread("non-terminals", record["accuracy"], level=listing["levels"])


class ProbeParams(NamedTuple):
    """What is trained, for J levels, H heads, L positions, states of D dimensions, and N symbols a level."""

    positions: Float[Array, "J L H D"]
    kernel: Float[Array, "J H D N"]
    bias: Float[Array, "J N"]


class Targets(NamedTuple):
    """The non-terminals of a batch, by level."""

    symbol: Int[Array, "J B L"]
    weight: Float[Array, "J B L"]  # 1 where a span of the level ends


def probed_levels(task: GrammarTask) -> tuple[int, ...]:
    """Returns the depths of the non-terminals below the root (0)."""
    return tuple(range(1, task.rules.depth))


def targets_of(task: GrammarTask, batch: Batch) -> Targets:
    """Returns what the probes of all levels predict, and where."""
    levels = task.rules.levels
    terminal = batch.inputs["valid"] & (jnp.arange(task.num_positions) > 0)[None]
    ends = span_ends(batch.extras["indices"], terminal)
    symbols, weights = [], []
    for depth in probed_levels(task):
        # Classes are a level's symbols in order. Where no span ends any class will do: its weight is 0.
        known = jnp.asarray(np.array(sorted(levels[depth])))
        symbols.append(jnp.searchsorted(known, batch.extras["ancestors"][..., depth]))
        weights.append(ends[..., depth].astype(jnp.float32))
    return Targets(jnp.stack(symbols), jnp.stack(weights))


def whole_strings(batch: Batch) -> Inputs:
    """Returns the inputs of a masked or a next-token model that show every token."""
    shown = {"tokens": batch.extras["tokens"], "valid": batch.inputs["valid"]}
    if "selected" in batch.inputs:
        return {**shown, "selected": jnp.zeros_like(batch.inputs["selected"])}
    return shown


def init_probe(task: GrammarTask, num_heads: int, width: int, key: PRNGKeyArray) -> ProbeParams:
    """Draws positions of standard normals over sqrt(width), and linear functions of zero."""
    depths = probed_levels(task)
    # As many classes for every level, so that all levels are one array; those beyond a level's symbols are never right.
    symbols = max(len(task.rules.levels[depth]) for depth in depths)
    positions = jax.random.normal(key, (len(depths), task.num_positions, num_heads, width)) * width**-0.5
    return ProbeParams(
        positions, jnp.zeros((len(depths), num_heads, width, symbols)), jnp.zeros((len(depths), symbols))
    )


def predict(probe: ProbeParams, states: Float[Array, "B L D"], valid: Bool[Array, "B L"]) -> Float[Array, "J B L N"]:
    """Returns the logits of every level at every position of the strings.

    Scores are of positions alone, so their exponentials are the same for all strings of a batch. What differs is the
    sum that divides them: it goes over a string's own positions.
    """
    scores_JxHxLxL = jnp.einsum("jihd,jkhd->jhik", probe.positions, probe.positions)
    # Against overflow. It stands in numerator and denominator alike, so it has no gradient to give.
    largest = jnp.max(jax.lax.stop_gradient(scores_JxHxLxL), axis=-1, keepdims=True)
    e_JxHxLxL = jnp.exp(scores_JxHxLxL - largest)
    sums_JxHxLxB = jnp.einsum("jhik,bk->jhib", e_JxHxLxL, valid.astype(states.dtype))
    # Padding adds neither to the sums nor to the values: it is no key.
    values_JxHxLxBxN = jnp.einsum("bkd,jhdn->jhkbn", states * valid[..., None], probe.kernel)
    mixed_JxHxLxBxN = jnp.einsum("jhik,jhkbn->jhibn", e_JxHxLxL, values_JxHxLxBxN)
    # Positions behind all strings may outweigh those of a string so far that its sum vanishes, but never make it NaN.
    logits_JxLxBxN = jnp.sum(mixed_JxHxLxBxN / jnp.maximum(sums_JxHxLxB, SMALLEST_SUM)[..., None], axis=1)
    return logits_JxLxBxN.swapaxes(1, 2) + probe.bias[:, None, None]


@with_float32_products
def nonterminal_accuracy(
    task: GrammarTask, model: Model, probing: NonterminalProbe, params: Params, seed: Int[Array, ""]
) -> Float[Array, "R J"]:
    """Returns the accuracy of probes, trained here, on the last hidden states of R models, by level from the root.

    Args:
      task: which strings are drawn from; nothing of them is masked.
      model: whose intermediates hold ``hidden`` states.
      probing: of the probes and their training.
      params: of R models, stacked.
      seed: of the strings and of the probes, the same for every model.
    """
    optimizer = optax.adam(probing.learning_rate)

    def draw(name: str, index: Int[Array, ""]) -> Batch:
        return task.sample(named_key(seed, name, index), probing.batch_size)

    def states_of(params: Params, batch: Batch) -> Float[Array, "B L D"]:
        # No gradient is taken by the model's parameters: its states are frozen.
        return model.apply(params, whole_strings(batch))[1]["hidden"][-1]

    steps, looks = probing.num_train // probing.batch_size, probing.num_test // probing.batch_size
    replicas, levels = jax.tree.leaves(params)[0].shape[0], len(probed_levels(task))

    def step(carry: tuple[ProbeParams, optax.OptState], index: Int[Array, ""]) -> tuple[Any, None]:
        batch = draw("nonterminals", index)
        targets = targets_of(task, batch)

        def one(params: Params, probe: ProbeParams, opt_state: optax.OptState) -> Any:
            states = states_of(params, batch)
            gradient = jax.grad(_loss)(probe, states, batch.inputs["valid"], targets)
            updates, opt_state = optimizer.update(gradient, opt_state)
            return optax.apply_updates(probe, updates), opt_state

        return over_replicas(one)(params, *carry), None

    def accuracy(name: str, probes: ProbeParams) -> Float[Array, "R J"]:
        def test(total: Any, index: Int[Array, ""]) -> tuple[Any, None]:
            batch = draw(name, index)
            targets = targets_of(task, batch)

            def one(params: Params, probe: ProbeParams) -> Float[Array, "J"]:
                logits = predict(probe, states_of(params, batch), batch.inputs["valid"])
                right = jnp.argmax(logits, axis=-1) == targets.symbol
                return jnp.sum(right * targets.weight, axis=(1, 2))

            right, count = total
            return (right + over_replicas(one)(params, probes), count + targets.weight.sum((1, 2))), None

        zeros = (jnp.zeros((replicas, levels)), jnp.zeros(levels))
        (right, count), _ = jax.lax.scan(test, zeros, jnp.arange(looks))
        return right / count[None]

    def fresh(params: Params) -> tuple[ProbeParams, optax.OptState]:
        width = jax.eval_shape(states_of, params, draw("nonterminals", jnp.int32(0))).shape[-1]
        probe = init_probe(task, probing.num_heads, width, named_key(seed, "nonterminal probe"))
        return probe, optimizer.init(probe)

    def train_round(state: _Rounds) -> _Rounds:
        trained, _ = jax.lax.scan(step, state.carry, state.done * steps + jnp.arange(steps))
        # Each model's probe by itself: one that has stopped stays what it is while others go on.
        carry = jax.tree.map(
            lambda new, old: jnp.where(state.rising.reshape(-1, *[1] * (new.ndim - 1)), new, old), trained, state.carry
        )
        reached = jnp.mean(accuracy("nonterminals looked at", carry[0]), axis=-1)
        rising = state.rising & (reached - state.reached >= probing.min_gain)
        return _Rounds(carry, state.done + 1, reached, rising)

    started = over_replicas(fresh)(params)
    everyone = jnp.ones(replicas, bool)
    rounds = jax.lax.while_loop(
        lambda state: (state.done < probing.most_rounds) & jnp.any(state.rising),
        train_round,
        _Rounds(started, jnp.int32(0), jnp.full(replicas, -jnp.inf), everyone),
    )
    # Another name, hence other strings than those of the training and of its end.
    return accuracy("nonterminals held out", rounds.carry[0])


class _Rounds(NamedTuple):
    """How far the probes of R models have come."""

    carry: Any  # the probes and their optimizers' states
    done: Int[Array, ""]  # rounds
    reached: Float[Array, "R"]  # accuracy, mean over levels
    rising: Bool[Array, "R"]


def _loss(
    probe: ProbeParams, states: Float[Array, "B L D"], valid: Bool[Array, "B L"], targets: Targets
) -> Float[Array, ""]:
    """Returns the cross-entropy at the ends of spans: the mean of each level, summed over the levels."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(predict(probe, states, valid), targets.symbol)
    # Levels share no parameters, so that the sum over them trains each as if alone. Means, as high levels have few
    # ends.
    sums = jnp.sum(entropy * targets.weight, axis=(1, 2)) / jnp.maximum(targets.weight.sum((1, 2)), 1)
    return jnp.sum(sums)
