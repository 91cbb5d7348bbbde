"""Contexts by hand and by loops over the definitions; which are equal; padding to few lengths."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.probes.contexts import ASKED, Places, contexts, distinct, draw_places, model_inputs, num_tokens
from pdjax.probes.lengths import at_length, padded_lengths
from pdjax.tasks.pcfg import BOS, MASK, PAD, PcfgLanguageTask

STRING = [BOS, 0, 1, 2, 2, 1, 0, PAD]
WHAT = {"B": BOS, "M": MASK, "?": ASKED, ".": PAD, "0": 0, "1": 1, "2": 2}


def place_of(position):
    tokens = jnp.array([STRING])
    return Places(tokens, tokens != PAD, jnp.array([position]))


def rows(pictures):
    return [[WHAT[letter] for letter in picture] for picture in pictures]


# The full context, then M_robust for n = 2, 3, 4, then M_close.
PICTURES = {
    (True, 3): ["B01?210.", "B0M?210.", "B0M?M10.", "BMM?M10.", "BM1?MMM.", "BM1?2MM.", "B01?2MM."],
    (True, 1): ["B?12210.", "B?12210.", "B?M2210.", "B?M2210.", "B?MMMMM.", "B?1MMMM.", "B?1MMMM."],
    (True, 6): ["B01221?.", "B0122M?.", "B0122M?.", "B012MM?.", "BMMMM1?.", "BMMMM1?.", "BMMM21?."],
    (False, 4): ["B012?...", "B012?...", "B0M2?...", "BMM2?...", "BMM2?...", "BM12?...", "B012?..."],
    (False, 1): ["B?......"] * 7,
}


@pytest.mark.parametrize(("masked", "position"), PICTURES)
def test_contexts_as_pictures(masked, position):
    context_rows = contexts(place_of(position), (2, 3, 4), masked)
    assert context_rows.shape == (7, 1, 8)
    assert context_rows[:, 0].tolist() == rows(PICTURES[masked, position])


def context_by_definition(tokens, length, i, n, measure, masked):
    """One context, one token at a time; tokens beyond the last terminal, at ``length``, are padding."""
    if masked:
        gram = range(i - math.ceil((n - 1) / 2), i + math.floor((n - 1) / 2) + 1)
        hidden = {"full": [], "robust": gram, "close": set(range(length + 1)) - set(gram)}[measure]
    else:
        gram = range(i - n + 1, i)
        hidden = {"full": [], "robust": range(i - n + 1, i - 1), "close": set(range(i)) - set(gram)}[measure]
    row = []
    for j, token in enumerate(tokens):
        if j == i:
            row.append(ASKED)
        elif j > length or (not masked and j > i):
            row.append(PAD)
        else:
            row.append(MASK if j in hidden and j > 0 else token)
    return row


@pytest.fixture(scope="module")
def places(task):
    return draw_places(jax.random.key(1), task.sample(jax.random.key(0), 30), 5, True)


@pytest.mark.parametrize("masked", [True, False])
def test_contexts_follow_the_definitions(places, masked):
    grams = (2, 3, 5, 8, 30)
    context_rows = np.asarray(contexts(places, grams, masked))
    names = [("full", 2), *(("robust", n) for n in grams), *(("close", n) for n in grams)]
    for p, (tokens, valid, position) in enumerate(zip(*map(np.asarray, places), strict=True)):
        for c, (measure, n) in enumerate(names):
            expected = context_by_definition(tokens.tolist(), valid.sum() - 1, position, n, measure, masked)
            assert context_rows[c, p].tolist() == expected, (measure, n, position)


def test_places_are_terminals_and_every_terminal_is_as_likely(task):
    places = draw_places(jax.random.key(3), task.sample(jax.random.key(2), 200), 50, True)
    tokens, valid, position = map(np.asarray, places)
    assert tokens.shape == valid.shape == (10_000, task.num_positions)
    length = valid.sum(1) - 1
    assert (position >= 1).all()
    assert (position <= length).all()
    assert (position == length).any()
    share = (position - 0.5) / length  # uniform on the middles of equal parts: mean 1/2, variance (1 - length^-2) / 12
    assert abs(share.mean() - 0.5) < 5 * (1 / 12 / len(share)) ** 0.5
    assert abs(share.var() - np.mean((1 - length**-2.0) / 12)) < 0.005
    np.testing.assert_array_equal(tokens[:50], np.tile(tokens[:1], (50, 1)))


def test_places_of_next_token_models_are_those_that_count():
    task = PcfgLanguageTask("cfg3f", 13, None, 2)
    batch = task.sample(jax.random.key(0), 20)
    position = np.asarray(draw_places(jax.random.key(1), batch, 200, False).position).reshape(20, 200)
    for drawn, weights in zip(position, np.asarray(batch.weights), strict=True):
        counted = 1 + np.flatnonzero(weights)  # a weight stands at the token before
        assert set(drawn) == set(counted)
        assert len(counted) < batch.weights.shape[1] // 2
        shares = np.bincount(drawn, minlength=counted.max() + 1)[counted] / 200
        assert np.abs(shares - 1 / len(counted)).max() < 0.15


def test_what_a_masked_model_reads():
    inputs = model_inputs(jnp.array(rows(["B0M?M10."]), jnp.int8), True, 7)
    assert inputs["tokens"].tolist() == [[BOS, 0, MASK, MASK, MASK, 1, 0]]
    assert inputs["valid"].tolist() == [[True] * 7]
    assert inputs["selected"].tolist() == [[False, False, True, True, True, False, False]]
    assert inputs["asked"].tolist() == [[3]]
    assert not model_inputs(jnp.array(rows(["B0M?M10."])), True, 8)["valid"][0, 7]


def test_what_a_next_token_model_reads():
    inputs = model_inputs(jnp.array(rows(["BMM2?..."]), jnp.int8), False, 4)
    assert inputs["valid"].tolist() == [[True, False, False, True]]
    assert inputs["tokens"][0, 3] == 2
    assert (inputs["tokens"] < PAD).all()
    assert inputs["asked"].tolist() == [[3]]  # the logits there are of the token at 4
    assert set(inputs) == {"tokens", "valid", "asked"}


@pytest.mark.parametrize("masked", [True, False])
def test_equal_contexts_are_one_and_shorter_ones_come_first(places, masked):
    context_rows = contexts(places, (2, 3), masked).reshape(-1, places.tokens.shape[1])
    needed = num_tokens(context_rows, masked)
    once = jax.jit(distinct)(context_rows, needed)
    all_rows, total = np.asarray(context_rows), int(once.total)
    assert total == len(np.unique(all_rows, axis=0)) < len(all_rows)
    chosen = all_rows[np.asarray(once.row)[:total]]
    np.testing.assert_array_equal(chosen[np.asarray(once.slot)], all_rows)
    lengths = np.asarray(needed)[np.asarray(once.row)[:total]]
    assert (np.diff(lengths) >= 0).all()
    assert lengths.max() > lengths.min()


def test_needed_tokens():
    both = jnp.array(rows(["B0M?M10.", "BMM2?..."]))
    assert num_tokens(both[:1], True).tolist() == [7]
    assert num_tokens(both[1:], False).tolist() == [4]  # the asked token itself is not shown


# Lengths


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_padded_lengths_are_the_best_of_all_choices(count):
    distribution = {3: 0.3, 4: 0.05, 5: 0.2, 8: 0.05, 9: 0.25, 11: 0.1, 14: 0.05}

    def padded(lengths):
        return sum(p * min(bound for bound in lengths if bound >= length) for length, p in distribution.items())

    lengths = padded_lengths(distribution, count)
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] == 14
    others = itertools.combinations(list(distribution)[:-1], min(count, 7) - 1)
    assert padded(lengths) == pytest.approx(min(padded((*other, 14)) for other in others))


@pytest.mark.parametrize(("needed", "taken"), [(1, 3), (3, 3), (4, 7), (7, 7), (8, 9), (9, 9)])
def test_the_shortest_length_that_suffices_is_taken(needed, taken):
    assert at_length((3, 7, 9), jnp.int32(needed), lambda length, x: x + length, jnp.int32(100)) == 100 + taken
