"""Which checkpoint each student learned from, and when, as tables and in words."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from pdjax.io.records import Replica, RunRecord

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
