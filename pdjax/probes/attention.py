"""Attention of a two-layer Transformer's last position to every input position (figure 11)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.keys import named_key
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.types import Model, Params, Task


def path_attention(first: Float[Array, "B H L L"], second: Float[Array, "B H #L L"]) -> Float[Array, "B L"]:
    """Returns the attention from the last position to each position along paths of two layers.

    With ``a_i`` the sum over heads of a layer's attention vectors at position i, the attention to position j is
    ``sum over i of a2_last[i] * a1_i[j]`` (section C.2). ``second`` may hold the last position alone.
    """
    return jnp.einsum("bi,bij->bj", jnp.sum(second, axis=1)[:, -1], jnp.sum(first, axis=1))


@with_float32_products
def attention_probe(
    task: Task, model: Model, num_inputs: int, support: Sequence[int], params: Params, seed: Int[Array, ""]
) -> tuple[Float[Array, "R L"], Float[Array, "R"]]:
    """Returns medians over fresh inputs of the attention to each position and to the support, for R models at once."""
    inputs = task.sample(named_key(seed, "attention"), num_inputs).inputs
    chosen = jnp.array(support)

    def one(params: Params) -> tuple[Float[Array, "L"], Float[Array, ""]]:
        first, second = model.apply(params, inputs)[1]["attention"]
        each_BxL = path_attention(first, second)
        return jnp.median(each_BxL, axis=0), jnp.median(jnp.sum(each_BxL[:, chosen], axis=1))

    return over_replicas(one)(params)
