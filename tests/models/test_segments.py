"""Several documents in one row: each gets what it gets alone, and sees nothing of the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert, BertModule
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX

VOCABULARY, LENGTH = 12, 10
SIZES = (2, 2, None, 16, 2)  # layers, heads, head_dim, width, multiple
# A head of its own: derivatives with respect to the table are those with respect to what goes in.
BERT = Bert(*SIZES, tied_head=False)
MODELS = {
    "bert": BERT,
    "bert, selected ones hidden": dataclasses.replace(BERT, attend_to_selected=False),
    "gpt2": Gpt2(*SIZES),
    "gpt_neox": GptNeoX(*SIZES, rotary_share=0.5),
}
# By row, as (first position, behind the last): padding behind, before and between them, or none at all.
DOCUMENTS = (((0, 4), (4, 7)), ((2, 4), (5, 9)), ((0, 9), (9, 10)))
EVERY = [(row, i, *span) for row, spans in enumerate(DOCUMENTS) for i, span in enumerate(spans, 1)]


def model(config, last_only=False):
    if isinstance(config, Bert):
        return LinenModel(BertModule(config, VOCABULARY, LENGTH))
    return LinenModel(DecoderModule(config, VOCABULARY, VOCABULARY, LENGTH, last_only))


@pytest.fixture(scope="module", params=MODELS)
def config(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def inputs():
    """Documents of three rows; the tokens of the first are below 4, of the second below 8, of padding below 12."""
    rng = np.random.default_rng(0)
    segments, positions = (np.zeros((3, LENGTH), np.int32) for _ in range(2))
    for row, number, begin, end in EVERY:
        segments[row, begin:end], positions[row, begin:end] = number, np.arange(end - begin)
    tokens = rng.integers(0, 4, segments.shape) + 4 * ((segments - 1) % 3)
    selected = (rng.random(segments.shape) < 0.4) & (positions > 0)  # of no document all
    arrays = {"tokens": tokens, "valid": segments > 0, "selected": selected, "segments": segments}
    return {name: jnp.asarray(array) for name, array in {**arrays, "positions": positions}.items()}


@pytest.fixture(scope="module")
def params(config, inputs):
    """Weights large enough that every part of the model matters."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model(config).init, jax.random.key(0), inputs)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)


def alone(inputs, row, begin, end):
    """A document at the beginning of a row, as one is read that holds no other."""
    held = {name: inputs[name][row : row + 1, begin:end] for name in ("tokens", "valid", "selected")}
    return {name: jnp.pad(array, ((0, 0), (0, LENGTH - array.shape[1]))) for name, array in held.items()}


def test_documents_get_what_they_get_alone(config, params, inputs):
    logits, intermediates = model(config).apply(params, inputs)
    for row, _, begin, end in EVERY:
        expected, of_alone = model(config).apply(params, alone(inputs, row, begin, end))
        np.testing.assert_allclose(logits[row, begin:end], expected[0, : end - begin], atol=1e-5)
        for packed, single in zip(intermediates["attention"], of_alone["attention"], strict=True):
            np.testing.assert_allclose(
                packed[row, :, begin:end, begin:end], single[0, :, : end - begin, : end - begin], atol=1e-5
            )


def test_both_are_read(config, params, inputs):
    logits = model(config).apply(params, inputs)[0]
    together = {key: array for key, array in inputs.items() if key != "segments"}
    for other in (together, {**inputs, "positions": LENGTH - 1 - inputs["positions"]}):
        assert jnp.abs(model(config).apply(params, other)[0] - logits)[inputs["valid"]].max() > 1e-2


def test_asked_positions_get_the_logits_of_all(config, params, inputs):
    """Of both documents, and one of them twice."""
    asked = jnp.array([[6, 1, 6], [8, 2, 5], [9, 0, 8]])
    logits, intermediates = model(config).apply(params, inputs)
    some, of_asked = model(config).apply(params, {**inputs, "asked": asked})
    rows = jnp.arange(3)[:, None]
    np.testing.assert_allclose(some, logits[rows, asked], atol=1e-5)
    weights = intermediates["attention"][-1].swapaxes(1, 2)[rows, asked]
    np.testing.assert_allclose(of_asked["attention"][-1].swapaxes(1, 2), weights, atol=1e-5)


@pytest.mark.parametrize("config", ["gpt2", "gpt_neox"], indirect=True)
def test_the_last_position_is_of_the_last_document(config, params, inputs):
    logits = model(config).apply(params, inputs)[0]
    last = model(config, last_only=True).apply(params, inputs)[0]
    np.testing.assert_allclose(last[2], logits[2, -1], atol=1e-5)


def derivative(config, params, inputs, number):
    """The largest derivative of the logits of all documents of a number with respect to each token's embedding."""
    places = (inputs["segments"] == number)[..., None]

    @jax.jit
    def gradient(inputs):
        def seen(table):
            logits = model(config).apply({**params, "tokens": {"embedding": table}}, inputs)[0]
            return jnp.sum(jnp.sin(logits) * places)

        return jnp.abs(jax.grad(seen)(params["tokens"]["embedding"])).max(1)

    return gradient


@pytest.mark.parametrize("number", [1, 2])
def test_no_derivative_with_respect_to_another_document(config, params, inputs, number):
    """Not even of a document that is hidden from itself: it sees what is hidden, all of it alike."""
    inputs = {**inputs, "selected": inputs["segments"] == number}
    gradient = derivative(config, params, inputs, number)
    own = jnp.arange(VOCABULARY) // 4 == number - 1
    apart = gradient(inputs)
    assert (apart[own] > 0).any()
    assert (apart[~own] == 0).all()
    if number == 2:  # what comes later is hidden from the first by some models anyway
        assert (gradient({key: array for key, array in inputs.items() if key != "segments"})[~own] > 0).any()


@pytest.mark.parametrize("config", ["gpt2", "gpt_neox"], indirect=True)
def test_segment_0_is_padding_without_being_told(config, params, inputs):
    logits = model(config).apply(params, inputs)[0]
    told = {key: array for key, array in inputs.items() if key != "valid"}
    np.testing.assert_allclose(
        model(config).apply(params, told)[0][inputs["valid"]], logits[inputs["valid"]], atol=1e-5
    )


def test_positions_of_whole_rows_change_nothing(config, params, inputs):
    everywhere = jnp.broadcast_to(jnp.arange(LENGTH), inputs["tokens"].shape)
    plain = {key: array for key, array in inputs.items() if key not in ("segments", "positions")}
    expected = model(config).apply(params, plain)[0]
    said = {**plain, "positions": everywhere, "segments": plain["valid"].astype(jnp.int32)}
    np.testing.assert_allclose(
        model(config).apply(params, said)[0][plain["valid"]], expected[plain["valid"]], atol=1e-5
    )
