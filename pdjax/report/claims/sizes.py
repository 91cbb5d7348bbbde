"""Claim R6: larger models learn faster."""

import itertools

import numpy as np
from jaxtyping import Float

from pdjax.io.records import RunRecord
from pdjax.report.claims.statement import ClaimResult, Measurement, Statement, decide, measured
from pdjax.report.results import Results

R6 = Statement(
    name="R6",
    text="Models with more heads (wider MLPs) learn faster, in each way of counting.",
    source="figures 7, 10, 23 and 28",
    rule="How fast a model learns is its held-out accuracy averaged over training, with the learning rate of the "
    "highest mean final accuracy (ties: of the faster). Sizes are paired by seed. The claim holds in a panel if the "
    "95% Student t interval of the largest minus the smallest lies above 0 and no interval of neighbouring sizes lies "
    "below 0; it fails if one lies below 0.",
)


def larger_models_learn_faster(results: Results) -> list[ClaimResult]:
    """Claim R6 (figures 7, 10, 23 and 28): for every panel of sizes, of ablations with sizes in every variant."""
    cases = _cases(results, "")
    for (key, variant), experiment in results.ablations.items():
        cases += _cases(experiment, f"{results.asked_ablations[key].title}: {variant}, ")
    return cases


def _cases(results: Results, prefix: str) -> list[ClaimResult]:
    cases = []
    for panel, models in results.panels.items():  # in increasing size
        runs = {label: results.size_runs[panel, label] for label in models}
        unfinished = [label for label, run in runs.items() if run is None or not run.complete]
        if unfinished or len(models) < 2:
            note = f"unfinished: {', '.join(unfinished)}" if unfinished else "one size alone"
            cases.append(ClaimResult(R6, prefix + panel, (), "not tested", note))
            continue
        speeds = {label: speed_by_seed(run) for label, run in runs.items() if run is not None}
        labels = list(speeds)
        extremes = _difference(speeds, labels[-1], labels[0])
        pairs = [_difference(speeds, large, small) for small, large in itertools.pairwise(labels)]
        verdict, note = decide((extremes,))
        if any(pair.interval is not None and pair.interval.high < 0 for pair in pairs):
            verdict = "fails"
        cases.append(ClaimResult(R6, prefix + panel, (extremes, *(pairs if len(pairs) > 1 else ())), verdict, note))
    return cases


def best_replicas(run: RunRecord) -> list[int]:
    """Returns the replicas of the learning rate with the highest mean final accuracy, by seed; ties: of the faster."""
    rates: dict[float, list[int]] = {}
    for index, replica in enumerate(run.description.replicas):
        rates.setdefault(replica.learning_rate, []).append(index)
    accuracy = run.evaluation.accuracy

    def merit(rate: float) -> tuple[float, float]:
        replicas = rates[rate]
        return round(float(accuracy[-1, replicas].mean()), 3), float(accuracy[:, replicas].mean())

    return sorted(rates[max(rates, key=merit)], key=lambda index: run.description.replicas[index].seed)


def speed_by_seed(run: RunRecord) -> Float[np.ndarray, "S"]:
    """Returns the accuracy averaged over training of each seed, with the best learning rate."""
    return run.evaluation.accuracy[:, best_replicas(run)].mean(axis=0)


def _difference(speeds: dict[str, Float[np.ndarray, "S"]], large: str, small: str) -> Measurement:
    return measured(f"{large} minus {small}", (speeds[large] - speeds[small]).tolist())
