"""The attention's hand-written gradient against differentiating a plain softmax in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.attention import HIDDEN, attention, attention_weights, bias_at, flash, flash_allows, segment_bias

SHAPES = [(1, 4, 2, 5), (2, 8, 3, 7), (3, 5, 1, 16), (4, 1, 2, 1)]  # heads, dimensions, sequences, positions


def reference(q, k, v, bias):
    scores = jnp.einsum("hcbq,hcbk->hbqk", q, k) + bias[None]
    shifted = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("hbqk,hcbk->hcbq", shifted / shifted.sum(-1, keepdims=True), v)


def draw(shape, seed, scale=1.0):
    """Queries, keys, values and a cotangent; a mask that hides keys but never all of them."""
    _, _, batch, length = shape
    rng = np.random.default_rng(seed)
    q, k, v, do = (rng.normal(0, scale, shape) for _ in range(4))
    hidden = rng.random((batch, 1, length)) < 0.4
    hidden[:, :, 0] = False
    return q, k, v, do, np.where(hidden, HIDDEN, 0.0)


@functools.partial(jax.jit, static_argnums=0)
def with_gradient(function, q, k, v, do, bias):
    out, pull = jax.vjp(lambda q, k, v: function(q, k, v, bias), q, k, v)
    return (out, *pull(do))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mask", ["none", "keys", "causal", "segments"])
def test_value_and_gradient_in_float64(shape, mask):
    q, k, v, do, bias = draw(shape, seed=len(mask))
    length = shape[-1]
    if mask == "none":
        bias = np.zeros_like(bias)
    elif mask == "causal":
        bias = np.where(np.tri(length, dtype=bool), 0.0, HIDDEN)[None]
    elif mask == "segments":
        bias = bias + np.asarray(segment_bias(np.random.default_rng(0).integers(0, 3, bias.shape[::2])))
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a) for a in (q, k, v, do, bias)]
        assert arguments[0].dtype == jnp.float64
        for ours, theirs in zip(
            with_gradient(attention, *arguments), with_gradient(reference, *arguments), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_value_and_gradient_in_float32_under_jit():
    arguments = [jnp.asarray(a, jnp.float32) for a in draw((2, 8, 4, 33), seed=0)]
    ours = jax.jit(lambda *a: with_gradient(attention, *a))(*arguments)
    for one, other in zip(ours, with_gradient(reference, *arguments), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_vmap_equals_one_by_one():
    members = [[jnp.asarray(a, jnp.float32) for a in draw((2, 8, 3, 9), seed)] for seed in range(3)]
    stacked = [jnp.stack(arrays) for arrays in zip(*members, strict=True)]
    together = jax.jit(jax.vmap(lambda *a: with_gradient(attention, *a)))(*stacked)
    for i, member in enumerate(members):
        for ours, alone in zip(together, with_gradient(attention, *member), strict=True):
            np.testing.assert_allclose(ours[i], alone, atol=1e-5)


def test_no_gradient_flows_into_the_bias():
    q, k, v, do, bias = (jnp.asarray(a, jnp.float32) for a in draw((2, 4, 2, 5), seed=0))
    gradient = jax.jit(jax.grad(lambda bias: jnp.sum(attention(q, k, v, bias) * do)))(bias)
    assert gradient.shape == bias.shape
    assert (gradient == 0).all()


def test_rows_that_see_nothing_are_finite():
    q, k, v, do, bias = (jnp.asarray(a, jnp.float32) for a in draw((2, 4, 2, 6), seed=0))
    bias = bias.at[0].set(HIDDEN)
    for array in with_gradient(attention, q, k, v, do, bias):
        assert jnp.isfinite(array).all()
    alone = [a[:, :, 1:] for a in (q, k, v, do)]
    for array, other in zip(
        with_gradient(attention, q, k, v, do, bias), with_gradient(attention, *alone, bias[1:]), strict=True
    ):
        np.testing.assert_allclose(array[:, :, 1:], other, atol=1e-5)  # and do not disturb the others


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_of_a_thousand_are_finite_and_choose_the_largest(sign):
    q = jnp.full((1, 1, 1, 3), sign)
    k = jnp.array([1000.0, -1000.0, 999.0]).reshape(1, 1, 1, 3)
    v = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    out, *gradients = with_gradient(attention, q, k, v, jnp.ones_like(q), jnp.zeros((1, 1, 3)))
    first = np.exp(1) / (1 + np.exp(1))  # of the scores 1000 and 999
    np.testing.assert_allclose(out, 2.0 if sign < 0 else first * 1 + (1 - first) * 3, rtol=1e-5)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_hidden_keys_have_no_weight_and_no_gradient():
    q, k, v, do, bias = (jnp.asarray(a, jnp.float32) for a in draw((2, 4, 2, 8), seed=1, scale=3.0))
    hidden = (bias[:, 0] == HIDDEN)[None, None] & jnp.ones(k.shape, bool)
    assert hidden.any()
    out, _, dk, dv = with_gradient(attention, q, k, v, do, bias)
    assert (dk[hidden] == 0).all()
    assert (dv[hidden] == 0).all()
    weights = jax.jit(attention_weights)(q, k, bias)
    assert (jnp.where(bias[:, None] == HIDDEN, weights, 0.0) == 0).all()
    np.testing.assert_allclose(jnp.einsum("bhqk,hcbk->hcbq", weights, v), out, atol=1e-5)


def test_segments_are_hidden_deeper_than_keys():
    """Of two documents and padding: who sees whom, by hand, and a query that sees no key of its own."""
    bias = segment_bias(jnp.array([[1, 1, 2, 0]]))
    near, far = 0.0, 3 * HIDDEN
    expected = [[near, near, far, far], [near, near, far, far], [far, far, near, far], [far, far, far, HIDDEN]]
    np.testing.assert_array_equal(bias, jnp.array([expected]))
    np.testing.assert_array_equal(bias_at(bias, jnp.array([[2, 0]])), jnp.array([expected])[:, jnp.array([2, 0])])
    own_hidden = jnp.where(jnp.arange(4) < 2, HIDDEN, 0.0)[None, None]
    weights = attention_weights(jnp.ones((1, 2, 1, 4)), jnp.ones((1, 2, 1, 4)), bias + own_hidden)
    np.testing.assert_array_equal(weights[0, 0, 0], jnp.array([0.5, 0.5, 0, 0]))


def test_flash_attention_is_handed_the_same_problem():
    """cuDNN itself needs a GPU; its call differs from this one in the name of the implementation alone."""
    arguments = [jnp.asarray(a, jnp.float32) for a in draw((3, 8, 2, 17), seed=2)]
    ours = with_gradient(attention, *arguments)
    theirs = with_gradient(functools.partial(flash, "xla"), *arguments)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_cudnn_is_asked_for_the_gradients_of_replicas_as_of_one_batch(monkeypatch, causal):
    """Traced as on a GPU with cuDNN; its own checks of shapes and its rule for ``vmap`` run, its kernels do not."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    for name, answer in {
        "check_cudnn_version": 91900, "check_compute_capability": True, "is_cuda_compute_capability_equal": False,
    }.items():  # fmt: skip
        monkeypatch.setattr(fused, name, lambda *_, answer=answer: answer)
    heads = jnp.ones((4, 3, 2, 8, 5, 16), jnp.bfloat16)  # q, k, v and a cotangent, of three replicas
    bias = jnp.zeros((1, 16, 16) if causal else (5, 1, 16))
    mapped = functools.partial(with_gradient, functools.partial(flash, "cudnn"))
    traced = jax.make_jaxpr(jax.vmap(mapped, in_axes=(0, 0, 0, 0, None)))(*heads, bias)
    asked = [e for e in every_equation(traced.jaxpr) if "bwd_wrapper" in e.primitive.name]
    assert [[v.aval.shape for v in e.outvars[:3]] for e in asked] == [[(15, 16, 2, 8)] * 3]
    assert [leaf.shape for leaf in traced.out_avals] == [(3, 2, 8, 5, 16)] * 4


def every_equation(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(leaf, "eqns"):
                yield from every_equation(leaf)


@pytest.mark.parametrize(
    ("dtype", "dimensions", "allowed"),
    [(jnp.bfloat16, 8, True), (jnp.bfloat16, 64, True), (jnp.bfloat16, 12, False), (jnp.bfloat16, 136, False),
     (jnp.float32, 8, False)],
)  # fmt: skip
def test_flash_attention_takes_some_shapes_only(dtype, dimensions, allowed):
    keys = jnp.zeros((2, dimensions, 1, 6), dtype)
    assert flash_allows(keys, keys) is allowed
    for one, other in ((keys[..., :5], keys), (keys, keys[..., :5])):
        assert not flash_allows(one, other)


@pytest.mark.parametrize("shared_bias", [True, False])
@pytest.mark.parametrize("mask", ["keys", "causal", "segments"])
def test_flash_attention_of_replicas_is_that_of_each(shared_bias, mask):
    """As training maps it: gradients of replicas whose biases are one, or each replica's own."""
    members = [[jnp.asarray(a, jnp.float32) for a in draw((3, 8, 2, 6), seed)] for seed in range(3)]
    *heads, biases = [jnp.stack(arrays) for arrays in zip(*members, strict=True)]
    if mask == "causal":
        biases = jnp.broadcast_to(jnp.where(jnp.tri(6, dtype=bool), 0.0, HIDDEN), (3, 1, 6, 6))
    elif mask == "segments":
        biases = biases + segment_bias(jnp.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 3, 3]]))[None]
    if shared_bias:
        biases = jnp.broadcast_to(biases[:1], biases.shape)
    mapped = functools.partial(with_gradient, functools.partial(flash, "xla"))
    axes = (0, 0, 0, 0, None if shared_bias else 0)
    together = jax.jit(jax.vmap(mapped, in_axes=axes, spmd_axis_name="replica"))(
        *heads, biases[0] if shared_bias else biases
    )
    for i in range(3):
        alone = with_gradient(reference, *[part[i] for part in heads], biases[i])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[i], other, atol=2e-5)


def test_rounded_to_bfloat16_it_stays_within_its_precision():
    """8 bits of mantissa: 2 % of the largest, value and gradients."""
    arguments = [jnp.asarray(a, jnp.float32) for a in draw((2, 8, 3, 33), seed=1)]
    rounded = [a.astype(jnp.bfloat16) for a in arguments[:4]]
    exact = with_gradient(attention, *[a.astype(jnp.float32) for a in rounded], arguments[4])
    for one, other in zip(with_gradient(attention, *rounded, arguments[4]), exact, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=0.02 * float(jnp.max(jnp.abs(other))))
