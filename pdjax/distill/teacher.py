"""A teacher on the device: its checkpoints, and which of them holds at a student step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pdjax.distill.curriculum import checkpoint_index
from pdjax.distill.kept import Kept
from pdjax.types import Params


class Answers(NamedTuple):
    """What teachers say to a chunk's batches, in place of checkpoints: for each loss of a program, what it needs.

    Arrays lead with the chunk's steps, N.
    """

    kept: tuple[Kept, ...]


class Teacher(NamedTuple):
    """Teacher checkpoints on the device and the curriculum over them (see ``pdjax.distill.curriculum``).

    ``checkpoints`` stacks parameters along a leading axis of K, or is a pair of them (see ``pdjax.io.teacher_source``);
    row s of the curriculum, which holds from student step ``starts[s]`` on, uses slot ``slots[s]`` of the
    stack or pair. In an adaptive curriculum every replica has starts of its own, ``[R, S]``; they change
    between chunks only.

    Where replicas follow one of C curricula, ``starts`` and ``slots`` are ``[C, S]``, and ``curriculum`` says of each
    replica which one.
    """

    checkpoints: Params | tuple[Params, Params]
    starts: Int[Array, "S"] | Int[Array, "R S"] | Int[Array, "C S"]
    slots: Int[Array, "S"] | Int[Array, "C S"]
    curriculum: Int[Array, "R"] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether every replica has its own starts."""
        return self.starts.ndim == 2 and self.curriculum is None

    def distinct(self, step: Int[Array, ""]) -> tuple[Int[Array, "C"], Int[Array, "C"]]:
        """Returns the slots that the curricula use at a step, each once, and where each curriculum's stands there.

        So many are in use as the largest of these places says; what stands behind them is none.
        """
        slots = jax.vmap(lambda starts, slots: slots[checkpoint_index(starts, step)])(self.starts, self.slots)
        return jnp.unique(slots, return_inverse=True, size=len(slots))

    def slot_at(self, starts: Int[Array, "S"], step: Int[Array, ""]) -> Int[Array, ""]:
        """Returns the slot in the stack of the checkpoint that holds at a student step."""
        # Rows and slots differ where checkpoints are streamed: there rows take turns in two slots.
        return self.slots[checkpoint_index(starts, step)]

    def checkpoint(self, slot: Int[Array, ""]) -> Params:
        """Returns the parameters in a slot of the stack or pair."""
        if isinstance(self.checkpoints, tuple):
            first, second = self.checkpoints
            # Two trees and no stack: one checkpoint of the pair is replaced while the other stays where it is. A pair
            # is never of an adaptive curriculum, so that the slot is the same for all replicas and only one branch
            # runs.
            return jax.lax.cond(slot == 0, lambda: first, lambda: second)
        return jax.tree.map(lambda leaves: leaves[slot], self.checkpoints)
