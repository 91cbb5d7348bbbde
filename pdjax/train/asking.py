"""What a teacher says to the batches of a student's steps, for a cache: asked as the training loop asks it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pdjax.distill.kept import Cut, Kept, keep
from pdjax.models.precision import with_float32_products
from pdjax.train.chunk import draw_batch, teach
from pdjax.train.state import Program
from pdjax.types import Examples, Params


@with_float32_products
def ask_chunk(
    program: Program,
    cuts: Sequence[Cut],
    chunk_steps: int,
    checkpoint: Params,
    data_seed: Int[Array, ""],
    begin: Int[Array, ""],
    examples: Examples | None = None,
) -> tuple[tuple[Kept, Int[Array, "N *places"]], ...]:
    """Returns, for each cut, what is kept of a checkpoint's answers to a chunk's shared batches, and their ties.

    Args:
      program: of the students.
      cuts: what their losses need.
      chunk_steps: of the chunk, N.
      checkpoint: parameters of the teacher.
      data_seed: of the batches.
      begin: the chunk's first step.
      examples: of a fed task, [N, B, ...].
    """

    def ask(_: None, numbered: tuple[Int[Array, ""], Examples | None]) -> tuple[None, tuple[tuple[Kept, Array], ...]]:
        step, read = numbered
        logits = teach(program, checkpoint, draw_batch(program, data_seed, step, read)).logits
        return None, tuple(keep(logits, cut) for cut in cuts)

    return jax.lax.scan(ask, None, (begin + jnp.arange(chunk_steps), examples))[1]
