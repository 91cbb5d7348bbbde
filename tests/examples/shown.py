"""A figure and a claim for any experiment; in a file of their own they may change when all is trained.

Experiment(..., report=Report(figures=(LossOverTraining(),), claims=(SoonerThan("halfway", "one_shot", 0.5),)))
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import matplotlib.figure
import pandas as pd

from pdjax.findings import Claim, Figure
from pdjax.settings import Weight, settings


@settings
class LossOverTraining(Figure):
    """The held-out loss of all strategies over training, means over seeds."""

    name: ClassVar[str] = "loss_over_training"
    title: ClassVar[str] = "Loss over training"
    caption: ClassVar[str] = "Held-out loss of students by step, the mean over their seeds."

    logarithmic: bool = False
    """the axis of the loss"""

    def draw(self, table: pd.DataFrame) -> matplotlib.figure.Figure | None:
        """Draws a line for each strategy."""
        losses = table[(table.role == "student") & (table.measure == "loss")]
        if losses.empty:
            return None
        figure = matplotlib.figure.Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.add_subplot()
        losses.pivot_table(values="value", index="step", columns="strategy", sort=False).plot(ax=axes)
        axes.set(xlabel="student's training steps", ylabel="held-out loss (nats)")
        if self.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # the report draws text as it is written, not as mathematics
            axes.yaxis.set_minor_formatter("{x:g}")
        return figure


@settings
class SoonerThan(Claim):
    """One strategy reaches an accuracy in fewer steps than another."""

    name: ClassVar[str] = "sooner"
    text: ClassVar[str] = "Students of one strategy reach the accuracy in fewer steps than those of another."

    first: str
    second: str
    accuracy: Weight = 0.9

    def measure(self, table: pd.DataFrame) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Returns the steps that are saved, by seed, where both reach it."""
        reached = table[(table.measure == "accuracy") & (table.value >= self.accuracy)]
        sooner = reached.groupby(["strategy", "budget", "seed"]).step.min().unstack("seed")
        cases = {}
        for budget in table[table.strategy == self.first].budget.unique():
            pair = sooner.reindex([(self.first, budget), (self.second, budget)])
            saved = (pair.iloc[1] - pair.iloc[0]).dropna()
            cases[f"{self.first}, {budget} steps"] = {f"steps sooner than {self.second}": saved.tolist()}
        return cases
