"""Losses and the most likely class from factored logits, a block of the vocabulary at a time.

Of U places and V classes no array [V, U] exists, in the value or in its gradient: both go over blocks of the output
layer, and what they keep has a few numbers for each place. The value's sums are taken relative to the largest logits so
far, and moved when a larger one comes (Milakov & Gimelshein 2018). With ``P`` and ``Q`` proportional to ``exp(g)`` and
``exp(h)``, where ``g`` is 0 at the most likely class of P and ``h`` is at most 0, and with ``y`` and ``z`` the sums of
these exponentials,

    KL(P || Q) = m - log y + log z,   m = sum(exp(g) (g - h)) / y.

The gradient computes the logits of each block once more. At the student's it is ``q - p`` of the forward divergence,
and ``q (g - h - m)`` of the reverse one, whose student is P.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from pdjax.models.head import Factored
from pdjax.types import TEACHER

T = TypeVar("T")

Direction = Literal["forward", "reverse"]
"""``KL(p_T || p_S)`` or ``KL(p_S || p_T)``."""


class Compared(NamedTuple):
    """A student beside labels and a teacher, at every place."""

    cross_entropy: Float[Array, "*places"]  # with the labels (equation 1), in nats
    divergence: Float[Array, "*places"]  # from the teacher, in nats; 0 without one
    best: Int[Array, "*places"]  # the student's most likely class, of ties the first


def compare(
    student: Factored,
    targets: Int[Array, "*places"],
    teacher: Factored | None = None,
    temperature: Float[Array, ""] | float = 1.0,
    direction: Direction = "forward",
) -> Compared:
    """Returns what losses and accuracies need of all classes, in one pass over the vocabulary.

    No gradient flows into the teacher or the temperature.

    Args:
      student: logits, in blocks of ``student.block`` classes.
      targets: the right classes.
      teacher: of as many classes, at the same places; None: labels alone.
      temperature: of the teacher; 0 is its most likely class, and for the forward divergence alone.
      direction: of the divergence.
    """
    found = _compare(direction, student, teacher, targets.reshape(1, -1), temperature)
    return Compared(*jax.tree.map(lambda part: part.reshape(targets.shape), found))


class Softmax(NamedTuple):
    """A distribution at every place, of the classes so far."""

    top: Float[Array, "1 U"]  # the largest logit
    total: Float[Array, "1 U"]  # of the exponentials of the gaps to it


class _Sums(NamedTuple):
    """What the value keeps of the classes so far."""

    student: Softmax
    teacher: Softmax | None
    target: Float[Array, "1 U"]  # the student's logit of the right class, 0 until it comes
    best: Int[Array, "1 U"]
    # Of Q's logits, the one that h is relative to for now. Forward it is the largest. In reverse it is that of the
    # student's most likely class: sums then lose no digits where the student is sure of a class that the teacher is
    # not, and a gradient that ought to vanish does.
    anchor: Float[Array, "1 U"]
    difference: Float[Array, "1 U"]  # sum of exp(g) (g - h)


def _gaps(logits: Float[Array, "#N U"], origin: Float[Array, "1 U"], temperature: ArrayLike) -> Float[Array, "#N U"]:
    """Returns ``(logits - origin) / temperature``, 0 at the origin for every temperature down to 0."""
    gaps = logits - origin
    return jnp.where(gaps == 0, 0.0, gaps / temperature)


# A hand-written gradient is traced outside of the context that says how exact products are: the factors say it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _compare(direction, student, teacher, targets, temperature):
    return _forward(direction, student, teacher, targets, temperature)[0]


def _forward(direction, student, teacher, targets, temperature):
    body = functools.partial(_with_block, direction, student, teacher, targets, temperature)
    sums = over_blocks(body, _nothing(student, teacher), len(student.head), student.block)
    # The gap before the logarithm: of large logits their sum would lose digits.
    cross_entropy = (sums.student.top - sums.target) + jnp.log(sums.student.total)
    mean, divergence = jnp.zeros_like(cross_entropy), jnp.zeros_like(cross_entropy)
    if sums.teacher is not None:
        own, other = _in_order(direction, sums.student, sums.teacher)
        mean = sums.difference / own.total
        anchored = _gaps(other.top, sums.anchor, 1.0 if direction == "forward" else temperature)
        divergence = (mean + anchored) - jnp.log(own.total) + jnp.log(other.total)
    residuals = (student, teacher, targets, temperature, sums.student, sums.teacher, sums.anchor, mean)
    return (cross_entropy, divergence, sums.best), residuals


def _in_order(direction: Direction, of_student: T, of_teacher: T) -> tuple[T, T]:
    """Returns what belongs to P and what belongs to Q."""
    return (of_teacher, of_student) if direction == "forward" else (of_student, of_teacher)


def _nothing(student: Factored, teacher: Factored | None) -> _Sums:
    """Returns the sums of no class."""
    empty, target, best = no_classes(student)
    return _Sums(empty, None if teacher is None else empty, target, best, target, target)


def no_classes(logits: Factored) -> tuple[Softmax, Float[Array, "1 U"], Int[Array, "1 U"]]:
    """Returns the distribution of no class, the logit of the right one before it comes, and the best of none."""
    wide = jnp.promote_types(logits.states.dtype, jnp.float32)
    zero = jnp.zeros((1, logits.flat.shape[1]), wide)
    # Finite: the gap of two minus infinities is no number.
    return Softmax(jnp.full_like(zero, jnp.finfo(wide).min), zero), zero, zero.astype(jnp.int32)


def over_blocks(body: Callable[[T, ArrayLike, int], T], carry: T, num_classes: int, block: int) -> T:
    """Carries something over all classes: ``body(carry, start, size)``, block by block."""
    block = min(block, num_classes)
    count, rest = divmod(num_classes, block)
    carry = jax.lax.scan(lambda c, i: (body(c, i * block, block), None), carry, jnp.arange(count, dtype=jnp.int32))[0]
    # Of its own size: filled up it would have classes that are none.
    return body(carry, count * block, rest) if rest else carry


def _with_block(
    direction: Direction,
    student: Factored,
    teacher: Factored | None,
    targets: Int[Array, "1 U"],
    temperature: ArrayLike,
    sums: _Sums,
    start: ArrayLike,
    size: int,
) -> _Sums:
    """Returns the sums with ``size`` more classes in them."""
    logits = student.logits(start, size)  # [N, U], as all large arrays here
    index = start + jnp.arange(size, dtype=jnp.int32)[:, None]
    largest = jnp.max(logits, axis=0, keepdims=True)
    first = jnp.min(jnp.where(logits == largest, index, len(student.head)), axis=0, keepdims=True)
    larger = largest > sums.student.top
    best = jnp.where(larger, first, sums.best)
    target = sums.target + chosen(logits, index == targets)
    top = jnp.maximum(sums.student.top, largest)
    gaps = logits - top
    ours, moved = extended(sums.student, top, gaps, 1.0)
    if teacher is None or sums.teacher is None:
        return _Sums(ours, None, target, best, sums.anchor, sums.difference)
    with jax.named_scope(TEACHER):
        said = teacher.logits(start, size)
    teacher_top = jnp.maximum(sums.teacher.top, jnp.max(said, axis=0, keepdims=True))
    teacher_gaps = _gaps(said, teacher_top, temperature)
    theirs, teacher_moved = extended(sums.teacher, teacher_top, teacher_gaps, temperature)
    if direction == "forward":
        anchor = top
        before, g, h, g_moved, h_moved = sums.teacher, teacher_gaps, gaps, teacher_moved, moved
    else:
        anchor = jnp.where(larger, chosen(said, index == first), sums.anchor)
        h, h_moved = _gaps(said, anchor, temperature), _gaps(sums.anchor, anchor, temperature)
        before, g, g_moved = sums.student, gaps, moved
    # Where the weights vanish, the other factors may be infinite: at low temperatures gaps are.
    kept, weights = jnp.exp(g_moved), jnp.exp(g)
    old = jnp.where(kept > 0, kept * (sums.difference + before.total * (g_moved - h_moved)), 0.0)
    new = jnp.sum(jnp.where(weights > 0, weights * (g - h), 0.0), axis=0, keepdims=True)
    return _Sums(ours, theirs, target, best, anchor, old + new)


def chosen(logits: Float[Array, "N U"], where: Array) -> Float[Array, "1 U"]:
    """Returns the logit of the one class that is marked at each place, and 0 where none is."""
    return jnp.sum(jnp.where(where, logits, 0.0), axis=0, keepdims=True)


def extended(
    before: Softmax, top: Float[Array, "1 U"], gaps: Float[Array, "N U"], temperature: ArrayLike
) -> tuple[Softmax, Float[Array, "1 U"]]:
    """Returns the distribution with more classes, and by how much the gaps of those before have grown."""
    moved = _gaps(before.top, top, temperature)
    total = before.total * jnp.exp(moved) + jnp.sum(jnp.exp(gaps), axis=0, keepdims=True)
    return Softmax(top, total), moved


def _backward(direction, residuals, cotangents):
    student, teacher, targets, temperature, ours, theirs, anchor, mean = residuals
    from_labels, from_teacher, _ = cotangents

    def at_logits(start, size):
        """The gradient at the student's logits of a block, [N, U]."""
        gaps = student.logits(start, size) - ours.top
        q = jnp.exp(gaps) / ours.total
        index = start + jnp.arange(size, dtype=jnp.int32)[:, None]
        d = from_labels * (q - (index == targets))
        if teacher is None:
            return d
        with jax.named_scope(TEACHER):
            said = teacher.logits(start, size)
        if direction == "forward":
            p = jnp.exp(_gaps(said, theirs.top, temperature)) / theirs.total
            return d + from_teacher * (q - p)
        return d + from_teacher * jnp.where(q > 0, q * (gaps - _gaps(said, anchor, temperature) - mean), 0.0)

    return pulled_back(student, at_logits), None, None, None


def pulled_back(student: Factored, at_logits: Callable[[ArrayLike, int], Float[Array, "N U"]]) -> Factored:
    """Returns the gradient at factors, from that at the logits of each block: ``at_logits(start, size)``."""
    wide = jnp.promote_types(student.states.dtype, jnp.float32)

    def with_block(carry, start, size):
        dx_DxU, dhead_VxD, dbias_V = carry
        d_NxU = at_logits(start, size)
        rounded_NxU = d_NxU.astype(student.states.dtype)  # to the operands' type, as autodiff does
        with jax.default_matmul_precision(student.precision):
            dx_DxU += jnp.matmul(student.rows(start, size).T, rounded_NxU, preferred_element_type=wide)
            dhead_NxD = jnp.matmul(rounded_NxU, student.flat.T, preferred_element_type=wide).astype(dhead_VxD.dtype)
        dhead_VxD = jax.lax.dynamic_update_slice_in_dim(dhead_VxD, dhead_NxD, start, 0)
        if dbias_V is not None:
            dbias_N = jnp.sum(d_NxU, axis=1).astype(dbias_V.dtype)
            dbias_V = jax.lax.dynamic_update_slice_in_dim(dbias_V, dbias_N, start, 0)
        return dx_DxU, dhead_VxD, dbias_V

    zeros = (jnp.zeros(student.flat.shape, wide), *jax.tree.map(jnp.zeros_like, (student.head, student.bias)))
    dx_DxU, dhead_VxD, dbias_V = over_blocks(with_block, zeros, len(student.head), student.block)
    dx = dx_DxU.astype(student.states.dtype).reshape(student.states.shape)
    return Factored(dx, dhead_VxD, dbias_V, student.block, student.precision)


_compare.defvjp(_forward, _backward)
