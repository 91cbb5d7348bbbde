"""GPT-2 against a plain numpy decoder, and its behaviour. No PyTorch is needed here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.models.base import LinenModel, num_parameters
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.tasks.parity import HierarchicalTask
from pdjax.weights.layouts import weights_of

VOCABULARY, CLASSES, LENGTH, LAYERS, HEADS, WIDTH, MULTIPLE = 7, 5, 20, 2, 4, 32, 2
UNTIED = Gpt2(LAYERS, HEADS, None, WIDTH, MULTIPLE)
TIED = dataclasses.replace(UNTIED, tied_head=True)
ONE_HEAD = dataclasses.replace(UNTIED, num_layers=1, num_heads=1, head_dim=WIDTH, heads="average")


def model(config=UNTIED, last_only=False):
    classes = VOCABULARY if config.tied_head else CLASSES
    return LinenModel(DecoderModule(config, VOCABULARY, classes, LENGTH, last_only))


def draw_params(config, seed=0):
    """Weights large enough that every part of the model matters."""
    rng = np.random.default_rng(seed)
    tokens = {"tokens": jnp.zeros((1, LENGTH), int)}
    shapes = jax.eval_shape(model(config).init, jax.random.key(0), tokens)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(rng.normal(path[-1].key == "scale", 0.2, leaf.shape), jnp.float32), shapes
    )


def with_gradient(model):
    """Returns the compiled logits, intermediates and the parameters' gradient for a cotangent of the logits."""

    @jax.jit
    def run(params, inputs, cotangent):
        logits, pull, intermediates = jax.vjp(lambda p: model.apply(p, inputs), params, has_aux=True)
        return logits, intermediates, pull(cotangent)[0]

    return run


def logits_of(config, params, inputs):
    return jax.jit(lambda p, i: model(config).apply(p, i)[0])(params, inputs)


@pytest.fixture(scope="module")
def params():
    return draw_params(UNTIED)


@pytest.fixture(scope="module")
def inputs():
    """Four sequences: whole ones, one padded at its end and one padded at its start."""
    valid = np.ones((4, LENGTH), bool)
    valid[2, 13:] = valid[3, :6] = False
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, valid.shape)
    return {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid)}


@pytest.fixture(scope="module")
def cotangent():
    """What flows into the logits of the last position."""
    return jnp.asarray(np.random.default_rng(2).normal(size=(4, CLASSES)), jnp.float32)


@pytest.fixture(scope="module")
def run():
    return with_gradient(model())


@pytest.fixture(scope="module")
def full(run, params, inputs, cotangent):
    """Logits and intermediates of all positions, and the gradient from the last."""
    return run(params, inputs, jnp.zeros((4, LENGTH, CLASSES)).at[:, -1].set(cotangent))


@pytest.fixture(scope="module")
def last(params, inputs, cotangent):
    """The same of a model that decides at the last position only."""
    return with_gradient(model(last_only=True))(params, inputs, cotangent)


# Values


def plain_gpt2(weights, tokens):
    """The logits of one sequence, in float64, from weights with Hugging Face's names."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normalised = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return normalised * w[f"{name}.weight"][None] + w[f"{name}.bias"][None]

    def dense(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"][None]

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: len(tokens)]
    for i in range(LAYERS):
        prefix = f"transformer.h.{i}"
        q, k, v = np.split(dense(norm(x, f"{prefix}.ln_1"), f"{prefix}.attn.c_attn"), 3, axis=-1)
        mixed = np.zeros_like(x)
        for t in range(len(tokens)):
            for columns in np.split(np.arange(WIDTH), HEADS):
                weight = np.exp(k[: t + 1, columns] @ q[t, columns] / np.sqrt(len(columns)))
                mixed[t, columns] = weight @ v[: t + 1, columns] / weight.sum()
        x = x + dense(mixed, f"{prefix}.attn.c_proj")
        h = dense(norm(x, f"{prefix}.ln_2"), f"{prefix}.mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + dense(h, f"{prefix}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["lm_head.weight"].T


def test_logits_equal_a_plain_decoder(params, inputs, full):
    for row in range(2):  # those without padding
        expected = plain_gpt2(weights_of(params, UNTIED), np.asarray(inputs["tokens"])[row])
        np.testing.assert_allclose(full[0][row], expected, atol=1e-5)


def test_no_valid_means_all_valid(params, inputs, full):
    logits = logits_of(UNTIED, params, {"tokens": inputs["tokens"]})
    np.testing.assert_allclose(logits[:2], full[0][:2], atol=1e-5)
    assert jnp.abs(logits - full[0])[3, 6:].max() > 1e-2  # the row padded at its start


@pytest.mark.parametrize("config", [UNTIED, TIED], ids=["untied", "tied"])
def test_head_multiplies_the_normalised_stream(config, inputs):
    params = draw_params(config, seed=3)
    logits, hidden = jax.jit(lambda p, i: (lambda y, m: (y, m["hidden"]))(*model(config).apply(p, i)))(params, inputs)
    assert ("head_kernel" in params) == (not config.tied_head)
    head = params["tokens"]["embedding"].T if config.tied_head else params["head_kernel"]
    x, norm = (
        np.asarray(hidden[-1], np.float64),
        jax.tree.map(lambda p: np.asarray(p)[None, None], params["final_norm"]),
    )
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(logits, y @ np.asarray(head), atol=1e-5)


def test_a_tied_head_needs_tokens_for_classes():
    task = HierarchicalTask(6, 2, 2)
    with pytest.raises(UserError, match=r"tied_head only where the classes are as many as the tokens, 2; found the 4"):
        TIED.check(task)
    UNTIED.check(task)


# Who sees whom


@pytest.mark.parametrize("position", [0, 8, LENGTH - 1])
def test_no_gradient_flows_back_from_later_positions(run, params, inputs, cotangent, position):
    """The embedding of a position feeds this position of every sequence and nothing else."""
    seen = run(params, inputs, jnp.zeros((4, LENGTH, CLASSES)).at[:2, position].set(cotangent[:2]))[2]
    gradient = jnp.abs(seen["positions"]["embedding"]).max(1)
    assert (gradient[: position + 1] > 0).all()
    assert (gradient[position + 1 :] == 0).all()


def replaced(run, params, inputs, where):
    """Logits with other tokens at the places where ``where`` holds."""
    tokens = jnp.where(where, (inputs["tokens"] + 1) % VOCABULARY, inputs["tokens"])
    return run(params, {**inputs, "tokens": tokens}, jnp.zeros((4, LENGTH, CLASSES)))[0]


def test_later_tokens_of_the_same_sequence_see_a_token(run, params, inputs, full):
    here = jnp.zeros_like(inputs["valid"]).at[1, 9].set(True)
    change = jnp.abs(replaced(run, params, inputs, here) - full[0]).max(-1)
    assert (change[1, 9:] > 0).all()
    assert (change.at[1, 9:].set(0.0) == 0).all()


def test_content_of_padding_never_matters(run, params, inputs, full):
    valid = inputs["valid"]
    after = replaced(run, params, inputs, ~valid)
    np.testing.assert_array_equal(after[valid], full[0][valid])
    assert not jnp.array_equal(after, full[0])  # the tokens did change


# Only the last position


def test_last_position_only(full, last):
    np.testing.assert_allclose(last[0], full[0][:, -1], atol=1e-6 * float(jnp.abs(full[0]).max()))
    for ours, theirs in zip(jax.tree.leaves(last[2]), jax.tree.leaves(full[2]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()) + 1e-6)
    for name in ("hidden", "attention"):
        *early, final = last[1][name]
        *full_early, full_final = full[1][name]
        for ours, theirs in zip(early, full_early, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_allclose(final, full_final[..., -1:, :], atol=1e-5)


def test_last_position_only_saves_the_others(params, inputs):
    """The last layer's feed-forward and queries have one column for each sequence, not one for each token."""
    jaxpr = str(jax.make_jaxpr(lambda p, i: model(last_only=True).apply(p, i)[0])(params, inputs))
    tokens, hidden = 4 * LENGTH, MULTIPLE * WIDTH
    assert jaxpr.count(f"f32[{hidden},{tokens}] = dot_general") == LAYERS - 1
    assert jaxpr.count(f"f32[{hidden},4] = dot_general") == 1


# Attention


@pytest.mark.parametrize("padded", [True, False])
def test_asked_positions_get_the_logits_and_states_of_all(params, inputs, full, padded):
    """Every sequence is asked at other positions, one of them twice."""
    asked = jnp.array([[3, 0], [7, 7], [11, 2], [LENGTH - 1, 5]])
    inputs = inputs if padded else {"tokens": inputs["tokens"]}
    logits, intermediates = full[:2] if padded else jax.jit(model().apply)(params, inputs)
    some, of_asked = jax.jit(model().apply)(params, {**inputs, "asked": asked})
    last = (intermediates["hidden"][-1], intermediates["attention"][-1].swapaxes(1, 2))
    last_of_asked = (of_asked["hidden"][-1], of_asked["attention"][-1].swapaxes(1, 2))
    for everywhere, there in zip((logits, *last), (some, *last_of_asked), strict=True):
        np.testing.assert_allclose(there, everywhere[jnp.arange(4)[:, None], asked], atol=1e-5)
    np.testing.assert_allclose(of_asked["hidden"][1], intermediates["hidden"][1], atol=1e-5)


def test_attention_weights_are_causal_distributions(inputs, full):
    visible = np.tri(LENGTH, dtype=bool) & np.asarray(inputs["valid"])[:, None, :]
    sees_something = visible.any(-1)
    for weights in full[1]["attention"]:
        assert weights.shape == (4, HEADS, LENGTH, LENGTH)
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
        by_query = np.asarray(weights).swapaxes(1, 2)[sees_something]
        shown = np.broadcast_to(visible[sees_something][:, None], by_query.shape)
        assert (by_query[~shown] == 0).all()
        assert (by_query[shown] > 0).all()


def test_one_averaged_head_is_one_head(inputs):
    params = draw_params(ONE_HEAD)
    concatenated = dataclasses.replace(ONE_HEAD, heads="concatenate", head_dim=None)
    np.testing.assert_allclose(logits_of(ONE_HEAD, params, inputs), logits_of(concatenated, params, inputs), atol=1e-6)


def test_two_averaged_heads(inputs):
    """Equal heads average to one; else the output projection gets the mean of what each head alone would give it."""
    both, (one, other) = dataclasses.replace(ONE_HEAD, num_heads=2), (draw_params(ONE_HEAD, seed) for seed in (4, 5))

    def with_attention(params, attention):
        return {**params, "layers_0": {**params["layers_0"], "attention": attention}}

    def pair(first, second):
        first_head, second_head = (p["layers_0"]["attention"] for p in (first, second))
        inward = {
            name: jax.tree.map(lambda a, b: jnp.concatenate([a, b], -1), first_head[name], second_head[name])
            for name in ("query", "key", "value")
        }
        return with_attention(first, {**first_head, **inward})

    def with_values(params, factor):
        head = params["layers_0"]["attention"]
        return with_attention(params, {**head, "value": jax.tree.map(lambda p: factor * p, head["value"])})

    single, double = (
        jax.jit(lambda p, config=config: model(config).apply(p, inputs)[0]) for config in (ONE_HEAD, both)
    )
    np.testing.assert_allclose(double(pair(one, one)), single(one), atol=1e-5)
    np.testing.assert_allclose(double(pair(one, with_values(one, 0.0))), single(with_values(one, 0.5)), atol=1e-5)
    assert jnp.abs(double(pair(one, other)) - single(one)).max() > 0.1


# Initialisation and shapes


def test_initial_parameters(inputs):
    config = Gpt2(2, 8, 8, None, 4)
    params = jax.jit(model(config).init)(jax.random.key(0), inputs)
    matrices = residual = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = [key.key for key in path]
        if names[-1] in ("kernel", "embedding", "head_kernel"):
            is_residual = names[-2:] in (["output", "kernel"], ["contract", "kernel"])
            scale = 0.01 if is_residual else 0.02  # 0.02 / sqrt(2 layers * 2)
            matrices, residual = matrices + 1, residual + is_residual
            error = scale * (2 * leaf.size) ** -0.5  # standard error of a standard deviation
            assert abs(leaf.std() - scale) < 5 * error, path
            assert abs(leaf.mean()) < 5 * scale * leaf.size**-0.5, path
        else:
            assert (leaf == (1.0 if names[-1] == "scale" else 0.0)).all(), path
    assert (matrices, residual) == (2 * 6 + 3, 2 * 2)  # six to a layer, two embeddings, the head


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        Gpt2(1, 2, 8, None, 4, tied_head=True),
        Gpt2(3, 4, None, 32, 2),
        Gpt2(2, 3, 5, 16, 4, heads="average"),
    ],
    ids=["tied", "untied", "averaged"],
)
def test_shapes_and_number_of_parameters(config, last_only, inputs):
    width, layers, heads = config.model_width, config.num_layers, config.num_heads
    network, classes = model(config, last_only), VOCABULARY if config.tied_head else CLASSES
    params = jax.eval_shape(network.init, jax.random.key(0), inputs)
    logits, intermediates = jax.eval_shape(network.apply, params, inputs)
    asked = 1 if last_only else LENGTH
    assert logits.shape == ((4, classes) if last_only else (4, LENGTH, classes))
    streams = [(4, LENGTH, width)] * layers + [(4, asked, width)]
    assert [h.shape for h in intermediates["hidden"]] == streams
    weights = [(4, heads, LENGTH, LENGTH)] * (layers - 1) + [(4, heads, asked, LENGTH)]
    assert [a.shape for a in intermediates["attention"]] == weights

    inner = heads * config.dimensions_per_head
    mixed = config.dimensions_per_head if config.heads == "average" else inner
    attention = 3 * (width * inner + inner) + mixed * width + width
    feed_forward = 2 * config.feed_forward_multiple * width**2 + (config.feed_forward_multiple + 1) * width
    outside = (VOCABULARY + LENGTH) * width + 2 * width + (0 if config.tied_head else classes * width)
    assert num_parameters(params) == layers * (attention + feed_forward + 4 * width) + outside


# Dropout


def test_dropout_needs_a_key_and_follows_it(params, inputs, full):
    config = dataclasses.replace(UNTIED, dropout=0.3)

    @jax.jit
    def apply(key):
        return model(config).apply(params, inputs, key)

    np.testing.assert_array_equal(logits_of(config, params, inputs), logits_of(UNTIED, params, inputs))
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[0], again[0])
    assert jnp.abs(one[0] - other[0]).max() > 0.1
    embeddings, first = (np.asarray(h) for h in one[1]["hidden"][:2])
    undropped = np.asarray(full[1]["hidden"][0])
    kept = embeddings != 0
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / kept.size) ** 0.5
    np.testing.assert_allclose(embeddings[kept], undropped[kept] / 0.7, rtol=1e-5)
    untouched = (first == embeddings).mean()  # both residual sums dropped: 0.3 * 0.3
    assert abs(untouched - 0.09) < 0.02
