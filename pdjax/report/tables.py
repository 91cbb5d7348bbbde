"""The report's tables as they are written to CSV: what came out, in full precision."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pdjax.report.claims import Finding
from pdjax.report.curricula import curricula_of
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import interval
from pdjax.report.variants import group_in, relative_gap, variants_of

Rows = list[dict[str, Any]]


def all_tables(results: Results, findings: Sequence[Finding]) -> dict[str, pd.DataFrame]:
    """Returns every table by name, without those that have no rows."""
    tables = {
        "students": students(results),
        "claims": claims(findings),
        "curricula": curricula(results),
        "runs": runs(results),
        "sizes": sizes(results),
        "tuning": tuning(results),
        "ablations": ablations(results),
    }
    # As objects: an empty cell makes no fractions of the counts in its column.
    return {name: pd.DataFrame(rows, dtype=object) for name, rows in tables.items() if rows}


def students(results: Results) -> Rows:
    """Returns final held-out accuracy (a fraction) and loss (nats per prediction that counts) by strategy and budget.

    Unfinished runs have a row that says so and no values. ``run`` is the run's directory, ``run_seconds`` its
    wall-clock time: it trains the students of all seeds, learning rates and losses with one curriculum together.
    """
    rows: Rows = []
    states = {state.name: state.text for state in results.states}
    for key, rate, budget in itertools.product(results.labels, results.learning_rates, results.budgets):
        if not results.asks(key, budget):
            continue
        run, group = results.runs.get((key, budget)), results.group(key, rate, budget)
        name = "" if run is None else run.description.name
        of = rate if group is None else group.learning_rate
        row = {"strategy": key, "label": results.labels[key], "learning_rate": of, "budget": budget, "run": name}
        row |= {"state": states.get(name, "not started"), **_final(group)}
        if run is not None and group is not None and group.complete:
            same = [results.labels[other] for other in results.alike(key, rate, budget) if other != key]
            row |= {"loss_mean": group.final("loss").mean(), "run_seconds": run.seconds, "same": ", ".join(same)}
            row |= {"loss": group.rows.loss.iloc[0]}
        rows.append(row)
    return rows


def _final(group: Group | None) -> dict[str, Any]:
    """Returns what came out of a finished group: the mean, its 95% interval within [0, 1], and that of each unit."""
    if group is None or not group.complete:
        return {}
    final = group.final()
    found = interval(final.to_numpy()).clipped()
    by_unit = {f"accuracy_{group.unit}_{seed}": value for seed, value in final.items()}
    return {
        "count": found.size,
        "units": f"{group.unit}s",
        "accuracy_mean": found.mean,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
    } | by_unit


def claims(findings: Sequence[Finding]) -> Rows:
    """Returns every measured quantity: the mean, its 95% interval and the verdict of the case it belongs to."""
    rows: Rows = []
    for claim, case in ((finding.claim, case) for finding in findings for case in finding.cases):
        head = {"claim": claim.name, "case": case.name}
        for measurement in case.listed or (None,):
            found = None if measurement is None else measurement.interval
            numbers = (None,) * 4 if found is None else found
            row = {"quantity": None if measurement is None else measurement.quantity}
            row |= dict(zip(("mean", "low", "high", "count"), numbers, strict=True))
            row |= {"units": None if measurement is None or found is None else measurement.units}
            note = (measurement and measurement.note) or case.note
            rows.append({**head, **row, "verdict": case.verdict, "note": note})
    return rows


def curricula(results: Results) -> Rows:
    """Returns which checkpoint (teacher step) each run learns from, from one student step (inclusive) to another.

    Seed and learning rate are empty where all students of the run share the curriculum.
    """
    rows: Rows = []
    for (strategy, budget), run in results.runs.items():
        for replica, legs in curricula_of(run):
            seed, rate = (None, None) if replica is None else (replica.seed, replica.learning_rate)
            head = {"strategy": strategy, "budget": budget, "seed": seed, "learning_rate": rate}
            rows += [
                {**head, "from_step": leg.start, "to_step": leg.end, "teacher_step": leg.teacher_step} for leg in legs
            ]
    return rows


def sizes(results: Results) -> Rows:
    """Returns final held-out accuracy of models of other sizes, and its mean over all evaluations of training."""
    states = {state.name: state.text for state in results.states}
    rates = () if results.experiment.sizes is None else results.experiment.sizes.learning_rates
    rows: Rows = []
    for (panel, label), rate in itertools.product(results.size_runs, rates):
        group, run = results.size_groups.get((panel, label, rate)), results.size_runs[panel, label]
        row = {"panel": panel, "label": label, "learning_rate": rate, "state": states[f"{panel}/{label}"]}
        row |= _final(group)
        if run is not None and group is not None and group.complete:
            row |= {"accuracy_over_training": group.over().to_numpy().mean(), "run_seconds": run.seconds}
        rows.append(row)
    return rows


def tuning(results: Results) -> Rows:
    """Returns what came out of every strategy at every learning rate that was tried, and whether it was chosen."""
    chosen = [(one["strategy"], one["learning_rate"]) for one in results.tuned.get("chosen", {}).values()]
    return [
        {**one, "chosen": (one["strategy"], one["learning_rate"]) in chosen} for one in results.tuned.get("tried", ())
    ]


def ablations(results: Results) -> Rows:
    """Returns final held-out accuracy in every variant of the ablations, the experiment itself included.

    ``relative_gap`` is that of the mean of a progressive strategy over the best mean of one-shot strategies, as a share
    of it. What is not finished has no values.
    """
    rows: Rows = []
    for key, ablation in results.asked_ablations.items():
        combinations = itertools.product(variants_of(results, key), results.learning_rates, sorted(ablation.budgets))
        for variant, rate, budget in combinations:
            groups = {strategy: group_in(results, variant, strategy, rate, budget) for strategy in ablation.strategies}
            head = {"ablation": key, "variant": variant.name, "replaced": variant.replaced}
            for strategy, group in groups.items():
                who = {"strategy": strategy, "label": results.labels[strategy], "budget": budget}
                who |= {"learning_rate": rate if group is None else group.learning_rate}
                rows.append({**head, **who, **_final(group), "relative_gap": relative_gap(results, groups, strategy)})
    return rows


def runs(results: Results) -> Rows:
    """Returns what every run that the configuration asks for has cost, and how far it is; those of ablations too."""
    experiments: Mapping[str, Results] = {"": results} | {
        f"ablations/{ablation}/{variant}/": begun for (ablation, variant), begun in results.variants.items()
    }
    return [
        {
            "run": prefix + state.name,
            "state": state.text,
            "steps": state.budget,
            "replicas": None if state.record is None else len(state.record.description.replicas),
            "seconds": None if state.record is None else state.record.seconds,
            "peak_memory_bytes": state.peak_memory_bytes or None,
        }
        for prefix, experiment in experiments.items()
        for state in experiment.states
    ]
