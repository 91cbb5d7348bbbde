"""Choosing checkpoints from what is recorded about the teacher; writes ``selection.json``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pdjax.distill.phases import (
    Phases,
    RobustPeak,
    Spike,
    Transition,
    find_loss_phases,
    find_robust_peak,
    find_spikes,
    find_transition,
)
from pdjax.distill.selection import Chosen
from pdjax.experiment import Experiment
from pdjax.io.probe_records import read_monomials, read_ngrams
from pdjax.io.records import read_run
from pdjax.io.selection import SelectionRecord, write_selection


def select_checkpoints(experiment: Experiment, workdir: Path, available: Sequence[int]) -> dict[str, Chosen]:
    """Finds the phases, the transition and the spikes of the teacher's training, and each strategy's checkpoints.

    Raises:
      UserError: the training did not show what a selection needs, or a checkpoint is not stored.
    """
    transitions = _find_transitions(experiment, workdir, available)
    # Students learn from the first of the teachers.
    phases = recorded_phases(workdir, transitions[0])
    chosen = {
        strategy.name: strategy.selection.select(available, phases)
        for strategy in experiment.strategies
        if strategy.loss.asks_teacher
    }
    record = SelectionRecord(phases.loss, tuple(transitions), phases.spikes, phases.robust_peak, chosen)
    write_selection(workdir, record)
    return chosen


def recorded_phases(workdir: Path, transition: Transition | None) -> Phases:
    """Reads the curves of the teacher that students learn from, and its probes if there are any."""
    run = read_run(workdir / "teacher")
    # Where a teacher from elsewhere tells its losses, they lie closer than its checkpoints.
    curves = run.source if len(run.source.steps) else run.evaluation
    # [E, R]: the first column is the teacher that students learn from, here and in the probes' records.
    loss = find_loss_phases(curves.steps, curves.loss[:, 0])
    return Phases(loss, transition, _find_spikes(workdir), _find_robust_peak(workdir))


def _find_transitions(experiment: Experiment, workdir: Path, available: Sequence[int]) -> list[Transition | None]:
    """Finds the rise of every teacher's accuracy, from checkpoint to checkpoint.

    Evaluations between checkpoints do not count: a checkpoint that is merely near one of them need not have risen.
    """
    curves = read_run(workdir / "teacher").evaluation
    task = experiment.task
    if task.predicts == "positions":  # guessing is not right equally often, and the loss has phases instead
        return [None] * curves.accuracy.shape[1]
    stored = np.isin(curves.steps, available)
    # [S, E]: a row for each teacher.
    columns = curves.accuracy[stored].T
    return [find_transition(curves.steps[stored], column, 1 / task.num_classes) for column in columns]


def _find_spikes(workdir: Path) -> tuple[Spike, ...] | None:
    record = read_monomials(workdir)
    if record is None or not record.low_degrees():
        return None
    # The noise off the support, [E], is that of the same degrees as the features' correlations, [E, G].
    degrees = record.low_degrees()
    levels = range(record.num_features)
    inside = np.stack([np.mean([record.mean(d, g)[:, 0] for d in degrees], axis=0) for g in levels], axis=1)
    outside = np.mean([record.mean(degree, -1)[:, 0] for degree in degrees], axis=0)
    return find_spikes(record.steps, inside, outside)


def _find_robust_peak(workdir: Path) -> RobustPeak | None:
    record = read_ngrams(workdir)
    return None if record is None else find_robust_peak(record.steps, record.median("robust")[:, 0], record.n)
