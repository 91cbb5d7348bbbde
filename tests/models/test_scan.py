"""Scanned layers against the same layers one by one: what they compute, and what they keep."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert, BertModule
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.stack import stacked, unstacked
from pdjax.train.flops import count_products

VOCABULARY, BATCH, LENGTH, LAYERS, HEADS, WIDTH = 7, 3, 10, 3, 2, 16
SIZES = (LAYERS, HEADS, None, WIDTH, 2)
MODELS = {"bert": Bert(*SIZES), "gpt2": Gpt2(*SIZES), "gpt_neox": GptNeoX(*SIZES, rotary_share=0.5)}
ASKED = jnp.array([[3, 0], [7, 7], [9, 2]])


def model(config, last_only=False):
    if isinstance(config, Bert):
        return LinenModel(BertModule(config, VOCABULARY, LENGTH))
    return LinenModel(DecoderModule(config, VOCABULARY, VOCABULARY, LENGTH, last_only))


def scanned(config):
    return dataclasses.replace(config, scan_layers=True)


@pytest.fixture(scope="module", params=MODELS)
def config(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def inputs():
    """Rows of two strings, one of them padded."""
    rng = np.random.default_rng(0)
    valid = np.arange(LENGTH) < np.array([[LENGTH], [LENGTH], [7]])
    selected = valid & (rng.random(valid.shape) < 0.3)
    tokens, behind = rng.integers(0, VOCABULARY, valid.shape), np.arange(LENGTH) >= 4
    segments, positions = np.where(valid, 1 + behind, 0), np.broadcast_to(np.arange(LENGTH) - 4 * behind, valid.shape)
    arrays = {"tokens": tokens, "valid": valid, "selected": selected, "segments": segments, "positions": positions}
    return {name: jnp.asarray(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def params(config, inputs):
    """Weights large enough that every part of the model matters."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model(config).init, jax.random.key(0), inputs)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes)


def loss(model, params, inputs):
    logits, intermediates = model.apply(params, inputs)
    return jnp.mean(jnp.sin(logits)), (logits, intermediates)


# Values


@pytest.mark.parametrize(("places", "layers"), [("all", LAYERS), ("asked", LAYERS), ("asked", 1), ("last", LAYERS)])
def test_logits_states_weights_and_gradients(config, params, inputs, places, layers):
    if places == "last" and isinstance(config, Bert):
        return  # it predicts strings
    config = dataclasses.replace(config, num_layers=layers)
    params = {name: part for name, part in params.items() if name not in {f"layers_{i}" for i in range(layers, LAYERS)}}
    inputs = inputs | ({"asked": ASKED} if places == "asked" else {})
    one_by_one, together = (model(of, places == "last") for of in (config, scanned(config)))
    gradient = jax.jit(jax.grad(loss, argnums=1, has_aux=True), static_argnums=0)
    expected, (logits, intermediates) = gradient(one_by_one, params, inputs)
    ours, (our_logits, our_intermediates) = gradient(together, stacked(params), inputs)
    pairs = ((our_logits, logits), (our_intermediates, intermediates), (ours, stacked(expected)))
    for mine, theirs in pairs:
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max()), mine, theirs
        )


def test_stacking_is_undone(params):
    assert "layers" in stacked(params)
    jax.tree.map(np.testing.assert_array_equal, unstacked(stacked(params)), params)
    jax.tree.map(np.testing.assert_array_equal, unstacked(params), params)


# Initialisation and dropout


def test_parameters_are_drawn_for_each_layer(inputs):
    config = Gpt2(LAYERS, HEADS, None, 64, 2)  # whose kernels are not all of one scale
    one_by_one, together = (model(of).init(jax.random.key(0), inputs) for of in (config, scanned(config)))
    assert jax.tree.map(jnp.shape, stacked(one_by_one)) == jax.tree.map(jnp.shape, together)
    for path, leaf in jax.tree_util.tree_leaves_with_path(together["layers"]):
        if path[-1].key != "kernel":
            continue
        like = one_by_one["layers_0"]
        for key in path:
            like = like[key.key]
        spread = leaf.std((1, 2))
        np.testing.assert_allclose(spread, float(like.std()), rtol=10 * (2 * like.size) ** -0.5)
        correlations = np.corrcoef(leaf.reshape(LAYERS, -1)) - np.eye(LAYERS)
        assert np.abs(correlations).max() < 5 * like.size**-0.5, path


@pytest.mark.parametrize("places", ["all", "last"])
def test_every_layer_drops_others(places, inputs):
    """In a decoder the stream stays where both of a layer's residuals are dropped: a share of 0.3 * 0.3."""
    config = scanned(Gpt2(*SIZES, dropout=0.3))
    of = model(config, places == "last")
    params = jax.tree.map(lambda leaf: leaf + 0.1, of.init(jax.random.key(0), inputs))
    one, again, other = (of.apply(params, inputs, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[0], again[0])
    assert jnp.abs(one[0] - other[0]).max() > 1e-3
    np.testing.assert_array_equal(
        of.apply(params, inputs)[0], model(scanned(Gpt2(*SIZES)), places == "last").apply(params, inputs)[0]
    )
    hidden = one[1]["hidden"]
    stayed = [np.asarray(a[:, -1] == b[:, -1]) for a, b in itertools.pairwise(hidden)]
    for mask in stayed:
        assert 0 < mask.mean() < 0.35
    for i, mask in enumerate(stayed):
        assert all((mask != later).any() for later in stayed[i + 1 :])


# What it costs


@pytest.mark.parametrize("places", ["all", "asked"])
def test_weights_of_all_layers_are_kept_only_where_they_are_used(config, params, inputs, places):
    """Nor what their gradient would need. Attention has its own, [H, B, L, L] of each layer."""
    inputs = inputs | ({"asked": ASKED} if places == "asked" else {})
    of = model(scanned(config))
    looped = LAYERS - 1 if places == "asked" else LAYERS

    def step(params, uses):
        value, (_, intermediates) = loss(of, params, inputs)
        return value + sum(jnp.sum(jnp.square(part)) for name in uses for part in intermediates[name])

    def program(*uses):
        return jax.jit(jax.value_and_grad(step), static_argnums=1).lower(stacked(params), uses).compile().as_text()

    weights = f"f32[{looped},{BATCH},{HEADS},{LENGTH},{LENGTH}]"
    assert weights not in program()
    assert weights in program("attention")


@pytest.mark.parametrize("scan", [False, True])
def test_rematerialized_layers_compute_the_same_and_keep_less(config, params, inputs, scan):
    inputs = {name: jnp.tile(leaf, (8, 1)) for name, leaf in inputs.items()}
    config = dataclasses.replace(config, scan_layers=scan, dropout=0.1)
    params = stacked(params) if scan else params

    def of(rematerialize):
        built = model(dataclasses.replace(config, rematerialize=rematerialize))

        def value(params):
            return jnp.mean(jnp.sin(built.apply(params, inputs, jax.random.key(1))[0]))

        lowered = jax.jit(jax.value_and_grad(value)).lower(params)
        program = lowered.compile()
        barriers = lowered.as_text().count("optimization_barrier")
        return program(params), program.memory_analysis().temp_size_in_bytes, barriers

    (expected, kept, none), (ours, less, barriers) = of(False), of(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)
    if scan:
        assert less < 0.8 * kept
    else:  # by which compilers for accelerators know; that for CPUs computes nothing twice
        assert (none, barriers) == (0, LAYERS)


def test_products_of_scanned_layers_count_as_often_as_they_run(config, params, inputs):
    def forward(of):
        return lambda params: model(of).apply(params, inputs)[0]

    def backward(of):
        return jax.grad(lambda params: jnp.sum(forward(of)(params)))

    for function in (forward, backward):
        counts = count_products(function(scanned(config)), stacked(params)), count_products(function(config), params)
        assert counts[0] == counts[1]
