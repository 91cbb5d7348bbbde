"""Which checkpoint each student learned from, and when, as tables and in words."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pdjax.distill.adaptive import AdaptiveSchedule
from pdjax.io.records import Replica, RunRecord
from pdjax.report.results import Results

_MOST_LEGS = 12  # of a curriculum that the page lists without folding it
_IN_WORDS_FROM = 5  # checkpoints; fewer are as quickly read one by one


class Leg(NamedTuple):
    """A stretch of a student's training with one checkpoint."""

    start: int  # student step, inclusive
    end: int | None  # student step, exclusive; None: an adaptive student is still at it
    teacher_step: int


class Curriculum(NamedTuple):
    """The checkpoints that a replica, or all replicas of a run alike, learned from."""

    replica: Replica | None  # None: all of the run
    legs: tuple[Leg, ...]


def curricula_of(run: RunRecord) -> list[Curriculum]:
    """Returns a run's curricula: one if its replicas share it, otherwise one for each; none without a teacher."""
    description = run.description
    if not description.teacher_steps:
        return []
    shared = len(set(run.starts)) == 1
    replicas = (None,) if shared else description.replicas
    ends_known = run.complete or len(description.starts) == len(description.teacher_steps)
    last = description.budget if ends_known else None
    curricula = []
    for replica, starts in zip(replicas, run.starts[:1] if shared else run.starts, strict=True):
        rows = zip(starts, (*starts, last)[1:], description.teacher_steps, strict=False)
        legs = tuple(Leg(*row) for row in rows if row[0] < description.budget)  # moving on at the end changes nothing
        curricula.append(Curriculum(replica, legs))
    return curricula


def in_words(legs: Sequence[Leg]) -> str | None:
    """Summarises a curriculum of equally spaced checkpoints at equal intervals; None if it is short or another kind."""
    if len(legs) < _IN_WORDS_FROM:
        return None
    waits = {b.start - a.start for a, b in itertools.pairwise(legs)}
    gaps = {b.teacher_step - a.teacher_step for a, b in itertools.pairwise(legs)}
    if max(waits) - min(waits) > 1 or max(gaps) - min(gaps) > 1:  # 1: rounded to whole steps
        return None
    about = "" if len(waits) == 1 else "about "
    return (
        f"{len(legs)} checkpoints, of teacher steps {legs[0].teacher_step:,} to {legs[-1].teacher_step:,} every "
        f"{'' if len(gaps) == 1 else 'about '}{min(gaps):,}; the student moves on every {about}{min(waits):,} steps"
    )


def curriculum_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns what is to be said about the strategies' checkpoints, once for those that do the same."""
    chosen = {} if results.selection is None else results.selection.chosen
    prominent = {results.labels[key] for key in results.prominent}
    names: dict[tuple[str, int | None, tuple[tuple[int, tuple[Curriculum, ...]], ...]], list[str]] = {}
    for strategy, label in results.labels.items():
        runs = [(budget, run) for (key, budget), run in results.runs.items() if key == strategy]
        tables = tuple((budget, tuple(curricula_of(run))) for budget, run in runs if run.description.teacher_steps)
        reason = chosen[strategy].reason if strategy in chosen else ""
        if tables or reason:
            schedule = results.strategies[strategy].schedule
            limit = schedule.limit if isinstance(schedule, AdaptiveSchedule) else None
            names.setdefault((reason, limit, tables), []).append(label)
    return [
        {
            "names": labels,
            "searched": not prominent.intersection(labels),
            "reason": reason,
            "tables": [_curriculum_table(results, budget, curricula, limit) for budget, curricula in tables],
        }
        for (reason, limit, tables), labels in names.items()
    ]


def shared_students(results: Results) -> list[tuple[str, str]]:
    """Returns the strategies whose students are the same: labels, and the budgets with which they are."""
    budgets_by_labels: dict[str, list[int]] = {}
    for alike, _, budget in results.cases(tuple(results.labels)):
        if len(alike) > 1:
            budgets = budgets_by_labels.setdefault(" = ".join(results.labels[key] for key in alike), [])
            budgets += [] if budget in budgets else [budget]
    return [(names, ", ".join(f"{budget:,}" for budget in budgets)) for names, budgets in budgets_by_labels.items()]


def moves_at_limit(curricula: Sequence[Curriculum], limit: int) -> tuple[int, int]:
    """Returns how many of the students' moves were made by the timer of an adaptive schedule, and how many there are.

    A student of a run whose replicas share their curriculum counts once.
    """
    lasted = [b.start - a.start for curriculum in curricula for a, b in itertools.pairwise(curriculum.legs)]
    return sum(steps >= limit for steps in lasted), len(lasted)


def _curriculum_table(
    results: Results, budget: int, curricula: Sequence[Curriculum], limit: int | None
) -> Mapping[str, Any]:
    """Returns a budget's curricula: rows of text and legs, in words where there are any, folded where they are long.

    Of an adaptive one with a ``limit`` the words say how often that was what made students move on.
    """
    several = len(results.learning_rates) > 1
    rows = []
    for replica, legs in curricula:
        rate = f", learning rate {replica.learning_rate}" if replica is not None and several else ""
        rows.append(("" if replica is None else f"seed {replica.seed}{rate}: ", legs))
    by_replica = any(curriculum.replica is not None for curriculum in curricula)
    counts = sorted({len(curriculum.legs) for curriculum in curricula})
    reached = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    moves_on = f"each student moves on by itself and comes to {reached} checkpoints"
    summary = moves_on if by_replica else in_words(curricula[0].legs)
    if limit is not None:
        timed, moves = moves_at_limit(curricula, limit)
        said = f"{timed} of {moves} moves came at the limit of {limit:,} steps, the others by what was learned"
        summary = said if summary is None else f"{summary}; {said}"
    folded = summary is not None or sum(len(legs) for _, legs in curricula) > _MOST_LEGS
    return {"budget": budget, "summary": summary, "folded": folded, "rows": rows}
