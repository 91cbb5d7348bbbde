"""Attention of a two-layer Transformer's last position to every input position (figure 11)."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.probes.monomials import OFF_SUPPORT, support_of
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.types import Model, Params


@settings
class AttentionProbe(Probe):
    """Attention of a teacher's last position along two-layer paths to every coordinate (figure 11)."""

    name: ClassVar[str] = "attention"
    of_students: ClassVar[bool] = False

    num_inputs: Count = 1024

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires a task with a support, and a Transformer of two layers that decides at its last position."""
        support_of(task)
        # An MLP has none, and is refused like another number.
        layers = getattr(teacher, "num_layers", None)
        require(
            layers == 2,
            f"a teacher of 2 layers for probes.{self.name}",
            f"{type(teacher).__name__} with {layers} layers",
            "leave the probe out",
        )

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns the medians of the attention to ``positions`` [R, L] and to the ``support`` [R]."""
        chosen = support_of(subject.task)
        look = jax.jit(functools.partial(attention_probe, subject.task, subject.model, self.num_inputs, chosen))

        def measure(params: Params) -> Columns:
            positions, support = look(params, jnp.int32(subject.seed))
            return {"positions": positions, "support": support}

        return measure

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``attention`` by ``position``, with ``feature`` -1 off the support, and ``attention to the support``.

        Both are medians over inputs, summed over heads.
        """
        chosen = support_of(task)
        for row in spread("attention", record["positions"], position=range(len(record["positions"]))):
            yield {**row, "feature": 0 if row["position"] in chosen else OFF_SUPPORT}
        yield from spread("attention to the support", record["support"])


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
        # The support's median is of its sum for each input: a sum of the positions' medians would be another number.
        return jnp.median(each_BxL, axis=0), jnp.median(jnp.sum(each_BxL[:, chosen], axis=1))

    return over_replicas(one)(params)
