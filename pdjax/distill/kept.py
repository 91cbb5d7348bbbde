"""A teacher cut down to its most likely classes: what a cache keeps of it, and losses from that.

At a temperature near 0 all of a teacher's mass lies on its most likely class, or evenly on several that tie: there is
nothing else to keep. At others the k most likely classes are kept with their probabilities, and the mass of all others
together, which is what the loss ``TopK`` compares. With ``p`` and ``q`` of teacher and student, and ``r`` and ``s``
their masses of all others, it is

    sum over kept classes of p (log p - log q) + r (log r - log s),

whose gradient at the student's logits is ``q - p`` at the kept classes and ``q (1 - r / s)`` at the others.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from pdjax.distill.vocabulary import Compared, Softmax, chosen, extended, no_classes, over_blocks, pulled_back
from pdjax.models.head import Factored
from pdjax.types import Logits


class Cut(NamedTuple):
    """What of a teacher a loss needs."""

    k: int  # the most likely classes
    temperature: float  # of the teacher
    whole: bool  # whether they have to have all of its mass, and those that have any the same


class Kept(NamedTuple):
    """A teacher's distribution at every place, on the device or the host: some classes, and all others together."""

    classes: Int[Any, "*places K"]  # the most likely first, of equal ones the first
    log_p: Float[Any, "*places K"]  # minus infinity for a class without mass
    log_rest: Float[Any, "*places"] | None  # of the others; None: they have no mass


def keep(logits: Logits, cut: Cut) -> tuple[Kept, Int[Array, "*places"]]:
    """Cuts a teacher down.

    Args:
      logits: of the teacher at all places, an array or factors: of these a block of classes is there at a time.
      cut: what to keep.

    Returns:
      What is kept, with the mass of all others, and how many classes have the largest logit.
    """
    places, count = logits.shape[:-1], logits.shape[-1]
    if isinstance(logits, Factored):
        block, some = logits.block, logits.logits
    else:
        block, some = count, functools.partial(jax.lax.dynamic_slice_in_dim, logits.reshape(-1, count).T)
    width = math.prod(places)

    def most_likely(carry: tuple[Array, Array], start: ArrayLike, size: int) -> tuple[Array, Array]:
        found = some(start, size)
        index = jnp.broadcast_to(start + jnp.arange(size)[:, None], found.shape)
        values, classes = (jnp.concatenate(pair) for pair in zip(carry, (found, index), strict=True))
        # Of equal ones `top_k` takes the first, and classes come in their order.
        values_Uxk, best = jax.lax.top_k(values.T, cut.k)
        return values_Uxk.T, jnp.take_along_axis(classes, best.T, axis=0)

    lowest = jnp.full((cut.k, width), -jnp.inf)
    # A class that is none, for places in front of the first block: smaller than all numbers of classes.
    values_KxU, classes_KxU = over_blocks(most_likely, (lowest, jnp.full((cut.k, width), -1)), count, block)

    def others(carry: tuple[Array, Array], start: ArrayLike, size: int) -> tuple[Array, Array]:
        found, index = some(start, size), start + jnp.arange(size)[:, None]
        terms = jnp.exp(_scaled(found - values_KxU[:1], cut.temperature))
        rest = jnp.sum(jnp.where(_is_kept(index, classes_KxU), 0.0, terms), axis=0, keepdims=True)
        return carry[0] + rest, carry[1] + jnp.sum(found == values_KxU[:1], axis=0, keepdims=True)

    zero = jnp.zeros((1, width))
    rest_1xU, ties_1xU = over_blocks(others, (zero, zero.astype(jnp.int32)), count, block)
    gaps_KxU = _scaled(values_KxU - values_KxU[:1], cut.temperature)
    terms_KxU = jnp.exp(gaps_KxU)
    log_total = jnp.log(jnp.sum(terms_KxU, axis=0, keepdims=True) + rest_1xU)
    # What float32 has no number for is no mass, at 1e-20 as at 0.
    log_p_KxU = jnp.where(terms_KxU > 0, gaps_KxU - log_total, -jnp.inf)
    kept = Kept(
        classes_KxU.T.reshape(*places, cut.k),
        log_p_KxU.T.reshape(*places, cut.k),
        (jnp.log(rest_1xU) - log_total).reshape(places),
    )
    return kept, ties_1xU.reshape(places)


def _scaled(gaps: Float[Array, "N U"], temperature: float) -> Float[Array, "N U"]:
    """Returns gaps over a temperature, 0 where they are, for every temperature down to 0."""
    return jnp.where(gaps == 0, 0.0, gaps / jnp.float32(temperature))


def _is_kept(index: ArrayLike, classes: Int[Array, "K U"]) -> Array:
    """Returns whether each class of a block, [N, 1], is among those that are kept at each place, [N, U]."""
    return jnp.any(jnp.asarray(index)[None] == classes[:, None], axis=0)


def compare_kept(student: Logits, targets: Int[Array, "*places"], kept: Kept) -> Compared:
    """Returns what ``pdjax.distill.vocabulary.compare`` does, of a teacher that is cut down: the forward divergence.

    Args:
      student: logits, an array or factors, of which a block of classes is there at a time.
      targets: the right classes.
      kept: of the teacher, at the same places.
    """
    if not isinstance(student, Factored):
        return _compare_dense(student, targets, kept)
    count = kept.classes.shape[-1]
    flat = Kept(
        kept.classes.reshape(-1, count).T,
        kept.log_p.reshape(-1, count).T,
        None if kept.log_rest is None else kept.log_rest.reshape(1, -1),
    )
    found = _compare(student, targets.reshape(1, -1), flat)
    return Compared(*(part.reshape(targets.shape) for part in found))


def _compare_dense(student: Float[Array, "*places V"], targets: Int[Array, "*places"], kept: Kept) -> Compared:
    """Returns the same of all logits at once."""
    log_q = jax.nn.log_softmax(student)
    index = jax.lax.broadcasted_iota(targets.dtype, log_q.shape, log_q.ndim - 1)
    of_target = -jnp.sum(jnp.where(index == targets[..., None], log_q, 0.0), axis=-1)
    each = kept.classes[..., None, :] == index[..., None]  # [*places, V, K]
    p = jnp.sum(jnp.where(each, jnp.exp(kept.log_p)[..., None, :], 0.0), axis=-1)
    divergence = _negative_entropy(kept.log_p, kept.log_rest) - jnp.sum(p * log_q, axis=-1)
    if kept.log_rest is not None:
        rest_log_q = jax.nn.logsumexp(jnp.where(jnp.any(each, axis=-1), -jnp.inf, log_q), axis=-1)
        divergence = divergence - jnp.exp(kept.log_rest) * rest_log_q
    return Compared(of_target, divergence, jnp.argmax(student, axis=-1))


def _negative_entropy(
    log_p: Float[Array, "*places K"], log_rest: Float[Array, "*places"] | None
) -> Float[Array, "*places"]:
    """Returns the sum of ``p log p`` over the kept classes, and all others together."""
    negative = jnp.sum(_times_itself(log_p), axis=-1)
    return negative if log_rest is None else negative + _times_itself(log_rest)


def _times_itself(log_p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns ``p log p``, which is 0 where p is."""
    return jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * log_p, 0.0)


class _Sums(NamedTuple):
    """What the value keeps of the student's classes so far."""

    student: Softmax
    target: Float[Array, "1 U"]  # the logit of the right class, 0 until it comes
    best: Int[Array, "1 U"]
    kept: Float[Array, "K U"]  # the logits of the kept classes, 0 until they come
    others: Softmax  # the student's without them, by a top of its own: they may be far below the kept ones


@jax.custom_vjp
def _compare(student, targets, kept):
    return _forward(student, targets, kept)[0]


def _forward(student, targets, kept):
    zeros_KxU = jnp.zeros_like(kept.log_p)
    nothing, target, best = no_classes(student)
    start = _Sums(nothing, target, best, zeros_KxU, nothing)
    sums = over_blocks(functools.partial(_with_block, student, targets, kept), start, len(student.head), student.block)
    log_total = jnp.log(sums.student.total)
    cross_entropy = (sums.student.top - sums.target) + log_total
    # Gaps before the logarithm: of large logits their sum would lose digits.
    log_q_KxU = (sums.kept - sums.student.top) - log_total
    divergence = jnp.sum(_against(kept.log_p, log_q_KxU), axis=0, keepdims=True)
    if kept.log_rest is not None:
        log_others = (sums.others.top - sums.student.top) + jnp.log(sums.others.total)
        divergence = divergence + _against(kept.log_rest, log_others - log_total)
    return (cross_entropy, divergence, sums.best), (student, targets, kept, sums.student, sums.others)


def _against(log_p: Float[Array, "N U"], log_q: Float[Array, "N U"]) -> Float[Array, "N U"]:
    """Returns ``p (log p - log q)``, which is 0 where p is."""
    return jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * (log_p - log_q), 0.0)


def _with_block(
    student: Factored, targets: Int[Array, "1 U"], kept: Kept, sums: _Sums, start: ArrayLike, size: int
) -> _Sums:
    """Returns the sums with ``size`` more classes in them."""
    logits, index = student.logits(start, size), start + jnp.arange(size)[:, None]
    largest = jnp.max(logits, axis=0, keepdims=True)
    first = jnp.min(jnp.where(logits == largest, index, len(student.head)), axis=0, keepdims=True)
    top = jnp.maximum(sums.student.top, largest)
    ours, _ = extended(sums.student, top, logits - top, 1.0)
    others = sums.others
    if kept.log_rest is not None:
        free = jnp.where(_is_kept(index, kept.classes), -jnp.inf, logits)
        others_top = jnp.maximum(others.top, jnp.max(free, axis=0, keepdims=True))
        others, _ = extended(others, others_top, free - others_top, 1.0)
    # A gather, and no comparison as elsewhere: no gradient goes through it.
    place = kept.classes - start
    here = (place >= 0) & (place < size)
    found = jnp.take_along_axis(logits, jnp.clip(place, 0, size - 1), axis=0)
    return _Sums(
        ours,
        sums.target + chosen(logits, index == targets),
        jnp.where(largest > sums.student.top, first, sums.best),
        jnp.where(here, found, sums.kept),
        others,
    )


def _backward(residuals, cotangents):
    student, targets, kept, ours, others = residuals
    from_labels, from_teacher, _ = cotangents
    p_KxU = jnp.exp(kept.log_p)
    rest_1xU = None if kept.log_rest is None else jnp.exp(kept.log_rest)
    mass_1xU = jnp.sum(p_KxU, axis=0, keepdims=True) + (0.0 if rest_1xU is None else rest_1xU)

    def at_logits(start: ArrayLike, size: int) -> Float[Array, "N U"]:
        index = start + jnp.arange(size)[:, None]
        logits = student.logits(start, size)
        q = jnp.exp(logits - ours.top) / ours.total
        p = jnp.sum(jnp.where(index[None] == kept.classes[:, None], p_KxU[:, None], 0.0), axis=0)
        at_teacher = mass_1xU * q - p
        if rest_1xU is not None:
            share = rest_1xU * jnp.exp(logits - others.top) / others.total
            at_teacher = at_teacher - jnp.where(_is_kept(index, kept.classes), 0.0, share)
        return from_labels * (q - (index == targets)) + from_teacher * at_teacher

    return pulled_back(student, at_logits), None, None


_compare.defvjp(_forward, _backward)
