"""Hinge losses of section 3.2, for two classes: of labels, of a teacher's output, and a mixture of both."""

from typing import ClassVar

import jax
from jaxtyping import Array, Float

from pdjax.distill.losses import Loss, Number, Numbers, Outputs, Ramp
from pdjax.errors import require
from pdjax.models.head import dense
from pdjax.models.symmetric import output_of
from pdjax.settings import settings
from pdjax.types import Batch, Params


def hinge(output: Float[Array, "*places"], target: Float[Array, "*places"]) -> Float[Array, "*places"]:
    """Returns ``max(0, 1 - f g)``; g is a label of -1 or +1, or what a teacher says.

    >>> hinge(jnp.array([0.0, 2.0, -0.5]), jnp.array([1.0, 0.25, 1.0])).tolist()
    [1.0, 0.5, 1.5]
    """
    # Its derivative at the kink is 0, where that of `jnp.maximum` is half the slope.
    return jax.nn.relu(1 - output * target)


def signs(batch: Batch) -> Float[Array, "*places"]:
    """Returns the labels as +1 for the first class and -1 for the second."""
    return 1.0 - 2.0 * batch.targets


class _OfTwoClasses(Loss):
    """A loss for models of two classes."""

    def check(self, student: Outputs, teacher: Outputs) -> None:
        """Requires two classes."""
        classes = jax.eval_shape(dense, student.logits).shape[-1]
        require(classes == 2, "two classes for a hinge loss", classes, "choose another task or loss")


@settings
class HingeLabels(_OfTwoClasses):
    """``max(0, 1 - f(x) y)``, which Algorithm 1 trains teachers by."""

    asks_teacher: ClassVar[bool] = False
    label: ClassVar[str] = "labels only, hinge"  # pyright: ignore

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns the hinge loss of the labels."""
        return hinge(output_of(student.logits), signs(batch))


@settings
class Hinge(_OfTwoClasses):
    """``alpha max(0, 1 - f_S(x) y) + (1 - alpha) max(0, 1 - f_S(x) f_T(x))`` (section 3.2)."""

    label_weight: Number = 0.0
    """alpha, the share of the labels"""

    def __post_init__(self):
        weight = self.label_weight
        ends = (weight.first, weight.last) if isinstance(weight, Ramp) else (weight,)
        require(all(0 <= end <= 1 for end in ends), "label_weight from 0 to 1", ends, "change it")
        # It would run a teacher that nobody listens to.
        require(weight != 1, "label_weight below 1", 1, "the loss HingeLabels is training from labels alone")

    @property
    def label(self) -> str:
        """The class, and the share of the labels where there is any."""
        weight = self.label_weight
        shown = f"{weight.first:g} to {weight.last:g}" if isinstance(weight, Ramp) else f"{weight:g}"
        return "hinge" if weight == 0 else f"hinge, label weight {shown}"

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns the mixture."""
        assert teacher is not None
        output, theirs = output_of(student.logits), jax.lax.stop_gradient(output_of(teacher.logits))
        alpha = numbers["label_weight"]
        return alpha * hinge(output, signs(batch)) + (1 - alpha) * hinge(output, theirs)
