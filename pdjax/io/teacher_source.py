"""How a teacher's checkpoints reach the training step: stacked on the device, streamed from the store, or cached.

A loop asks for the teacher of each chunk. *Stacked*, it is always the same. *Streamed*, the device holds two
checkpoints: the one in use and the next, which a thread reads from the store while chunks run. They lie in two
slots, row r of the curriculum in slot r modulo 2; a switch within a chunk is a step's choice between the two, and
a checkpoint that has had its time makes room between chunks. Nothing is compiled again, as no shape changes. *Cached*,
no checkpoint is there: what they say has been computed before (``pdjax.stages.caching``), and is read chunk by chunk.
"""

import concurrent.futures
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from pdjax.distill.curriculum import padded
from pdjax.distill.teacher import Answers, Teacher
from pdjax.errors import UserError
from pdjax.train import sharding
from pdjax.train.replicas import Sweep, place_checkpoints, place_starts
from pdjax.types import Params

SHARE = 0.5
"""Of a device's memory, what ``auto`` lets stacked checkpoints take."""


class TeacherSource(Protocol):
    """Where the teachers of a run's chunks come from."""

    def teacher(self, begin: int, end: int) -> Teacher | Answers | None:
        """Returns the teacher for the student steps from ``begin`` up to, but without, ``end``."""
        ...

    def makes_room(self, begin: int) -> bool:
        """Whether a checkpoint leaves the device before the chunk that begins at a step.

        What runs has to be done then, as it may use that checkpoint.
        """
        ...

    def restart(self, starts: Sequence[Sequence[int]]) -> None:
        """Takes the starts of every replica's adaptive curriculum so far."""
        ...

    def close(self) -> None:
        """Stops whatever runs in the background."""
        ...


class Stacked:
    """All checkpoints are on the device, or none are needed.

    Args:
      sweep: whose mesh they lie on.
      teacher: placed; None for students of the labels and for teachers.
    """

    def __init__(self, sweep: Sweep, teacher: Teacher | None):
        self._sweep, self._teacher = sweep, teacher

    def teacher(self, begin: int, end: int) -> Teacher | None:
        """Returns the one teacher."""
        return self._teacher

    def makes_room(self, begin: int) -> bool:
        """All of them stay."""
        return False

    def restart(self, starts: Sequence[Sequence[int]]) -> None:
        """Replaces the starts of an adaptive curriculum."""
        assert self._teacher is not None
        table = np.stack([np.asarray(padded(tuple(row), self._teacher.starts.shape[-1])) for row in starts])
        # The same shape as before: the chunk is not compiled again.
        self._teacher = self._teacher._replace(starts=place_starts(self._sweep, table))

    def close(self) -> None:
        """Nothing runs in the background."""


class Streamed:
    """Two checkpoints are on the device, and the next one is read in the background.

    Args:
      sweep: whose mesh they lie on.
      load: reads a checkpoint by teacher step; called from another thread.
      starts: student steps from which the curriculum uses ...
      teacher_steps: ... these checkpoints.
      rows: length of the padded table, so that curricula of several lengths share one program.
    """

    def __init__(
        self,
        sweep: Sweep,
        load: Callable[[int], Params],
        starts: Sequence[int],
        teacher_steps: Sequence[int],
        rows: int,
    ):
        self._sweep, self._load = sweep, load
        self._starts, self._teacher_steps = np.asarray(starts), tuple(teacher_steps)
        self._table = place_starts(sweep, np.asarray(padded(tuple(starts), rows)))
        self._slots = sharding.put(np.arange(rows, dtype=np.int32) % 2, sharding.replicated(sweep.mesh))
        self._held: dict[int, concurrent.futures.Future[Params]] = {}  # by row: at most two
        # One thread: checkpoints come in the order in which they are asked for.
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "teacher")
        self.waited_seconds = 0.0  # for checkpoints that were not there in time

    def teacher(self, begin: int, end: int) -> Teacher:
        """Returns the teacher for a chunk, after waiting for what of it is not there yet.

        Raises:
          UserError: the chunk needs more than two checkpoints, or one cannot be read.
        """
        first, last = self._row(begin), self._row(end - 1)
        if last - first > 1:
            raise UserError(
                "chunks that see at most two checkpoints with placement.residency 'streamed'",
                f"{last - first + 1} from student step {begin} to {end}",
                "lower loop.chunk_steps, use fewer checkpoints, or placement.residency 'stacked'",
            )
        # Before the next one is read: the device never holds three.
        self._held = {row: held for row, held in self._held.items() if row in (first, first + 1)}
        for row in (first, first + 1):
            if row < len(self._teacher_steps) and row not in self._held:
                self._held[row] = self._reader.submit(self._read, row)
        began = time.monotonic()
        # An error of the thread is raised here, in the chunk that needs the checkpoint.
        needed = {row: self._held[row].result() for row in range(first, last + 1)}
        self.waited_seconds += time.monotonic() - began
        # A slot whose checkpoint is not needed in this chunk shows the other one: nothing waits for it.
        pair = [needed.get(first + (first + slot) % 2, needed[first]) for slot in range(2)]
        return Teacher(tuple(pair), self._table, self._slots)

    def makes_room(self, begin: int) -> bool:
        """Whether one of the two has had its time."""
        return any(row < self._row(begin) for row in self._held)

    def restart(self, starts: Sequence[Sequence[int]]) -> None:
        """Is not for adaptive curricula, whose replicas may need more than two checkpoints at once."""
        raise NotImplementedError("adaptive curricula keep their checkpoints stacked")

    def close(self) -> None:
        """Waits for the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _row(self, step: int) -> int:
        # The same as ``checkpoint_index`` finds in the chunk: the last whose start is not behind the step.
        return int(np.searchsorted(self._starts, step, side="right")) - 1

    def _read(self, row: int) -> Params:
        # Still in the thread: neither reading nor copying to the device holds up the chunks.
        return place_checkpoints(self._sweep, self._load(self._teacher_steps[row]), stacked=False)


class Cached:
    """No checkpoint is on the device: what the teachers say to each chunk's batches is read in the background.

    Args:
      sweep: whose mesh it goes to.
      read: reads the answers of the steps between two; called from another thread.
      last: the step after the last one that will be asked for.
    """

    def __init__(self, sweep: Sweep, read: Callable[[int, int], Answers], last: int):
        self._sweep, self._read, self._last = sweep, read, last
        self._chunks: dict[int, concurrent.futures.Future[Answers]] = {}  # by first step
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "answers")

    def teacher(self, begin: int, end: int) -> Answers:
        """Returns the answers of a chunk, after waiting for what of it is not there yet.

        Raises:
          UserError: a file is missing or damaged.
        """
        for first in (begin, end):
            if first < self._last and first not in self._chunks:
                self._chunks[first] = self._reader.submit(self._placed, first, first + end - begin)
        return self._chunks.pop(begin).result()

    def makes_room(self, begin: int) -> bool:
        """There is none."""
        return False

    def restart(self, starts: Sequence[Sequence[int]]) -> None:
        """Is not for adaptive curricula: which checkpoint they ask is not known before."""
        raise NotImplementedError("adaptive curricula keep their checkpoints stacked")

    def close(self) -> None:
        """Waits for the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _placed(self, begin: int, end: int) -> Answers:
        answers = self._read(begin, end)
        return sharding.put(answers, sharding.by_example(self._sweep.mesh, (None,)))


def are_stacked(residency: str, num_bytes: int, memory: int) -> bool:
    """Whether stacked checkpoints of so many bytes are to be on a device, as ``placement.residency`` asks.

    ``auto`` leaves the rest of the device's memory to the students.
    """
    return residency == "stacked" or (residency == "auto" and num_bytes <= SHARE * memory)


def memory_of(device: Any) -> int:
    """Returns the bytes of memory of a device; a CPU's is the machine's."""
    # None where the backend does not count memory.
    stats: dict[str, Any] | None = device.memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else _machine_memory()


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
