"""Agreement of students with a teacher on held-out inputs: the same most likely class, and the distance of the rest."""

import functools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pdjax.distill import losses
from pdjax.keys import named_key
from pdjax.models.head import dense
from pdjax.models.replicas import over_replicas
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.types import Batch, Examples, Mean, Model, Params, mean_of, ratio

STREAM = "agreement"
"""The name of the stream of batches."""


@settings
class AgreementProbe(Probe):
    """Agreement of models with the final teacher on held-out inputs."""

    name: ClassVar[str] = "agreement"

    num_batches: Count = 2
    batch_size: Count = 64

    def num_held_out(self) -> int:
        """Returns those of all batches."""
        return self.num_batches * self.batch_size

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns ``top1``, the share with the same class, and ``divergence`` in nats."""
        compare = jax.jit(functools.partial(agreement, subject.task, subject.model, subject.teacher, self))
        examples = subject.held_out(STREAM, self.num_batches, self.batch_size)

        def measure(params: Params) -> Columns:
            means = compare(params, subject.final_teacher, jnp.int32(subject.seed), examples)
            return {"top1": ratio(means.same), "divergence": ratio(means.divergence)}

        return measure

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``agreement``, a fraction of places, and ``divergence``, nats."""
        yield from spread("agreement", record["top1"])
        yield from spread("divergence", record["divergence"])


class Agreement(NamedTuple):
    """Means over the places that count, one for each model."""

    same: Mean  # where both find the same class most likely
    divergence: Mean  # KL(teacher || model) at temperature 1, in nats


def agreement(
    task: Task,
    model: Model,
    teacher: Model,
    probe: AgreementProbe,
    params: Params,
    teacher_params: Params,
    seed: Int[Array, ""],
    examples: Examples | None = None,
) -> Agreement:
    """Returns the agreement of R models with one teacher, which runs once for all of them.

    Args:
      task: which held-out batches are drawn from, the same for every model.
      model: of the R students.
      teacher: their teacher.
      probe: how many batches of which size.
      params: of the students, stacked.
      teacher_params: of the one teacher.
      seed: of the batches.
      examples: of a fed task, [num_batches, batch_size, ...].
    """

    def body(total: Agreement, numbered: tuple[Int[Array, ""], Examples | None]) -> tuple[Agreement, None]:
        index, read = numbered
        batch = task.draw(named_key(seed, STREAM, index), probe.batch_size, read)
        teacher_logits = dense(teacher.apply(teacher_params, batch.inputs)[0])
        measured = over_replicas(lambda params: _compare(model, params, teacher_logits, batch))(params)
        # Sums and counts are added: batches do not have equally many places that count.
        return jax.tree.map(jnp.add, total, measured), None

    replicas = jax.tree.leaves(params)[0].shape[0]
    zeros = Mean(jnp.zeros(replicas), jnp.zeros(replicas))
    return jax.lax.scan(body, Agreement(zeros, zeros), (jnp.arange(probe.num_batches), examples))[0]


def _compare(model: Model, params: Params, teacher_logits: Float[Array, "*places V"], batch: Batch) -> Agreement:
    """Returns the agreement of one model on one batch."""
    logits = dense(model.apply(params, batch.inputs)[0])
    same = (jnp.argmax(logits, axis=-1) == jnp.argmax(teacher_logits, axis=-1)).astype(jnp.float32)
    # At temperature 1, whatever the students were taught at: it compares the predictions themselves.
    divergence = losses.distillation(logits, teacher_logits, 1.0)
    return Agreement(mean_of(same, batch.weights), mean_of(divergence, batch.weights))
