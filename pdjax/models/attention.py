"""Softmax attention on feature-major activations, with a hand-written gradient.

The gradient is the one of FlashAttention's backward pass (Dao et al. 2022, section 3.1), written with plain
matrix products: with unnormalised weights ``E = exp(S - max S)``, ``z`` their sums and ``O = E V / z``,

    dV = E^T (dO / z),   dS = E * ((dO / z) V^T - sum(dO * O) / z),   dQ = dS K,   dK = dS^T Q.

Dividing by ``z`` after the value product leaves one large array (``E``) to write and read instead of three.
With heads of 8 dimensions these arrays, not the products, are what attention costs: on two CPU cores this
is at least 1.5 times faster, forward and backward, than differentiating ``softmax``.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.models.precision import current

# Finite: a query that may see no key at all has equal weights, where minus infinity would make them NaN.
HIDDEN = -1e9
"""Added to the scores of keys that a query must not see; its exponential is exactly 0."""


def attention(
    q: Float[Array, "H C B L"],
    k: Float[Array, "H C B M"],
    v: Float[Array, "H C B M"],
    bias: Float[Array, "#B #L #M"],
) -> Float[Array, "H C B L"]:
    """Returns ``softmax(q k^T + bias) v`` for each head and sequence; q comes already scaled.

    ``bias`` is a constant (0 or ``HIDDEN``): no gradient flows into it. On CUDA, cuDNN's flash attention computes it
    where the types and shapes are its own; elsewhere plain products do.
    """
    # Both are known when this is traced: no program holds two kinds of attention.
    if jax.default_backend() == "gpu" and flash_allows(q, k):
        return flash("cudnn", q, k, v, bias)
    return products(q, k, v, bias)


def flash_allows(q: Float[Array, "H C B L"], k: Float[Array, "H C B M"]) -> bool:
    """Whether cuDNN's flash attention takes these queries and keys.

    It wants 16 bits, heads of 8 to 128 dimensions in eights, and, to be trained with a bias, even lengths.
    """
    even = q.shape[3] % 2 == 0 and k.shape[3] % 2 == 0
    return q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[1] % 8 == 0 and q.shape[1] <= 128 and even


Implementation = Literal["cudnn", "xla"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def flash(implementation, q, k, v, bias):
    """Returns the same as ``attention``, by ``jax.nn.dot_product_attention``.

    Replicas become more of the batch, value and gradient apart, as cuDNN's own rule for ``vmap`` takes no bias that all
    heads share. The gradient computes the value once more.
    """
    return _with_replicas_in_the_batch(implementation, False)(q, k, v, bias)


@functools.cache
def _with_replicas_in_the_batch(implementation: Implementation, gradient: bool) -> Callable[..., Any]:
    """Returns a function of q, k, v (and the value's cotangent, for the gradient) and the bias."""

    def value(q, k, v, bias):
        q_BxLxHxC, k_BxMxHxC, v_BxMxHxC = (part.transpose(2, 3, 0, 1) for part in (q, k, v))
        # [#B, 1, L, M]: one for all heads, in the queries' type.
        full = jnp.broadcast_to(bias, (bias.shape[0], q.shape[3], k.shape[3]))[:, None].astype(q.dtype)
        mixed_BxLxHxC = jax.nn.dot_product_attention(
            q_BxLxHxC, k_BxMxHxC, v_BxMxHxC, full, scale=1.0, implementation=implementation
        )
        return mixed_BxLxHxC.transpose(2, 3, 0, 1)

    def pulled_back(q, k, v, do, bias):
        return jax.vjp(lambda q, k, v: value(q, k, v, bias), q, k, v)[1](do)

    call = jax.custom_batching.custom_vmap(pulled_back if gradient else value)

    @call.def_vmap
    def fold(axis_size, mapped, *arrays):
        def leading(array, is_mapped):
            return array if is_mapped else jnp.broadcast_to(array, (axis_size, *array.shape))

        *heads, bias = map(leading, arrays, mapped)
        # Behind the replicas, which lead here: [R, H, C, B, L].
        batch = heads[0].shape[3]
        # One for each sequence of each replica, in the order in which `merged` has them.
        if mapped[-1] or bias.shape[1] > 1:
            bias = jnp.broadcast_to(bias, (axis_size, batch, *bias.shape[2:])).reshape(-1, *bias.shape[2:])
        else:  # one for all sequences of all replicas, as a causal one
            bias = arrays[-1]
        # [R, H, C, B, L] to [H, C, R * B, L], replica by replica.
        merged = [jnp.moveaxis(part, 0, 2).reshape(*part.shape[1:3], -1, part.shape[4]) for part in heads]
        results = call(*merged, bias)

        def parted(part):
            return jnp.moveaxis(part.reshape(*part.shape[:2], axis_size, batch, part.shape[3]), 2, 0)

        return jax.tree.map(parted, results), jax.tree.map(lambda _: True, results)

    return call


def _flash_forward(implementation, q, k, v, bias):
    return flash(implementation, q, k, v, bias), (q, k, v, bias)


def _flash_backward(implementation, residuals, do):
    q, k, v, bias = residuals
    return (*_with_replicas_in_the_batch(implementation, True)(q, k, v, do, bias), None)  # none for the bias


flash.defvjp(_flash_forward, _flash_backward)


def products(
    q: Float[Array, "H C B L"],
    k: Float[Array, "H C B M"],
    v: Float[Array, "H C B M"],
    bias: Float[Array, "#B #L #M"],
) -> Float[Array, "H C B L"]:
    """Returns the same as ``attention``, by plain products with the gradient above."""
    return _products(current(), q, k, v, bias)


# A hand-written gradient is traced later than its value, outside the context that says how exact products are: it is
# told, to be as exact.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _products(precision, q, k, v, bias):
    with jax.default_matmul_precision(precision):
        return _mixed(_scores(q, k, bias), v)[0]


def segment_bias(segments: Int[Array, "B L"]) -> Float[Array, "B L L"]:
    """Returns the addend to attention scores that hides keys of other segments, and of padding, which is segment 0.

    It adds up with those that hide keys for other reasons. Other segments are hidden deepest: a query none of whose own
    keys is visible has equal weights on these, and still none on the others.
    """
    same = segments[:, :, None] == segments[:, None, :]
    padding = (segments == 0)[:, None, :]
    return jnp.where(same, jnp.where(padding, HIDDEN, 0.0), 3 * HIDDEN)


def bias_at(bias: Float[Array, "#B #L M"], asked: Int[Array, "B Q"]) -> Float[Array, "#B #Q M"]:
    """Returns the addends to the scores of the asked queries; one that all queries share is theirs, too."""
    return bias if bias.shape[1] == 1 else jnp.take_along_axis(bias, asked[:, :, None], axis=1)


def attention_weights(
    q: Float[Array, "H C B L"], k: Float[Array, "H C B M"], bias: Float[Array, "#B #L #M"]
) -> Float[Array, "B H L M"]:
    """Returns the weights ``softmax(q k^T + bias)`` themselves, for probes and for dropout."""
    scores = jnp.einsum("hcbq,hcbk->bhqk", q, k, preferred_element_type=at_least_float32(q)) + bias[:, None]
    return jax.nn.softmax(scores, axis=-1)


def at_least_float32(x: Array) -> jnp.dtype:
    """Returns the type in which sums over an array are taken."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _scores(q, k, bias):
    """Returns ``k q^T + bias``. Keys lead: the maximum and the sum over them then run along whole rows of queries.

    On CPUs a bias that all queries share is one more dimension of the keys, and 1 that of the queries, which saves
    a pass over the scores: 8 % of the time of a BERT with heads of 8 dimensions.
    """
    if jax.default_backend() != "cpu" or bias.shape[1] > 1:
        return _products_of_heads(q, k) + bias.swapaxes(-1, -2)[None]
    # [q, 1] . [k, bias] = q . k + bias: the product adds the bias. It needs one bias for all queries of a sequence.
    bias_1x1xBxM = jnp.broadcast_to(bias.swapaxes(0, 1)[None], (1, 1, *k.shape[2:])).astype(k.dtype)
    k = jnp.concatenate([k, jnp.repeat(bias_1x1xBxM, k.shape[0], axis=0)], axis=1)
    return _products_of_heads(jnp.concatenate([q, jnp.ones_like(q[:, :1])], axis=1), k)


def _products_of_heads(q, k):
    q_HxBxCxL, k_HxBxMxC = q.swapaxes(1, 2), k.transpose(0, 2, 3, 1)
    return jnp.matmul(k_HxBxMxC, q_HxBxCxL, preferred_element_type=at_least_float32(q))


def _forward(precision, q, k, v, bias):
    with jax.default_matmul_precision(precision):
        o, e_HxBxMxL, z_HxBx1xL = _mixed(_products_of_heads(q, k) + bias.swapaxes(-1, -2)[None], v)
    return o, (q, k, v, e_HxBxMxL, z_HxBx1xL, o.swapaxes(1, 2))


def _mixed(scores_HxBxMxL, v):
    v_HxBxCxM = v.swapaxes(1, 2)
    # At most 1 after the maximum is subtracted, so that nothing overflows, and rounding them to v's type is safe.
    e_HxBxMxL = jnp.exp(scores_HxBxMxL - jnp.max(scores_HxBxMxL, axis=-2, keepdims=True)).astype(v.dtype)
    # A row of ones under V makes the value product return the sums z as well.
    ones_HxBx1xM = jnp.ones_like(v_HxBxCxM[:, :, :1])
    values = jnp.concatenate([v_HxBxCxM, ones_HxBx1xM], axis=2)
    both = jnp.matmul(values, e_HxBxMxL, preferred_element_type=at_least_float32(v))
    z_HxBx1xL = both[:, :, -1:]
    o_HxBxCxL = (both[:, :, :-1] / z_HxBx1xL).astype(v.dtype)
    return o_HxBxCxL.swapaxes(1, 2), e_HxBxMxL, z_HxBx1xL


def _backward(precision, residuals, do):
    q, k, v, e_HxBxMxL, z_HxBx1xL, o_HxBxCxL = residuals
    # dO / z of the formulas above.
    scaled_HxBxCxL = (do.swapaxes(1, 2) / z_HxBx1xL).astype(do.dtype)
    # sum(dO * O) / z over the C dimensions of a head, instead of a sum over M keys of arrays as large as E.
    inner_HxBx1xL = jnp.sum(scaled_HxBxCxL * o_HxBxCxL, axis=2, keepdims=True)
    with jax.default_matmul_precision(precision):
        dv_HxBxMxC = e_HxBxMxL @ scaled_HxBxCxL.swapaxes(-1, -2)
        ds_HxBxMxL = e_HxBxMxL * (v.transpose(0, 2, 3, 1) @ scaled_HxBxCxL - inner_HxBx1xL)
        dq_HxBxCxL = k.swapaxes(1, 2) @ ds_HxBxMxL
        dk_HxBxMxC = ds_HxBxMxL @ q.transpose(0, 2, 3, 1)
    return dq_HxBxCxL.swapaxes(1, 2), dk_HxBxMxC.transpose(0, 3, 1, 2), dv_HxBxMxC.transpose(0, 3, 1, 2), None


_products.defvjp(_forward, _backward)
