"""How the examples of a fed task reach the compiled chunk: read in the background, chunks ahead of the device.

Example i of step t is number ``t * batch_size + i`` of a stream, which has a name and a seed: nothing is carried from
chunk to chunk, so that a run may begin anywhere and be of any number of processes, each of which reads the examples of
its own devices alone.
"""

import concurrent.futures
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from pdjax.errors import require
from pdjax.tasks.base import FedTask, Task
from pdjax.train import sharding
from pdjax.train.replicas import Sweep
from pdjax.train.step import EVALUATION
from pdjax.types import Examples

AHEAD = 2
"""Chunks that are read before they are needed."""


class Feed(Protocol):
    """Where the examples of a run's chunks come from."""

    def examples(self, begin: int, end: int) -> Examples | None:
        """Returns what steps ``begin`` up to, but without, ``end`` see, placed on the devices; None is nothing."""
        ...

    def close(self) -> None:
        """Stops whatever runs in the background."""
        ...


class NoFeed:
    """Of a task that is sampled on the device."""

    def examples(self, begin: int, end: int) -> None:
        """Returns nothing."""

    def close(self) -> None:
        """Nothing runs in the background."""


class ReadAhead:
    """Reads the examples of the next chunks while the device is busy with one.

    Args:
      task: whose examples.
      sweep: whose mesh they go to.
      seeds: of the streams: one that all replicas share, or one for each replica.
      last: the step after the last one that will be asked for.
    """

    def __init__(self, task: FedTask, sweep: Sweep, seeds: Sequence[int], last: int):
        self._reader, self._shapes = task.open(), task.example
        self._program, self._seeds, self._last = sweep.program, tuple(seeds), last
        leading = (None,) if sweep.program.shared_batches else (None, sharding.REPLICA)
        self._where = sharding.by_example(sweep.mesh, leading)
        self._chunks: dict[tuple[int, int], concurrent.futures.Future[Examples]] = {}
        # One thread: chunks come in the order in which they are asked for.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "examples")
        self.waited_seconds = 0.0  # for examples that were not there in time

    def examples(self, begin: int, end: int) -> Examples:
        """Returns the examples of a chunk, after waiting for what of it is not there yet.

        Raises:
          UserError: the files are damaged.
        """
        steps = end - begin
        # Who leaves chunks out does not come back for them.
        self._chunks = {chunk: examples for chunk, examples in self._chunks.items() if chunk[0] >= begin}
        for first in range(begin, min(begin + (AHEAD + 1) * steps, self._last), steps):
            chunk = (first, first + steps)
            if chunk not in self._chunks:
                self._chunks[chunk] = self._thread.submit(self._read, *chunk)
        began = time.monotonic()
        # An error of the thread is raised here, in the chunk that needs the examples.
        examples = self._chunks.pop((begin, end)).result()
        self.waited_seconds += time.monotonic() - began
        return examples

    def close(self) -> None:
        """Waits for the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, begin: int, end: int) -> Examples:
        size, shared = self._program.batch_size, self._program.shared_batches
        replicas = () if shared else (len(self._seeds),)

        def read(part: tuple[range, ...]) -> dict[str, np.ndarray]:
            steps, *members, places = part
            indices = [(begin + step) * size + place for step in steps for place in places]
            seeds = self._seeds if shared else [self._seeds[replica] for replica in members[0]]
            each = [self._reader.read(self._program.data_name, seed, indices, held_out=False) for seed in seeds]
            # [R, steps, places, ...] to [steps, R, places, ...], or without R.
            return {
                name: np.moveaxis(
                    np.stack([one[name].reshape(len(steps), len(places), *shape.shape) for one in each]), 0, 1
                ).reshape(*map(len, part), *shape.shape)
                for name, shape in self._shapes.items()
            }

        return _placed(read, (end - begin, *replicas, size), self._shapes, self._where)


def open_feed(sweep: Sweep, seeds: Sequence[int], data_seed: int, last: int) -> Feed:
    """Returns the feed of a run whose replicas have these seeds, up to step ``last``.

    Raises:
      UserError: the files of a fed task are missing, damaged or other ones.
    """
    task = sweep.program.task
    if not isinstance(task, FedTask):
        return NoFeed()
    return ReadAhead(task, sweep, (data_seed,) if sweep.program.shared_batches else seeds, last)


def evaluation_examples(sweep: Sweep, seed: int) -> Examples | None:
    """Returns the held-out examples of all evaluations, [batches, B, ...] on the mesh; None of a sampled task."""
    task, evaluation = sweep.program.task, sweep.evaluation
    if not isinstance(task, FedTask):
        return None
    reader, size = task.open(), evaluation.batch_size

    def read(part: tuple[range, ...]) -> dict[str, np.ndarray]:
        batches, places = part
        indices = [batch * size + place for batch in batches for place in places]
        examples = reader.read(EVALUATION, seed, indices, held_out=True)
        return {name: array.reshape(len(batches), len(places), *array.shape[1:]) for name, array in examples.items()}

    where = sharding.by_example(sweep.mesh, (None,))
    return _placed(read, (evaluation.num_batches, size), task.example, where)


def held_out_examples(task: Task, seed: int, stream: str, num_batches: int, batch_size: int) -> Any:
    """Returns held-out examples of a stream, [num_batches, batch_size, ...] on the host; None of a sampled task."""
    if not isinstance(task, FedTask):
        return None
    examples = task.open().read(stream, seed, range(num_batches * batch_size), held_out=True)
    return {name: array.reshape(num_batches, batch_size, *array.shape[1:]) for name, array in examples.items()}


def check_examples(task: Task, needed: dict[str, int]) -> None:
    """Opens the files of a fed task and compares the held-out examples with how many are needed, by what needs them.

    Raises:
      UserError: files are missing or damaged, or there are too few examples.
    """
    if not isinstance(task, FedTask):
        return
    there = task.open().num_held_out()
    for what, count in needed.items():
        require(
            count <= there,
            f"at most {there} held-out examples, as there are",
            f"{count} for {what}",
            "lower it, or prepare the examples with a larger held-out share",
        )


def _placed(read: Any, leading: tuple[int, ...], shapes: Any, where: NamedSharding) -> Examples:
    """Places arrays on a mesh, of which each process reads the parts of its own devices, each part once.

    Args:
      read: from the places of the leading axes to arrays by name.
      leading: the sizes of these axes.
      shapes: of one example, by name.
      where: the sharding, of the leading axes alone.
    """
    parts: dict[tuple[range, ...], dict[str, np.ndarray]] = {}

    def part_of(name: str, index: Any) -> np.ndarray:
        places = tuple(range(size)[one] for size, one in zip(leading, index, strict=False))
        if places not in parts:
            parts[places] = read(places)
        return parts[places][name]

    return {
        name: jax.make_array_from_callback(
            (*leading, *shape.shape), where, lambda index, name=name: part_of(name, index)
        )
        for name, shape in shapes.items()
    }
