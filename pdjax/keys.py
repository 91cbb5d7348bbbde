"""Random keys, by purpose, seed and step."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray, Scalar


def named_key(seed: int | Int[Array, ""], name: str, step: int | Int[Scalar, ""] | None = None) -> PRNGKeyArray:
    """Returns the random key for a purpose, a seed and optionally a step.

    No key is ever carried or saved: every random draw of a run is a function of (name, seed, step), which
    is what makes a resumed run repeat an uninterrupted one.
    """
    # A checksum, as Python's own hash of a string differs from process to process.
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)
