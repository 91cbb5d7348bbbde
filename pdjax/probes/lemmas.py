"""What Lemmas B.2 and B.5 and Corollaries B.6 and B.8 bound, measured on the network of the theory."""

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pdjax.distill.hinge import hinge
from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.models.symmetric import SymmetricMlp, output_of
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.probes.monomials import support_of
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.theory.algorithm import off_support_ratio
from pdjax.types import Model, Params


@settings
class LemmaProbe(Probe):
    """First-layer weights in and off the support, and correlations of f with monomials.

    Expectations are over pairs x and -x, half of which are drawn: for an odd f, as a teacher is after the first stage,
    correlations with even monomials are then 0 up to rounding, and not only on average.
    """

    name: ClassVar[str] = "lemmas"
    of_students: ClassVar[bool] = False

    num_inputs: Count = 131_072
    """behind each expectation, pairs counted twice"""
    batch_size: Count = 4096
    """inputs at once, which bounds the memory"""

    def __post_init__(self):
        require(
            self.num_inputs % self.batch_size == 0 and self.batch_size % 2 == 0,
            f"an even batch_size that divides num_inputs = {self.num_inputs}",
            self.batch_size,
            "every batch counts the same: change one of the two",
        )

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires the network of the theory."""
        require(isinstance(teacher, SymmetricMlp), "a SymmetricMlp", type(teacher).__name__, "leave the probe out")

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns the columns of ``of_weights`` and ``of_outputs``."""
        support = support_of(subject.task)
        weigh = jax.jit(jax.vmap(functools.partial(of_weights, support)))
        measure = jax.jit(functools.partial(of_outputs, subject.task, subject.model, self))

        def look(params: Params) -> Columns:
            return {**weigh(params["hidden_0"]["kernel"]), **measure(params, jnp.int32(subject.seed))}

        return look

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields what is measured of weights, 0 off the support and 1 in it, and of f.

        ``weight``, ``weight_error`` and ``largest_weight_error`` by ``inside``, and ``found`` (a share of the neurons);
        ``coefficient`` and ``majority_coefficient`` by ``coordinate``; ``even_coefficient``, ``parity_coefficient``,
        ``square`` and ``hinge``.
        """
        inside, coordinates = range(2), range(task.num_positions)
        for name, values in record.items():
            axes = {"inside": inside} if "weight" in name else {"coordinate": coordinates}
            yield from spread(name, values, **axes if isinstance(values, list) else {})


def of_weights(support: tuple[int, ...], kernel: Float[Array, "D W"]) -> Columns:
    """Returns how the weights of the first layer compare with those of Lemma B.2, of one model.

    Returns:
      ``weight`` [2], the mean of |w| off and in the support; ``weight_error`` [2], its root mean square distance to
      ``|zeta_(k+1) / zeta_(k-1)| / 2k`` and to ``1 / 2k``, and ``largest_weight_error`` [2], the largest. ``found`` is
      the share of neurons whose k largest |w| are the support.
    """
    dimension, degree = len(kernel), len(support)
    lengths = jnp.abs(kernel)
    inside = jnp.zeros(dimension, bool).at[jnp.array(support)].set(True)
    expected = jnp.where(inside, 1.0, off_support_ratio(dimension, degree)) / (2 * degree)
    errors = jnp.abs(lengths - expected[:, None])
    sides = (~inside[:, None], inside[:, None])

    def mean(values: Float[Array, "D W"]) -> Float[Array, "2"]:
        return jnp.stack([jnp.mean(values, where=side) for side in sides])

    return {
        "weight": mean(lengths),
        "weight_error": jnp.sqrt(mean(errors**2)),
        "largest_weight_error": jnp.stack([jnp.max(errors, where=side, initial=0.0) for side in sides]),
        "found": found(lengths, inside),
    }


def found(lengths: Float[Array, "*leading D W"], inside: Bool[Array, "D"]) -> Float[Array, "*leading"]:
    """Returns the share of neurons whose k largest weights are those of the support, by their absolute values."""
    smallest = jnp.min(lengths, axis=-2, where=inside[:, None], initial=jnp.inf)
    largest = jnp.max(lengths, axis=-2, where=~inside[:, None], initial=0.0)
    return jnp.mean(smallest > largest, axis=-1)


@with_float32_products
def of_outputs(task: Task, model: Model, probe: LemmaProbe, params: Params, seed: Int[Array, ""]) -> Columns:
    """Returns expectations of the outputs f of R models, their parameters stacked, over ``num_inputs`` inputs.

    Returns:
      ``coefficient`` [R, D], ``E f x_j``; ``majority_coefficient`` [R, D], ``E f Maj(x) x_j``; ``even_coefficient``,
      the largest ``|E f chi_S|`` of the even subsets S of the support that are not all of it; ``parity_coefficient``,
      ``E f y``; ``square``, ``E f^2``; ``hinge``, ``E max(0, 1 - f y)``.
    """
    support = support_of(task)
    evens = [S for size in range(2, len(support), 2) for S in itertools.combinations(support, size)]

    def of_batch(index: Int[Array, ""]) -> Columns:
        half = task.sample(named_key(seed, "lemmas", index), probe.batch_size // 2).inputs["vector"]
        x_BxD = jnp.concatenate([half, -half])
        parity_B = jnp.prod(x_BxD[:, jnp.array(support)], axis=1)
        # Of an odd number of coordinates, whose sum is never 0.
        odd_BxD = jnp.sign(jnp.sum(x_BxD, axis=1))[:, None] * x_BxD
        even_BxM = jnp.stack([jnp.prod(x_BxD[:, jnp.array(S)], axis=1) for S in evens] or [0 * parity_B], axis=1)

        def one(params: Params) -> Columns:
            f_B = output_of(model.apply(params, {"vector": x_BxD})[0])
            return {
                "coefficient": f_B @ x_BxD,
                "majority_coefficient": f_B @ odd_BxD,
                "even_coefficient": f_B @ even_BxM,
                "parity_coefficient": f_B @ parity_B,
                "square": f_B @ f_B,
                "hinge": jnp.sum(hinge(f_B, parity_B)),
            }

        return over_replicas(one)(params)

    batches = jnp.arange(probe.num_inputs // probe.batch_size)
    means = jax.tree.map(lambda sums: jnp.sum(sums, axis=0) / probe.num_inputs, jax.lax.map(of_batch, batches))
    return {**means, "even_coefficient": jnp.max(jnp.abs(means["even_coefficient"]), axis=-1)}
