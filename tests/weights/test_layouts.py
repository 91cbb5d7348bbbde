"""Weights by Hugging Face's names to parameters and back: bit by bit, and what is wrong with them by name."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.models.bert import Bert, BertModule
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.settings import settings
from pdjax.weights.layouts import params_of, weights_of
from pdjax.weights.stored import StoredTensor

VOCABULARY, POSITIONS, WIDTH, EXPANDED = 7, 6, 8, 16
SIZES = (2, 2, None, WIDTH, 2)  # layers, heads, head_dim, width, multiple
FAMILIES = {
    "bert": Bert(*SIZES, token_types=2),
    "bert, untied": Bert(*SIZES, token_types=1, tied_head=False),
    "bert, scanned": Bert(*SIZES, token_types=2, scan_layers=True),
    "bert, padded": Bert(*SIZES, token_types=2, vocabulary_rows=16),
    "gpt2": Gpt2(*SIZES, tied_head=True),
    "gpt2, untied": Gpt2(*SIZES),
    "gpt2, scanned": Gpt2(*SIZES, scan_layers=True),
    "gpt2, untied and padded": Gpt2(*SIZES, vocabulary_rows=16),
    "gpt_neox": GptNeoX(*SIZES, rotary_share=0.5),
    "gpt_neox, tied": GptNeoX(*SIZES, rotary_share=0.5, tied_head=True),
    "gpt_neox, scanned": GptNeoX(*SIZES, rotary_share=0.5, scan_layers=True),
    "gpt_neox, padded": GptNeoX(*SIZES, rotary_share=0.5, vocabulary_rows=16),
}


def draw_params(architecture, seed=0):
    """Random parameters of a model whose classes are its tokens."""
    if isinstance(architecture, Bert):
        module = BertModule(architecture, VOCABULARY, POSITIONS)
    else:
        module = DecoderModule(architecture, VOCABULARY, VOCABULARY, POSITIONS, False)
    everywhere = jnp.ones((1, 1), bool)
    inputs = {"tokens": jnp.zeros((1, 1), int), "valid": everywhere, "selected": everywhere}
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def read(weights, architecture, **options):
    return params_of(weights, architecture, VOCABULARY, POSITIONS, **options)


@pytest.fixture(params=FAMILIES)
def architecture(request):
    return FAMILIES[request.param]


@pytest.fixture
def weights(architecture):
    return weights_of(draw_params(architecture), architecture)


def replaced(weights, name, value):
    assert name in weights
    return {**weights, name: value}


# There and back


def test_there_and_back(architecture, weights):
    params, ignored = read(weights, architecture)
    assert ignored == {}
    jax.tree.map(np.testing.assert_array_equal, params, draw_params(architecture))
    again = weights_of(params, architecture)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_every_number_is_in_some_weight(architecture, weights):
    """What is drawn from a continuous distribution is told apart by its values."""
    ours = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(draw_params(architecture))])
    theirs = np.concatenate([value.ravel() for value in weights.values()])
    np.testing.assert_array_equal(np.unique(ours), np.unique(theirs))


def test_scanned_layers_have_the_weights_of_the_same_layers_one_by_one(architecture, weights):
    other = dataclasses.replace(architecture, scan_layers=not architecture.scan_layers)
    params = read(weights, other).params
    assert ("layers" in params) == other.scan_layers
    again = weights_of(params, other)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_names_and_shapes_of_gpt2():
    in_layer = {
        "ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,), "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,),
        "attn.c_attn.weight": (WIDTH, 3 * WIDTH), "attn.c_attn.bias": (3 * WIDTH,),
        "attn.c_proj.weight": (WIDTH, WIDTH), "attn.c_proj.bias": (WIDTH,),
        "mlp.c_fc.weight": (WIDTH, EXPANDED), "mlp.c_fc.bias": (EXPANDED,),
        "mlp.c_proj.weight": (EXPANDED, WIDTH), "mlp.c_proj.bias": (WIDTH,),
    }  # fmt: skip
    expected = {f"transformer.h.{i}.{name}": shape for i in range(2) for name, shape in in_layer.items()}
    expected |= {"transformer.wte.weight": (VOCABULARY, WIDTH), "transformer.wpe.weight": (POSITIONS, WIDTH)}
    expected |= {"transformer.ln_f.weight": (WIDTH,), "transformer.ln_f.bias": (WIDTH,)}
    expected["lm_head.weight"] = (VOCABULARY, WIDTH)
    for name in ("gpt2", "gpt2, untied"):
        written = weights_of(draw_params(FAMILIES[name]), FAMILIES[name])
        assert {name: value.shape for name, value in written.items()} == expected


def test_names_and_shapes_of_gpt_neox():
    in_layer = {
        "input_layernorm.weight": (WIDTH,), "input_layernorm.bias": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,), "post_attention_layernorm.bias": (WIDTH,),
        "attention.query_key_value.weight": (3 * WIDTH, WIDTH), "attention.query_key_value.bias": (3 * WIDTH,),
        "attention.dense.weight": (WIDTH, WIDTH), "attention.dense.bias": (WIDTH,),
        "mlp.dense_h_to_4h.weight": (EXPANDED, WIDTH), "mlp.dense_h_to_4h.bias": (EXPANDED,),
        "mlp.dense_4h_to_h.weight": (WIDTH, EXPANDED), "mlp.dense_4h_to_h.bias": (WIDTH,),
    }  # fmt: skip
    expected = {f"gpt_neox.layers.{i}.{name}": shape for i in range(2) for name, shape in in_layer.items()}
    expected |= {"gpt_neox.embed_in.weight": (16, WIDTH), "embed_out.weight": (16, WIDTH)}
    expected |= {"gpt_neox.final_layer_norm.weight": (WIDTH,), "gpt_neox.final_layer_norm.bias": (WIDTH,)}
    padded = FAMILIES["gpt_neox, padded"]
    assert {name: value.shape for name, value in weights_of(draw_params(padded), padded).items()} == expected


@pytest.mark.parametrize(("family", "head", "rows"), [("gpt2", 1, (4, 5, 6, 7)), ("gpt_neox", 1, (12, 13, 14, 15))])
def test_where_queries_are(family, head, rows):
    """GPT-2 has all queries first; GPT-NeoX a head's query, key and value, of 4 numbers each, and then the next's."""
    of = FAMILIES[family]
    params = draw_params(of)
    queries = params["layers_0"]["attention"]["query"]["bias"][4 * head : 4 * head + 4]
    name = {"gpt2": "transformer.h.0.attn.c_attn", "gpt_neox": "gpt_neox.layers.0.attention.query_key_value"}[family]
    written = weights_of(params, of)
    np.testing.assert_array_equal(written[f"{name}.bias"][list(rows)], queries)
    kernel = written[f"{name}.weight"] if family == "gpt2" else written[f"{name}.weight"].T
    expected = params["layers_0"]["attention"]["query"]["kernel"][:, 4 * head : 4 * head + 4]
    np.testing.assert_array_equal(kernel[:, list(rows)], expected)


def test_half_precision_becomes_float32(architecture, weights):
    for name, value in weights.items():
        weights[name] = value.astype(np.float16)
    params, _ = read(weights, architecture)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def unread_of(shape):
    """A weight in a file that must not be looked into."""

    def read():
        raise AssertionError("it was read")

    return StoredTensor("somewhere", shape, "float32", Path("model.safetensors"), read)


def test_nothing_is_read_where_names_or_shapes_are_wrong(architecture, weights):
    unread = {name: unread_of(value.shape) for name, value in weights.items()}
    for name in weights:
        with pytest.raises(UserError):
            read({**unread, f"{name}.other": unread_of((1,))}, architecture)
        with pytest.raises((UserError, AssertionError), match=r"of the shape|it was read"):
            read({**unread, name: unread_of((1, 2, 3))}, architecture)
    with pytest.raises(AssertionError, match="it was read"):
        read(unread, architecture)


# Tied and untied


HEADS = {Bert: "cls.predictions.decoder.weight", Gpt2: "lm_head.weight", GptNeoX: "embed_out.weight"}
TABLES = {
    Bert: "bert.embeddings.word_embeddings.weight",
    Gpt2: "transformer.wte.weight",
    GptNeoX: "gpt_neox.embed_in.weight",
}


def test_a_head_that_is_tied_may_be_left_out_or_be_all_there_is(architecture, weights):
    head, table = HEADS[type(architecture)], TABLES[type(architecture)]
    expected = read(weights, architecture).params
    without = {name: value for name, value in weights.items() if name != head}
    if not architecture.tied_head:
        with pytest.raises(UserError, match=rf"the weight {head} of .*; found no such name"):
            read(without, architecture)
        return
    alone = {name: value for name, value in weights.items() if name != table}
    for some in (without, alone):
        jax.tree.map(np.testing.assert_array_equal, read(some, architecture).params, expected)


def test_a_head_that_differs_is_not_tied(architecture, weights):
    head, table = HEADS[type(architecture)], TABLES[type(architecture)]
    other = replaced(weights, head, weights[head] + 1)
    if architecture.tied_head:
        with pytest.raises(UserError, match=rf"{head} equal to {table}, which it is tied to; .*tied_head to False"):
            read(other, architecture)
    else:
        np.testing.assert_array_equal(read(other, architecture).params["head_kernel"], weights[head].T + 1)


def test_the_two_biases_of_bert():
    """Tied they are one. In an untied model that of the decoder is added; the other may be all that a file has."""
    bias, decoder = "cls.predictions.bias", "cls.predictions.decoder.bias"
    for name in ("bert", "bert, untied"):
        of = FAMILIES[name]
        weights = weights_of(draw_params(of), of)
        np.testing.assert_array_equal(weights[bias], weights[decoder])
        for left_out in (bias, decoder):
            some = {key: value for key, value in weights.items() if key != left_out}
            np.testing.assert_array_equal(read(some, of).params["decoder_bias"], weights[bias])
        other = replaced(weights, bias, weights[bias] + 1)
        if name == "bert":
            with pytest.raises(UserError, match=rf"{decoder} equal to {bias}"):
                read(other, of)
        else:
            params, ignored = read(other, of)
            np.testing.assert_array_equal(params["decoder_bias"], weights[decoder])
            assert ignored == {bias: f"an untied model adds {decoder} instead"}


def test_token_types_are_there_or_zero():
    of, types = FAMILIES["bert"], "bert.embeddings.token_type_embeddings.weight"
    without = dataclasses.replace(of, token_types=0)
    weights = weights_of(draw_params(of), of)
    with pytest.raises(UserError, match=rf"{types} of zeros, for Bert with token_types 0; .*; set token_types to 2"):
        read(weights, without)
    for zeros in ({**weights, types: 0 * weights[types]}, {k: v for k, v in weights.items() if k != types}):
        params, _ = read(zeros, without)
        assert "token_types" not in params
        written = weights_of(params, without)
        assert written[types].shape == (2, WIDTH)
        assert not written[types].any()


def test_headless():
    """As BertModel and GPT2Model save themselves."""
    for name in ("bert", "bert, untied", "gpt2, untied", "gpt_neox"):
        of = FAMILIES[name]
        whole = weights_of(draw_params(of), of)
        weights = {key: value for key, value in whole.items() if not key.startswith(("cls.", "lm_head", "embed_out"))}
        params, _ = read(weights, of, headless=True)
        complete = draw_params(of)
        missing = complete.keys() - params.keys()
        assert missing
        assert missing <= {"transform", "transform_norm", "decoder_bias", "head_kernel"}
        jax.tree.map(np.testing.assert_array_equal, params, {k: v for k, v in complete.items() if k in params})
        written = weights_of(params, of, headless=True)
        assert written.keys() == weights.keys()
        with pytest.raises(UserError, match="found no such name"):
            read(weights, of)


# What is wrong with weights, by name


def test_layers_are_counted_in_both_directions(architecture, weights):
    fewer, more = (dataclasses.replace(architecture, num_layers=n) for n in (1, 3))
    with pytest.raises(UserError, match=r"with 1 layers and no others; found .*\.1\..* and \d+ more; .*layers"):
        read(weights, fewer)
    with pytest.raises(UserError, match=r"the weight .*\.2\..* with 3 layers; found no such name; .*layers"):
        read(weights, more)


def test_a_missing_weight_is_named(architecture, weights):
    for name in weights:
        rest = {key: value for key, value in weights.items() if key != name}
        try:
            params, _ = read(rest, architecture)
        except UserError as error:
            assert f"the weight {name} of a" in str(error)  # noqa: PT017
        else:  # it has another name, and both are written
            jax.tree.map(np.testing.assert_array_equal, params, draw_params(architecture))


def test_a_surplus_weight_is_named(architecture, weights):
    with pytest.raises(UserError, match=r"no others; found something\.else;"):
        read({**weights, "something.else": np.zeros(3)}, architecture)


def test_an_ill_shaped_weight_is_named(architecture, weights):
    for name, value in weights.items():
        with pytest.raises(UserError, match=rf"{name} of the shape \({value.shape[0]},.*; found \({len(value) + 1},"):
            read(replaced(weights, name, np.concatenate([value, value[:1]])), architecture)


def test_other_sizes_are_named(architecture, weights):
    name = TABLES[type(architecture)]
    if architecture.vocabulary_rows is None:
        with pytest.raises(UserError, match=rf"{name} of the shape \(9, 8\); found \(7, 8\)"):
            params_of(weights, architecture, VOCABULARY + 2, POSITIONS)
    wider = dataclasses.replace(architecture, width=2 * WIDTH)
    with pytest.raises(UserError, match=rf"{name} of the shape \(\d+, 16\); found"):
        read(weights, wider)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_weight_that_is_not_finite_is_named(architecture, weights, value):
    for name in weights:
        bad = weights[name].astype(np.float64)
        bad.flat[-1] = value
        with pytest.raises(UserError, match=rf"finite numbers in {name}; found 1 of {bad.size} that are not"):
            read(replaced(weights, name, bad), architecture)


def test_integers_are_no_weights(architecture, weights):
    name = TABLES[type(architecture)]
    with pytest.raises(UserError, match=rf"floating-point numbers in {name}; found the type int8"):
        read(replaced(weights, name, weights[name].astype(np.int8)), architecture)


# What has no such weights


@settings
class Stranger(Gpt2):
    """Somebody's GPT-2, whose parameters may be others."""


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Mlp((4,)), r"one of Bert, Gpt2, GptNeoX; found Mlp"),
        (Stranger(), r"found Stranger"),
        (Gpt2(2, 3, 5, 16, 4, heads="average"), r"heads that are concatenated.*; found heads that are averaged"),
    ],
)
def test_other_architectures_are_refused(architecture, message):
    with pytest.raises(UserError, match=message):
        weights_of({}, architecture)


def test_parameters_of_another_architecture_are_not_written():
    tied, untied = FAMILIES["gpt2"], FAMILIES["gpt2, untied"]
    with pytest.raises(UserError, match=r"found others: head_kernel; use the settings"):
        weights_of(draw_params(untied), tied)
    with pytest.raises(UserError, match=r"found others: head_kernel"):
        weights_of(draw_params(tied), untied)
