"""How many samples of a first stage students needed to find the support, by what they learned from."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pdjax.report.results import Results
from pdjax.report.scaling import median
from pdjax.tasks.parity import ParityTask

LABELS, FIRST, FINAL, BETWEEN = "labels", "progressive", "one-shot", "between"
"""Sources: labels, the checkpoint after the teacher's first stage, its last one, and those between them."""

ALIGNED = ", aligned teachers"
"""Behind the source where the initial weights of teachers are aligned on the support."""

_COLUMNS = ("dimension", "degree", "source", "step", "unit", "samples", "tried", "separated", "error")


def searched(results: Results) -> pd.DataFrame:
    """Returns the sizes that searches found, in the experiment and its variants; empty where there were none.

    A row for each source, step and unit, which is a teacher (its median student), or of labels a student: its
    ``dimension``, ``degree``, ``source``, ``step``, ``unit``, ``samples`` (infinite where not enough), ``tried``
    (the most that were), ``separated`` (whether the smallest of its teacher's ``|E f x_j|`` in the support is known to
    be above the largest off it; labels: True) and ``error`` (the teacher's expected hinge loss, NaN where that is not
    measured; labels: 0).
    """
    rows = [row for one in (results, *results.variants.values()) for row in _rows(one)]
    return pd.DataFrame(rows, columns=pd.Index(_COLUMNS)).astype({"samples": float, "separated": bool})


def _rows(results: Results) -> Iterator[tuple[object, ...]]:
    task, rule = results.experiment.task, results.experiment.teacher_training.optimizer
    teachers = results.table[results.table.role == "teacher"]
    # Teachers of mean gradients are no examples of the exact one.
    exact = bool(getattr(rule, "support", ()))
    if not exact or not isinstance(task, ParityTask) or "enough" not in teachers:
        return
    searches = teachers[teachers.enough.notna()]
    searches = searches.assign(tried=searches.value, value=searches.value.where(searches.enough == 1, np.inf))
    # All teachers have those of the labels beside them.
    of_labels = searches[searches.measure == "label_samples"].drop_duplicates("student")
    for student, value, tried in zip(of_labels.student, of_labels.value, of_labels.tried, strict=True):
        yield task.dimension, task.degree, LABELS, 0, student, value, tried, True, 0.0
    found = searches[searches.measure == "samples"]
    hinges = teachers[teachers.measure == "hinge"].set_index(["step", "seed"]).value
    first, last = rule.turns.get("first_steps"), results.last_teacher_step
    suffix = ALIGNED if getattr(results.experiment.teacher, "aligned", False) else ""
    for (step, seed), rows in found.groupby(["step", "seed"]):
        source = {first: FIRST, last: FINAL}.get(step, BETWEEN) + suffix
        samples, tried = float(median(rows.value.to_numpy())), rows.tried.max()
        separated = _separated(teachers[(teachers.step == step) & (teachers.seed == seed)], task)
        error = float(hinges.get((step, seed), np.nan))
        yield task.dimension, task.degree, source, step, seed, samples, tried, separated, error


def _separated(rows: pd.DataFrame, task: ParityTask) -> bool:
    rows = rows[rows.measure == "coefficient"]
    if rows.empty:  # and perhaps no column of coordinates
        return False
    sizes, inside = rows.value.abs(), rows.coordinate.isin(task.features[0])
    return bool(sizes[inside].min() > sizes[~inside].max())
