"""What a probe is: a pure function of models' parameters to numbers that are recorded under names."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pdjax.models.base import Architecture
from pdjax.settings import Choice
from pdjax.tasks.base import Task
from pdjax.types import Examples, Model, Params

HeldOut = Callable[[str, int, int], Examples | None]
"""``held_out(stream, num_batches, batch_size)`` reads held-out examples, [num_batches, batch_size, ...], for a fed
task's ``draw``; it returns None for tasks that are sampled."""


def nothing_read(stream: str, num_batches: int, batch_size: int) -> None:
    """Returns the examples of a task that is sampled."""


class Subject(NamedTuple):
    """What a probe looks at: models of one kind, beside the teacher that students learn from."""

    task: Task
    model: Model
    teacher: Model
    final_teacher: Params  # the parameters of its last checkpoint
    seed: int  # of fresh inputs, the same for every model
    held_out: HeldOut = nothing_read


Columns = Mapping[str, Array]
"""What is measured of R models, by name; every array leads with R."""

Record = Mapping[str, Any]
"""What was measured of one model, or what such numbers belong to, by name, as JSON holds it."""

Rows = Iterator[dict[str, Any]]
"""Of the table of results."""


class Probe(Choice, abc.ABC):
    """What is measured on every checkpoint of teachers, and of the students that are asked for."""

    name: ClassVar[str]
    """Of its records, and in ``probes.<name>`` of a configuration."""

    revision: ClassVar[int] = 0
    """Raised where the same settings measure something else than before: what was recorded then is measured again."""

    of_students: ClassVar[bool] = True
    """Whether students are measured too."""

    def check(self, task: Task, teacher: Architecture) -> None:
        """Raises a ``UserError`` where a task or a teacher is not for this probe."""

    def num_held_out(self) -> int:
        """Returns how many held-out examples of a fed task it reads."""
        return 0

    @abc.abstractmethod
    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Compiles the probe; returns a function of the stacked parameters of several models."""

    def listing(self, task: Task, seed: int) -> dict[str, Any]:
        """Returns what the recorded numbers belong to, as JSON holds it: sizes, levels, sets."""
        return {}

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields what a record says as rows of the table of results: ``measure``, ``value``, and columns of its own.

        Unless a probe says better, its measures are ``<probe>.<name>``, and numbers of a list have their place in a
        column ``<probe>.axis_<i>``.

        Args:
          record: of one model.
          listing: what ``listing`` returned.
          task: of the experiment.
        """
        for name, values in record.items():
            shape = np.shape(values)
            places = {f"{self.name}.axis_{axis}": range(size) for axis, size in enumerate(shape)}
            yield from spread(f"{self.name}.{name}", values, **places)


def spread(measure: str, values: Any, **axes: Sequence[Any]) -> Rows:
    """Yields a row of the table of results for each number of an array, or of nested lists.

    >>> list(spread("accuracy", [0.5, 0.25], level=(1, 2)))
    [{'measure': 'accuracy', 'value': 0.5, 'level': 1}, {'measure': 'accuracy', 'value': 0.25, 'level': 2}]
    """
    array = np.asarray(values, np.float64)
    for index in np.ndindex(array.shape):
        places = {name: axis[place] for (name, axis), place in zip(axes.items(), index, strict=True)}
        yield {"measure": measure, "value": float(array[index]), **places}


def rows(columns: Columns) -> list[dict[str, Any]]:
    """Returns a record for each model, as JSON holds it."""
    lists = {name: jnp.asarray(values).tolist() for name, values in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
