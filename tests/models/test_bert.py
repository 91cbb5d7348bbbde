"""BERT against committed numbers of Hugging Face's model, and its behaviour. No PyTorch is needed here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill import losses
from pdjax.models.base import LinenModel, num_parameters
from pdjax.models.bert import Bert, BertModule, EncoderLayer, key_bias
from pdjax.models.layers import SelfAttention
from pdjax.weights.layouts import params_of, weights_of

VOCABULARY, LAYERS, HEADS, WIDTH, MULTIPLE = 7, 2, 4, 32, 2
GOLDEN = Bert(LAYERS, HEADS, None, WIDTH, MULTIPLE, token_types=2)
VARIANTS = {"on": GOLDEN, "off": dataclasses.replace(GOLDEN, attend_to_selected=False)}


@pytest.fixture(scope="module")
def golden(root):
    """The arrays of bert.npz, nested by the parts of their names."""
    groups = {}
    with np.load(root / "tests" / "golden" / "bert.npz") as file:
        for name in file:
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = file[name]
    return groups


@pytest.fixture(scope="module")
def params(golden):
    """Weights large enough that every part of the model matters."""
    return params_of(golden["weights"], GOLDEN, VOCABULARY, 20).params


@pytest.fixture(scope="module")
def inputs(golden):
    """The golden batch as the model reads it."""
    return {name: jnp.asarray(golden["batch"][name]) for name in ("tokens", "valid", "selected")}


def model(config=GOLDEN, length=20):
    return LinenModel(BertModule(config, VOCABULARY, length))


def logits_of(config, params, inputs):
    return jax.jit(lambda p, i: model(config).apply(p, i)[0])(params, inputs)


def replaced(inputs, where):
    """Other tokens at the places where ``where`` holds."""
    return {**inputs, "tokens": jnp.where(where, (inputs["tokens"] + 1) % VOCABULARY, inputs["tokens"])}


# Equality with Hugging Face


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_hugging_face(golden, params, inputs, variant):
    difference = np.abs(logits_of(VARIANTS[variant], params, inputs) - golden[variant]["logits"])
    assert difference[golden["batch"]["valid"]].max() < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_hugging_face(golden, params, inputs, variant):
    targets, selected = jnp.asarray(golden["batch"]["targets"]), inputs["selected"]

    def loss(params):
        values = losses.cross_entropy(model(VARIANTS[variant]).apply(params, inputs)[0], targets)
        return jnp.sum(jnp.where(selected, values, 0.0)) / jnp.sum(selected)

    prefix = "gradients/"
    theirs = {name.removeprefix(prefix): g for name, g in golden[variant].items() if name.startswith(prefix)}
    ours = weights_of(jax.jit(jax.grad(loss))(params), GOLDEN)
    assert set(theirs) <= set(ours)
    for name in theirs:
        difference, scale = np.abs(ours[name] - theirs[name]).max(), np.abs(theirs[name]).max()
        if name.endswith("attention.self.key.bias"):  # adds the same to all scores of a query: truly 0
            assert np.abs(ours[name]).max() < 1e-6, name
        else:
            assert difference < 1e-4 * scale, name


def test_the_two_variants_differ(golden):
    assert np.abs(golden["on"]["logits"] - golden["off"]["logits"])[golden["batch"]["valid"]].max() > 0.1


# Initialisation


def test_initial_parameters(inputs):
    params = model(Bert(2, 8, 8, None, 4)).init(jax.random.key(0), inputs)
    matrices = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = path[-1].key
        if name in ("kernel", "embedding"):
            matrices += 1
            error = 0.02 * (2 * leaf.size) ** -0.5  # standard error of a standard deviation
            assert abs(leaf.std() - 0.02) < 5 * error, path
            assert abs(leaf.mean()) < 5 * 0.02 * leaf.size**-0.5, path
        else:
            assert (leaf == (1.0 if name == "scale" else 0.0)).all(), path
    assert matrices == 2 * 6 + 3  # six to a layer, two embeddings, the head's


def test_seeds_and_weights_differ(inputs):
    one, other = (model().init(jax.random.key(seed), inputs) for seed in (0, 1))
    assert not jnp.allclose(one["transform"]["kernel"], other["transform"]["kernel"])
    layers = [one[f"layers_{i}"]["expand"]["kernel"] for i in range(LAYERS)]
    assert not jnp.allclose(*layers)
    projections = one["layers_0"]["attention"]
    assert not jnp.allclose(projections["query"]["kernel"], projections["key"]["kernel"])


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (Bert(1, 2, 8, None, 4), 16),
        (Bert(3, 4, None, 32, 2), 32),
        (Bert(2, 1, 24, 24, 1, attend_to_selected=False), 24),
    ],
)
def test_shapes_and_number_of_parameters(config, width, inputs):
    length, layers, feed_forward = 20, config.num_layers, config.feed_forward_multiple * width
    logits, intermediates = jax.eval_shape(
        lambda key: model(config).apply(model(config).init(key, inputs), inputs), jax.random.key(0)
    )
    assert logits.shape == (4, length, VOCABULARY)
    assert [h.shape for h in intermediates["hidden"]] == [(4, length, width)] * (layers + 1)
    assert [a.shape for a in intermediates["attention"]] == [(4, config.num_heads, length, length)] * layers
    attention = 4 * (width * width + width)
    mlp = 2 * width * feed_forward + feed_forward + width
    embeddings = (VOCABULARY + length) * width + 2 * width
    head = width * width + width + 2 * width + VOCABULARY
    params = jax.eval_shape(model(config).init, jax.random.key(0), inputs)
    assert num_parameters(params) == layers * (attention + mlp + 4 * width) + embeddings + head


# Other heads


def test_an_untied_head_that_is_the_table_gives_the_tied_logits(params, inputs):
    untied = dataclasses.replace(GOLDEN, tied_head=False)
    apart = {**params, "head_kernel": params["tokens"]["embedding"].T}
    expected = jax.tree.map(jnp.shape, jax.eval_shape(model(untied).init, jax.random.key(0), inputs))
    assert jax.tree.map(jnp.shape, apart) == expected
    np.testing.assert_allclose(logits_of(untied, apart, inputs), logits_of(GOLDEN, params, inputs), atol=1e-5)


@pytest.mark.parametrize("tied_head", [True, False])
def test_rows_of_padding_are_not_predicted(params, inputs, tied_head):
    padded = dataclasses.replace(GOLDEN, vocabulary_rows=VOCABULARY + 9, tied_head=tied_head)
    more = model(padded).init(jax.random.key(1), inputs)
    filled = {**params, **({} if tied_head else {"head_kernel": params["tokens"]["embedding"].T})}
    longer = jax.tree.map(lambda all_rows, rows: all_rows.at[tuple(map(slice, rows.shape))].set(rows), more, filled)
    assert longer["decoder_bias"].shape == (VOCABULARY + 9,)
    np.testing.assert_allclose(logits_of(padded, longer, inputs), logits_of(GOLDEN, params, inputs), atol=1e-5)


# Who sees whom


def test_content_of_padding_never_matters(params, inputs):
    for config in VARIANTS.values():
        before = logits_of(config, params, inputs)
        after = logits_of(config, params, replaced(inputs, ~inputs["valid"]))
        np.testing.assert_array_equal(before[inputs["valid"]], after[inputs["valid"]])
        assert not jnp.array_equal(before, after)  # the tokens did change


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_selected_token_is_seen_by_others_only_if_asked_for(params, inputs, variant):
    row, position = 0, 1  # selected in every golden sequence
    assert inputs["selected"][row, position]
    here = jnp.zeros_like(inputs["valid"]).at[row, position].set(True)
    before, after = (logits_of(VARIANTS[variant], params, i) for i in (inputs, replaced(inputs, here)))
    change = jnp.abs(before - after).max(-1)
    assert change[row, position] > 1e-3  # its own residual stream carries it
    elsewhere = jnp.where(here, 0.0, change)
    if variant == "on":
        assert elsewhere[row].max() > 1e-3
    else:
        assert elsewhere.max() == 0


def test_an_unselected_token_is_seen_by_all_of_its_sequence_only(params, inputs):
    here = jnp.zeros_like(inputs["valid"]).at[1, 0].set(True)
    before, after = (logits_of(VARIANTS["off"], params, i) for i in (inputs, replaced(inputs, here)))
    change = jnp.abs(before - after).max(-1)
    assert (change[1] > 0).all()
    assert change[jnp.array([0, 2, 3])].max() == 0


def test_gradient_stays_inside_a_sequence(params, inputs):
    batch, length = inputs["tokens"].shape
    layer = EncoderLayer(GOLDEN, (batch, length))
    bias = key_bias(jnp.ones_like(inputs["valid"]), inputs["selected"], True)
    x = jax.random.normal(jax.random.key(0), (WIDTH, batch * length))

    def first_sequence(x):
        y = layer.apply({"params": params["layers_0"]}, x, bias, True)[0]
        return jnp.sum(jnp.sin(y.reshape(WIDTH, batch, length)[:, 0]))

    gradient = jnp.abs(jax.jit(jax.grad(first_sequence))(x)).max(0).reshape(batch, length)
    assert (gradient[0] > 0).all()
    assert gradient[1:].max() == 0


# Intermediates


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_weights_are_distributions_over_visible_keys(params, inputs, variant):
    _, intermediates = model(VARIANTS[variant]).apply(params, inputs)
    visible = inputs["valid"] if variant == "on" else inputs["valid"] & ~inputs["selected"]
    for weights in intermediates["attention"]:
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
        hidden = jnp.broadcast_to(~visible[:, None, None, :], weights.shape)
        assert (weights[hidden] == 0).all()
        assert (weights[~hidden] > 0).all()


def test_returned_weights_reproduce_the_attention_output(params, inputs):
    batch, length = inputs["tokens"].shape
    x = np.asarray(jax.random.normal(jax.random.key(0), (WIDTH, batch * length)))
    bias = key_bias(inputs["valid"], inputs["selected"], False)
    attention_params = params["layers_1"]["attention"]
    out, weights = SelfAttention(HEADS, 0.0, (batch, length)).apply({"params": attention_params}, x, bias, True)
    v = np.asarray(attention_params["value"]["kernel"]).T @ x + np.asarray(attention_params["value"]["bias"])[:, None]
    v = v.reshape(HEADS, WIDTH // HEADS, batch, length)
    mixed = np.einsum("bhqk,hcbk->hcbq", weights, v).reshape(WIDTH, -1)
    expected = (
        np.asarray(attention_params["output"]["kernel"]).T @ mixed
        + np.asarray(attention_params["output"]["bias"])[:, None]
    )
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_hidden_states_lead_to_the_logits(params, inputs):
    logits, intermediates = model().apply(params, inputs)
    embeddings, first, last = intermediates["hidden"]
    assert not jnp.allclose(embeddings, first)
    batch, length = inputs["tokens"].shape
    bias = key_bias(inputs["valid"], inputs["selected"], True)
    layer = EncoderLayer(GOLDEN, (batch, length))
    again = layer.apply({"params": params["layers_1"]}, first.reshape(-1, WIDTH).T, bias, True)[0]
    np.testing.assert_allclose(again.T.reshape(last.shape), last, atol=1e-5)
    moved = {**params, "decoder_bias": params["decoder_bias"] + 1.0}
    np.testing.assert_allclose(model().apply(moved, inputs)[0], logits + 1.0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_asked_positions_get_the_logits_and_states_of_all(params, inputs, variant):
    """Every sequence is asked at other positions, one of them twice."""
    asked = jnp.array([[3, 0], [7, 7], [11, 2], [0, 5]])
    logits, intermediates = model(VARIANTS[variant]).apply(params, inputs)
    some, of_asked = jax.jit(model(VARIANTS[variant]).apply)(params, {**inputs, "asked": asked})
    last = (intermediates["hidden"][-1], intermediates["attention"][-1].swapaxes(1, 2))
    last_of_asked = (of_asked["hidden"][-1], of_asked["attention"][-1].swapaxes(1, 2))
    for everywhere, there in zip((logits, *last), (some, *last_of_asked), strict=True):
        rows = jnp.arange(len(asked))[:, None]
        np.testing.assert_allclose(there, everywhere[rows, asked], atol=1e-5)
    np.testing.assert_allclose(of_asked["hidden"][1], intermediates["hidden"][1], atol=1e-5)


# Dropout

DROPOUT = dataclasses.replace(GOLDEN, dropout=0.3)


def test_dropout_needs_a_key_and_follows_it(params, inputs):
    apply = jax.jit(lambda key: model(DROPOUT).apply(params, inputs, key)[0])
    np.testing.assert_array_equal(logits_of(DROPOUT, params, inputs), logits_of(GOLDEN, params, inputs))
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 0.1
    assert jnp.abs(one - logits_of(GOLDEN, params, inputs)).max() > 0.1


def test_no_dropout_ignores_the_key(params, inputs):
    np.testing.assert_allclose(
        model().apply(params, inputs, jax.random.key(0))[0], model().apply(params, inputs)[0], atol=1e-5
    )


def test_dropout_preserves_expectations(params, inputs):
    """The embeddings after dropout, and the mix of values by dropped weights, are right on average."""
    batch, length = inputs["tokens"].shape
    x = jax.random.normal(jax.random.key(0), (WIDTH, batch * length))
    bias = key_bias(inputs["valid"], inputs["selected"], True)
    variables = {"params": params["layers_0"]["attention"]}

    def embeddings(key):
        return model(DROPOUT).apply(params, inputs, key)[1]["hidden"][0]

    def attended(key):
        layer = SelfAttention(HEADS, DROPOUT.dropout, (batch, length))
        return layer.apply(variables, x, bias, False, rngs={"dropout": key})[0]

    expected = (
        model().apply(params, inputs)[1]["hidden"][0],
        SelfAttention(HEADS, 0.0, (batch, length)).apply(variables, x, bias, True)[0],
    )
    draws = 400
    for sample, mean in zip((embeddings, attended), expected, strict=True):
        drawn = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(1), draws))
        errors = (drawn.mean(0) - mean) / (drawn.std(0) + 1e-3) * draws**0.5
        assert drawn.std(0).max() > 0.1
        assert jnp.abs(errors).max() < 6  # standard errors, over some thousand numbers
        assert 0.8 < errors.std() < 1.2
