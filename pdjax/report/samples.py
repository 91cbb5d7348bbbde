"""How many samples students needed to find the support, by what they learned from, and exponents of such numbers."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from pdjax.report.results import Results
from pdjax.report.stats import CONFIDENCE, Interval
from pdjax.tasks.parity import ParityTask

LABELS, FIRST, FINAL, BETWEEN = "labels", "progressive", "one-shot", "between"
"""Sources: labels, the checkpoint after the teacher's first stage, its last one, and those between them."""

ALIGNED = ", aligned teachers"
"""Behind the source where the initial weights of teachers are aligned on the support."""

_RESAMPLES = 2000
_MOST_LOST = 0.05  # of the resamples may have no exponent


class Setting(NamedTuple):
    """A sparse parity."""

    dimension: int
    degree: int


def searched(results: Results) -> pd.DataFrame:
    """Returns the sizes that searches found, in the experiment and its variants; empty where there were none.

    A row for each source, step and unit, which is a teacher (its median student), or of labels a student: its
    ``dimension``, ``degree``, ``source``, ``step``, ``unit``, ``samples`` (infinite where not enough), ``separated``
    (whether the smallest of its teacher's ``|E f x_j|`` in the support is above the largest off it; labels: True) and
    ``error`` (the teacher's expected hinge loss; labels: 0).
    """
    rows = [row for one in (results, *results.variants.values()) for row in _rows(one)]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype({"samples": float, "error": float, "separated": bool})


COLUMNS = ("dimension", "degree", "source", "step", "unit", "samples", "separated", "error")


def _rows(results: Results) -> Iterator[tuple[object, ...]]:
    task, table = results.experiment.task, results.table
    teachers = table[table.role == "teacher"]
    # Teachers of mean gradients are no examples of the exact one.
    if getattr(results.experiment.teacher_training.optimizer, "support", None) is None:
        return
    if not isinstance(task, ParityTask) or "enough" not in teachers or teachers.empty:
        return
    setting = Setting(task.dimension, task.degree)
    enough = teachers.value.where(teachers.enough == 1, np.inf)
    teachers = teachers.assign(value=teachers.value.where(~teachers.measure.str.endswith("samples"), enough))
    for student, value in teachers[teachers.measure == "label_samples"].groupby("student").value.first().items():
        yield *setting, LABELS, 0, student, value, True, 0.0
    found = teachers[teachers.measure == "samples"]
    hinges = teachers[teachers.measure == "hinge"].set_index(["step", "seed"]).value
    first, last = found.step.min(), results.last_teacher_step
    suffix = ALIGNED if getattr(results.experiment.teacher, "aligned", False) else ""
    for (step, seed), rows in found.groupby(["step", "seed"]):
        source = {first: FIRST, last: FINAL}.get(step, BETWEEN) + suffix
        # Of an even number of students the larger of the two in the middle: half of them were found with it.
        samples = float(np.sort(rows.value)[len(rows) // 2])
        separated = _separated(teachers[(teachers.step == step) & (teachers.seed == seed)], task)
        yield *setting, source, step, seed, samples, separated, float(hinges.get((step, seed), np.nan))


def _separated(rows: pd.DataFrame, task: ParityTask) -> bool:
    sizes = rows[rows.measure == "coefficient"].set_index("coordinate").value.abs()
    inside = sizes.index.isin(task.features[0])
    return bool(sizes[inside].min() > sizes[~inside].max()) if len(sizes) else False


def exponent(values: Mapping[float, Sequence[float]]) -> Interval | None:
    """Returns the slope of log median against log x, with a bootstrap interval over units.

    Least squares over the points of the medians. Units are resampled at every x by itself; ``size`` is how many there
    are at the x that has fewest. None where less than two x have a finite median, or where more than a twentieth of the
    resamples have none: too few units were found.

    Args:
      values: of every unit, by x; infinite where a search ended without one.
    """
    x = np.log(np.array(list(values), float))
    units = [np.log(np.asarray(each, float)) for each in values.values()]
    medians = np.array([_median(each) for each in units])
    if len(x) < 2 or not np.all(np.isfinite(medians)):
        return None
    generator = np.random.default_rng(0)
    resampled = np.array(
        [[_median(generator.choice(each, len(each))) for each in units] for _ in range(_RESAMPLES)]
    )  # [resamples, x]
    resampled = resampled[np.all(np.isfinite(resampled), axis=1)]
    if len(resampled) < (1 - _MOST_LOST) * _RESAMPLES:
        return None
    slopes = np.polyfit(x, resampled.T, 1)[0]
    low, high = np.quantile(slopes, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(np.polyfit(x, medians, 1)[0]), float(low), float(high), min(map(len, units)))


def _median(values: Float[np.ndarray, "U"]) -> float:
    """Returns the median, infinite where half of the values are; of two in the middle the larger."""
    return float(np.sort(values)[len(values) // 2])


def by(rows: pd.DataFrame, axis: str) -> dict[float, list[float]]:
    """Returns the samples of every unit by a column; of teachers those alone from which the support can be found."""
    return {float(x): each.samples.tolist() for x, each in rows[rows.separated].groupby(axis)}


def series(rows: pd.DataFrame, axis: str, other: str) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Yields the rows of each source at each value of the other column that at least two of the axis have."""
    sources = (LABELS, FIRST, FIRST + ALIGNED, FINAL, FINAL + ALIGNED)
    for source, value in itertools.product(sources, sorted(rows[other].unique())):
        chosen = rows[(rows.source == source) & (rows[other] == value)]
        if chosen[axis].nunique() > 1:
            yield source, value, chosen
