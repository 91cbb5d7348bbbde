"""Tables of runs, of what came out of them, and of the verdicts."""

import itertools
from collections.abc import Sequence

from pdjax.distill.losses import Labels, Loss, Ramp
from pdjax.report.claims import ClaimResult
from pdjax.report.curricula import curricula_of
from pdjax.report.results import Results
from pdjax.report.stats import mean_interval
from pdjax.report.tables.table import Cell, Table
from pdjax.report.variants import group_in, relative_gap, variants_of


def students_table(results: Results) -> Table:
    """Final held-out accuracy (a fraction) and loss (nats per place that counts) of every strategy and budget.

    Unfinished runs have a row that says so and no values. ``run`` is the run's directory, ``run_seconds`` its
    wall-clock time: it trains the students of all seeds, learning rates and losses with one curriculum together. Two
    strategies with the same run and the same loss have the same students.
    """
    seeds = results.experiment.student_training.seeds
    columns = ("strategy", "label", "temperature", "label_weight", "learning_rate", "budget", "run", "state", "seeds")
    columns += ("accuracy_mean", "accuracy_low", "accuracy_high", "loss_mean", "run_seconds")
    columns += tuple(f"accuracy_seed_{seed}" for seed in seeds)
    states = {state.name: state.text for state in results.states}
    rows: list[tuple[Cell, ...]] = []
    for strategy, rate, budget in itertools.product(results.labels, results.learning_rates, results.budgets):
        if not results.asks(strategy, budget):
            continue
        group = results.groups.get((strategy, rate, budget))
        run, state = (
            (None, "not started") if group is None else (group.run.description.name, states[group.run.description.name])
        )
        head = (
            strategy,
            results.labels[strategy],
            *_numbers(results.strategies[strategy].loss),
            rate,
            budget,
            run,
            state,
        )
        if group is None or not group.run.complete:
            rows.append((*head, *[None] * (len(columns) - len(head))))
            continue
        accuracy, loss = mean_interval(group.final_accuracy), mean_interval(group.loss[-1])
        by_seed = dict(zip(group.seeds, group.final_accuracy.tolist(), strict=True))
        numbers = (accuracy.size, accuracy.mean, accuracy.low, accuracy.high, loss.mean, group.run.seconds)
        rows.append((*head, *numbers, *(by_seed.get(seed) for seed in seeds)))
    return Table("students", columns, rows)


def _numbers(loss: Loss) -> tuple[Cell, Cell]:
    """Returns the temperature and the label weight of a loss, as far as it has such; labels alone weigh 1."""
    if isinstance(loss, Labels):
        return 0.0, 1.0
    values = [loss.numbers.get(name) for name in ("temperature", "label_weight")]
    temperature, weight = (f"{v.first:g} to {v.last:g}" if isinstance(v, Ramp) else v for v in values)
    return temperature, weight


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """One row per measurement: the mean, its 95% interval and the verdict of the case it belongs to."""
    rows: list[tuple[Cell, ...]] = []
    for claim in claims:
        for quantity, interval, note in claim.measurements or ((None, None, ""),):
            numbers = (None,) * 4 if interval is None else (interval.mean, interval.low, interval.high, interval.size)
            rows.append((claim.statement.name, claim.case, quantity, *numbers, claim.verdict, note or claim.note))
    return Table("claims", ("claim", "case", "quantity", "mean", "low", "high", "seeds", "verdict", "note"), rows)


def teacher_table(results: Results) -> Table:
    """The teachers' held-out loss (nats per place that counts) and accuracy (a fraction) by seed and step."""
    rows: list[tuple[Cell, ...]] = []
    if results.teacher is not None:
        curves = results.teacher.evaluation
        for index, replica in enumerate(results.teacher.description.replicas):
            values = (curves.steps.tolist(), curves.loss[:, index].tolist(), curves.accuracy[:, index].tolist())
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
    rates = () if results.experiment.sizes is None else results.experiment.sizes.learning_rates
    rows: list[tuple[Cell, ...]] = []
    for (panel, label), rate in itertools.product(results.size_runs, rates):
        head = (panel, label, rate, states[f"{panel}/{label}"])
        group = results.size_groups.get((panel, label, rate))
        if group is None or not group.run.complete:
            rows.append((*head, *[None] * (len(columns) - len(head))))
            continue
        accuracy = mean_interval(group.final_accuracy)
        numbers = (accuracy.size, accuracy.mean, accuracy.low, accuracy.high, float(group.accuracy.mean()))
        rows.append((*head, *numbers))
    return Table("sizes", columns, rows)


def ablations_table(results: Results) -> Table:
    """Final held-out accuracy (a fraction) in every variant of the ablations, the experiment itself included.

    ``relative_gap`` is that of the mean of a progressive strategy over the best mean of one-shot strategies, as a share
    of it. What is not finished has no values.
    """
    all_results = (results, *results.ablations.values())
    seeds = sorted({seed for one in all_results for seed in one.experiment.student_training.seeds})
    columns = ("ablation", "variant", "replaced", "strategy", "label", "learning_rate", "budget", "seeds")
    columns += ("accuracy_mean", "accuracy_low", "accuracy_high", "relative_gap")
    columns += tuple(f"accuracy_seed_{seed}" for seed in seeds)
    rows: list[tuple[Cell, ...]] = []
    for key, ablation in results.asked_ablations.items():
        combinations = itertools.product(variants_of(results, key), results.learning_rates, sorted(ablation.budgets))
        for variant, rate, budget in combinations:
            groups = {strategy: group_in(results, variant, strategy, rate, budget) for strategy in ablation.strategies}
            for strategy, group in groups.items():
                head = (key, variant.name, variant.replaced, strategy, results.labels[strategy])
                if group is None:
                    rows.append((*head, rate, budget, *[None] * (len(columns) - 7)))
                    continue
                accuracy, gap = mean_interval(group.final_accuracy), relative_gap(results, groups, strategy)
                by_seed = dict(zip(group.seeds, group.final_accuracy.tolist(), strict=True))
                numbers = (accuracy.size, accuracy.mean, accuracy.low, accuracy.high, gap)
                head = (*head, group.learning_rate, budget)
                rows.append((*head, *numbers, *(by_seed.get(seed) for seed in seeds)))
    return Table("ablations", columns, rows)


def runs_table(results: Results) -> Table:
    """What every run that the configuration asks for has cost, and whether it is complete; those of ablations too."""
    experiments = {"": results}
    experiments |= {
        f"ablations/{key}/{variant}/": experiment for (key, variant), experiment in results.ablations.items()
    }
    rows: list[tuple[Cell, ...]] = []
    for prefix, experiment in experiments.items():
        for state in experiment.states:
            run, name = state.record, prefix + state.name
            replicas, seconds = (None, None) if run is None else (len(run.description.replicas), run.seconds)
            rows.append((name, state.text, state.budget, replicas, seconds, state.peak_memory_bytes or None))
    return Table("runs", ("run", "state", "steps", "replicas", "seconds", "peak_memory_bytes"), rows)
