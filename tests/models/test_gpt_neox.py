"""GPT-NeoX against a plain numpy decoder, and what its positions do. No PyTorch is needed here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.models.base import LinenModel, num_parameters
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.rotary import Rotary
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask
from pdjax.weights.layouts import weights_of

LENGTH, LAYERS, HEADS, WIDTH, MULTIPLE = 12, 2, 4, 32, 2
VOCABULARY = LENGTH
PARALLEL = GptNeoX(LAYERS, HEADS, None, WIDTH, MULTIPLE, rotary_share=0.5, rotary_base=100.0)
VARIANTS = {
    "parallel": PARALLEL,
    "in turn, all turned": dataclasses.replace(PARALLEL, parallel_residual=False, rotary_share=1.0),
    "tied": dataclasses.replace(PARALLEL, tied_head=True),
}


def model(config, last_only=False):
    return LinenModel(DecoderModule(config, VOCABULARY, VOCABULARY, LENGTH, last_only))


def draw_params(config, seed=0):
    """Weights large enough that every part of the model matters."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model(config).init, jax.random.key(0), {"tokens": jnp.zeros((1, LENGTH), int)})
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(rng.normal(path[-1].key == "scale", 0.2, leaf.shape), jnp.float32), shapes
    )


@pytest.fixture(scope="module", params=VARIANTS)
def config(request):
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def params(config):
    return draw_params(config)


@pytest.fixture(scope="module")
def inputs():
    """Every string has every token once: a row of the embedding feeds one position of each."""
    rng = np.random.default_rng(1)
    return {"tokens": jnp.asarray([rng.permutation(LENGTH) for _ in range(3)])}


@pytest.fixture(scope="module")
def full(config, params, inputs):
    return jax.jit(model(config).apply)(params, inputs)


# Values


def plain_gpt_neox(config, weights, tokens):
    """The logits of one sequence, in float64, from weights with Hugging Face's names."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    size = WIDTH // HEADS
    half = int(config.rotary_share * size) // 2

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normalised = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return normalised * w[f"{name}.weight"][None] + w[f"{name}.bias"][None]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"][None]

    def turned(x, t):
        """One head's numbers as complex ones, turned by the angle of position t."""
        pairs = x[:half] + 1j * x[half : 2 * half]
        pairs = pairs * np.exp(1j * t * config.rotary_base ** (-np.arange(half) / half))
        return np.concatenate([pairs.real, pairs.imag, x[2 * half :]])

    x = w["gpt_neox.embed_in.weight"][tokens]
    for i in range(LAYERS):
        prefix = f"gpt_neox.layers.{i}"
        fused = dense(norm(x, f"{prefix}.input_layernorm"), f"{prefix}.attention.query_key_value")
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            q, k, v = np.split(fused[:, 3 * size * head : 3 * size * (head + 1)], 3, axis=-1)
            k = np.stack([turned(row, t) for t, row in enumerate(k)])
            for t in range(len(tokens)):
                weight = np.exp(k[: t + 1] @ turned(q[t], t) / np.sqrt(size))
                mixed[t, size * head : size * (head + 1)] = weight @ v[: t + 1] / weight.sum()
        after = x + dense(mixed, f"{prefix}.attention.dense")
        h = norm(x if config.parallel_residual else after, f"{prefix}.post_attention_layernorm")
        h = np.asarray(jax.nn.gelu(dense(h, f"{prefix}.mlp.dense_h_to_4h"), approximate=False), np.float64)
        x = after + dense(h, f"{prefix}.mlp.dense_4h_to_h")
    return norm(x, "gpt_neox.final_layer_norm") @ w["embed_out.weight"].T


def test_logits_equal_a_plain_decoder(config, params, inputs, full):
    for row in range(2):
        expected = plain_gpt_neox(config, weights_of(params, config), np.asarray(inputs["tokens"])[row])
        np.testing.assert_allclose(full[0][row], expected, atol=2e-5)


# Positions


def test_turning_is_by_hand_a_rotation():
    """The second of two pairs turns by base ** (-1 / 2) a position; what is behind them stays."""
    x = np.arange(1.0, 6.0, dtype=np.float32).reshape(1, 5, 1, 1)
    out = np.asarray(Rotary(4, 100.0).turned(jnp.asarray(x), jnp.array([[3]])))[0, :, 0, 0]
    c, s = np.cos([3.0, 0.3]), np.sin([3.0, 0.3])
    expected = [c[0] - 3 * s[0], 2 * c[1] - 4 * s[1], 3 * c[0] + s[0], 4 * c[1] + 2 * s[1], 5]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_only_distances_matter(config, params, inputs, full):
    """A string behind padding gets the logits that it gets alone."""
    padding, rest = 5, LENGTH - 5
    moved = jnp.concatenate([inputs["tokens"][:, rest:], inputs["tokens"][:, :rest]], axis=1)
    valid = jnp.broadcast_to(jnp.arange(LENGTH) >= padding, moved.shape)
    logits = model(config).apply(params, {"tokens": moved, "valid": valid})[0]
    np.testing.assert_allclose(logits[:, padding:], full[0][:, :rest], atol=2e-5)


def test_order_matters(config, params, inputs, full):
    """The last position sees the same tokens either way: without positions its logits would not change."""
    swapped = inputs["tokens"][:, jnp.array([1, 0, *range(2, LENGTH)])]
    assert jnp.abs(model(config).apply(params, {"tokens": swapped})[0] - full[0])[:, -1].min() > 1e-5


@pytest.mark.parametrize("position", [0, 5, LENGTH - 1])
def test_no_gradient_flows_back_from_later_positions(config, params, inputs, position):
    def stream(table):
        _, intermediates = model(config).apply({**params, "tokens": {"embedding": table}}, inputs)
        return (intermediates["hidden"][-1][0, position] ** 2).sum()

    gradient = jnp.abs(jax.jit(jax.grad(stream))(params["tokens"]["embedding"])).max(1)
    of_positions = gradient[inputs["tokens"][0]]
    assert (of_positions[: position + 1] > 0).all()
    assert (of_positions[position + 1 :] == 0).all()


# Only some positions


def test_last_position_only(config, params, inputs, full):
    logits, intermediates = jax.jit(model(config, last_only=True).apply)(params, inputs)
    np.testing.assert_allclose(logits, full[0][:, -1], atol=1e-5)
    np.testing.assert_allclose(intermediates["hidden"][-1], full[1]["hidden"][-1][:, -1:], atol=1e-5)
    np.testing.assert_allclose(intermediates["attention"][-1], full[1]["attention"][-1][:, :, -1:], atol=1e-5)


def test_asked_positions_get_the_logits_and_states_of_all(config, params, inputs, full):
    """Every sequence is asked at other positions, one of them twice."""
    asked = jnp.array([[3, 0], [7, 7], [11, 2]])
    some, of_asked = jax.jit(model(config).apply)(params, {**inputs, "asked": asked})
    last = (full[1]["hidden"][-1], full[1]["attention"][-1].swapaxes(1, 2))
    last_of_asked = (of_asked["hidden"][-1], of_asked["attention"][-1].swapaxes(1, 2))
    for everywhere, there in zip((full[0], *last), (some, *last_of_asked), strict=True):
        np.testing.assert_allclose(there, everywhere[jnp.arange(3)[:, None], asked], atol=1e-5)


# Rows of padding


def test_rows_of_padding_are_not_predicted(config, inputs, params, full):
    padded = dataclasses.replace(config, vocabulary_rows=16)
    large = jax.tree.map(lambda leaf: jnp.full_like(leaf, 50.0), draw_params(padded))  # would win every softmax
    longer = jax.tree.map(lambda rows, some: rows.at[tuple(map(slice, some.shape))].set(some), large, params)
    assert longer["tokens"]["embedding"].shape == (16, WIDTH)

    def loss(params):
        logits = model(padded).apply(params, inputs)[0]
        return -jax.nn.log_softmax(logits)[..., 0].sum(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(longer)
    np.testing.assert_allclose(logits, full[0], atol=1e-5)
    assert not gradient["tokens"]["embedding"][VOCABULARY:].any()
    assert config.tied_head or not gradient["head_kernel"][:, VOCABULARY:].any()


# Settings


def test_parameters_are_those_of_gpt2_without_positions(config, params):
    layer = 4 * (WIDTH * WIDTH + WIDTH) + 2 * MULTIPLE * WIDTH**2 + (MULTIPLE + 1) * WIDTH + 4 * WIDTH
    tables = (1 if config.tied_head else 2) * VOCABULARY * WIDTH
    assert num_parameters(params) == LAYERS * layer + 2 * WIDTH + tables


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotary_share": 0.125}, r"even number of a head's dimensions, at least 2; found 1 of 8"),
        ({"rotary_share": 0.38}, r"found 3 of 8 with rotary_share 0\.38"),
        ({"rotary_share": 1.5}, r"less than or equal to 1"),
        ({"width": 30}, r"a width that 4 heads divide"),
    ],
)
def test_positions_need_pairs(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PARALLEL, **fields)


def test_what_is_no_task_of_it():
    with pytest.raises(UserError, match=r"found GptNeoX, which sees those before them; choose Bert"):
        PARALLEL.check(PcfgTask("cfg3b", 10))
    with pytest.raises(UserError, match=r"vocabulary_rows of at least the 2 tokens.*; found 1 rows"):
        dataclasses.replace(PARALLEL, vocabulary_rows=1).check(ParityTask(6, 2))
    PARALLEL.check(ParityTask(6, 2))


# Dropout


def test_dropout_needs_a_key_and_follows_it(config, params, inputs, full):
    dropping = dataclasses.replace(config, dropout=0.3)
    apply = jax.jit(lambda key: model(dropping).apply(params, inputs, key)[0])
    np.testing.assert_array_equal(jax.jit(model(dropping).apply)(params, inputs)[0], full[0])
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 0.1
