"""How many samples a student's first stage needs to find the support: from a checkpoint's output, and from labels.

At the symmetric initialisation a student's f is 0, every example is within the hinge loss's margin, and the gradient
of neuron i at its weights is ``-a_i`` times the mean of ``1[w_i . x > 0] g(x) x``, with g the output of the teacher or
the label. The step that follows leaves the weights along it. Of each size of a grid the batch is a beginning of the
next one's: one pass over the samples answers for all of them, where a bisection would ask for a few.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from pdjax.distill.hinge import signs
from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.head import dense
from pdjax.models.precision import with_float32_products
from pdjax.models.symmetric import SymmetricMlp, output_of
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject
from pdjax.probes.lemmas import found
from pdjax.probes.monomials import support_of
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import check_pair
from pdjax.types import Inputs, Model, Params

SMALL, LARGE = 32, 1024
"""Samples at once: few for the small sizes of the grid, many for the others."""

STEP = 2**0.25
"""Between neighbouring sizes of the grid, as far as blocks divide them."""


@settings
class SamplesProbe(Probe):
    """The smallest batch of the first stage with which students find the support (Theorem B.1)."""

    name: ClassVar[str] = "samples"
    of_students: ClassVar[bool] = False

    width: Count = 64
    """of the students"""
    num_students: Count = 4
    """of every checkpoint, each of its own initialisation and samples; those of all checkpoints are the same"""
    num_label_students: Count = 20
    """of the labels"""
    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """of a student's neurons, in which the k largest weights are to be the support"""
    max_samples: Count = 65_536
    """at which a search for a checkpoint ends, found or not"""
    max_label_samples: Count | None = 4_194_304
    """at which one from labels ends; None searches for none"""

    def __post_init__(self):
        require(self.width % 2 == 0, "an even width", self.width, "neurons come in pairs: add one")

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires a parity that Algorithm 1 is about; the teacher may be any model."""
        require(isinstance(task, ParityTask), "a ParityTask", type(task).__name__, "leave the probe out")
        assert isinstance(task, ParityTask)
        check_pair(task.dimension, task.degree)

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns ``samples`` [R, S] of every checkpoint and student, and ``label_samples`` [R, S'] from labels.

        Beside each stands whether that many were enough, 1, or none up to that were, 0.
        """
        task, seed = subject.task, subject.seed

        @functools.cache  # whatever the checkpoint: once for all of them
        def from_labels() -> Searched | None:
            most = self.max_label_samples
            return None if most is None else search(self, task, seed, self.num_label_students, most)

        def look(params: Params) -> Columns:
            taught = search(self, task, seed, self.num_students, self.max_samples, subject.model, params)
            columns = {"samples": jnp.asarray(taught.samples), "enough": jnp.asarray(taught.enough)}
            if (labels := from_labels()) is not None:
                beside = [jnp.repeat(column, len(taught.samples), axis=0) for column in map(jnp.asarray, labels)]
                columns |= dict(zip(("label_samples", "labels_enough"), beside, strict=True))
            return columns

        return look

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``samples`` and ``label_samples`` by ``student``, with ``enough``: 0 where the search ended before."""
        for measure, enough in (("samples", "enough"), ("label_samples", "labels_enough")):
            if measure not in record:
                continue
            for student, (value, flag) in enumerate(zip(record[measure], record[enough], strict=True)):
                yield {"measure": measure, "value": float(value), "student": student, "enough": float(flag)}


class Searched(NamedTuple):
    """What searches found: for each of R teachers and S students."""

    samples: Int[np.ndarray, "R S"]  # the smallest size of the grid, or the largest that was tried
    enough: Int[np.ndarray, "R S"]  # 1, or 0 where not even that was enough


def sizes(most: int) -> Iterator[tuple[int, int]]:
    """Yields the sizes of the grid up to the first of at least ``most``, each with the block that divides it.

    >>> [size for size, _ in sizes(200)]
    [32, 64, 96, 128, 160, 192, 224]
    """
    size, exact = 0, float(SMALL)
    while size < most:
        # Blocks of the large kind begin where small ones have filled several of them.
        block = SMALL if size < 4 * LARGE else LARGE
        rounded = round(exact / block) * block
        if rounded > size:
            size = rounded
            yield size, block
        exact *= STEP


def search(
    probe: SamplesProbe,
    task: Task,
    seed: int,
    num_students: int,
    most: int,
    model: Model | None = None,
    params: Params = None,
) -> Searched:
    """Searches over the sizes of batches, for all teachers and students at once.

    Args:
      probe: its settings.
      task: a parity.
      seed: of students and samples.
      num_students: of each teacher.
      most: samples at which it ends.
      model: of the teachers; None: the labels teach, and R is 1.
      params: of R teachers, stacked.
    """
    inside = jnp.zeros(task.num_positions, bool).at[jnp.array(support_of(task))].set(True)
    kernels = first_layers(task, probe, seed, num_students)
    teachers = 1 if model is None else jax.tree.leaves(params)[0].shape[0]
    shape, size = (teachers, num_students), 0
    samples, enough = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    totals = jnp.zeros((*shape, *kernels.shape[1:]))
    for next_size, block in sizes(most):
        blocks = jnp.array([size // block, next_size // block])  # from this one up to, but without, that
        totals = _accumulate(task, model, block, totals, kernels, params, jnp.int32(seed), blocks)
        samples[enough == 0] = size = next_size
        enough[np.asarray(found(jnp.abs(totals), inside)) >= probe.share] = 1
        if enough.all():
            break
    return Searched(samples, enough)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))  # op by op it would compile dozens of small programs
def first_layers(task: Task, probe: SamplesProbe, seed: int, num_students: int) -> Float[Array, "S D W"]:
    """Returns the first weights of the students, of each pair of neurons one: the other learns the same."""
    module = SymmetricMlp(probe.width).build(task)
    blank = {"vector": jnp.zeros((1, task.num_positions))}

    def kernel(student: Int[Array, ""]) -> Float[Array, "D W"]:
        return module.init(named_key(seed, "students of samples", student), blank)["hidden_0"]["kernel"]

    return jax.vmap(kernel)(jnp.arange(num_students))[..., : probe.width // 2]


def outputs(model: Model, params: Params, inputs: Inputs) -> Float[Array, "B"]:
    """Returns f of inputs."""
    return output_of(dense(model.apply(params, inputs)[0]))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
@with_float32_products
def _accumulate(
    task: Task,
    model: Model | None,
    block: int,
    totals: Float[Array, "R S D W"],
    kernels: Float[Array, "S D W"],
    params: Params,
    seed: Int[Array, ""],
    blocks: Int[Array, "2"],
) -> Float[Array, "R S D W"]:
    """Adds the samples from one block up to another to the sums of ``1[w . x > 0] g(x) x``."""

    def one(number: Int[Array, ""], totals: Float[Array, "R S D W"]) -> Float[Array, "R S D W"]:
        def of_student(
            student: Int[Array, ""], totals: Float[Array, "R D W"], kernel: Float[Array, "D W"]
        ) -> Float[Array, "R D W"]:
            key = named_key(seed, f"samples by {block}", number)
            batch = task.sample(jax.random.fold_in(key, student), block)
            x_BxD = batch.inputs["vector"]
            # Of an odd number of signs, and a bias below 1: the product alone decides.
            open_BxW = (x_BxD @ kernel > 0).astype(jnp.float32)

            def add(of_teacher: tuple[Params, Float[Array, "D W"]]) -> Float[Array, "D W"]:
                params, total = of_teacher
                signal_B = signs(batch) if model is None else outputs(model, params, batch.inputs)
                return total + (signal_B[:, None] * x_BxD).T @ open_BxW

            # One teacher after the other: together, their hidden layers leave the cache, which takes twice as long.
            return jax.lax.map(add, (params, totals))

        return jax.vmap(of_student, in_axes=(0, 1, 0), out_axes=1)(jnp.arange(len(kernels)), totals, kernels)

    return jax.lax.fori_loop(blocks[0], blocks[1], one, totals)
