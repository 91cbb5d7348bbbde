"""Prediction of the next token on strings of a grammar: which tokens count, and what a model may know of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Labels, Outputs, cross_entropy
from pdjax.models.gpt2 import Gpt2
from pdjax.tasks.grammar import load_grammar
from pdjax.tasks.pcfg import PcfgLanguageTask
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Adam
from pdjax.train.state import Hyperparameters, Program, init_state
from pdjax.train.step import batch_metrics, evaluate
from pdjax.types import ratio

BOS, PAD = 3, 5  # terminals 1, 2, 3 have the ids 0, 1, 2
BATCH = 128
LEVELS = (1, 2, 3, 4)


def build(**changes):
    return PcfgLanguageTask(**{"grammar": "cfg3f", "root": 18, "level": 3, **changes})


@functools.cache
def sample(batch_size=BATCH, **changes):
    task = build(**changes)
    draw = jax.jit(lambda key: task.sample(key, batch_size))
    return jax.tree.map(np.asarray, draw(jax.random.key(0)))


def ends_of_symbols(batch, row, depth):
    """Returns the positions at which symbols of a depth end, from the tree above a string, by walking along it."""
    length = int(batch.inputs["valid"][row].sum())
    ends = set()
    for position in range(1, length):
        node = batch.extras["indices"][row, position, depth]
        later = [k for k in range(position + 1, length) if batch.extras["indices"][row, k, depth] == node]
        if not later:
            ends.add(position)
    return ends


# Sequences


@pytest.mark.parametrize("changes", [{}, {"length": 100}])
def test_targets_are_the_next_tokens(changes):
    batch = sample(**changes)
    tokens, valid = batch.inputs["tokens"], batch.inputs["valid"]
    assert sorted(batch.inputs) == ["tokens", "valid"]
    assert (
        tokens.shape
        == valid.shape
        == batch.targets.shape
        == batch.weights.shape
        == (BATCH, changes.get("length", 81 + 1))
    )
    for row in range(BATCH):
        length = valid[row].sum()
        assert valid[row, :length].all()
        assert tokens[row, 0] == BOS
        assert set(tokens[row, 1:length].tolist()) <= {0, 1, 2}
        assert set(tokens[row, length:].tolist()) <= {PAD}
        assert batch.targets[row, : length - 1].tolist() == tokens[row, 1:length].tolist()
    assert batch.targets.dtype == tokens.dtype == np.int32
    assert batch.weights.dtype == np.float32


def test_extras_are_those_of_the_strings():
    batch = sample()
    np.testing.assert_array_equal(batch.extras["tokens"], batch.inputs["tokens"])
    inside = batch.inputs["valid"] & (np.arange(82) > 0)
    np.testing.assert_array_equal(batch.extras["ancestors"][..., -1][inside] - 1, batch.inputs["tokens"][inside])
    assert batch.extras["ancestors"].shape == batch.extras["indices"].shape == (BATCH, 82, 5)
    assert not batch.extras["ancestors"][~inside].any()


# Which tokens count


@pytest.mark.parametrize("level", LEVELS)
def test_weights_are_where_symbols_of_the_level_end_next(level):
    """C^(l): the rightmost terminals of the symbols at depth D - (l - 1), with D = 4 under symbol 18."""
    batch = sample(level=level)
    for row in range(40):
        ends = ends_of_symbols(batch, row, 4 - (level - 1))
        assert set((np.flatnonzero(batch.weights[row]) + 1).tolist()) == ends
    assert set(np.unique(batch.weights)) == {0.0, 1.0}


def test_a_tree_by_hand():
    """3 1 2 1 3 2 has one derivation in cfg3b: 10 -> 7 9 8, 7 -> 3 1, 9 -> 2 1, 8 -> 3 2."""
    counted = {1: [1, 1, 1, 1, 1, 1, 0, 0, 0, 0], 2: [0, 1, 0, 1, 0, 1, 0, 0, 0, 0]}
    for level, weights in counted.items():
        batch = sample(batch_size=4096, grammar="cfg3b", root=10, level=level)
        rows = np.flatnonzero(np.all(batch.inputs["tokens"] == [BOS, 2, 0, 1, 0, 2, 1, PAD, PAD, PAD], axis=1))
        assert len(rows) > 0
        for row in rows:
            assert batch.weights[row].tolist() == weights
            assert batch.targets[row, :6].tolist() == [2, 0, 1, 0, 2, 1]


def test_levels_nest_and_every_one_is_smaller():
    weights = [sample(level=level).weights for level in LEVELS]
    for below, above in itertools.pairwise(weights):
        assert np.all(above <= below)
        assert np.all(above.sum(1) < below.sum(1))
        # A symbol has two or three children, and each of them ends once.
        assert np.all(2 * above.sum(1) <= below.sum(1))
        assert np.all(3 * above.sum(1) >= below.sum(1))


def test_level_1_counts_every_terminal():
    batch = sample(level=1)
    np.testing.assert_array_equal(batch.weights[:, :-1], batch.inputs["valid"][:, 1:])
    assert not batch.weights[:, -1].any()


@pytest.mark.parametrize("level", LEVELS)
def test_only_terminals_count_and_the_last_one_always(level):
    batch = sample(level=level)
    assert set(np.unique(batch.targets[batch.weights > 0])) == {0, 1, 2}  # neither [BOS] nor padding
    last = batch.inputs["valid"].sum(1) - 1
    assert np.all(batch.weights[np.arange(BATCH), last - 1] == 1)  # every symbol above it ends with it
    assert not np.any(batch.weights[np.arange(BATCH), last])  # nothing follows it


def test_the_same_strings_at_every_level_and_length():
    for changes in ({"level": 1}, {"length": 100}):
        np.testing.assert_array_equal(sample(**changes).inputs["tokens"][:, :82], sample().inputs["tokens"])
    np.testing.assert_array_equal(sample(length=100).weights[:, :82], sample().weights)


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 5}, r"expected level from 1 to 4, the depth of cfg3f below 18; found 5; lower it"),
        ({"root": 13, "level": 4}, r"expected level from 1 to 3, the depth of cfg3f below 13; found 4"),
        ({"root": None, "level": 7}, r"expected level from 1 to 6, the depth of cfg3f below 22; found 7"),
        ({"length": 81}, r"expected length of at least 82, \[BOS\] and the longest string of cfg3f; found 81"),
        ({"grammar": "cfg4"}, r"expected grammar among .*; found 'cfg4'"),
        ({"root": 99}, r"root among the non-terminals .*; found 99"),
    ],
)
def test_what_the_grammar_does_not_have(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_the_highest_level_is_that_of_the_roots_children():
    batch = sample(level=4)
    np.testing.assert_array_equal(batch.weights.sum(1), batch.extras["indices"][..., 1].max(1) + 1)


def test_classes_positions_and_rules():
    task = build()
    assert task.num_classes == task.vocabulary == 7
    assert task.num_positions == 82
    assert build(root=None, level=6).rules == load_grammar("cfg3f")


# With a model

GPT2 = {head: Gpt2(2, 2, 4, None, 2, tied_head=head == "tied") for head in ("tied", "untied")}


def drawn(model, inputs, scale=10.0):
    """Returns parameters that are large enough for every token to matter."""
    return jax.tree.map(lambda leaf: scale * leaf, model.init(jax.random.key(1), inputs))


@pytest.mark.parametrize("head", GPT2)
def test_losses_know_nothing_of_later_tokens(head):
    """The loss at i is that of the token at i + 1, from the tokens up to i."""
    task = build(root=13, level=2)
    batch = task.sample(jax.random.key(0), 8)
    model = GPT2[head].build(task)
    params = drawn(model, batch.inputs)

    @jax.jit
    def losses(tokens):
        logits, _ = model.apply(params, {**batch.inputs, "tokens": tokens})
        return cross_entropy(logits, jnp.roll(tokens, -1, axis=1))

    tokens = batch.inputs["tokens"]
    np.testing.assert_array_equal(jnp.roll(tokens, -1, axis=1)[:, :-1], batch.targets[:, :-1])
    before = losses(tokens)
    for i in (0, 3, 6):
        other = tokens.at[:, i + 2 :].set((tokens[:, i + 2 :] + 1) % 3)
        after = losses(other)
        np.testing.assert_allclose(after[:, : i + 1], before[:, : i + 1], rtol=1e-5)
        assert jnp.abs(after - before)[:, i + 1].min() > 1e-3
        assert jnp.abs(after - before)[:, i + 2].min() > 1e-3


@pytest.mark.parametrize("head", GPT2)
def test_padding_changes_neither_the_loss_nor_its_gradient(head):
    """Strings in sequences that are longer than need be, with other tokens where nothing is valid."""
    short, long = (build(root=13, level=2, length=length) for length in (None, 40))
    batches = [task.sample(jax.random.key(0), 8) for task in (short, long)]
    models = [GPT2[head].build(task) for task in (short, long)]
    params = drawn(models[1], batches[1].inputs)
    tokens = batches[1].inputs["tokens"]
    batches[1] = batches[1]._replace(
        inputs={**batches[1].inputs, "tokens": jnp.where(batches[1].inputs["valid"], tokens, 2)}
    )
    cut = {**params, "positions": jax.tree.map(lambda table: table[: short.num_positions], params["positions"])}

    def gradients(model, params, batch):
        def loss(params):
            logits, _ = model.apply(params, batch.inputs)
            assert logits.shape == (*batch.targets.shape, 7)
            return ratio(batch_metrics(Labels(), Outputs(logits, {}), None, batch, {}).loss)

        return jax.jit(jax.value_and_grad(loss))(params)

    (loss, gradient), (padded_loss, padded) = (
        gradients(*arguments) for arguments in zip(models, (cut, params), batches, strict=True)
    )
    assert loss == pytest.approx(float(padded_loss), rel=1e-5)
    (table,) = jax.tree.leaves(padded["positions"])
    assert not table[short.num_positions :].any()
    padded["positions"] = jax.tree.map(lambda table: table[: short.num_positions], padded["positions"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, padded)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["layers_0"]["feed_forward_norm"]))


def test_training_beats_guessing_on_boundaries():
    """Guessing knows how often each terminal ends a symbol of C^(2)."""
    task = build(grammar="cfg3b", root=10, level=2)
    optimizer = Adam(clip_norm=1.0, beta2=0.95)
    program = Program(task, GPT2["untied"].build(task), None, optimizer, 32, True, "data")
    held_out = sample(batch_size=4096, grammar="cfg3b", root=10, level=2)
    shares = np.bincount(held_out.targets[held_out.weights > 0]) / held_out.weights.sum()
    guessing = -np.sum(shares * np.log(shares))
    members = Hyperparameters(jnp.arange(2), jnp.full(2, 1e-2))
    state = init_state(program, members.seed)
    chunk = jax.jit(functools.partial(train_chunk, program, 100))
    measure = jax.jit(functools.partial(evaluate, program, 4, 64))
    before = ratio(measure(state.params, jnp.int32(0)).loss)
    state, _ = chunk(state, members, None, jnp.int32(0), jnp.int32(100))
    after = measure(state.params, jnp.int32(0))
    assert np.all(before > guessing)
    assert np.all(ratio(after.loss) < 0.7 * guessing)
    assert np.all(ratio(after.accuracy) > shares.max() + 0.1)
