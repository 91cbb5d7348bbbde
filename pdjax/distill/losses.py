"""What a student learns from: losses from labels and from a teacher (equations 1 to 4), per place.

A loss is a settings class; callers mask its values and average them. Its real numbers, such as temperatures and
weights, are arrays by replica in the compiled program: students that differ in them alone share it. A number may also
change with the step: ``Ramp``. Everything else that a loss holds is fixed in the program.
"""

import abc
import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field
from pydantic_core import core_schema

from pdjax.distill.kept import Cut, Kept, compare_kept
from pdjax.distill.vocabulary import Direction, compare
from pdjax.errors import require
from pdjax.models.head import Factored, dense
from pdjax.settings import Choice, Count, Real, in_float32, make, settings
from pdjax.types import Batch, Logits, Params


class Outputs(NamedTuple):
    """What a model says to a batch."""

    logits: Logits
    intermediates: Mapping[str, Any]


@settings
class Ramp:
    """A number that moves in a straight line with the student's steps, and rests before and after."""

    first: Real
    last: Real
    begin: Annotated[int, Field(ge=0)] = 0
    """the last step at which it is ``first``"""
    end: Count = 1000
    """the first step at which it is ``last``"""

    def __post_init__(self):
        require(self.begin < self.end, f"an end behind begin = {self.begin}", self.end, "raise it")


class ByReplica:
    """Marks a loss's numbers that are arrays by replica: each is finite, or a ramp."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Returns how pydantic checks such a number."""
        return core_schema.no_info_plain_validator_function(_number)


def _number(value: Any) -> float | Ramp:
    if isinstance(value, Mapping):
        value = make(Ramp, value)
    if isinstance(value, Ramp):
        return value
    # A bool is an int in Python.
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    require(right, "a finite number, or a Ramp", repr(value), "change it")
    return in_float32(float(value))


Number = Annotated[float | Ramp, ByReplica()]

SHARP = 1e-12
"""A temperature at which float32 logits that differ leave no mass to the smaller, unless both are tiny."""

TIES = 8
"""How many classes may be equally likely where a cache keeps the most likely ones."""

Numbers = Mapping[str, Float[Array, ""]]
"""The numbers of a replica's loss at a step, by name."""


class Loss(Choice, abc.ABC):
    """What a student learns from, at every place of a batch."""

    asks_teacher: ClassVar[bool] = True
    """Whether it sees a teacher; students of other losses run none."""

    reads_intermediates: ClassVar[bool] = False
    """Whether it looks at more than logits: then training in blocks is not for it."""

    of_whole_batch: ClassVar[bool] = False
    """Whether an example's loss depends on the others of its batch, which then cannot be cut into pieces."""

    by_place: ClassVar[bool] = False
    """Whether what it finds at a place depends on what is said and right there, and on neither its position nor others.
    Then padding, and places that do not count, may be left out (``pdjax.train.narrow``)."""

    def check(self, student: Outputs, teacher: Outputs) -> None:
        """Refuses models that do not say what it needs, before anything is trained; most need logits alone.

        Args:
          student: shapes of what it will say.
          teacher: of what its teacher will say.

        Raises:
          UserError: they do not.
        """

    @abc.abstractmethod
    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns the loss at every place, in nats; no gradient may flow into the teacher.

        Logits are arrays, [*places, V], whatever the models give: see ``values_and_best``.

        Args:
          student: what it says.
          teacher: what its teacher of the moment says; None where ``asks_teacher`` is False.
          batch: to which they say it.
          numbers: of this replica, at this step.
          params: of the loss itself, as ``init`` makes them.
        """

    def values_and_best(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> tuple[Float[Array, "*places"], Int[Array, "*places"]]:
        """Returns ``values``, and the student's most likely class, of ties the first.

        Here from all logits, which are multiplied out where models give their factors. ``Labels``, ``Distillation`` and
        ``ReverseKL`` go over the vocabulary in blocks then, if student and teacher both give factors.
        """
        student = student._replace(logits=dense(student.logits))
        teacher = None if teacher is None else teacher._replace(logits=dense(teacher.logits))
        return self.values(student, teacher, batch, numbers, params), jnp.argmax(student.logits, axis=-1)

    def init(self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None) -> Params:
        """Draws parameters of the loss itself, which are trained along with the student's; most have none.

        Args:
          key: random.
          student: shapes of what it will say.
          teacher: of what its teacher will say.
        """
        return None

    @property
    def cut(self) -> Cut | None:
        """What of a teacher's classes it looks at, if that is so few that a cache can hold them (``kept``)."""
        return None

    @property
    def label(self) -> str:
        """What tells it apart beside other losses; empty for that of the paper's experiments."""
        return type(self).__name__

    @property
    def has_params(self) -> bool:
        """Whether it trains parameters of its own."""
        return type(self).init is not Loss.init

    @property
    def family(self) -> "Loss":
        """The loss without its numbers: students whose losses have one family share a program."""
        # Not checked, as a loss is when it is made: no number lies within the limits of every user's loss.
        family = copy.copy(self)
        for name in self.numbers:
            object.__setattr__(family, name, 0.5)
        return family

    @property
    def numbers(self) -> dict[str, float | Ramp]:
        """The numbers, by name."""
        fields = type(self).__pydantic_fields__  # pyright: ignore
        marked = (name for name, field in fields.items() if any(isinstance(m, ByReplica) for m in field.metadata))
        return {name: getattr(self, name) for name in marked}


@settings
class Labels(Loss):
    """Cross-entropy with the labels (equation 1)."""

    asks_teacher: ClassVar[bool] = False
    by_place: ClassVar[bool] = True
    label: ClassVar[str] = "labels only"  # pyright: ignore

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns ``-log p_S(x)[target]``."""
        return cross_entropy(student.logits, batch.targets)

    def values_and_best(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> tuple[Float[Array, "*places"], Int[Array, "*places"]]:
        """Returns both, of factored logits in blocks."""
        # Of this very class: one that is derived from it may have other values.
        if type(self) is not Labels or not isinstance(student.logits, Factored):
            return super().values_and_best(student, teacher, batch, numbers, params)
        compared = compare(student.logits, batch.targets)
        return compared.cross_entropy, compared.best


class Taught(Loss):
    """A loss from a teacher, mixed with the labels' (equation 4)."""

    by_place: ClassVar[bool] = True

    temperature: float | Ramp
    label_weight: float | Ramp

    def __post_init__(self):
        for name, low, high in (("temperature", 0, math.inf), ("label_weight", 0, 1)):
            ends = _ends(getattr(self, name))
            limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            require(all(low <= end <= high for end in ends), f"{name} {limits}", ends, "change it")
        labels_alone = self.label_weight == 1
        # It would run a teacher that nobody listens to.
        require(not labels_alone, "label_weight below 1", 1, "the loss Labels is training from labels alone")

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns ``alpha * cross_entropy + (1 - alpha) * divergence`` with ``alpha = label_weight``."""
        assert teacher is not None
        from_labels = cross_entropy(student.logits, batch.targets)
        # Stopped here for all divergences. They may therefore divide by 0 in what only the teacher's logits go through.
        from_teacher = self.divergence(student.logits, jax.lax.stop_gradient(teacher.logits), numbers)
        alpha = numbers["label_weight"]
        return alpha * from_labels + (1 - alpha) * from_teacher

    def values_and_best(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> tuple[Float[Array, "*places"], Int[Array, "*places"]]:
        """Returns both, of factored logits in blocks where there is a formula for the divergence."""
        assert teacher is not None
        alpha = numbers["label_weight"]
        ours, theirs, direction = student.logits, teacher.logits, _DIRECTIONS.get(type(self))
        if isinstance(theirs, Kept):
            compared = compare_kept(ours, batch.targets, theirs)
            return alpha * compared.cross_entropy + (1 - alpha) * compared.divergence, compared.best
        # One that has all logits already leaves little to save by the other's factors.
        if direction is None or not isinstance(ours, Factored) or not isinstance(theirs, Factored):
            return super().values_and_best(student, teacher, batch, numbers, params)
        compared = compare(ours, batch.targets, theirs, numbers["temperature"], direction)
        return alpha * compared.cross_entropy + (1 - alpha) * compared.divergence, compared.best

    @abc.abstractmethod
    def divergence(
        self, student: Float[Array, "*places V"], teacher: Float[Array, "*places V"], numbers: Numbers
    ) -> Float[Array, "*places"]:
        """Returns how far the student's distribution is from the teacher's, of their logits."""

    @property
    def label(self) -> str:
        """The class, where it is not the paper's, and the numbers that are not."""
        parts = [] if type(self) is Distillation else [type(self).__name__]
        parts += [
            f"{words} {_text(value)}"
            for words, value, usual in (
                ("temperature", self.temperature, 1e-4),
                ("label weight", self.label_weight, 0.0),
            )
            if value != usual
        ]
        return ", ".join(parts)


def _ends(value: float | Ramp) -> tuple[float, ...]:
    """Returns the numbers between which all are that it ever is."""
    return (value.first, value.last) if isinstance(value, Ramp) else (value,)


def _text(value: float | Ramp) -> str:
    return f"{value.first:g} to {value.last:g}" if isinstance(value, Ramp) else f"{value:g}"


@settings
class Distillation(Taught):
    """``KL(p_T(x; temperature) || p_S(x))`` (equation 2): the temperature applies to the teacher alone."""

    temperature: Number = 1e-4
    """of the teacher; 0 is its most likely class"""
    label_weight: Number = 0.0
    """alpha, the share of the labels"""

    @property
    def cut(self) -> Cut | None:
        """The most likely class, with those that tie with it, where the temperature leaves nothing to others."""
        sharp = type(self) is Distillation and not isinstance(self.temperature, Ramp) and self.temperature <= SHARP
        return Cut(TIES, float(self.temperature), True) if sharp else None  # pyright: ignore[reportArgumentType]

    def divergence(
        self, student: Float[Array, "*places V"], teacher: Float[Array, "*places V"], numbers: Numbers
    ) -> Float[Array, "*places"]:
        """Returns equation 2."""
        return distillation(student, teacher, numbers["temperature"])


@settings
class ReverseKL(Taught):
    """``KL(p_S(x) || p_T(x; temperature))``: the student keeps to what the teacher finds likely."""

    temperature: Number = 1.0
    """of the teacher; at 0 the divergence would be infinite"""
    label_weight: Number = 0.0
    """alpha, the share of the labels"""

    def __post_init__(self):
        super().__post_init__()
        ends = _ends(self.temperature)
        require(all(end > 0 for end in ends), "temperature above 0", ends, "at 0 the divergence is infinite: raise it")

    def divergence(
        self, student: Float[Array, "*places V"], teacher: Float[Array, "*places V"], numbers: Numbers
    ) -> Float[Array, "*places"]:
        """Returns the reverse divergence."""
        log_q, log_p = jax.nn.log_softmax(student), jax.nn.log_softmax(_scaled(teacher, numbers["temperature"]))
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)


# Of these very classes: one that is derived from them may have another divergence, or more in its values.
_DIRECTIONS: Mapping[type[Loss], Direction] = {Distillation: "forward", ReverseKL: "reverse"}


@settings
class JensenShannon(Taught):
    """The generalised Jensen-Shannon divergence (Agarwal et al. 2024, equation 2).

    ``beta KL(p_T || m) + (1 - beta) KL(p_S || m)`` with ``m = beta p_T + (1 - beta) p_S``. It needs all logits at once.
    """

    beta: Number = 0.5
    """between 0 and 1; near them it goes, divided by beta or 1 - beta, to the forward and to the reverse divergence"""
    temperature: Number = 1.0
    """of the teacher"""
    label_weight: Number = 0.0
    """alpha, the share of the labels"""

    def __post_init__(self):
        super().__post_init__()
        ends = _ends(self.beta)
        require(
            all(0 < end < 1 for end in ends), "beta between 0 and 1", ends, "Distillation and ReverseKL are the ends"
        )

    def divergence(
        self, student: Float[Array, "*places V"], teacher: Float[Array, "*places V"], numbers: Numbers
    ) -> Float[Array, "*places"]:
        """Returns the divergence, exact where a teacher finds a class impossible."""
        # KL(p_T || m) is taken apart into negative entropy and cross-entropy: at temperature 0 some log p are minus
        # infinity, and their products with p = 0 no numbers.
        p, negative_entropy = soften(teacher, numbers["temperature"])
        log_q, beta = jax.nn.log_softmax(student), numbers["beta"]
        # log(beta p + (1 - beta) q) without leaving logarithms, where q may underflow. Finite, as beta is below 1.
        log_m = jnp.logaddexp(jnp.log(beta) + _safe_log(p), jnp.log1p(-beta) + log_q)
        of_teacher = negative_entropy - jnp.sum(jnp.where(p > 0, p * log_m, 0.0), axis=-1)
        of_student = jnp.sum(jnp.exp(log_q) * (log_q - log_m), axis=-1)
        return beta * of_teacher + (1 - beta) * of_student


@settings
class TopK(Taught):
    """Equation 2 over the teacher's k most likely classes and, as one class, all others together.

    What is left of the teacher's mass is compared with what is left of the student's: dropping it, or spreading what is
    kept over the whole, would ask the student for a sharper distribution than the teacher's. It needs all logits at
    once, unless the teacher is cached.
    """

    k: Count = 2
    """classes that count one by one; of ties the first"""
    temperature: Number = 1.0
    """of the teacher"""
    label_weight: Number = 0.0
    """alpha, the share of the labels"""

    def check(self, student: Outputs, teacher: Outputs) -> None:
        """Refuses to be another loss under this name: of one other class nothing is put together."""
        classes = teacher.logits.shape[-1]
        require(
            self.k < classes - 1, f"k + 1 < {classes}, the number of classes", self.k, "lower it, or take Distillation"
        )

    @property
    def cut(self) -> Cut | None:
        """The k classes and the rest, at one temperature."""
        fixed = type(self) is TopK and not isinstance(self.temperature, Ramp) and self.temperature > 0
        return Cut(self.k, float(self.temperature), False) if fixed else None  # pyright: ignore[reportArgumentType]

    def divergence(
        self, student: Float[Array, "*places V"], teacher: Float[Array, "*places V"], numbers: Numbers
    ) -> Float[Array, "*places"]:
        """Returns the divergence over k + 1 classes."""
        k = min(self.k, teacher.shape[-1])
        p, _ = soften(teacher, numbers["temperature"])
        log_q = jax.nn.log_softmax(student)
        # By comparisons with the k-th logit: the gradient of a gather is a scatter, which is slow on every backend.
        least = jax.lax.top_k(teacher, k)[0][..., -1:]
        above, ties = teacher > least, teacher == least
        # The first so many ties with the k-th logit are kept: more than k classes may be at least as likely as it.
        free = k - jnp.sum(above, axis=-1, keepdims=True)
        kept = above | (ties & (jnp.cumsum(ties, axis=-1) <= free))
        one_by_one = jnp.sum(jnp.where(kept & (p > 0), p * (_safe_log(p) - log_q), 0.0), axis=-1)
        # Of all classes nothing is left, and the logarithm of the student's rest would be minus infinity.
        if k == teacher.shape[-1]:
            return one_by_one
        # Sums of what is left. One minus what is kept would lose all digits where that is nearly everything.
        rest_p = jnp.sum(jnp.where(kept, 0.0, p), axis=-1)
        rest_log_q = jax.nn.logsumexp(jnp.where(kept, -jnp.inf, log_q), axis=-1)
        together = jnp.where(rest_p > 0, rest_p * (jnp.log(jnp.where(rest_p > 0, rest_p, 1.0)) - rest_log_q), 0.0)
        return one_by_one + together


@settings
class HiddenMatching(Distillation):
    """Equation 2, and the distance of hidden states: those of the student, projected, from the teacher's.

    The projection is linear and learned along with the student (Romero et al. 2015). The distance is the mean square
    over the teacher's dimensions, divided by that of the teacher's states, at every place. It needs all logits at once.
    """

    reads_intermediates: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True  # by the size of the teacher's states
    by_place: ClassVar[bool] = False

    hidden_weight: Number = 1.0
    """of the distance"""
    student_layer: int = -1
    """of the student's hidden states, in the order of its layers"""
    teacher_layer: int = -1
    """of the teacher's"""

    def check(self, student: Outputs, teacher: Outputs) -> None:
        """Refuses models without hidden states, without that layer, or where it has no state at every place."""
        both = (("student", student, self.student_layer), ("teacher", teacher, self.teacher_layer))
        for who, said, layer in both:
            expected, count = f"a {who} with intermediates['hidden']", len(said.intermediates.get("hidden", ()))
            require(count > 0, expected, f"{sorted(said.intermediates)}", "take another loss or model")
            expected = f"{who}_layer from {-count} to {count - 1}, as the {who} has {count} hidden states"
            require(-count <= layer < count, expected, layer, "change it")
            places = said.logits.shape[:-1]
            states = said.intermediates["hidden"][layer].shape[:-1]
            # Where some positions are asked, other layers than the last have states at all of them.
            require(
                states == places or states[:-1] == places,
                f"a {who}_layer with states at the places of its logits, {list(places)}",
                f"layer {layer} with {list(states)}",
                "take -1, the last: where only some positions are asked, it has states of these alone",
            )

    def init(self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None) -> Params:
        """Draws the projection."""
        assert teacher is not None
        both = (
            student.intermediates["hidden"][self.student_layer],
            teacher.intermediates["hidden"][self.teacher_layer],
        )
        shape = tuple(states.shape[-1] for states in both)
        # Scaled by the student's width, so that projections are as large as its states.
        return {"projection": jax.random.normal(key, shape) * shape[0] ** -0.5}

    def values(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, numbers: Numbers, params: Params
    ) -> Float[Array, "*places"]:
        """Returns the divergence with the distance added."""
        assert teacher is not None
        ours, theirs = self._states(student, teacher)
        # States may be bfloat16; squares and their sums are not.
        theirs = jax.lax.stop_gradient(theirs).astype(jnp.float32)
        apart = ours.astype(jnp.float32) @ params["projection"] - theirs
        # One scale for the whole batch; the smallest number is for a teacher whose states are all 0.
        distance = jnp.mean(apart**2, axis=-1) / jnp.maximum(jnp.mean(theirs**2), 1e-12)
        return super().values(student, teacher, batch, numbers, params) + numbers["hidden_weight"] * distance

    def _states(self, student: Outputs, teacher: Outputs) -> tuple[Array, Array]:
        """Returns the layers' states, one at every place."""
        both = (
            student.intermediates["hidden"][self.student_layer],
            teacher.intermediates["hidden"][self.teacher_layer],
        )
        # A Transformer that predicts one class for each input has logits [B, V] but states [B, L, D]: the last
        # position's count.
        places = student.logits.shape[:-1]
        ours, theirs = (h if h.ndim == len(places) + 1 else h[:, -1] for h in both)  # of one class for each input
        return ours, theirs


def _safe_log(p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the logarithm, and minus infinity at 0 without a gradient that is not a number."""
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def _scaled(logits: Float[Array, "*places V"], temperature: Float[Array, ""]) -> Float[Array, "*places V"]:
    # The largest is subtracted before the division: at low temperatures its quotient could overflow.
    return (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature


def cross_entropy(logits: Float[Array, "*places V"], targets: Int[Array, "*places"]) -> Float[Array, "*places"]:
    """Equation 1: ``-log p_S(x)[target]``, in nats."""
    log_probabilities = jax.nn.log_softmax(logits)
    # A comparison instead of a gather: the gradient of a gather is a scatter, which is slow on every backend.
    chosen = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    return -jnp.sum(jnp.where(chosen, log_probabilities, 0.0), axis=-1)


def soften(
    logits: Float[Array, "*places V"], temperature: Float[Array, ""] | float
) -> tuple[Float[Array, "*places V"], Float[Array, "*places"]]:
    """Returns the teacher's distribution ``softmax(logits / temperature)`` and its negative entropy.

    Exact and finite in float32 for every temperature down to 0: the largest logit is subtracted before the
    division, so that the quotients are 0 for the most likely classes and at worst minus infinity for the
    others. Temperature 0 is the limit: all mass on the most likely class, shared equally by exact ties.
    """
    gaps = logits - jnp.max(logits, axis=-1, keepdims=True)
    # At temperature 0 the quotient is 0 / 0 for the most likely classes. Its gradient would not be a number even so:
    # callers stop it.
    scaled = jnp.where(gaps == 0, 0.0, gaps / temperature)
    log_probabilities = jax.nn.log_softmax(scaled)
    probabilities = jnp.exp(log_probabilities)
    # 0 log 0 is 0, not the product of 0 and minus infinity.
    terms = jnp.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    return probabilities, jnp.sum(terms, axis=-1)


def distillation(
    student_logits: Float[Array, "*places V"],
    teacher_logits: Float[Array, "*places V"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, "*places"]:
    """Equation 2: ``KL(p_T(x; temperature) || p_S(x))`` in nats.

    The temperature applies to the teacher only, and there is no factor temperature**2. No gradient flows
    into the teacher.
    """
    probabilities, negative_entropy = soften(jax.lax.stop_gradient(teacher_logits), temperature)
    return negative_entropy - jnp.sum(probabilities * jax.nn.log_softmax(student_logits), axis=-1)
