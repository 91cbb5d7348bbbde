"""How the students of an adaptive strategy go on, in an experiment."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from pdjax.distill.adaptive import AdaptiveSchedule, Pupils
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Experiment
from pdjax.io.feed import held_out_examples
from pdjax.io.processes import fetch
from pdjax.train.loop import Adapt, ByReplica, ByTeacher
from pdjax.types import Params


def adaptation(
    experiment: Experiment, strategy: Strategy, checkpoints: Callable[[], Params], count: int
) -> Adapt | None:
    """Returns how a strategy goes on; None for one whose curriculum is fixed.

    Args:
      experiment: whose students learn.
      strategy: of these students.
      checkpoints: reads those of the teacher, stacked.
      count: how many those are.
    """
    if not strategy.is_adaptive:
        return None
    schedule, task = strategy.schedule, experiment.task
    assert isinstance(schedule, AdaptiveSchedule)
    pupils = Pupils(
        task,
        experiment.student.build(task),
        experiment.teacher.build(task),
        checkpoints(),
        experiment.evaluation.num_batches,
        experiment.evaluation.batch_size,
        experiment.seed,
        fetch,
        functools.partial(held_out_examples, task, experiment.seed),
    )
    measure = schedule.scores(pupils)

    def decide(
        steps: Sequence[int], accuracy: Sequence[ByReplica], measured: Sequence[ByTeacher]
    ) -> list[tuple[int, ...]]:
        # The accuracy does not depend on the teacher: K equal columns, for schedules to see one shape, [E, R, K].
        # Numbers are float64 quotients of what the records hold: live and resumed, decisions are the same.
        alike = np.repeat(np.stack(accuracy)[:, :, None], count, axis=2)
        scores = alike if measure is None else np.stack(measured)
        # A student knows nothing of the others: its curriculum is that which it would have alone.
        return [schedule.starts(steps, scores[:, replica]) for replica in range(scores.shape[1])]

    return Adapt(decide, measure)
