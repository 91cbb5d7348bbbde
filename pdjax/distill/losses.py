"""Losses from labels and from a teacher (equations 1 to 4), per place; callers mask and average."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(logits: Float[Array, "*places V"], targets: Int[Array, "*places"]) -> Float[Array, "*places"]:
    """Equation 1: ``-log p_S(x)[target]``, in nats."""
    log_probabilities = jax.nn.log_softmax(logits)
    # A comparison instead of a gather: the gradient of a gather is a scatter, which is slow on every backend.
    chosen = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    return -jnp.sum(jnp.where(chosen, log_probabilities, 0.0), axis=-1)


def soften(
    logits: Float[Array, "*places V"], temperature: Float[Array, ""] | float
) -> tuple[Float[Array, "*places V"], Float[Array, "*places"]]:
    """Returns the teacher's distribution ``softmax(logits / temperature)`` and its negative entropy.

    Exact and finite in float32 for every temperature down to 0: the largest logit is subtracted before the
    division, so that the quotients are 0 for the most likely classes and at worst minus infinity for the
    others. Temperature 0 is the limit: all mass on the most likely class, shared equally by exact ties.
    """
    gaps = logits - jnp.max(logits, axis=-1, keepdims=True)
    scaled = jnp.where(gaps == 0, 0.0, gaps / temperature)
    log_probabilities = jax.nn.log_softmax(scaled)
    probabilities = jnp.exp(log_probabilities)
    terms = jnp.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    return probabilities, jnp.sum(terms, axis=-1)


def distillation(
    student_logits: Float[Array, "*places V"],
    teacher_logits: Float[Array, "*places V"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, "*places"]:
    """Equation 2: ``KL(p_T(x; temperature) || p_S(x))`` in nats.

    The temperature applies to the teacher only, and there is no factor temperature**2. No gradient flows
    into the teacher.
    """
    probabilities, negative_entropy = soften(jax.lax.stop_gradient(teacher_logits), temperature)
    return negative_entropy - jnp.sum(probabilities * jax.nn.log_softmax(student_logits), axis=-1)


def mixed(
    student_logits: Float[Array, "*places V"],
    teacher_logits: Float[Array, "*places V"],
    targets: Int[Array, "*places"],
    temperature: Float[Array, ""] | float,
    label_weight: Float[Array, ""] | float,
) -> Float[Array, "*places"]:
    """``alpha * cross_entropy + (1 - alpha) * distillation`` with ``alpha = label_weight``."""
    from_labels = cross_entropy(student_logits, targets)
    from_teacher = distillation(student_logits, teacher_logits, temperature)
    return label_weight * from_labels + (1 - label_weight) * from_teacher
