"""Addition modulo a number: a task, a model, a loss, a selection, two schedules and a probe of a user's own.

Each is a class with its fields and what it does; ``modular.py`` uses them like those of the package.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from arithmetic import MODULUS

from pdjax.distill.adaptive import AdaptiveSchedule
from pdjax.distill.curriculum import Curriculum
from pdjax.distill.losses import Loss, Number, Numbers, Outputs
from pdjax.distill.phases import Phases
from pdjax.distill.schedules import Schedule
from pdjax.distill.selection import Chosen, Selection
from pdjax.models.base import LinenArchitecture
from pdjax.models.precision import Compute
from pdjax.probes.base import Columns, Probe, Subject
from pdjax.settings import Count, Positive, settings
from pdjax.tasks.base import Task
from pdjax.types import Batch, Inputs, Params


@settings
class ModularTask(Task):
    """The sum of two digits modulo a number."""

    predicts: ClassVar[Literal["positions", "example"]] = "example"
    counted: ClassVar[str] = "sums"

    modulus: Count = MODULUS
    """how many digits there are"""

    @property
    def num_classes(self) -> int:
        """The digits."""
        return self.modulus

    @property
    def vocabulary(self) -> int:
        """The digits."""
        return self.modulus

    @property
    def num_positions(self) -> int:
        """Two of them."""
        return 2

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws pairs."""
        digits = jax.random.randint(key, (batch_size, 2), 0, self.modulus)
        return Batch({"digits": digits}, digits.sum(axis=1) % self.modulus, jnp.ones(batch_size), {})


@settings
class DigitMlp(LinenArchitecture):
    """A hidden layer on the digits, each a one-hot vector."""

    reads: ClassVar[tuple[str, ...]] = ("digits",)

    width: Count = 32
    compute: Compute = "float32"

    def module(self, task: Task) -> nn.Module:
        """Returns the layers for a task's digits."""
        return DigitMlpModule(self, task.num_classes)


class DigitMlpModule(nn.Module):
    """The layers of a ``DigitMlp``."""

    settings: DigitMlp
    num_classes: int

    @nn.compact
    def __call__(self, inputs: Inputs, deterministic: bool = True) -> tuple[jax.Array, Mapping[str, Any]]:
        hot = jax.nn.one_hot(inputs["digits"], self.num_classes).reshape(len(inputs["digits"]), -1)
        hidden = jax.nn.relu(nn.Dense(self.settings.width)(hot))
        return nn.Dense(self.num_classes)(hidden), {"hidden": (hidden,)}


@settings
class TotalVariation(Loss):
    """Half of the L1 distance of two distributions, times a weight that students may differ in."""

    weight: Number = 1.0

    @property
    def label(self) -> str:
        """With the weight, where there is one."""
        return "total variation" if self.weight == 1 else f"total variation x {self.weight}"

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> jax.Array:
        """Returns the distance of every prediction."""
        assert teacher is not None
        p, q = jax.nn.softmax(jax.lax.stop_gradient(teacher.logits)), jax.nn.softmax(student.logits)
        return numbers["weight"] * 0.5 * jnp.sum(jnp.abs(p - q), axis=-1)


@settings
class Halfway(Selection):
    """The checkpoint in the middle of the training, then the final one."""

    label: ClassVar[str] = "from half of the training"

    @property
    def is_given(self) -> bool:
        """The teacher need not be trained to know it."""
        return True

    def select(self, available: Sequence[int], phases: Phases) -> Chosen:
        """Returns the middle of what is stored."""
        return Chosen((available[len(available) // 2 - 1], available[-1]), "half of the training, and its end")


@settings
class Doubling(Schedule):
    """Each checkpoint for twice as many steps as the one before."""

    first: Count = 8
    """student steps on the first checkpoint"""

    @property
    def label(self) -> str:
        """With the first part."""
        return f"doubling from {self.first}"

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns the table."""
        return Curriculum(tuple(self.first * (2**k - 1) for k in range(len(teacher_steps))), tuple(teacher_steps))


@settings
class UntilRight(AdaptiveSchedule):
    """The student moves on as soon as it is right often enough, or after a while."""

    accuracy: Positive = 0.5
    max_steps: Count = 32

    @property
    def label(self) -> str:
        """With the accuracy."""
        return f"until {self.accuracy:.0%} are right"

    def starts(self, steps: Sequence[int], scores: np.ndarray) -> tuple[int, ...]:
        """Returns the starts so far, of the accuracies at the evaluations so far."""
        starts = [0]
        for step, accuracy in zip(steps[1:], scores[1:, 0], strict=True):
            waited = step - starts[-1] >= self.max_steps
            if len(starts) < scores.shape[1] and (waited or accuracy > self.accuracy):
                starts.append(step)
        return tuple(starts)


@settings
class WeightNorm(Probe):
    """The L2 norm of all parameters of a model together."""

    name: ClassVar[str] = "weight_norm"

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns ``norm``."""

        def squares(params: Params) -> jax.Array:
            each = [jnp.sum(leaf.reshape(len(leaf), -1) ** 2, axis=1) for leaf in jax.tree.leaves(params)]
            return jnp.sum(jnp.stack(each), axis=0)

        return jax.jit(lambda params: {"norm": jnp.sqrt(squares(params))})
