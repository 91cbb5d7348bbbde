"""M_robust and M_close on text, against a model that is asked one context at a time."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.bert import Bert
from pdjax.probes.text import text_distances
from pdjax.tasks.text import Prepared, TextTask

PAD, UNKNOWN, FIRST, LAST, MASK = range(5)
CORPUS = Prepared("nowhere", None, 15, 14, (PAD, UNKNOWN, FIRST, LAST, MASK))
TASK = TextTask(CORPUS)
GRAMS, POSITIONS = (2, 3, 6), 5
TOKENS = [
    [FIRST, 5, 6, 7, 8, 9, LAST, FIRST, 10, 11, 12, LAST, PAD, PAD],
    [FIRST, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 13, 9, LAST],
    [FIRST, 5, LAST, FIRST, 6, 7, LAST, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
]
SEGMENTS = [[1] * 7 + [2] * 5 + [0] * 2, [1] * 14, [1] * 3 + [2] * 4 + [0] * 7]


class Noted:
    """Predicts what it is shown, so that every answer says its question: no two contexts have the same."""

    def apply(self, params, inputs):
        seen = inputs["tokens"] * (inputs["segments"] == jnp.take_along_axis(inputs["segments"], inputs["asked"], 1))
        key = jnp.sum(params * jnp.sin(seen * (1.0 + jnp.arange(14.0))[None]), axis=1)
        return jnp.sin(key[:, None, None] * (1.0 + jnp.arange(15.0))[None, None]), {}


def brute_force(model, params, tokens, segments, i):
    """Returns the distances at one place, for each n, from a model that gets one row at a time."""

    def answer(hidden):
        selected = np.isin(np.arange(14), [i, *hidden])
        starts = [segments.index(segment) for segment in segments]
        inputs = {
            "tokens": np.where(selected, MASK, tokens),
            "valid": np.array(segments) > 0,
            "selected": selected,
            "segments": np.array(segments),
            "positions": np.arange(14) - starts,
            "asked": np.array([i]),
        }
        logits, _ = model.apply(params, {name: jnp.asarray(value)[None] for name, value in inputs.items()})
        return np.asarray(jax.nn.softmax(logits[0, 0]))

    piece = [j for j in range(14) if segments[j] == segments[i] and tokens[j] not in (FIRST, LAST)]
    windows = [range(i - n // 2, i + (n - 1) // 2 + 1) for n in GRAMS]  # ceil((n - 1) / 2) to the left
    full = answer([])
    robust = [np.abs(answer([j for j in piece if j in window]) - full).sum() / 2 for window in windows]
    close = [np.abs(answer([j for j in piece if j not in window]) - full).sum() / 2 for window in windows]
    return [robust, close]


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("kind", ["noted", "bert", "hidden"])
def test_distances_are_those_of_one_context_at_a_time(kind, batch_size):
    """Places are ordinary tokens; of other pieces, [CLS] and [SEP] nothing is ever hidden."""
    examples = {"tokens": jnp.array([TOKENS], jnp.uint16), "segments": jnp.array([SEGMENTS], jnp.uint8)}
    if kind == "noted":
        model, params = Noted(), jnp.array([1.0, 2.5])
    else:
        model = Bert(1, 2, 4, attend_to_selected=kind == "bert").build(TASK)
        inputs = TASK.batch(jax.random.key(0), {name: array[0] for name, array in examples.items()}).inputs
        params = jax.vmap(lambda key: model.init(key, inputs))(jax.random.split(jax.random.key(1), 2))
        params = jax.tree.map(lambda leaf: 10 * leaf, params)  # far enough from predicting the same everywhere
    measure = jax.jit(functools.partial(text_distances, TASK, model, GRAMS, POSITIONS, batch_size))
    distances = np.asarray(measure(params, jnp.int32(3), examples))
    assert distances.shape == (2, 2, len(GRAMS), len(TOKENS) * POSITIONS)
    places = {
        row: [i for i in range(14) if SEGMENTS[row][i] and TOKENS[row][i] not in (FIRST, LAST)] for row in range(3)
    }
    for replica in range(2):
        mine = jax.tree.map(lambda leaf, r=replica: leaf[r], params)
        expected = {
            row: np.array([brute_force(model, mine, TOKENS[row], SEGMENTS[row], i) for i in places[row]])
            for row in places
        }
        for row, number in itertools.product(places, range(POSITIONS)):
            found = distances[replica, :, :, row * POSITIONS + number]
            apart = np.abs(expected[row] - found).max(axis=(1, 2))
            assert apart.min() < 1e-5, (row, number)
    assert distances.max() > 0.01


def test_every_ordinary_token_is_a_place_as_often():
    """By what the model is asked, a row of one to 12 tokens at a time."""
    asked = []

    class Asked:
        def apply(self, params, inputs):
            asked.append(inputs["asked"])
            return params * jnp.ones((len(inputs["asked"]), 1, 2)), {}

    examples = {"tokens": jnp.array([TOKENS], jnp.uint16), "segments": jnp.array([SEGMENTS], jnp.uint8)}
    with jax.disable_jit():
        text_distances(TASK, Asked(), (2,), 2000, 18_000, jnp.ones(1), jnp.int32(0), examples)
    position = np.asarray(asked[0])[:6000, 0]
    for row, (tokens, of_row) in enumerate(zip(TOKENS, position.reshape(3, 2000), strict=True)):
        places = [i for i in range(14) if SEGMENTS[row][i] and tokens[i] not in (FIRST, LAST)]
        counts = np.bincount(of_row, minlength=14)
        assert set(np.flatnonzero(counts)) == set(places)
        assert counts[places] == pytest.approx(2000 / len(places), abs=6 * (2000 / len(places)) ** 0.5)
