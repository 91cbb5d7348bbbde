"""Adaptive schedules: every student moves on to the next checkpoint by what it has learned from the one before.

What decides is a score of every student with every checkpoint of its teacher, measured at the student's evaluations;
the starts of its curriculum are a pure function of those scores. A resumed run reads its records and decides the same
again.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pdjax.distill.curriculum import Curriculum
from pdjax.distill.schedules import Schedule
from pdjax.errors import require
from pdjax.probes.agreement import STREAM, AgreementProbe, agreement
from pdjax.probes.base import HeldOut, nothing_read
from pdjax.probes.ngrams import MEASURES, NgramProbe, ngram_distances, strings_of
from pdjax.settings import Count, Positive, settings
from pdjax.tasks.base import Task
from pdjax.types import Examples, Mean, Model, Params, exact_ratio

Scores = Callable[[Params], Float[np.ndarray, "R K"]]
"""Measures R students, stacked, with each of the K checkpoints of their teacher; on the host, in float64."""


class Pupils(NamedTuple):
    """Who learns from whom, at the evaluations of a run."""

    task: Task
    student: Model
    teacher: Model
    checkpoints: Params  # of the teacher: K, stacked
    num_batches: int  # of an evaluation
    batch_size: int
    seed: int  # of the held-out examples
    fetch: Callable[[Any], Any]  # brings arrays, wherever they lie, to the host
    held_out: HeldOut = nothing_read


class AdaptiveSchedule(Schedule):
    """A schedule whose table each student extends at its evaluations."""

    @property
    def limit(self) -> int | None:
        """Student steps after which a student moves on whatever it has learned; None: there is no such timer."""
        return None

    def curriculum(self, teacher_steps: Sequence[int], teacher_length: int, student_length: int) -> Curriculum:
        """Returns the first row alone."""
        # When the others begin is not known before the students have been evaluated.
        return Curriculum((0,), (teacher_steps[0],))

    def scores(self, pupils: Pupils) -> Scores | None:
        """Returns what measures the students; None: their accuracies decide."""
        return None

    @abc.abstractmethod
    def starts(self, steps: Sequence[int], scores: Float[np.ndarray, "E K"]) -> tuple[int, ...]:
        """Returns the starts of one student's curriculum so far, a pure function of its evaluations.

        The checkpoint changes from the step of an evaluation on, inclusive.

        Args:
          steps: of the evaluations so far, increasing, from 0 on.
          scores: at each of them, with each of the K checkpoints. After the last there is nothing to move on to.

        Returns:
          The first student step of each checkpoint reached so far; the first is 0.
        """

    def check(self, task: Task, evaluate_every: int) -> None:
        """Raises a ``UserError`` where a task or the time between evaluations is not for this schedule."""


@settings
class UntilSaturated(AdaptiveSchedule):
    """The student moves on when it has learned what its teacher of the moment has to give (the authors' schedule).

    That is at an evaluation at which its score exceeds the mean of the ``window`` evaluations before it, none of them
    before it last moved on, by less than ``min_gain``, while since then it has gained more than ``min_gain``; and in
    any case ``max_steps`` steps after it last moved on.
    """

    score: Literal["accuracy", "agreement"] = "accuracy"
    """its held-out accuracy, or how often its most likely class there is that of its teacher of the moment"""
    window: Count = 3
    """evaluations"""
    min_gain: Positive = 0.01
    """of the score"""
    max_steps: Count = 400
    """student steps"""

    @property
    def limit(self) -> int | None:
        """The given one."""
        return self.max_steps

    @property
    def label(self) -> str:
        """By what saturates."""
        return f"till {self.score} saturates ({{N}} checkpoints)"

    def check(self, task: Task, evaluate_every: int) -> None:
        """Requires that anything can be decided before the limit of steps is."""
        window = self.window * evaluate_every
        require(
            self.max_steps > window,
            f"max_steps above window * evaluation.every = {window} steps",
            self.max_steps,
            "the student would always move on before it can have saturated: evaluate more often or raise it",
        )

    def scores(self, pupils: Pupils) -> Scores | None:
        """Returns how often students predict what each checkpoint predicts, on the held-out examples."""
        if self.score == "accuracy":
            return None
        probe = AgreementProbe(pupils.num_batches, pupils.batch_size)
        examples = pupils.held_out(STREAM, probe.num_batches, probe.batch_size)

        @jax.jit
        def measure(params: Params, teachers: Params, seed: Int[Array, ""], examples: Examples | None) -> Mean:
            def with_one(teacher: Params) -> Mean:
                found = agreement(pupils.task, pupils.student, pupils.teacher, probe, params, teacher, seed, examples)
                return found.same

            # One checkpoint after the other: under vmap, the activations of all K would be held at once.
            return jax.lax.map(with_one, teachers)

        def shares(params: Params) -> Float[np.ndarray, "R K"]:
            same = pupils.fetch(measure(params, pupils.checkpoints, jnp.int32(pupils.seed), examples))
            return exact_ratio(same.sum, same.count).T  # [K, R] to [R, K]

        return shares

    def starts(self, steps: Sequence[int], scores: Float[np.ndarray, "E K"]) -> tuple[int, ...]:
        """Returns the starts so far."""
        starts, last = [0], 0  # ``last``: the evaluation at which the student last moved on
        for here in range(1, len(steps)):
            # The final checkpoint is kept to the end.
            if len(starts) == scores.shape[1]:
                break
            score = scores[:, len(starts) - 1]  # with the checkpoint of the moment, at all evaluations so far
            # At most `window` evaluations, and fewer soon after a move: then nothing is decided yet.
            before = score[max(last, here - self.window) : here]
            still_gaining = score[here] - float(np.mean(before)) >= self.min_gain
            has_gained = score[here] - score[last] > self.min_gain
            # `has_gained` keeps a student on a checkpoint from which it has learned nothing yet: a plateau before
            # learning is none after it.
            saturated = len(before) == self.window and has_gained and not still_gaining
            if saturated or steps[here] - steps[last] >= self.max_steps:
                starts.append(steps[here])
                last = here
        return tuple(starts)


@settings
class UntilRobust(AdaptiveSchedule):
    """The student moves on when it depends on short n-grams as much as its teacher of the moment.

    That is at an evaluation at which its median M_robust (equation 5; over the places of ``ngrams``, the mean of its n)
    has come to the other side of its teacher's, compared with when it last moved on, or to the same value; and in any
    case ``max_steps`` steps after it last did.
    """

    label: ClassVar[str] = "till M_robust crosses"  # pyright: ignore

    ngrams: NgramProbe = NgramProbe()
    max_steps: Count = 400
    """student steps"""

    @property
    def limit(self) -> int | None:
        """The given one."""
        return self.max_steps

    def check(self, task: Task, evaluate_every: int) -> None:
        """Requires strings of a grammar."""
        strings_of(task)

    def scores(self, pupils: Pupils) -> Scores | None:
        """Returns by how much students' M_robust is above that of each checkpoint."""
        task, seed = strings_of(pupils.task), jnp.int32(pupils.seed)

        @functools.partial(jax.jit, static_argnums=0)
        def robustness(model: Model, params: Params, seed: Int[Array, ""]) -> Float[Array, "R"]:
            distances = ngram_distances(task, model, self.ngrams, params, seed)
            # The median over places for each n first, then the mean over n: what `find_robust_peak` selects by, too.
            return jnp.median(distances[:, MEASURES.index("robust")], axis=-1).mean(axis=-1)

        # Once for the whole run: teachers do not change.
        of_teachers = pupils.fetch(robustness(pupils.teacher, pupils.checkpoints, seed)).astype(np.float64)

        def surplus(params: Params) -> Float[np.ndarray, "R K"]:
            of_students = pupils.fetch(robustness(pupils.student, params, seed)).astype(np.float64)
            return of_students[:, None] - of_teachers[None]

        return surplus

    def starts(self, steps: Sequence[int], scores: Float[np.ndarray, "E K"]) -> tuple[int, ...]:
        """Returns the starts so far."""
        starts, last = [0], 0
        for here in range(1, len(steps)):
            if len(starts) == scores.shape[1]:
                break
            difference = scores[:, len(starts) - 1]
            # Both with the checkpoint of the moment: a move changes the column, and with it the side on which the
            # student begins.
            crossed = difference[here] * difference[last] <= 0
            if crossed or steps[here] - steps[last] >= self.max_steps:
                starts.append(steps[here])
                last = here
        return tuple(starts)
