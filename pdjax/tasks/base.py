"""What a task is: a distribution of batches, sampled on the device or fed by the host."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from pdjax.settings import Choice
from pdjax.types import Batch, Examples


class Bounds(NamedTuple):
    """Within which nearly all batches stay."""

    length: int  # positions that any string of the batch has
    asked: int | None  # places of a string that count; None: all do


class Task(Choice, abc.ABC):
    """A distribution of batches. Its settings are its fields; equal tasks share compiled programs."""

    predicts: ClassVar[Literal["positions", "example"]]
    """A class for every position, or one for the whole input."""

    counted: ClassVar[str] = "inputs"
    """What accuracies are a share of, in the words of the report."""

    learned: ClassVar[float | None] = None
    """The accuracy from which on the task counts as learned, where models learn it or do not; None: by degrees."""

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """How many classes a prediction is among."""

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """How many different tokens an input has."""

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The token of every id below ``vocabulary``, as a tokenizer calls it; None where ids have no names."""
        return None

    @property
    @abc.abstractmethod
    def num_positions(self) -> int:
        """Positions of an input, L: tokens of a sequence, or coordinates."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws a fresh batch; a pure function of its arguments."""

    def draw(self, key: PRNGKeyArray, batch_size: int, examples: Examples | None) -> Batch:
        """Returns the batch of a key: a fresh one, or of a ``FedTask`` that of the examples the host has read."""
        return self.sample(key, batch_size)

    def example_shapes(self, *leading: int) -> Any:
        """Returns the shapes of what the host reads for ``draw``; None where it reads nothing."""
        return None

    def probability_of_none(self, count: int) -> float:
        """Returns the probability that nothing counts in a batch of so many examples."""
        return 0.0

    def bounds(self, count: int) -> Bounds | None:
        """Returns within what nearly all batches of so many examples stay; None where that is not known, or is all.

        Inputs are then arrays by position, ``valid`` among them, and places that count have a weight.
        """
        return None


class Reader(Protocol):
    """Where a task's examples lie: each is a function of a stream's name and seed, and of its index in the stream."""

    def read(self, stream: str, seed: int, indices: Sequence[int], held_out: bool) -> dict[str, np.ndarray]:
        """Returns examples of a stream, arrays that lead with them, from those for training or the held-out ones."""
        ...

    def num_held_out(self) -> int:
        """Returns how many held-out examples there are; a stream of more would repeat some."""
        ...


class FedTask(Task):
    """A task whose examples lie in files: the host reads them, chunks ahead of the device, which makes batches of them.

    What is random in a batch, such as which tokens are masked, is drawn on the device, and is no part of an example.
    """

    @property
    @abc.abstractmethod
    def example(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """The shapes of one example, by name."""

    @abc.abstractmethod
    def open(self) -> Reader:
        """Opens the files.

        Raises:
          UserError: they are missing, damaged, or other ones than the task is about.
        """

    @abc.abstractmethod
    def batch(self, key: PRNGKeyArray, examples: Examples) -> Batch:
        """Makes a batch of examples; a pure function of its arguments."""

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Is not for this task, of which nothing can be drawn without its files."""
        raise TypeError(f"{type(self).__name__} draws batches of examples that have been read")

    def draw(self, key: PRNGKeyArray, batch_size: int, examples: Examples | None) -> Batch:
        """Returns the batch of examples."""
        assert examples is not None
        return self.batch(key, examples)

    def example_shapes(self, *leading: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of examples with leading axes."""
        return {
            name: jax.ShapeDtypeStruct((*leading, *shape.shape), shape.dtype) for name, shape in self.example.items()
        }


def batch_shapes(task: Task, batch_size: int) -> Batch:
    """Returns the shapes of a batch, of which nothing is drawn."""

    def draw(examples: Examples | None) -> Batch:
        return task.draw(jax.random.key(0), batch_size, examples)

    return jax.eval_shape(draw, task.example_shapes(batch_size))
