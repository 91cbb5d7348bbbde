"""Batches of the PCFG task: token ids, ends, targets and what probes read beside them."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats

from pdjax.tasks.grammar import load_grammar
from pdjax.tasks.pcfg import PcfgTask

BOS, EOS, PAD, MASK = 3, 4, 5, 6  # terminals 1, 2, 3 have the ids 0, 1, 2
BATCH = 256


def build(**changes):
    return PcfgTask(**{"grammar": "cfg3b", "root": 13, **changes})


@functools.cache
def compiled(**changes):
    task = build(**changes)
    return jax.jit(lambda key: task.sample(key, BATCH))


@functools.cache
def sample(**changes):
    return jax.tree.map(np.asarray, compiled(**changes)(jax.random.key(0)))


OTHER = {"length": 30, "mask_rate": 0.8, "select_bos": True}


def test_the_default_length_is_that_of_the_longest_string_and_bos():
    """Longest strings as counted for the grammars of the paper."""
    lengths = {"cfg3b": 432, "cfg3i": 564, "cfg3h": 459, "cfg3g": 729, "cfg3f": 729}
    for grammar, longest in lengths.items():
        assert build(grammar=grammar, root=None).num_positions == longest + 1
    assert build().num_positions == 18 + 1


def test_a_batch_has_the_length_of_the_task():
    batch = sample()
    for array in (*batch.inputs.values(), batch.targets, batch.weights, batch.extras["tokens"]):
        assert array.shape == (BATCH, 19)
    assert batch.extras["ancestors"].shape == batch.extras["indices"].shape == (BATCH, 19, 4)
    assert sorted(batch.inputs) == ["selected", "tokens", "valid"]
    assert batch.targets.dtype == batch.inputs["tokens"].dtype == np.int32
    assert batch.weights.dtype == np.float32


@pytest.mark.parametrize("changes", [{}, OTHER])
def test_tokens_between_bos_and_padding(changes):
    batch = sample(**changes)
    assert batch.targets.shape == (BATCH, changes.get("length", 19))
    ends = batch.inputs["valid"].sum(axis=1)  # [BOS] and 12 to 18 terminals
    assert ends.min() >= 13
    assert ends.max() <= 19
    assert len(set(ends.tolist())) > 3
    position = np.arange(batch.targets.shape[1])
    np.testing.assert_array_equal(batch.inputs["valid"], position < ends[:, None])
    assert np.all(batch.targets[:, 0] == BOS)
    inside = (position > 0) & (position < ends[:, None])
    assert set(np.unique(batch.targets[inside])) == {0, 1, 2}
    assert np.all(batch.targets[position >= ends[:, None]] == PAD)
    assert np.all(batch.inputs["tokens"][position >= ends[:, None]] == PAD)


@pytest.mark.parametrize("changes", [{}, OTHER])
def test_extras_are_aligned_with_the_tokens(changes):
    """Above every terminal its own tree, shifted by [BOS], which has none."""
    batch = sample(**changes)
    ancestors, indices = batch.extras["ancestors"], batch.extras["indices"]
    np.testing.assert_array_equal(batch.extras["tokens"], batch.targets)
    inside = batch.inputs["valid"].copy()
    inside[:, 0] = False
    np.testing.assert_array_equal(ancestors[..., -1][inside] - 1, batch.targets[inside])
    np.testing.assert_array_equal(ancestors[..., 0][inside], 13)
    position = np.broadcast_to(np.arange(inside.shape[1]), inside.shape)
    np.testing.assert_array_equal(indices[..., -1][inside], position[inside] - 1)
    assert not ancestors[~inside].any()
    assert not indices[~inside].any()
    # Each run of terminals under a symbol of the last level but one is a right-hand side of that symbol.
    rules = load_grammar("cfg3b").rules
    for row in range(20):
        for node in range(indices[row, :, 2].max() + 1):
            under = np.flatnonzero(inside[row] & (indices[row, :, 2] == node))
            (symbol,) = set(ancestors[row, under, 2].tolist())
            assert tuple((batch.targets[row, under] + 1).tolist()) in rules[symbol]


def test_lengths_are_those_of_the_grammar():
    """12 + Binomial(6, 1/2) terminals: 1, 6, 15, 20, 15, 6, 1 of 64."""
    lengths = np.bincount(sample().inputs["valid"].sum(axis=1) - 1, minlength=19)[12:]
    pools = [lengths[:2].sum(), *lengths[2:5], lengths[5:].sum()]
    assert scipy.stats.chisquare(pools, np.array([7, 15, 20, 15, 7]) * BATCH / 64).pvalue > 1e-3


def test_weights_are_the_selected_positions():
    batch = sample()
    selected = batch.inputs["selected"]
    assert selected.dtype == bool
    np.testing.assert_array_equal(batch.weights, selected)
    count, share = batch.inputs["valid"][:, 1:].sum(), 0.3
    assert abs(selected.sum() - count * share) < 4 * np.sqrt(count * share * (1 - share))
    assert not selected[~batch.inputs["valid"]].any()


def test_tokens_differ_from_the_targets_at_selected_positions_only():
    batch = sample()
    tokens, targets, selected = batch.inputs["tokens"], batch.targets, batch.inputs["selected"]
    np.testing.assert_array_equal(tokens[~selected], targets[~selected])
    assert set(np.unique(tokens[selected])) == {0, 1, 2, MASK}
    assert set(np.unique(targets[selected])) == {0, 1, 2}
    assert abs(np.mean(tokens[selected] == MASK) - 0.8) < 0.05
    assert np.mean(tokens[selected] != targets[selected]) == pytest.approx(0.8 + 0.1 * 2 / 3, abs=0.05)


def test_bos_is_selected_only_on_demand():
    assert not sample().inputs["selected"][:, 0].any()
    batch = sample(**OTHER)
    chosen = batch.inputs["selected"][:, 0]
    assert abs(chosen.mean() - 0.8) < 4 * np.sqrt(0.8 * 0.2 / BATCH)
    assert np.all(batch.targets[:, 0] == BOS)
    assert np.all(batch.inputs["tokens"][~chosen, 0] == BOS)
    assert set(np.unique(batch.inputs["tokens"][chosen, 0])) == {0, 1, 2, BOS, MASK}


def test_the_mask_rate():
    batch = sample(**OTHER)
    assert batch.inputs["selected"][:, 1:13].mean() == pytest.approx(0.8, abs=0.03)
    assert not batch.inputs["selected"][~batch.inputs["valid"]].any()


def test_a_length_that_cuts_strings_states_their_share():
    """Root 13 of cfg3b: 12 + Binomial(6, 1/2) terminals; 17 and 18 have (6 + 1) / 64 = 0.109."""
    with pytest.raises(
        ValueError, match=r"expected length of at least 19, .*cfg3b; found 17, which would cut 0\.11 of all"
    ):
        build(length=17)
    with pytest.raises(
        ValueError, match=r"found 18, which would cut 0\.016 of all strings; raise it, leave it at None"
    ):
        build(length=18)
    assert build(length=19).num_positions == 19


def test_the_released_length_of_512_cuts_some_grammars():
    assert build(root=None, length=512).num_positions == 512
    with pytest.raises(ValueError, match=r"at least 730, .*cfg3f; found 512, which would cut [0-9.e-]+ of all strings"):
        build(grammar="cfg3f", root=None, length=512)


def test_an_unknown_grammar_or_root():
    with pytest.raises(ValueError, match=r"expected grammar among .*; found 'cfg4'"):
        build(grammar="cfg4")
    with pytest.raises(ValueError, match=r"root among the non-terminals .*; found 99"):
        build(root=99)


def test_classes_are_the_tokens():
    task = build()
    assert task.num_classes == task.vocabulary == 7


def test_under_vmap_and_inside_a_scan():
    """A batch is a function of its key, whichever way it is drawn."""
    task = build(root=7)
    keys = jax.random.split(jax.random.key(3), 4)
    alone = jax.jit(lambda key: task.sample(key, 16))
    one_by_one = [alone(key) for key in keys]
    wanted = jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one)
    mapped = jax.jit(jax.vmap(lambda key: task.sample(key, 16)))(keys)
    jax.tree.map(np.testing.assert_array_equal, mapped, wanted)
    _, scanned = jax.jit(lambda keys: jax.lax.scan(lambda carry, key: (carry, task.sample(key, 16)), None, keys))(keys)
    jax.tree.map(np.testing.assert_array_equal, scanned, wanted)
    targets = np.asarray(wanted.targets)
    assert all(np.any(targets[i] != targets[j]) for i in range(4) for j in range(i))


def test_a_key_decides_strings_and_masks():
    first, again, other = (jax.tree.map(np.asarray, compiled()(jax.random.key(seed))) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.mean(np.any(first.targets != other.targets, axis=1)) > 0.9
    assert np.mean(np.any(first.inputs["selected"] != other.inputs["selected"], axis=1)) > 0.9


def test_tokens_are_named_by_their_ids():
    """A batch in words: terminals are the symbols at the ends of trees, around them the special tokens."""
    task, batch = build(), sample()
    assert task.tokens.index("[EOS]") == EOS
    assert len(set(task.tokens)) == task.vocabulary
    names = np.array(task.tokens)
    words = names[batch.targets]
    valid = batch.inputs["valid"]
    assert set(words[:, 0]) == {"[BOS]"}
    assert set(words[~valid]) == {"[PAD]"}
    symbols = batch.extras["ancestors"][:, 1:, -1][valid[:, 1:]]
    np.testing.assert_array_equal(words[:, 1:][valid[:, 1:]], symbols.astype(str))
    assert "[MASK]" in names[batch.inputs["tokens"]][batch.inputs["selected"]]
