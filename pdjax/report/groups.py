"""The models that a comparison is between, and the state of the runs that train them."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pdjax.io.records import RunRecord
from pdjax.report.text import count_text

_MODEL = ["teacher_seed", "seed"]
"""What tells the models of a group apart."""


def medians(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows without the percentiles of a measure other than its median."""
    return rows if "percentile" not in rows else rows[rows.percentile.isna() | (rows.percentile == 50)]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The models that differ in nothing but seeds: one strategy (or size), learning rate and budget."""

    strategy: str
    learning_rate: float
    budget: int  # steps
    complete: bool
    rows: pd.DataFrame  # of the table of results
    by_teacher: bool = False  # whether statements are about teachers, of which there are to be several

    @functools.cached_property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of their seeds."""
        return tuple(self.rows.sort_values(_MODEL, kind="stable").model.unique())

    @functools.cached_property
    def unit(self) -> str:
        """Over what models are averaged and paired: "seed", or "teacher" where there are several.

        Students of one teacher share it, and are no independent evidence about teachers: they count as their mean.
        """
        return "teacher" if self.by_teacher else "seed"

    @functools.cached_property
    def units(self) -> tuple[int, ...]:
        """The seeds of the units."""
        of = self.rows.teacher_seed if self.unit == "teacher" else self.rows.seed
        return tuple(sorted(of.unique().tolist()))

    @property
    def count(self) -> str:
        """Says of how many there are values: "3 seeds", or "5 teachers with 2 students each"."""
        if self.unit == "seed":
            return count_text(len(self.units), "seed")
        students = self.rows.groupby("teacher_seed").seed.nunique().unique().tolist()
        each = "students" if len(students) > 1 else f"{count_text(students[0], 'student')} each"
        return f"{count_text(len(self.units), 'teacher')} with {each}"

    def drawn(self, measure: str) -> pd.DataFrame:
        """Returns the rows of a measure with one for each unit: of a teacher the mean of its students."""
        rows = self.rows[self.rows.measure == measure]
        if self.unit == "seed":
            return rows
        alike = [name for name in rows if name not in ("seed", "model", "value")]
        means = rows.groupby(alike, dropna=False, sort=False).value.mean().reset_index()
        return means.assign(seed=means.teacher_seed, model=[f"teacher {seed}" for seed in means.teacher_seed])

    def over(self, measure: str = "accuracy") -> pd.DataFrame:
        """Returns a measure over training, the mean where it has several places: a row by step, a column by unit."""
        rows = medians(self.rows[self.rows.measure == measure])
        return self._by_unit(rows.groupby(["step", *_MODEL]).value.mean()).unstack(self.unit)

    def final(self, measure: str = "accuracy") -> pd.Series:
        """Returns a measure after the last step by unit, the mean where it has several places; empty if not there."""
        rows = medians(self.rows[(self.rows.measure == measure) & (self.rows.step == self.budget)])
        return self._by_unit(rows.groupby(_MODEL).value.mean())

    def _by_unit(self, values: pd.Series) -> pd.Series:
        """Returns values by model, and what else they have before it, by unit: of a teacher the mean of its students.

        A teacher of which some students have no value (yet) has none: its mean would be that of others.
        """
        other = [name for name in values.index.names if name not in _MODEL]
        level = "teacher_seed" if self.unit == "teacher" else "seed"
        keys = [*other, level]
        means = values.groupby(keys).mean().mask(values.isna().groupby(keys).any())
        return means.rename_axis(index={level: self.unit})

    def is_same(self, other: "Group") -> bool:
        """Whether these are the very same students, as those of strategies that differ in nothing are."""
        return self.models == other.models


def best(groups: Sequence[Group]) -> Group:
    """Returns the most accurate of groups that differ in the learning rate, by means over the units.

    Accuracy is that after the last evaluation that all of them have, which is the final one of finished runs, to 3
    decimals; of those with the same, the one that is more accurate over training.
    """
    curves = {place: group.over().mean(axis="columns") for place, group in enumerate(groups)}
    # One that has just begun has no evaluation in common with the others.
    evaluated = {place: curve for place, curve in curves.items() if curve.notna().any()}
    if not evaluated:
        return groups[0]
    means = pd.concat(evaluated, axis="columns").dropna()
    merits = {place: (round(float(mean.iloc[-1]), 3), float(mean.mean())) for place, mean in means.items()}
    return groups[max(evaluated, key=lambda place: merits[place])]


@dataclasses.dataclass(frozen=True)
class RunState:
    """How far a run that the configuration asks for has come."""

    name: str
    budget: int  # steps
    record: RunRecord | None  # None: not started
    peak_memory_bytes: int
    missing: int = 0
    """models that are asked for and not started, as an experiment has grown"""

    @property
    def evaluated_step(self) -> int:
        """The last step at which all models are evaluated."""
        if self.record is None:
            return 0
        curves = self.record.evaluation
        return int(max(curves.steps[np.isfinite(curves.accuracy).all(axis=1)], default=0))

    @property
    def complete(self) -> bool:
        """Whether the run is done."""
        return self.record is not None and self.record.complete and not self.missing

    @property
    def text(self) -> str:
        """The state in words."""
        if self.record is None:
            return "not started"
        if self.missing and self.record.complete:
            models = self.missing + len(self.record.description.replicas)
            return f"unfinished: {self.missing:,} of {models:,} models are not started"
        step = f"{self.evaluated_step:,} of {self.budget:,}"
        return "complete" if self.complete else f"unfinished: evaluated to step {step}"
