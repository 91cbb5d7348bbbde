"""Which of a student stage's checkpoints are on the device when: see ``pdjax.io.teacher_source``."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from pdjax.distill.curriculum import padded
from pdjax.distill.part import FourierPart
from pdjax.distill.teacher import Teacher
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription
from pdjax.io.store import CheckpointStore, stack, tree_bytes
from pdjax.io.teacher_source import Stacked, Streamed, TeacherSource, are_stacked, memory_of
from pdjax.stages.parts import plan_parts
from pdjax.stages.programs import teacher_shape
from pdjax.stages.together import Group, teacher_of
from pdjax.train.replicas import Sweep, place_teacher

logger = logging.getLogger("pdjax")


class Sources:
    """How each of several runs, or of groups of them, gets its checkpoints, as ``placement.residency`` asks.

    Stacked, all runs share one stack of the checkpoints that any of them uses, and have tables of one length: runs
    of different strategies then share one compiled program. Streamed, adaptive curricula still stack their own,
    since every replica may be at another checkpoint, and so do those whose students see parts of them.

    Args:
      experiment: whose runs.
      workdir: of the experiment.
      trajectory: of the teacher.
      descriptions: of all runs, done ones too.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        trajectory: CheckpointStore,
        descriptions: Sequence[RunDescription],
    ):
        self._experiment, self._trajectory = experiment, trajectory
        like = teacher_shape(experiment)
        taught = [d for d in descriptions if d.starts]
        self._used = tuple(sorted({step for d in taught for step in d.teacher_steps}))
        # Shorter tables are padded with rows that never hold.
        self._rows = max((len(d.teacher_steps) for d in taught), default=0)
        # The device with the least memory decides: checkpoints are to fit on each of them.
        memory = min(memory_of(device) for device in jax.local_devices())
        size = tree_bytes(like)
        self.stacked = are_stacked(experiment.placement.residency, len(self._used) * size, memory)
        if taught:
            logger.info(
                "students: %d checkpoints of %.1f MB, %s", len(self._used), size / 1e6,
                "all on the device" if self.stacked else "streamed, two on the device at a time",
            )  # fmt: skip
        # Runs with the same checkpoints read them from the store once; they stay on the host, and go to devices by run.
        self._stack_of = functools.cache(lambda steps: stack(trajectory, steps, like))
        self._in_part = plan_parts(experiment, workdir, trajectory)

    def open(self, group: Group[RunDescription], sweep: Sweep) -> TeacherSource:
        """Returns how the students of a group get their checkpoints."""
        if len(group.runs) == 1:
            return self._alone(group.runs[0], sweep)
        teacher = teacher_of(group, self._stack_of(self._used), self._used, self._rows)
        return Stacked(sweep, None if teacher is None else place_teacher(sweep, teacher))

    def _alone(self, description: RunDescription, sweep: Sweep) -> TeacherSource:
        if not description.starts:
            return Stacked(sweep, None)
        part, rows = self._experiment.strategy(description.strategies[0]).part, self._rows
        if self.stacked or is_adaptive(description) or isinstance(part, FourierPart):
            steps = self._used if self.stacked else description.teacher_steps
            starts, slots = _starts(description, rows), _slots(description, steps, rows)
            checkpoints = self._stack_of(steps)
            if isinstance(part, FourierPart):
                checkpoints = self._in_part(part, description, steps, checkpoints)
            teacher = Teacher(checkpoints, jnp.asarray(starts), jnp.asarray(slots))
            return Stacked(sweep, place_teacher(sweep, teacher))
        read = functools.partial(self._trajectory.restore, like=teacher_shape(self._experiment))
        return Streamed(sweep, read, description.starts, description.teacher_steps, rows)


def is_adaptive(description: RunDescription) -> bool:
    """Whether a run's curriculum goes on by its evaluations: only its first row is known in advance."""
    return len(description.starts) < len(description.teacher_steps)


def _starts(description: RunDescription, rows: int) -> Int[np.ndarray, "S"] | Int[np.ndarray, "R S"]:
    starts = np.asarray(padded(description.starts, rows))
    # [R, S]: replicas begin with the same row, and each goes on by itself.
    return np.tile(starts, (len(description.replicas), 1)) if is_adaptive(description) else starts


def _slots(description: RunDescription, steps: Sequence[int], rows: int) -> Int[np.ndarray, "S"]:
    slots = [steps.index(step) for step in description.teacher_steps]
    # Padded rows never hold: any slot will do.
    return np.array(slots + [0] * (rows - len(slots)), np.int32)
