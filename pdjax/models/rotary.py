"""Rotary positions (Su et al. 2021, section 3.2.2), as GPT-NeoX pairs dimensions: across halves, not neighbours."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.models.attention import at_least_float32


class Rotary(NamedTuple):
    """Queries and keys are turned by angles that grow with their positions: scores see only how far apart they are."""

    dimensions: int
    """of each head, its first: even; the others are left alone"""
    base: float
    """the first pair turns by 1 radian a position, the last ones by almost as little as 1 / base"""

    def turned(self, x: Float[Array, "H C B L"], positions: Int[Array, "#B L"]) -> Float[Array, "H C B L"]:
        """Returns queries or keys of heads, turned by the angles of their positions.

        Dimensions i and i + dimensions / 2 are one pair, whose angle is ``position * base**(-2 i / dimensions)``.
        """
        exponents = jnp.arange(0, self.dimensions, 2, dtype=jnp.float32) / self.dimensions
        # Angles reach thousands of radians: never in a type of 16 bits.
        angles_PxBxL = (1 / self.base**exponents)[:, None, None] * positions.astype(jnp.float32)[None]
        cos, sin = jnp.cos(angles_PxBxL)[None], jnp.sin(angles_PxBxL)[None]
        half = self.dimensions // 2
        turning = x[:, : self.dimensions].astype(at_least_float32(x))
        first, second = turning[:, :half], turning[:, half:]
        pair = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1).astype(x.dtype)
        return jnp.concatenate([pair, x[:, self.dimensions :]], axis=1)
