"""How well hidden states tell the non-terminals above them (definition 4.3 and section D.3, figure 5 right).

For each level, a probe predicts the level's non-terminal at the right end of its span from the frozen states e_k of
all positions of a string:

    G(i) = sum over heads r and positions k of w_r(i, k) f_r(e_k) + b,   w_r(i, .) = softmax over k of <P_ir, P_kr>,

with linear f_r and an attention of positions alone, those of the string: padding is no key. It is trained by logistic
regression with Adam, for every model on the same strings, until its accuracy on other strings rises no more: a probe
that is stopped before says how fast it learns, not what the states tell.
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
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.probes.ngrams import strings_of
from pdjax.settings import Count, Positive, settings
from pdjax.tasks.base import Task
from pdjax.tasks.derivation import span_ends
from pdjax.tasks.pcfg import GrammarTask
from pdjax.types import Batch, Inputs, Model, Params

SMALLEST_SUM = 1e-30
"""Of exponentials of scores, the largest of which is 1."""

MOST_KEPT = 2**30
"""Bytes of the states of a model on the strings of the training, and on those that tell when to stop, up to which they
are kept: on a CPU computing them anew at every epoch costs four times as much as what the probe does with them."""


@settings
class NonterminalProbe(Probe):
    """Classifiers that tell non-terminals from hidden states (section D.3, figure 5 right)."""

    name: ClassVar[str] = "nonterminals"
    revision: ClassVar[int] = 1

    num_heads: Count = 16
    """of the classifier's attention"""
    num_train: Count = 3200
    """strings that it is trained on"""
    num_test: Count = 512
    """strings of the accuracy that is reported, and as many others that tell when to stop"""
    batch_size: Count = 64
    learning_rate: Positive = 1e-2
    """of Adam"""
    min_gain: Positive = 0.002
    """it is trained for one more epoch while the last has raised its best accuracy, the mean over levels, by so much"""
    most_epochs: Count = 8

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
    steps, looks = probing.num_train // probing.batch_size, probing.num_test // probing.batch_size

    def shown(params: Params, name: str, index: Int[Array, ""]) -> Shown:
        batch = task.sample(named_key(seed, name, index), probing.batch_size)
        # No gradient is taken by the model's parameters: its states are frozen.
        states = model.apply(params, whole_strings(batch))[1]["hidden"][-1]
        return Shown(states, batch.inputs["valid"], targets_of(task, batch))

    def accuracy(probe: ProbeParams, batches: Callable[[Int[Array, ""]], Shown]) -> Float[Array, "J"]:
        def test(index: Int[Array, ""]) -> tuple[Float[Array, "J"], Float[Array, "J"]]:
            states, valid, targets = batches(index)
            right = jnp.argmax(predict(probe, states, valid), axis=-1) == targets.symbol
            return jnp.sum(right * targets.weight, axis=(1, 2)), jnp.sum(targets.weight, axis=(1, 2))

        right, count = jax.lax.map(test, jnp.arange(looks))
        return jnp.sum(right, axis=0) / jnp.sum(count, axis=0)

    def of_one(params: Params) -> Float[Array, "J"]:
        train = kept(functools.partial(shown, params, "nonterminals"), steps)
        look = kept(functools.partial(shown, params, "nonterminals looked at"), looks)

        def step(carry: tuple[ProbeParams, optax.OptState], index: Int[Array, ""]) -> tuple[Any, None]:
            probe, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(_loss)(probe, train(index)), opt_state)
            return (optax.apply_updates(probe, updates), opt_state), None

        def epoch(state: _Epochs) -> _Epochs:
            carry, _ = jax.lax.scan(step, state.carry, jnp.arange(steps))
            reached = jnp.mean(accuracy(carry[0], look))
            gain = reached - state.reached
            # The last epoch may have made it worse.
            best = jax.tree.map(lambda new, old: jnp.where(gain > 0, new, old), carry[0], state.best)
            return _Epochs(carry, state.done + 1, best, jnp.maximum(reached, state.reached), gain >= probing.min_gain)

        width = jax.eval_shape(train, jnp.int32(0)).states.shape[-1]
        probe = init_probe(task, probing.num_heads, width, named_key(seed, "nonterminal probe"))
        trained = jax.lax.while_loop(
            lambda state: (state.done < probing.most_epochs) & state.rising,
            epoch,
            _Epochs((probe, optimizer.init(probe)), jnp.int32(0), probe, jnp.float32(-jnp.inf), jnp.bool_(True)),
        )
        # Another name, hence other strings than those of the training and of its end.
        return accuracy(trained.best, functools.partial(shown, params, "nonterminals held out"))

    # One after another: together, all would train until the last has come to its end.
    return jax.lax.map(of_one, params)


class Shown(NamedTuple):
    """What a probe is shown of a batch."""

    states: Float[Array, "B L D"]
    valid: Bool[Array, "B L"]
    targets: Targets


def kept(batches: Callable[[Int[Array, ""]], Shown], count: int) -> Callable[[Int[Array, ""]], Shown]:
    """Returns the same batches, computed once where ``MOST_KEPT`` allows, and else at every call."""
    shapes = jax.tree.leaves(jax.eval_shape(batches, jnp.int32(0)))
    if count * sum(shape.size * shape.dtype.itemsize for shape in shapes) > MOST_KEPT:
        return batches
    computed = jax.lax.map(batches, jnp.arange(count))
    return lambda index: jax.tree.map(lambda leaf: leaf[index], computed)


class _Epochs(NamedTuple):
    """How far a probe has come."""

    carry: tuple[ProbeParams, optax.OptState]
    done: Int[Array, ""]  # epochs
    best: ProbeParams  # after any of them
    reached: Float[Array, ""]  # its accuracy, mean over levels
    rising: Bool[Array, ""]


def _loss(probe: ProbeParams, batch: Shown) -> Float[Array, ""]:
    """Returns the cross-entropy at the ends of spans: the mean of each level, summed over the levels."""
    targets = batch.targets
    entropy = optax.softmax_cross_entropy_with_integer_labels(predict(probe, batch.states, batch.valid), targets.symbol)
    # Levels share no parameters, so that the sum over them trains each as if alone. Means, as high levels have few
    # ends.
    sums = jnp.sum(entropy * targets.weight, axis=(1, 2)) / jnp.maximum(targets.weight.sum((1, 2)), 1)
    return jnp.sum(sums)
