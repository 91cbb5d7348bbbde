"""M_robust and M_close of hand-made models that look where we know, and of small Transformers, place by place."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.probes import ngrams
from pdjax.probes.ngrams import NgramProbe, ngram_distances, ngram_percentiles, ngram_places
from pdjax.settings import make
from pdjax.tasks.pcfg import MASK, VOCABULARY

GRAMS = (2, 3, 4, 5, 6, 7)
CONFIG = NgramProbe(n=GRAMS, num_sentences=20, num_positions=4, percentiles=(50,), batch_size=64)
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY + 1, VOCABULARY))  # logits for what is seen; last: nothing
NOTHING = VOCABULARY


@pytest.fixture(scope="module", autouse=True)
def few_lengths():
    """Three padded lengths take half the time to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "NUM_LENGTHS", 3)
        yield


def measure(task, model, params, config=CONFIG, seed=5):
    return np.asarray(jax.jit(functools.partial(ngram_distances, task, model, config))(params, jnp.int32(seed)))


def places_of(task, config=CONFIG, seed=5):
    places, masked = ngram_places(task, config, jnp.int32(seed))
    return [np.asarray(part) for part in places], masked


class Looks:
    """Predicts from the tokens at some distances from the place: its logits are the sum of a row for each.

    Parameters are the distances, and the weights of their rows. What is hidden, or beyond the ends, is a row like
    any token.
    """

    def apply(self, params, inputs):
        length = inputs["tokens"].shape[1]
        position = inputs["asked"] if "selected" in inputs else inputs["asked"] + 1
        seen = jnp.where(inputs["valid"], inputs["tokens"], NOTHING)
        logits = jnp.zeros((*position.shape, VOCABULARY))
        for offset, weight in zip(params["offsets"], params["weights"], strict=True):
            j = position + offset
            token = jnp.take_along_axis(seen, jnp.clip(j, 0, length - 1), axis=1)
            token = jnp.where((j >= 0) & (j < length), token, NOTHING)
            logits = logits + weight * jnp.asarray(TABLE)[token]
        return logits, {}


def looking(*offsets, scale=1.0):
    """The parameters of a ``Looks``: at most three distances, the k-th of weight k."""
    weights = [scale * (k + 1) if k < len(offsets) else 0.0 for k in range(3)]
    return {"offsets": jnp.array([*offsets, 0, 0, 0][:3]), "weights": jnp.array(weights)}


def stacked(*params):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)


class First:
    """Predicts from the first token, which is [BOS], and from whether it may be seen."""

    def apply(self, params, inputs):
        first = jnp.where(inputs["valid"][:, 0], inputs["tokens"][:, 0], NOTHING)
        hidden = inputs["selected"][:, 0] if "selected" in inputs else ~inputs["valid"][:, 0]
        return (params * (jnp.asarray(TABLE)[first] + 100 * hidden[:, None]))[:, None], {}


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def distance(a, b):
    return 0.5 * np.abs(softmax(a) - softmax(b)).sum()


def looked_up(tokens, length, i, offsets, shown, hidden_row):
    """The logits of ``Looks`` where it is shown only some of the tokens."""
    logits = np.zeros(VOCABULARY)
    for k, offset in enumerate(offsets):
        j = i + offset
        outside = j < 0 or j > length
        logits += (1 + k) * TABLE[NOTHING if outside else tokens[j] if j == 0 or shown(offset) else hidden_row]
    return logits


def expected_of_looks(task, offsets):
    """M_robust and M_close of ``Looks``, by the definitions, one place at a time."""
    places, masked = places_of(task)
    hidden_row = MASK if masked else NOTHING
    distances = np.zeros((2, len(GRAMS), len(places[2])))
    for p, (tokens, valid, i) in enumerate(zip(*places, strict=True)):
        logits = functools.partial(looked_up, tokens, valid.sum() - 1, i, offsets, hidden_row=hidden_row)
        full = logits(lambda _: True)
        for g, n in enumerate(GRAMS):
            if masked:
                gram = range(-(n // 2), (n - 1) // 2 + 1)
                robust, close = logits(lambda d, gram=gram: d not in gram), logits(lambda d, gram=gram: d in gram)
            else:
                robust, close = logits(lambda d, n=n: d <= -n or d == -1), logits(lambda d, n=n: d > -n)
            distances[:, g, p] = distance(full, robust), distance(full, close)
    return distances


# Where a model looks, and the n of 2 to 7 for which its M_robust, and its M_close, are 0.
EVERY = [2, 3, 4, 5, 6, 7]
MASKED = {
    (): (EVERY, EVERY),  # it ignores the context
    (-1,): ([], EVERY),  # every n-gram has the token before
    (1,): ([2], EVERY[1:]),  # the one after comes with n = 3
    (-1, 1): ([], EVERY[1:]),
    (-2, 2): ([2, 3], [5, 6, 7]),
    (-3, 3): ([2, 3, 4, 5], [7]),
    (4,): (EVERY, []),
    (-2, 1, 3): ([2], [7]),
}
NEXT_TOKEN = {
    (): (EVERY, EVERY),
    (-1,): (EVERY, EVERY),  # the token before always stays
    (-2,): ([2], EVERY[1:]),
    (-4,): ([2, 3, 4], [5, 6, 7]),
    (-1, -3): ([2, 3], [4, 5, 6, 7]),
    (-7,): (EVERY, []),
}


@pytest.mark.parametrize("kind", ["masked", "next token"])
def test_models_that_look_at_some_neighbours(task, next_token, kind):
    task, zeros = (task, MASKED) if kind == "masked" else (next_token, NEXT_TOKEN)
    all_distances = measure(task, Looks(), stacked(*[looking(*offsets) for offsets in zeros]))
    for (offsets, zero), distances in zip(zeros.items(), all_distances, strict=True):
        np.testing.assert_allclose(distances, expected_of_looks(task, offsets), atol=1e-5, err_msg=str(offsets))
        for measured, where in zip(distances, zero, strict=True):
            assert [n for g, n in enumerate(GRAMS) if measured[g].max() < 1e-6] == where, offsets
            assert all(measured[g].max() > 0.1 for g, n in enumerate(GRAMS) if n not in where)


def test_bos_is_never_hidden(task, next_token):
    for each in (task, next_token):
        assert measure(each, First(), jnp.ones(1)).max() == 0


def test_distances_are_between_0_and_1_and_reach_1(task):
    """Certain of different tokens with and without the neighbour: half of the L1 distance is 1, not 2."""
    (distances,) = measure(task, Looks(), stacked(looking(-1, scale=1e3)))
    assert distances.min() >= 0
    assert distances.max() == pytest.approx(1, abs=1e-6)


def test_models_are_measured_each_for_itself(task):
    each = [looking(-2, 1), looking(2, 1, -1, scale=0.3)]
    together = measure(task, Looks(), stacked(*each))
    assert together.shape == (2, 2, len(GRAMS), 80)
    alone = jax.jit(functools.partial(ngram_distances, task, Looks(), CONFIG))
    for params, distances in zip(each, together, strict=True):
        np.testing.assert_allclose(distances, alone(stacked(params), jnp.int32(5))[0], atol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_the_batch_size_changes_nothing(task, batch_size):
    other = dataclasses.replace(CONFIG, batch_size=batch_size)
    (distances,) = measure(task, Looks(), stacked(looking(-2, 1)), other)
    np.testing.assert_allclose(distances, expected_of_looks(task, (-2, 1)), atol=1e-5)


def test_percentiles_over_places(task):
    config = dataclasses.replace(CONFIG, percentiles=(10, 50, 100))
    params = stacked(looking(-2, 1), looking(-2, 1, scale=0.5))
    distances = measure(task, Looks(), params)
    percentiles = jax.jit(functools.partial(ngram_percentiles, config))(distances)
    assert percentiles.shape == (2, 2, len(GRAMS), 3)
    np.testing.assert_allclose(percentiles[..., 1], np.median(distances, axis=-1), atol=1e-6)
    np.testing.assert_allclose(percentiles[..., 2], distances.max(-1), atol=1e-6)
    np.testing.assert_allclose(percentiles[..., 0], np.percentile(distances, 10, axis=-1), atol=1e-5)


# Transformers, one place at a time

BERT = Bert(2, 2, 4, None, 2)
GPT2 = Gpt2(2, 2, 4, None, 2)
FEW = dataclasses.replace(CONFIG, n=(2, 3, 6), num_sentences=6, num_positions=3, batch_size=16)


def one_at_a_time(task, probability, inputs_for):
    """M_robust and M_close: the whole strings with single tokens taken away, all positions asked."""
    (tokens, valid, position), masked = places_of(task, FEW)
    distances = np.zeros((2, len(FEW.n), len(position)))
    for p, i in enumerate(position):
        length = valid[p].sum() - 1

        def predict(hidden, p=p, i=i, length=length):
            kept_bos = {j for j in hidden if 1 <= j <= length}
            return probability(inputs_for(tokens[p], valid[p], kept_bos))[i if masked else i - 1]

        for g, n in enumerate(FEW.n):
            if masked:
                gram = set(range(i - n // 2, i + (n - 1) // 2 + 1))
                contexts = {i}, gram, (set(range(length + 1)) - gram) | {i}
            else:
                contexts = set(), set(range(i - n + 1, i - 1)), set(range(i - n + 1))
            full, robust, close = map(predict, contexts)
            distances[:, g, p] = 0.5 * np.abs(full - robust).sum(), 0.5 * np.abs(full - close).sum()
    return distances


def probability_of(model, params):
    run = jax.jit(lambda inputs: jax.nn.softmax(model.apply(params, inputs)[0][0]))
    return lambda inputs: np.asarray(run({name: jnp.asarray(x)[None] for name, x in inputs.items()}))


@pytest.mark.parametrize("attend_to_selected", [True, False])
def test_bert_one_place_at_a_time(task, randomly, attend_to_selected):
    config = dataclasses.replace(BERT, attend_to_selected=attend_to_selected)
    model = config.build(task)
    params = randomly(model, task.sample(jax.random.key(0), 1).inputs)

    def inputs_for(tokens, valid, hidden):
        selected = np.isin(np.arange(len(tokens)), list(hidden))
        return {"tokens": np.where(selected, MASK, tokens), "valid": valid, "selected": selected}

    expected = one_at_a_time(task, probability_of(model, params), inputs_for)
    (distances,) = measure(task, model, jax.tree.map(lambda leaf: leaf[None], params), FEW)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert expected.min(axis=-1).max() > 1e-3  # every measure and n says something


def test_gpt2_one_place_at_a_time(next_token, randomly):
    """Everything behind the place is shown here, which a causal model does not see."""
    model = LinenModel(
        DecoderModule(GPT2, next_token.vocabulary, next_token.num_classes, next_token.num_positions, False)
    )
    params = randomly(model, next_token.sample(jax.random.key(0), 1).inputs)

    def inputs_for(tokens, valid, hidden):
        return {"tokens": tokens, "valid": valid & ~np.isin(np.arange(len(tokens)), list(hidden))}

    expected = one_at_a_time(next_token, probability_of(model, params), inputs_for)
    (distances,) = measure(next_token, model, jax.tree.map(lambda leaf: leaf[None], params), FEW)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert (expected[0, 0] == 0).all()  # n = 2 has only the token that stays
    assert expected.max(axis=-1)[1].min() > 1e-2


# Configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": ()}, "expected at least 1 in n; found ()"),
        ({"n": (3, 1)}, "expected n.1 of at least 2; found 1"),
        ({"num_sentences": 0}, "num_sentences of at least 1"),
        ({"num_positions": 0}, "num_positions of at least 1"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"percentiles": ()}, "50 among them"),
        ({"percentiles": (25, 75)}, "50 among them"),
        ({"percentiles": (50, 101)}, "percentiles.1 of at most 100; found 101"),
        ({"percentiles": (-1, 50)}, "percentiles.0 of at least 0; found -1"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make(NgramProbe, vars(CONFIG) | changes)
