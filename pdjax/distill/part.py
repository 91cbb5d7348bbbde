"""Which part of its intermediate checkpoints a student of a parity sees: all of them, or some of their Fourier terms.

Of a teacher of two classes a student sees the difference of its logits, ``g(x) = l_0(x) - l_1(x)``. On x uniform in
{-1, +1}^d that is a sum over sets S of coordinates (O'Donnell, Analysis of Boolean Functions, section 1.2),

    g(x) = sum over S of c_S * prod over j in S of x_j,    c_S = E[g(x) * prod over j in S of x_j]

and its *low-degree part* the sum over the non-empty subsets of the support with at most so many coordinates. A part
shows students these terms alone, or all but them, in the place of every *intermediate* checkpoint of a curriculum; the
final teacher stays whole. So (2, T) is a part of one checkpoint for T steps, and then the final teacher.

What students see of a sum depends on the temperature of their loss. At 1 the log odds of the classes are the sum
itself, and their probabilities nearly linear in it where it is small. At 1e-4 they are 10,000 times that, and nothing
but its sign is left: of degree 1, the sum of c_j x_j becomes a weighted majority of the support, which has terms of all
odd degrees again. Whoever asks about a degree distils at 1.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pdjax.errors import require
from pdjax.keys import named_key
from pdjax.models.head import dense
from pdjax.models.precision import with_float32_products
from pdjax.probes.monomials import OFF_SUPPORT, Monomials, support_of, values_of_monomials
from pdjax.settings import Choice, Count, Seed, settings
from pdjax.tasks.base import Task
from pdjax.types import Inputs, Logits, Model, Params

BATCH = 1024
"""Inputs at once when coefficients are measured, which bounds the memory."""


class Fourier(NamedTuple):
    """Fourier coefficients of a checkpoint's difference of logits, and their standard errors."""

    coefficients: Float[np.ndarray, "M"]
    errors: Float[np.ndarray, "M"]


class Part(Choice, abc.ABC):
    """What students see of every intermediate checkpoint; the final teacher stays whole."""

    label: ClassVar[str] = ""
    """What tells it apart beside other strategies of the same schedule."""

    def check(self, task: Task) -> None:
        """Raises a ``UserError`` if it is not for a task; by default it is for any."""

    def model(self, teacher: Model, task: Task) -> Model:
        """Returns what speaks in a teacher's place; equal ones share compiled programs."""
        return teacher


@settings
class Whole(Part):
    """The checkpoint itself."""


WHOLE = Whole()


class FourierPart(Part):
    """The checkpoint's difference of logits times ``share``, and terms whose coefficients are those of its own."""

    share: ClassVar[float]
    degree: int
    num_inputs: int
    seed: int

    def __post_init__(self):
        require(
            self.num_inputs % min(self.num_inputs, BATCH) == 0,
            f"num_inputs of at most {BATCH}, or a multiple of it",
            self.num_inputs,
            "every batch counts the same: change it",
        )

    def check(self, task: Task) -> None:
        """Requires two classes, and a support with as many coordinates as the degree."""
        support = support_of(task)
        require(
            task.num_classes == 2,
            "a task of 2 classes",
            f"{type(task).__name__} with {task.num_classes}",
            "a part is one of the difference of two logits: choose Whole",
        )
        require(self.degree <= len(support), f"a degree up to {len(support)}", self.degree, "the support has no more")

    def measured(self, task: Task) -> Monomials:
        """Returns the terms of low degree: the subsets of the support with 1 to ``degree`` coordinates."""
        degrees = range(1, self.degree + 1)
        members = tuple(itertools.chain(*(itertools.combinations(support_of(task), degree) for degree in degrees)))
        return Monomials(members, (0,) * len(members))

    def shown(self, task: Task) -> Monomials:
        """Returns the terms that students see, one for each that is measured."""
        return self.measured(task)

    @abc.abstractmethod
    def weights(self, task: Task, coefficients: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
        """Returns the coefficients of the terms that students see, from those measured."""

    def model(self, teacher: Model, task: Task) -> "PartialModel":
        """Returns a model of one checkpoint and so many terms."""
        return PartialModel(teacher, len(self.measured(task).members))

    def params(self, task: Task, checkpoints: Params, found: Sequence[Fourier | None]) -> Params:
        """Returns parameters of the ``model`` for K checkpoints, stacked as they are.

        Args:
          task: of the teacher.
          checkpoints: stacked along a leading axis of K.
          found: the coefficients of each; None leaves it whole.
        """
        membership = self.shown(task).membership(task.num_positions)
        whole = np.zeros(membership.shape[1])
        terms = [whole if one is None else self.weights(task, one.coefficients) for one in found]
        return {
            "teacher": checkpoints,
            "share": np.array([1 if one is None else self.share for one in found], np.float32),
            "membership": np.stack([membership] * len(found)),
            "coefficients": np.array(terms, np.float32),
        }


@settings
class LowDegree(FourierPart):
    """The low-degree part of the checkpoint, without the rest of it."""

    share: ClassVar[float] = 0

    degree: Count = 1
    """coordinates of its terms at most"""
    monomials: Literal["support", "elsewhere"] = "support"
    """elsewhere: each coordinate of the support is replaced by one outside of it that the seed draws, so that the sum
    has the same distribution and says nothing of the support"""
    signs: Literal["measured", "permuted", "equal"] = "measured"
    """permuted: each coefficient times a sign that is drawn by the seed. equal: all of a degree are the root of their
    mean square"""
    num_inputs: Count = 2**17
    """fresh inputs behind each coefficient"""
    seed: Seed = 0
    """of these, and of what is drawn"""

    def check(self, task: Task) -> None:
        """Requires as many coordinates outside of the support as in it, where the terms are elsewhere."""
        super().check(task)
        inside = len(support_of(task))
        require(
            self.monomials == "support" or 2 * inside <= task.num_positions,
            f"{inside} coordinates outside of the support for monomials 'elsewhere'",
            task.num_positions - inside,
            "raise the dimension of the task",
        )

    @property
    def label(self) -> str:  # pyright: ignore
        """The degree, and what is not as it was measured."""
        where = ", elsewhere" if self.monomials == "elsewhere" else ""
        signs = {"measured": "", "permuted": ", signs permuted", "equal": ", equal weights"}
        return f"degree ≤ {self.degree} alone{where}{signs[self.signs]}"

    def shown(self, task: Task) -> Monomials:
        """Returns those of the support, or their images elsewhere."""
        inside = self.measured(task)
        if self.monomials == "support":
            return inside
        support = support_of(task)
        outside = sorted(set(range(task.num_positions)) - set(support))
        drawn = jax.random.permutation(named_key(self.seed, "part elsewhere"), np.array(outside))[: len(support)]
        image = dict(zip(support, drawn.tolist(), strict=True))
        members = tuple(tuple(image[j] for j in member) for member in inside.members)
        return Monomials(members, (OFF_SUPPORT,) * len(members))

    def weights(self, task: Task, coefficients: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
        """Returns the coefficients as ``signs`` says."""
        if self.signs == "measured":
            return coefficients
        if self.signs == "permuted":
            return coefficients * self._drawn_signs(len(coefficients))
        degrees = np.array([len(member) for member in self.measured(task).members])
        sizes = {degree: np.sqrt(np.mean(coefficients[degrees == degree] ** 2)) for degree in {*degrees.tolist()}}
        mantissas, exponents = np.frexp([sizes[degree] for degree in degrees.tolist()])
        # To 12 bits, so that float32 sums of them are exact: where as many vote for as against, the sum is 0, which a
        # low temperature would make a class of otherwise.
        return np.ldexp(np.round(mantissas * 2**12), exponents - 12)

    def _drawn_signs(self, count: int) -> Int[np.ndarray, "M"]:
        for attempt in itertools.count():
            signs = np.asarray(jax.random.rademacher(named_key(self.seed, "part signs", attempt), (count,)))
            # All alike would be the part itself, or one that is wrong everywhere.
            if count == 1 or abs(signs.sum()) < count:
                return signs
        raise AssertionError


@settings
class WithoutLowDegree(FourierPart):
    """The checkpoint without its low-degree part."""

    share: ClassVar[float] = 1

    degree: Count = 1
    """coordinates of the terms that are taken away at most"""
    num_inputs: Count = 2**17
    """fresh inputs behind each coefficient"""
    seed: Seed = 0
    """of these"""

    @property
    def label(self) -> str:  # pyright: ignore
        """The degree."""
        return f"without degree ≤ {self.degree}"

    def weights(self, task: Task, coefficients: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
        """Returns what cancels the terms."""
        return -coefficients


@dataclasses.dataclass(frozen=True)
class PartialModel:
    """A share of a teacher and a sum of monomials, seen as one model of two classes.

    Its logits are ``+Δ/2`` and ``-Δ/2`` with ``Δ = share * (l_0 - l_1) + sum over S of c_S * prod over j in S of x_j``:
    the final teacher has share 1 and no terms, and says what it says without this model. What is not the same for all
    checkpoints and all parts are parameters.
    """

    teacher: Model
    num_monomials: int

    def init(self, key: PRNGKeyArray, inputs: Inputs) -> Params:
        """Returns a teacher's initial parameters, whole, for inputs of these shapes."""
        dimension = inputs["tokens" if "tokens" in inputs else "vector"].shape[-1]
        return {
            "teacher": self.teacher.init(key, inputs),
            "share": jnp.ones(()),
            "membership": jnp.zeros((dimension, self.num_monomials)),
            "coefficients": jnp.zeros(self.num_monomials),
        }

    def apply(
        self, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
    ) -> tuple[Logits, Mapping[str, Any]]:
        """Returns the two logits; of a sum there are no intermediates."""
        monomials_BxM = values_of_monomials(inputs, params["membership"])
        terms_B = jnp.sum(params["coefficients"][None] * monomials_BxM, axis=1)
        half_B = (params["share"] * _difference(self.teacher, params["teacher"], inputs, dropout_key) + terms_B) / 2
        return jnp.stack([half_B, -half_B], axis=1), {}


def _difference(
    teacher: Model, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
) -> Float[Array, "B"]:
    logits_Bx2 = dense(teacher.apply(params, inputs, dropout_key)[0])
    return logits_Bx2[:, 0] - logits_Bx2[:, 1]


def measure(task: Task, teacher: Model, monomials: Monomials, num_inputs: int, seed: int, params: Params) -> Fourier:
    """Returns the Fourier coefficients of a checkpoint's difference of logits, with their standard errors.

    Of n inputs they are ``c = mean(g * monomial)`` and ``sqrt((mean(g^2) - c^2) / n)``, as a monomial's square is 1.

    Args:
      task: whose inputs are uniform.
      teacher: its model, of two classes.
      monomials: of these.
      num_inputs: up to ``BATCH``, or a multiple of it.
      seed: of the inputs.
      params: of the checkpoint.
    """
    membership = monomials.membership(task.num_positions)
    products, squares = _sums(task, teacher, num_inputs, membership, params, np.int32(seed))
    # Over batches in float64, which devices do not have.
    coefficients = np.asarray(products, np.float64).sum(axis=0) / num_inputs
    variances = np.asarray(squares, np.float64).sum() / num_inputs - coefficients**2
    # Of what is a monomial itself nothing is left but rounding, on either side of 0.
    return Fourier(coefficients, np.sqrt(np.maximum(variances, 0) / num_inputs))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
@with_float32_products
def _sums(
    task: Task,
    teacher: Model,
    num_inputs: int,
    membership: Float[Array, "D M"],
    params: Params,
    seed: Int[Array, ""],
) -> tuple[Float[Array, "N M"], Float[Array, "N"]]:
    """Returns the sums over each of N batches of ``g * monomial`` and of ``g^2``."""
    size = min(num_inputs, BATCH)

    def body(_: None, index: Int[Array, ""]) -> tuple[None, tuple[Float[Array, "M"], Float[Array, ""]]]:
        inputs = task.sample(named_key(seed, "part", index), size).inputs
        difference_B = _difference(teacher, params, inputs)
        return None, (difference_B @ values_of_monomials(inputs, membership), difference_B @ difference_B)

    return jax.lax.scan(body, None, jnp.arange(num_inputs // size))[1]
