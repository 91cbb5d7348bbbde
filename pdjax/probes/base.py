"""What a probe is: a pure function of models' parameters to numbers that are recorded under names."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from pdjax.models.base import Architecture
from pdjax.settings import Choice
from pdjax.tasks.base import Task
from pdjax.types import Model, Params


class Subject(NamedTuple):
    """What a probe looks at: models of one kind, beside the teacher that students learn from."""

    task: Task
    model: Model
    teacher: Model
    final_teacher: Params  # the parameters of its last checkpoint
    seed: int  # of fresh inputs, the same for every model


Columns = Mapping[str, Array]
"""What is measured of R models, by name; every array leads with R."""


class Probe(Choice, abc.ABC):
    """What is measured on every checkpoint of teachers, and of the students that are asked for."""

    name: ClassVar[str]
    """Of its records, and in ``probes.<name>`` of a configuration."""

    of_students: ClassVar[bool] = True
    """Whether students are measured too."""

    def check(self, task: Task, teacher: Architecture) -> None:
        """Raises a ``UserError`` where a task or a teacher is not for this probe."""

    @abc.abstractmethod
    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Compiles the probe; returns a function of the stacked parameters of several models."""

    def listing(self, task: Task, seed: int) -> dict[str, Any]:
        """Returns what the recorded numbers belong to, as JSON holds it: sizes, levels, sets."""
        return {}


def rows(columns: Columns) -> list[dict[str, Any]]:
    """Returns a record for each model, as JSON holds it."""
    lists = {name: jnp.asarray(values).tolist() for name, values in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
