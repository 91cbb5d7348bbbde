"""What a model is: settings that build, for a task, pure functions around parameters which live outside."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pdjax.errors import require
from pdjax.models.head import Factored
from pdjax.models.precision import Compute, products_in
from pdjax.settings import Choice
from pdjax.tasks.base import Task, batch_shapes
from pdjax.types import Inputs, Logits, Model, Params


class Architecture(Choice, abc.ABC):
    """Settings of a model. Equal ones, for equal tasks, share compiled programs."""

    reads: ClassVar[tuple[str, ...]] = ()
    """The inputs that a task has to have."""

    compute: Compute = "float32"

    @property
    def can_be_narrow(self) -> bool:
        """Whether what it finds stays the same without padding, and of the places that inputs have ``asked`` alone."""
        return False

    @abc.abstractmethod
    def build(self, task: Task) -> Model:
        """Builds the model for a task's tokens, classes and positions."""

    def check(self, task: Task) -> None:
        """Raises a ``UserError`` where the model is not for a task: where it lacks what the model reads."""
        missing = sorted(set(self.reads) - set(input_names(task)))
        require(
            not missing,
            f"a model for the inputs {sorted(input_names(task))} of {type(task).__name__}",
            f"{type(self).__name__}, which reads {missing} too",
            "choose another model or task",
        )


class LinenArchitecture(Architecture):
    """An architecture whose model is a Linen module, called with ``inputs`` and ``deterministic``."""

    @abc.abstractmethod
    def module(self, task: Task) -> nn.Module:
        """Returns the module for a task; it may hold the settings as a field."""

    def build(self, task: Task) -> "LinenModel":
        """Returns the module as two pure functions."""
        return LinenModel(self.module(task), self.compute)


@dataclasses.dataclass(frozen=True)
class LinenModel:
    """A Linen module seen as two pure functions.

    Parameters are float32. With ``compute`` bfloat16 they and the activations are rounded to it on the way through
    the module; sums in layer norms and attention, and the logits, stay in float32. With tf32 only the operands of
    products are rounded.
    """

    module: nn.Module
    compute: Compute = "float32"

    def init(self, key: PRNGKeyArray, inputs: Inputs) -> Params:
        """Draws initial parameters for inputs of these shapes."""
        return self.module.init(key, inputs)["params"]

    def apply(
        self, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
    ) -> tuple[Logits, Mapping[str, Any]]:
        """Returns logits, or their factors, and intermediates; dropout is off without a key."""
        # Inside what is differentiated: the gradient passes the rounding, and is float32 like the parameters it belongs
        # to.
        params, inputs = _rounded((params, inputs), "bfloat16" if self.compute == "bfloat16" else "float32")
        options: dict[str, Any] = {}  # modules are deterministic unless told otherwise
        if dropout_key is not None:
            options = {"deterministic": False, "rngs": {"dropout": dropout_key}}
        with products_in(self.compute):
            logits, intermediates = self.module.apply({"params": params}, inputs, **options)
        # Factors stay of the type in which they are multiplied; what is then summed of them is float32.
        return logits if isinstance(logits, Factored) else logits.astype(jnp.float32), intermediates


def _rounded(tree: Any, kind: str) -> Any:
    """Returns a tree whose floating-point arrays are of another type."""
    # Tokens are integers, masks booleans: both stay.
    return jax.tree.map(lambda leaf: leaf.astype(kind) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


@functools.cache  # it traces, which takes a second for long strings, and every model of an experiment asks
def input_names(task: Task) -> tuple[str, ...]:
    """Returns the names of a task's inputs."""
    return tuple(batch_shapes(task, 1).inputs)


@functools.cache  # it traces too, for every run of students
def parameter_shapes(architecture: Architecture, task: Task) -> Params:
    """Returns the parameters of a model for a task as shapes."""
    return jax.eval_shape(architecture.build(task).init, jax.random.key(0), batch_shapes(task, 1).inputs)


def num_parameters(params: Params) -> int:
    """Returns the number of scalars in a pytree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
