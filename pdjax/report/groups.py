"""The models that a comparison is between, and the state of the runs that train them."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pdjax.io.records import RunRecord

UNIT = ["teacher_seed", "seed"]
"""What tells the models of a group apart: students are paired by it."""


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

    @functools.cached_property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of their seeds."""
        return tuple(self.rows.sort_values(UNIT, kind="stable").model.unique())

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the models."""
        return tuple(sorted(self.rows.seed.unique().tolist()))

    def over(self, measure: str = "accuracy") -> pd.DataFrame:
        """Returns a measure over training, the mean where it has several places: a row by step, a column by unit."""
        rows = medians(self.rows[self.rows.measure == measure])
        return rows.groupby(["step", *UNIT]).value.mean().unstack(UNIT)

    def final(self, measure: str = "accuracy") -> pd.Series:
        """Returns a measure after the last step by unit, the mean where it has several places; empty if not there."""
        rows = medians(self.rows[(self.rows.measure == measure) & (self.rows.step == self.budget)])
        return rows.groupby(UNIT).value.mean()

    def is_same(self, other: "Group") -> bool:
        """Whether these are the very same students, as those of strategies that differ in nothing are."""
        return self.models == other.models


def best(groups: Sequence[Group]) -> Group:
    """Returns the most accurate of groups that differ in the learning rate, by means over the units.

    Accuracy is that after the last evaluation that all of them have, which is the final one of finished runs, to 3
    decimals; of those with the same, the one that is more accurate over training.
    """
    means = pd.concat([group.over().mean(axis="columns") for group in groups], axis="columns").dropna()
    merits = [(round(float(mean.iloc[-1]), 3), float(mean.mean())) for _, mean in means.items()]
    return groups[max(range(len(groups)), key=lambda index: merits[index])]


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
