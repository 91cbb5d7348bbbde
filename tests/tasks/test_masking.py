"""Masking: which positions are selected, what replaces them, and that the choices are independent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pdjax.tasks.masking import mask_tokens

MASK, ORDINARY, SHAPE = 6, 3, (8000, 40)


@functools.cache
def sample(rate):
    """Tokens 0, 1, 2 in turn and a column of a special token 5; the first three columns cannot be selected."""
    tokens = np.tile(np.arange(SHAPE[1], dtype=np.int32) % ORDINARY, (SHAPE[0], 1))
    tokens[:, -1] = 5
    selectable = np.tile(np.arange(SHAPE[1]) >= 3, (SHAPE[0], 1))
    mask = jax.jit(lambda key: mask_tokens(key, jnp.asarray(tokens), jnp.asarray(selectable), rate, MASK, ORDINARY))
    return tokens, selectable, jax.tree.map(np.asarray, mask(jax.random.key(0)))


def assert_share(chosen, share):
    """The number of chosen ones, within four standard deviations of a binomial with that share."""
    deviation = np.sqrt(chosen.size * share * (1 - share))
    assert abs(chosen.sum() - chosen.size * share) < 4 * deviation


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.8])
def test_selection_rate(rate):
    _, selectable, masked = sample(rate)
    assert masked.selected.dtype == bool
    assert_share(masked.selected[selectable], rate)
    for column in range(3, SHAPE[1]):
        assert_share(masked.selected[:, column], rate)


def test_nothing_happens_elsewhere():
    tokens, selectable, masked = sample(0.3)
    assert not masked.selected[~selectable].any()
    np.testing.assert_array_equal(masked.tokens[~masked.selected], tokens[~masked.selected])
    assert masked.tokens.dtype == tokens.dtype


def test_shares_of_what_replaces_a_selected_token():
    """80 % [mask]; 10 % a random token, a third of them the same; 10 % kept: 2/15 of 0.1 + 0.1/3 look unchanged."""
    tokens, _, masked = sample(0.3)
    ordinary = masked.selected & (tokens < ORDINARY)
    after, before = masked.tokens[ordinary], tokens[ordinary]
    assert set(np.unique(after)) == {0, 1, 2, MASK}
    assert_share(after == MASK, 0.8)
    assert_share(after == before, 0.1 + 0.1 / 3)
    assert_share((after != before) & (after != MASK), 0.1 * 2 / 3)


def test_a_special_token_is_replaced_by_ordinary_ones():
    tokens, _, masked = sample(0.8)
    after = masked.tokens[masked.selected & (tokens == 5)]
    assert set(np.unique(after)) == {0, 1, 2, MASK, 5}
    assert_share(after == MASK, 0.8)
    assert_share(after == 5, 0.1)
    counts = np.bincount(after[after < ORDINARY], minlength=ORDINARY)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_random_tokens_are_uniform_whatever_was_there():
    tokens, _, masked = sample(0.8)
    for before in range(ORDINARY):
        after = masked.tokens[masked.selected & (tokens == before)]
        changed = [np.sum(after == other) for other in range(ORDINARY) if other != before]
        assert scipy.stats.chisquare(changed).pvalue > 1e-3


def test_positions_are_independent():
    """Correlations between all pairs of columns have the spread of those of independent draws."""
    _, _, masked = sample(0.3)
    replaced = (masked.tokens == MASK)[:, 3:]
    for choice in (masked.selected[:, 3:], replaced):
        correlation = np.corrcoef(choice.T)
        pairs = correlation[np.triu_indices(len(correlation), 1)] * np.sqrt(SHAPE[0])
        assert np.abs(pairs).max() < 5  # of 666 standard normals
        assert abs(np.square(pairs).mean() - 1) < 4 * np.sqrt(2 / len(pairs))


def test_sequences_are_independent():
    _, _, masked = sample(0.3)
    correlation = np.corrcoef(masked.selected[:300, 3:])
    pairs = correlation[np.triu_indices(300, 1)] * np.sqrt(SHAPE[1] - 3)
    assert abs(pairs.mean()) < 0.05
    assert abs(np.square(pairs).mean() - 1) < 0.1


def test_selection_and_replacement_are_independent():
    """Given that a position is selected, what becomes of it says nothing about its neighbour's selection."""
    _, _, masked = sample(0.3)
    here, neighbour = masked.selected[:, 3:-1], masked.selected[:, 4:]
    is_mask = masked.tokens[:, 3:-1] == MASK
    table = [[np.sum(here & (is_mask == a) & (neighbour == b)) for b in (False, True)] for a in (False, True)]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_keys():
    tokens = jnp.zeros((8, 40), jnp.int32)
    mask = jax.jit(lambda key: mask_tokens(key, tokens, tokens == 0, 0.3, MASK, ORDINARY))
    first, again, other = mask(jax.random.key(0)), mask(jax.random.key(0)), mask(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(np.asarray(first.selected != other.selected), axis=1).all()


@pytest.mark.parametrize(("rate", "selected"), [(0.0, False), (1.0, True)])
def test_the_ends_of_the_rate(rate, selected):
    tokens = jnp.zeros((8, 40), jnp.int32)
    masked = mask_tokens(jax.random.key(0), tokens, tokens == 0, rate, MASK, ORDINARY)
    assert np.all(np.asarray(masked.selected) == selected)
