"""The report's tables as they are written to CSV: recorded values in full precision."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from pdjax.report.claims import ClaimResult
from pdjax.report.curricula import curricula_of
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
    """Returns every table of the report; those of sizes and probes where there are any."""
    measured = (sizes_table(results), correlations_table(results), attention_table(results))
    return [
        students_table(results),
        claims_table(claims),
        teacher_table(results),
        curricula_table(results),
        runs_table(results),
        *(table for table in measured if table.rows),
    ]


def students_table(results: Results) -> Table:
    """Final held-out accuracy (a fraction) and loss (nats per selected position or input) of every strategy and budget.

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
    """The teachers' held-out loss (nats per selected position or input) and accuracy (a fraction) by seed and step."""
    rows: list[tuple[Cell, ...]] = []
    if results.teacher is not None:
        curves = results.teacher.evaluation
        for column, replica in enumerate(results.teacher.description.replicas):
            values = (curves.steps.tolist(), curves.loss[:, column].tolist(), curves.accuracy[:, column].tolist())
            rows += [(replica.seed, *row) for row in zip(*values, strict=True)]
    return Table("teacher", ("seed", "step", "loss", "accuracy"), rows)


def curricula_table(results: Results) -> Table:
    """Which checkpoint (teacher step) each run learns from, from one student step (inclusive) to another.

    Seed and learning rate are empty where all students of the run share the curriculum.
    """
    rows: list[tuple[Cell, ...]] = []
    for (strategy, budget), run in results.runs.items():
        for replica, legs in curricula_of(run):
            who = (None, None) if replica is None else (replica.seed, replica.learning_rate)
            rows += [(strategy, budget, *who, *leg) for leg in legs]
    columns = ("strategy", "budget", "seed", "learning_rate", "from_step", "to_step", "teacher_step")
    return Table("curricula", columns, rows)


def sizes_table(results: Results) -> Table:
    """Final held-out accuracy (a fraction) of models of other sizes, and its mean over all evaluations of training.

    Unfinished runs have rows that say so and no values.
    """
    columns = ("panel", "label", "learning_rate", "state", "seeds", "accuracy_mean", "accuracy_low", "accuracy_high")
    columns += ("accuracy_over_training",)
    states = {state.name: state.text for state in results.states}
    rates = () if results.config.sizes is None else results.config.sizes.learning_rates
    rows: list[tuple[Cell, ...]] = []
    for (panel, label), rate in itertools.product(results.size_runs, rates):
        head = (panel, label, rate, states[f"{panel}/{label}"])
        arm = results.size_arms.get((panel, label, rate))
        if arm is None or not arm.run.complete:
            rows.append((*head, *[None] * (len(columns) - len(head))))
            continue
        accuracy = mean_interval(arm.final_accuracy)
        numbers = (accuracy.size, accuracy.mean, accuracy.low, accuracy.high, float(arm.accuracy.mean()))
        rows.append((*head, *numbers))
    return Table("sizes", columns, rows)


def correlations_table(results: Results) -> Table:
    """Correlations of the teachers' predictions by seed, step, group and degree: mean and deviation over monomials.

    Group -1 is off the support; the others are features, 0 the only one or the tree's root.
    """
    rows: list[tuple[Cell, ...]] = []
    record = results.monomials
    if record is not None:
        pairs = sorted(set(zip(record.groups.tolist(), record.degrees.tolist(), strict=True)))
        for place, seed in enumerate(record.seeds):
            for group, degree in pairs:
                values = record.values[:, place, record.chosen(degree, group)]
                means, deviations = values.mean(axis=1).tolist(), values.std(axis=1).tolist()
                for step, mean, deviation in zip(record.steps.tolist(), means, deviations, strict=True):
                    rows.append((seed, step, group, degree, values.shape[1], mean, deviation))
    columns = ("seed", "step", "group", "degree", "monomials", "correlation_mean", "correlation_deviation")
    return Table("correlations", columns, rows)


def attention_table(results: Results) -> Table:
    """Attention of the teachers' last position, summed over heads: to the support, and on average to a position off it.

    Both are medians over inputs; the second is empty where the support is not recorded.
    """
    rows: list[tuple[Cell, ...]] = []
    record = results.attention
    if record is not None:
        support = results.support
        off = [p for p in range(record.positions.shape[2]) if support is not None and p not in support]
        for place, seed in enumerate(record.seeds):
            for at, step in enumerate(record.steps.tolist()):
                others = float(record.positions[at, place, off].mean()) if off else None
                rows.append((seed, step, float(record.support[at, place]), others))
    return Table("attention", ("seed", "step", "support", "other_position_mean"), rows)


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
