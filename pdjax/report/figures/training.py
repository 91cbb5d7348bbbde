"""The students' accuracy over training (figures 1 left, 2, 8, 9, 13 to 15, 18 and 19)."""

import itertools
from collections.abc import Iterator, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.experiment import Comparison
from pdjax.report.figures.drawing import (
    Looks,
    ReportFigure,
    accuracy_label,
    by_rate_and_best,
    count_units,
    curves,
    drawn,
    fit,
    grid,
    labelled,
    legend_above,
    looks,
    of_the_choice,
    of_the_paper,
    rate_labels,
    set_step_axis,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results


def training_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws every comparison over training for each budget: with the best learning rate of each strategy, and every."""
    if not results.strategies:
        return
    everything = Comparison("all", "All strategies", tuple(results.strategies))
    for rate, suffix, of_rate in by_rate_and_best(results):
        for key, comparison in (results.comparisons or {"all": everything}).items():
            for budget in results.budgets if comparison.kind == "training" else ():
                found = [results.group(strategy, rate, budget) for strategy in comparison.strategies]
                groups = [group for group in found if group is not None]
                if groups:
                    labels = rate_labels(results, groups) if rate is None else {}
                    moving = _moves(results, groups)
                    shown = labelled(results, groups, labels=labels), looks(results, labels)
                    name, title = f"training_{key}_{budget}{suffix}", f"{comparison.title}, {budget:,} steps{of_rate}"
                    caption = _caption(
                        results, groups, not moving.empty, of_the_choice(results, rate), comparison.figure
                    )
                    others = results.teacher_curve(), moving, accuracy_label(results)
                    yield drawn(name, title, caption, draw_training, *shown, *others)


def _moves(results: Results, groups: Sequence[Group]) -> pd.DataFrame:
    """Returns the step of every student at which it moves on to the next checkpoint, by strategy."""
    own = [
        (seed, one.runs[found.strategy, found.budget], found)
        for (seed, one), group in itertools.product(results.by_teacher.items(), groups)
        if (found := one.group(group.strategy, group.learning_rate, group.budget)) is not None
    ]
    rows = [
        (group.strategy, (seed, model), step)
        for seed, run, group in own
        for model in group.models
        for step in run.starts[int(model.rsplit("/", 1)[1])][1:]
    ]
    return pd.DataFrame(rows, columns=pd.Index(["strategy", "model", "step"]))


def _caption(results: Results, groups: Sequence[Group], moving: bool, choice: str, figure: str | None) -> str:
    unfinished = ", ".join(results.labels[group.strategy] for group in groups if not group.complete)
    ticks = (
        " Ticks at the bottom, in a strategy's colour: its students move on to the next teacher checkpoint (the "
        "fainter, the fewer of them)."
    )
    return (
        f"Held-out accuracy during training: mean over {count_units(groups)} with 95% Student t bands, cut off where "
        f"they leave the range of the values. The thin grey line is the teacher over its own steps."
        f"{ticks if moving else ''}{choice}{f' Unfinished: {unfinished}.' if unfinished else ''}"
        f"{of_the_paper(figure, 'The training curves of')}"
    )


def draw_training(
    table: pd.DataFrame, looks: Looks, teacher: pd.DataFrame, moves: pd.DataFrame, y_label: str
) -> Figure:
    """Draws held-out accuracy by step, with ticks in a strategy's colour where its students move on."""
    figure, (axes,) = grid(1, columns=1, height=4.2)
    curves(axes, table, looks)
    if not teacher.empty:
        sns.lineplot(teacher, x="step", y="value", color="#999999", linewidth=1, zorder=1.5, label="teacher", ax=axes)
    row = min(0.05, 0.22 / max(moves.strategy.nunique(), 1))  # of the axes: never more than a quarter of them
    for number, (strategy, steps) in enumerate(moves.groupby("strategy", sort=False)):
        share = steps.step.value_counts() / steps.model.nunique()
        color, ends = (
            looks.palette[table.label[table.strategy == strategy].iloc[0]],
            (row * (number + 0.15), row * (number + 0.9)),
        )
        axes.vlines(share.index, *ends, color, alpha=share.clip(0.35), transform=axes.get_xaxis_transform())
    tick = Line2D(
        [], [], label="next teacher checkpoint", color="#444444", marker="|", linestyle="none", markeredgewidth=2
    )
    budget = int(table.budget.iloc[0])
    values = pd.concat([table.value, teacher.value[teacher.step <= budget]])
    fit(axes, values, room=row * (moves.strategy.nunique() + 0.5))
    axes.set(xlim=(0, 1.01 * budget), ylabel=y_label)
    set_step_axis(axes, "student's training steps")
    legend_above(figure, *([] if moves.empty else [tick]))
    return figure
