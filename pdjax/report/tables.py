"""The report's tables as they are written to CSV: recorded values in full precision."""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from pdjax.report.claims import ClaimResult
from pdjax.report.results import Results
from pdjax.report.stats import mean_interval

Cell = str | int | float | None


class Table(NamedTuple):
    """A table; None and nan are empty cells."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def csv(self) -> str:
        """Returns the table as comma-separated values."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow("" if cell is None or _is_nan(cell) else cell for cell in row)
        return file.getvalue()


def all_tables(results: Results, claims: Sequence[ClaimResult]) -> list[Table]:
    """Returns every table of the report."""
    return [
        students_table(results),
        claims_table(claims),
        teacher_table(results),
        curricula_table(results),
        runs_table(results),
    ]


def students_table(results: Results) -> Table:
    """Final held-out accuracy (a fraction) and loss (nats per selected position) of every strategy and budget.

    Unfinished runs have a row that says so and no values. ``run_seconds`` is the wall-clock time of the whole
    run, which trains the students of all seeds and learning rates together.
    """
    seeds = results.config.student_training.seeds
    columns = ("strategy", "label", "learning_rate", "budget", "state", "seeds", "accuracy_mean", "accuracy_low")
    columns += ("accuracy_high", "loss_mean", "run_seconds", *(f"accuracy_seed_{seed}" for seed in seeds))
    states = {state.name: state.text for state in results.states}
    rows: list[tuple[Cell, ...]] = []
    for strategy, label in results.labels.items():
        for rate in results.learning_rates:
            for budget in results.budgets:
                arm = results.arms.get((strategy, rate, budget))
                state = "not started" if arm is None else states[arm.run.description.name]
                head = (strategy, label, rate, budget, state)
                if arm is None or not arm.run.complete:
                    rows.append((*head, *[None] * (len(columns) - len(head))))
                    continue
                accuracy, loss = mean_interval(arm.final_accuracy), mean_interval(arm.loss[-1])
                by_seed = dict(zip(arm.seeds, arm.final_accuracy.tolist(), strict=True))
                numbers = (accuracy.size, accuracy.mean, accuracy.low, accuracy.high, loss.mean, arm.run.seconds)
                rows.append((*head, *numbers, *(by_seed.get(seed) for seed in seeds)))
    return Table("students", columns, rows)


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """One row per measurement: the mean, its 95% interval and the verdict of the case it belongs to."""
    rows: list[tuple[Cell, ...]] = []
    for claim in claims:
        for quantity, interval, note in claim.measurements or ((None, None, ""),):
            numbers = (None,) * 4 if interval is None else (interval.mean, interval.low, interval.high, interval.size)
            rows.append((claim.statement.name, claim.case, quantity, *numbers, claim.verdict, note or claim.note))
    return Table("claims", ("claim", "case", "quantity", "mean", "low", "high", "seeds", "verdict", "note"), rows)


def teacher_table(results: Results) -> Table:
    """The teacher's held-out loss (nats per selected position) and accuracy (a fraction) by step."""
    rows: list[tuple[Cell, ...]] = []
    if results.teacher is not None:
        curves = results.teacher.evaluation
        steps, losses, accuracies = curves.steps.tolist(), curves.loss[:, 0].tolist(), curves.accuracy[:, 0].tolist()
        rows = list(zip(steps, losses, accuracies, strict=True))
    return Table("teacher", ("step", "loss", "accuracy"), rows)


def curricula_table(results: Results) -> Table:
    """Which checkpoint (teacher step) each run learns from, from one student step (inclusive) to another."""
    rows: list[tuple[Cell, ...]] = []
    for (strategy, budget), run in results.runs.items():
        starts, teacher_steps = run.description.starts, run.description.teacher_steps
        for start, end, teacher_step in zip(starts, (*starts, budget)[1:], teacher_steps, strict=True):
            rows.append((strategy, budget, start, end, teacher_step))
    return Table("curricula", ("strategy", "budget", "from_step", "to_step", "teacher_step"), rows)


def runs_table(results: Results) -> Table:
    """What every run that the configuration asks for has cost, and whether it is complete."""
    rows: list[tuple[Cell, ...]] = []
    for state in results.states:
        run = state.record
        replicas, seconds = (None, None) if run is None else (len(run.description.replicas), run.seconds)
        rows.append((state.name, state.text, state.budget, replicas, seconds, state.peak_memory_bytes or None))
    return Table("runs", ("run", "state", "steps", "replicas", "seconds", "peak_memory_bytes"), rows)


def _is_nan(cell: Cell) -> bool:
    return isinstance(cell, float) and math.isnan(cell)
