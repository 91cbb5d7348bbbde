"""The students' accuracy after training against its length (figures 1 right, 24, 25 and 30)."""

from collections.abc import Iterator

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pdjax.experiment import Comparison
from pdjax.report import stats, style
from pdjax.report.figures.drawing import (
    Looks,
    ReportFigure,
    accuracy_label,
    by_rate_and_best,
    count_units,
    curves,
    drawn,
    grid,
    labelled,
    legend_above,
    looks,
    of_the_choice,
    of_the_paper,
    rate_labels,
    step_text,
)
from pdjax.report.results import Results


def budget_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws what is compared over training by budget, if there are several, and every comparison by budget."""
    asked = {
        f"budgets_{key}": comparison for key, comparison in results.comparisons.items() if comparison.kind == "budgets"
    }
    if len(results.budgets) > 1 and results.strategies:
        name = "accuracy_by_budget"
        asked = {name: Comparison(name, "Accuracy by budget", tuple(results.compared)), **asked}
    for rate, suffix, of_rate in by_rate_and_best(results):
        for name, comparison in asked.items():
            found = [results.finished(key, rate, b) for key in comparison.strategies for b in results.budgets]
            groups = [group for group in found if group is not None]
            if groups:
                labels = rate_labels(results, groups) if rate is None else {}
                table = labelled(results, groups, labels=labels)
                shown = table[table.step == table.budget], looks(results, labels), results.teacher_accuracy
                left_out = " Unfinished runs are left out." if results.unfinished else ""
                caption = (
                    "Final held-out accuracy of the students against their training budget, on a logarithmic axis: "
                    f"mean over {count_units(groups)} with 95% Student t confidence intervals (moved sideways so that "
                    "they do not cover each other), single seeds as faint points, the teacher's final accuracy as a "
                    f"dashed line.{of_the_choice(results, rate)}{left_out}{of_the_paper(comparison.figure)}"
                )
                label = accuracy_label(results, "final held-out accuracy")
                yield drawn(f"{name}{suffix}", f"{comparison.title}{of_rate}", caption, draw_budgets, *shown, label)


def draw_budgets(table: pd.DataFrame, looks: Looks, teacher: float | None, y_label: str) -> Figure:
    """Draws final accuracy against the budget, a line for each strategy."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    budgets, labels = sorted(table.budget.unique().tolist()), list(table.label.unique())
    between = (4 * budgets[-1] / budgets[0]) ** (0.02 / max(len(labels), 5))  # how far apart strategies are drawn
    shift = table.label.map(labels.index) - (len(labels) - 1) / 2
    moved = table.assign(step=table.budget * between**shift)
    curves(axes, moved, looks, errorbar=None)
    for _, rows in moved.groupby(["label", "step"]):
        place, color = rows.step.iloc[0], looks.palette[rows.label.iloc[0]]
        axes.plot([place] * 2, stats.band(low=0.0, high=1.0)(rows.value), color=color, linewidth=1.4, marker="_")
    sns.scatterplot(moved, x="step", y="value", alpha=0.35, s=22, linewidth=0, legend=False, ax=axes, **looks.bars)
    if teacher is not None:
        axes.axhline(teacher, color=style.TEACHER_COLOR, linestyle="--", linewidth=1.2, label="teacher, final")
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_xticks(budgets, [step_text(budget, budgets[-1]) for budget in budgets])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set(ylim=(max(low, 0), min(high, 1.005)), xlabel="student's training budget (steps)", ylabel=y_label)
    legend_above(figure)
    return figure
