"""Tuning: every strategy's learning rate, and its T or κ, is chosen on a grid that grows while the best is at its edge.

All strategies have the same grid, steps and seeds, and a rule that was fixed before any run (``RULE``). What is chosen
is recorded in ``tuned.json``, and is what a study of other seeds is to compare.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pdjax.errors import TrainingError
from pdjax.experiment import Experiment
from pdjax.io.processes import is_first, meet
from pdjax.io.records import RunRecord, read_students
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt
from pdjax.io.workdir import open_workdir, read_experiment
from pdjax.settings import determining, plain
from pdjax.stages.students import train_students

logger = logging.getLogger("pdjax")

RULE = (
    "the highest mean held-out accuracy over the seeds after the longest budget, to 3 decimals; of those with the "
    "same, the highest accuracy over training"
)
"""Which learning rate, and which T or κ, is chosen."""


class Tried(NamedTuple):
    """What came out of a strategy at a learning rate: means over the seeds."""

    strategy: str
    learning_rate: float
    final: float  # held-out accuracy after the longest budget
    over_training: float  # the same, averaged over all evaluations

    @property
    def merit(self) -> tuple[float, float]:
        """What is compared."""
        return round(self.final, 3), self.over_training


def with_grown_grid(experiment: Experiment, workdir: Path) -> Experiment:
    """Returns an experiment with the learning rates that its tuning has come to in its working directory."""
    if experiment.tuning is None or not (workdir / "config.json").exists():
        return experiment
    recorded = read_experiment(workdir).student_training.learning_rates
    return _with_rates(experiment, sorted({*recorded, *experiment.student_training.learning_rates}))


def tune(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> Experiment:
    """Trains the students, and those at further learning rates while a best one is at the grid's edge.

    Returns:
      The experiment with the grid that it has come to.

    A further rate at which a student diverges ends the grid there.

    Raises:
      UserError: as ``train_students`` does.
      TrainingError: a student diverges at a rate of the first grid.
    """
    assert experiment.tuning is not None
    ends: dict[str, str] = {}  # why the grid does not go on below or above
    train_students(experiment, workdir, interrupt)
    while True:
        tried = outcomes(experiment, read_students(workdir))
        best = {family: max(found, key=lambda one: one.merit) for family, found in tried.items()}
        further = _further(experiment, [one.learning_rate for one in best.values()])
        side = next((side for side in further if side not in ends), None)
        if side is None:
            break
        rates = sorted((*experiment.student_training.learning_rates, further[side]))
        logger.info("tuning: a best learning rate is at the edge of the grid, which becomes %s", rates)
        grown = _with_rates(experiment, rates)
        try:
            train_students(grown, workdir, interrupt)
        except TrainingError as error:
            logger.warning("tuning: the grid ends before %g: %s", further[side], error)
            ends[side] = str(error)
            continue
        # Now: where the training is not done, the same command grows the grid again.
        experiment = grown
        if is_first():
            open_workdir(experiment, workdir)
        meet(f"the grid has {len(rates)} learning rates")
    if is_first():
        write_json(workdir / "tuned.json", {**_record(experiment, tried, best), "ends": ends})
    for one in best.values():
        logger.info("tuning: %s at %g: accuracy %.3f", one.strategy, one.learning_rate, one.final)
    return experiment


def families(experiment: Experiment) -> dict[str, list[str]]:
    """Returns the strategies that differ in numbers of their schedule alone, such as T or κ, by the first of them."""
    found: dict[str, list[str]] = {}
    for strategy in experiment.strategies:
        own = determining(dataclasses.replace(strategy, name="one", budgets=None))
        fields = plain(strategy.schedule)
        own["schedule"] = {name: value for name, value in fields.items() if not isinstance(value, int | float)}
        found.setdefault(str(own), []).append(strategy.name)
    return {members[0]: members for members in found.values()}


def outcomes(experiment: Experiment, runs: Sequence[RunRecord]) -> dict[str, list[Tried]]:
    """Returns what came out of the members of every family at each learning rate."""
    longest = [run for run in runs if run.description.budget == experiment.budgets[-1]]
    return {
        family: [
            tried
            for name in members
            for rate in experiment.student_training.learning_rates
            if (tried := _tried(experiment, name, rate, longest)) is not None
        ]
        for family, members in families(experiment).items()
    }


def _tried(experiment: Experiment, name: str, rate: float, runs: Sequence[RunRecord]) -> Tried | None:
    loss, columns = experiment.strategy(name).loss, []
    for run in runs:
        if name in run.description.strategies:
            columns += [
                run.evaluation.accuracy[:, place]
                for place, replica in enumerate(run.description.replicas)
                if replica.loss == loss and replica.learning_rate == rate
            ]
    if not columns:
        return None
    curves = np.stack(columns)
    return Tried(name, rate, float(curves[:, -1].mean()), float(curves.mean()))


def _further(experiment: Experiment, best: Sequence[float]) -> dict[str, float]:
    """Returns the next learning rate below and above the grid, where a best one lies at that edge of it."""
    tuning, rates = experiment.tuning, experiment.student_training.learning_rates
    assert tuning is not None
    below, above = min(rates) / tuning.factor, max(rates) * tuning.factor
    found = {}
    if min(best) == min(rates) and below >= tuning.lowest:
        found["below"] = below
    if max(best) == max(rates) and above <= tuning.highest:
        found["above"] = above
    return found


def _with_rates(experiment: Experiment, rates: Sequence[float]) -> Experiment:
    training = dataclasses.replace(experiment.student_training, learning_rates=tuple(rates))
    return dataclasses.replace(experiment, student_training=training)


def _record(experiment: Experiment, tried: Mapping[str, list[Tried]], best: Mapping[str, Tried]) -> dict[str, Any]:
    rates = sorted(experiment.student_training.learning_rates)
    return {
        "rule": RULE,
        "seeds": experiment.student_training.seeds,
        "teacher_seed": experiment.teacher_training.seed,
        "learning_rates": rates,
        "chosen": {
            family: {**one._asdict(), "at_the_edge": one.learning_rate in (rates[0], rates[-1])}
            for family, one in best.items()
        },
        "tried": [one._asdict() for found in tried.values() for one in found],
    }
