"""Probes of states that tell the non-terminals, or nothing; their formula by loops; Transformers of both kinds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.keys import named_key
from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.probes import nonterminals
from pdjax.probes.nonterminals import (
    NonterminalProbe,
    ProbeParams,
    init_probe,
    nonterminal_accuracy,
    predict,
    probed_levels,
    targets_of,
    whole_strings,
)
from pdjax.settings import make
from pdjax.tasks.pcfg import PcfgTask

CONFIG = NonterminalProbe(
    num_heads=4, num_train=32 * 60, most_epochs=1, num_test=128, batch_size=32, learning_rate=0.03
)
SHORT = dataclasses.replace(CONFIG, num_train=32 * 3)


@pytest.fixture(scope="module")
def uneven():
    """Strings with a symbol at each level that is more frequent than the others: 11, and 7."""
    return PcfgTask("cfg3h", 13)


class Labelled:
    """Strings whose tokens are the ancestors of their positions: 13 ** (depth - 1) times the symbol, summed."""

    def __init__(self, task):
        self.task, self.rules, self.num_positions = task, task.rules, task.num_positions

    def sample(self, key, batch_size):
        batch = self.task.sample(key, batch_size)
        ancestors = batch.extras["ancestors"]
        code = sum(13 ** (depth - 1) * ancestors[..., depth] for depth in probed_levels(self))
        return batch._replace(extras={**batch.extras, "tokens": code})


class Tells:
    """Its states are, scaled by its parameter, one-hot codes of the ancestors at every position."""

    def apply(self, params, inputs):
        ancestors = [inputs["tokens"] // 13**k % 13 for k in range(2)]
        return None, {"hidden": (None, params * jnp.concatenate([jax.nn.one_hot(a, 13) for a in ancestors], axis=-1))}


def accuracy(task, model, params, config=CONFIG):
    return np.asarray(jax.jit(functools.partial(nonterminal_accuracy, task, model, config))(params, jnp.int32(2)))


def majority(task, config):
    """The share of the most frequent symbol among the ends of each level, in the held-out strings."""
    counts = np.zeros((2, 3))
    for index in range(config.num_test // config.batch_size):
        batch = task.sample(named_key(2, "nonterminals held out", index), config.batch_size)
        targets = targets_of(task, batch)
        for level in range(2):
            symbols = np.asarray(targets.symbol)[level][np.asarray(targets.weight)[level] > 0]
            counts[level] += np.bincount(symbols, minlength=3)
    return counts.max(1) / counts.sum(1)


def test_states_that_tell_the_nonterminals_or_nothing(uneven):
    """States of zeros leave a bias: the most frequent symbol of a level, wherever it is."""
    telling, silent = accuracy(Labelled(uneven), Tells(), jnp.array([1.0, 0.0]))
    assert (telling > 0.97).all()
    np.testing.assert_allclose(silent, majority(uneven, CONFIG), atol=1e-6)
    assert (silent < 0.6).all()


class Constant:
    """The same state everywhere."""

    def apply(self, params, inputs):
        ones = jnp.ones((*inputs["tokens"].shape, 4))
        return None, {"hidden": (params * ones,)}


def test_constant_states_tell_neither_the_position_nor_the_length(uneven):
    """The weights of a string's positions sum to 1, whatever its length."""
    np.testing.assert_allclose(accuracy(uneven, Constant(), jnp.ones(1))[0], majority(uneven, CONFIG), atol=1e-6)


def test_models_are_probed_each_for_itself(task):
    scales = jnp.array([1.0, 0.1])
    together = accuracy(Labelled(task), Tells(), scales, SHORT)
    alone = jax.jit(functools.partial(nonterminal_accuracy, Labelled(task), Tells(), SHORT))
    for scale, accuracies in zip(scales, together, strict=True):
        np.testing.assert_allclose(accuracies, alone(scale[None], jnp.int32(2))[0], atol=0.01)
    assert not np.allclose(*together)


def test_probes_are_trained_while_they_get_better_and_each_for_itself(task):
    """Of states that tell all a probe of few strings goes on; of silent ones it stops, and stays what it is."""
    epochs = dataclasses.replace(SHORT, most_epochs=12)
    scales = jnp.array([1.0, 0.0])
    telling, silent = accuracy(Labelled(task), Tells(), scales, epochs)
    short, _ = accuracy(Labelled(task), Tells(), scales, SHORT)
    assert telling.mean() > short.mean() + 0.05
    alone = accuracy(Labelled(task), Tells(), scales[1:], epochs)[0]
    np.testing.assert_allclose(silent, alone, atol=1e-6)


@pytest.fixture
def drawn(task):
    """A function from states' scale and settings to the accuracies of one model and the batches drawn for them."""

    class Counted(Labelled):
        def sample(self, key, batch_size):
            jax.debug.callback(lambda: batches.append(1))
            return super().sample(key, batch_size)

    batches = []

    def measured(scale, config):
        batches.clear()
        accuracies = accuracy(Counted(task), Tells(), jnp.array([scale]), config)
        jax.effects_barrier()
        return accuracies, len(batches)

    return measured


# Of SHORT, in batches: 3 to train on, 4 that tell when to stop, and 4 held out.
def test_states_are_the_same_kept_or_computed_at_every_epoch(drawn, task, monkeypatch):
    epochs = dataclasses.replace(SHORT, most_epochs=3, min_gain=1e-9)
    expected, batches = drawn(1.0, epochs)
    assert batches == 3 + 4 + 4
    whole = jax.eval_shape(lambda: targets_of(task, task.sample(jax.random.key(0), 32)))
    one = 32 * task.num_positions * (2 * 13 * 4 + 1) + sum(leaf.size * 4 for leaf in whole)  # states, valid, targets
    for most, batches in ((0, 3 * (3 + 4) + 4), (3.5 * one, 3 + 3 * 4 + 4)):
        monkeypatch.setattr(nonterminals, "MOST_KEPT", most)
        accuracies, counted = drawn(1.0, epochs)
        np.testing.assert_allclose(accuracies, expected, atol=1e-6)
        assert counted == batches


def test_training_stops_when_an_epoch_gains_nothing(drawn, monkeypatch):
    monkeypatch.setattr(nonterminals, "MOST_KEPT", 0)
    _, batches = drawn(0.0, dataclasses.replace(SHORT, most_epochs=12))
    assert batches == 2 * (3 + 4) + 4  # silent states: the second epoch gains nothing


def test_the_best_probe_counts(task):
    """At this rate the first epoch finds something, and the second loses it."""
    wild = dataclasses.replace(SHORT, learning_rate=3.0)
    once, twice = (
        accuracy(Labelled(task), Tells(), jnp.ones(1), dataclasses.replace(wild, most_epochs=epochs))
        for epochs in (1, 2)
    )
    np.testing.assert_array_equal(once, twice)


def test_prediction_follows_the_formula():
    """One string, level and position at a time; whatever stands at padding."""
    rng = np.random.default_rng(0)
    levels, length, heads, width, symbols = 2, 5, 3, 4, 3
    shapes = (levels, length, heads, width), (levels, heads, width, symbols), (levels, symbols)
    probe = ProbeParams(*[rng.normal(size=shape) for shape in shapes])
    states, lengths = rng.normal(size=(2, length, width)), (5, 3)
    valid = np.arange(length)[None] < np.array(lengths)[:, None]
    logits = predict(*jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (probe, states)), jnp.asarray(valid))
    assert logits.shape == (levels, 2, length, symbols)
    for j in range(levels):
        for b, end in enumerate(lengths):
            for i in range(end):
                total = probe.bias[j].copy()
                for r in range(heads):
                    weight = np.exp([probe.positions[j, i, r] @ probe.positions[j, k, r] for k in range(end)])
                    for k in range(end):
                        total += weight[k] / weight.sum() * (states[b, k] @ probe.kernel[j, r])
                np.testing.assert_allclose(logits[j, b, i], total, atol=1e-4)


def test_weights_stay_finite_where_padding_outweighs_a_string(task):
    """Scores of 4000 at the last position, of a string that ends before it."""
    probe = init_probe(task, 1, 4, jax.random.key(0))
    probe = probe._replace(positions=probe.positions.at[:, 0].set(1.0).at[:, -1].set(1e3))
    valid = jnp.arange(task.num_positions)[None] < 5
    assert jnp.isfinite(predict(probe, jnp.ones((1, task.num_positions, 4)), valid)).all()


def test_targets_are_the_symbols_at_the_ends_of_their_spans(task):
    batch = task.sample(jax.random.key(0), 20)
    targets = jax.tree.map(np.asarray, targets_of(task, batch))
    indices, ancestors, valid = (
        np.asarray(x) for x in (*map(batch.extras.get, ("indices", "ancestors")), batch.inputs["valid"])
    )
    assert probed_levels(task) == (1, 2)
    for j, depth in enumerate(probed_levels(task)):
        for b in range(20):
            string = np.flatnonzero(valid[b])[1:]
            ends = [i for i in string if i == string[-1] or indices[b, i, depth] != indices[b, i + 1, depth]]
            assert np.flatnonzero(targets.weight[j, b]).tolist() == ends
            symbols = [sorted(task.rules.levels[depth])[targets.symbol[j, b, i]] for i in ends]
            assert symbols == ancestors[b, ends, depth].tolist()


def test_whole_strings_show_every_token(task, next_token):
    batch = task.sample(jax.random.key(0), 8)
    shown = whole_strings(batch)
    np.testing.assert_array_equal(shown["tokens"], batch.targets)
    assert not shown["selected"].any()
    assert batch.inputs["selected"].any()
    assert sorted(whole_strings(next_token.sample(jax.random.key(0), 8))) == ["tokens", "valid"]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_transformers_of_both_kinds(task, next_token, randomly, kind):
    if kind == "bert":
        model = Bert(1, 2, 4, None, 2, attend_to_selected=False).build(task)
    else:
        task, config = next_token, Gpt2(1, 2, 4, None, 2)
        model = LinenModel(DecoderModule(config, task.vocabulary, task.num_classes, task.num_positions, False))
    params = randomly(model, task.sample(jax.random.key(0), 1).inputs)
    accuracies = accuracy(task, model, jax.tree.map(lambda leaf: leaf[None], params))
    assert accuracies.shape == (1, 2)
    assert (accuracies[0] > majority(task, CONFIG) + 0.05).all()  # tokens and positions alone tell something
    assert (accuracies <= 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 0}, "num_heads of at least 1"),
        ({"num_train": 33}, "batch_size that divides num_train = 33"),
        ({"num_test": 33}, "batch_size that divides num_test = 33"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate of more than 0"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(UserError, match=message):
        make(NonterminalProbe, vars(CONFIG) | changes)
