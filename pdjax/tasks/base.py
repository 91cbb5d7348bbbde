"""What a task is: a distribution of batches, sampled on the device."""

import abc
from typing import ClassVar, Literal

from jaxtyping import PRNGKeyArray

from pdjax.settings import Choice
from pdjax.types import Batch


class Task(Choice, abc.ABC):
    """A distribution of batches. Its settings are its fields; equal tasks share compiled programs."""

    predicts: ClassVar[Literal["positions", "example"]]
    """A class for every position, or one for the whole input."""

    counted: ClassVar[str] = "inputs"
    """What accuracies are a share of, in the words of the report."""

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
