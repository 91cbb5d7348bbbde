"""Rows of the page's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from pdjax.report.curricula import Curriculum, curricula_of, in_words
from pdjax.report.results import Results
from pdjax.report.stats import mean_interval
from pdjax.report.variants import Variant, variants_of

MOST_LEGS = 12
"""Of a curriculum that the page lists without folding it."""


def student_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns the finished students of every strategy, learning rate and budget."""
    rows = []
    for (strategy, rate, budget), group in results.groups.items():
        if group.run.complete:
            rows.append(
                {
                    "name": results.name(strategy, rate),
                    "same": [results.labels[key] for key in results.alike(strategy, rate, budget) if key != strategy],
                    "budget": budget,
                    "accuracy": mean_interval(group.final_accuracy),
                    "seeds": list(zip(group.seeds, group.final_accuracy.tolist(), strict=True)),
                    "loss": float(group.loss[-1].mean()),
                    "seconds": group.run.seconds,
                }
            )
    return sorted(rows, key=lambda row: row["budget"])


def curriculum_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns what is to be said about the strategies' checkpoints, once for those that do the same."""
    chosen = results.selection.get("strategies", {})
    prominent = {results.labels[key] for key in results.prominent}
    names: dict[tuple[str, tuple[tuple[int, tuple[Curriculum, ...]], ...]], list[str]] = {}
    for strategy, label in results.labels.items():
        runs = [(budget, run) for (key, budget), run in results.runs.items() if key == strategy]
        tables = tuple((budget, tuple(curricula_of(run))) for budget, run in runs if run.description.teacher_steps)
        reason = chosen.get(strategy, {}).get("reason", "")
        if tables or reason:
            names.setdefault((reason, tables), []).append(label)
    return [
        {
            "names": labels,
            "searched": not prominent.intersection(labels),
            "reason": reason,
            "tables": [_curriculum_table(results, budget, curricula) for budget, curricula in tables],
        }
        for (reason, tables), labels in names.items()
    ]


def shared_students(results: Results) -> list[tuple[str, str]]:
    """Returns the strategies whose students are the same: labels, and the budgets with which they are."""
    budgets_by_labels: dict[tuple[str, ...], list[int]] = {}
    for alike, _, budget in results.cases(tuple(results.labels)):
        budgets = budgets_by_labels.setdefault(tuple(results.labels[key] for key in alike), [])
        if len(alike) > 1 and budget not in budgets:
            budgets.append(budget)
    return [
        (" = ".join(labels), ", ".join(f"{budget:,}" for budget in budgets))
        for labels, budgets in budgets_by_labels.items()
        if budgets
    ]


def _curriculum_table(results: Results, budget: int, curricula: Sequence[Curriculum]) -> Mapping[str, Any]:
    """Returns a budget's curricula: rows of text and legs, in words where there are any, folded where they are long."""
    several = len(results.learning_rates) > 1
    rows = []
    for replica, legs in curricula:
        rate = f", learning rate {replica.learning_rate}" if replica is not None and several else ""
        rows.append(("" if replica is None else f"seed {replica.seed}{rate}: ", in_words(legs), legs))
    legs = sum(len(legs) for _, legs in curricula)
    by_replica = any(curriculum.replica is not None for curriculum in curricula)
    counts = sorted({len(curriculum.legs) for curriculum in curricula})
    reached = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    summary = f"each student moves on by itself and comes to {reached} checkpoints" if by_replica else rows[0][1]
    return {"budget": budget, "summary": summary, "folded": summary is not None or legs > MOST_LEGS, "rows": rows}


def size_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns the finished models of other sizes."""
    several = results.experiment.sizes is not None and len(results.experiment.sizes.learning_rates) > 1
    return [
        {
            "panel": panel,
            "label": f"{label}, learning rate {rate}" if several else label,
            "accuracy": mean_interval(group.final_accuracy),
            "over_training": float(group.accuracy.mean()),
            "seconds": group.run.seconds,
        }
        for (panel, label, rate), group in results.size_groups.items()
        if group.run.complete
    ]


def ablation_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns the ablations, each with what its variants replace, how far they have come and where they lie."""
    return [
        {
            "title": ablation.title,
            "figure": ablation.figure,
            "base": ablation.base,
            "variants": [_variant_row(key, variant) for variant in variants_of(results, key) if not variant.is_base],
        }
        for key, ablation in results.asked_ablations.items()
    ]


def _variant_row(key: str, variant: Variant) -> Mapping[str, Any]:
    results = variant.results
    row = {"name": variant.name, "replaced": variant.replaced, "directory": f"ablations/{key}/{variant.name}"}
    if results is None:
        return {**row, "state": "not started", "teacher": None, "own_teacher": True, "replicas": None, "seconds": None}
    complete = len(results.states) - len(results.unfinished)
    records = [state.record for state in results.states if state.record is not None]
    return {
        **row,
        "state": "complete" if not results.unfinished else f"{complete} of {len(results.states)} runs complete",
        "teacher": results.teacher_accuracy,
        "own_teacher": not results.shares_teacher,
        "replicas": sum(len(record.description.replicas) for record in records),
        "seconds": results.seconds,
    }
