"""The students' accuracy during training, and after it against the budget (figures 1, 2, 8, 9, 13 to 15, 18, 19)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from pdjax.experiment import Comparison
from pdjax.report import style
from pdjax.report.figures.drawing import (
    POINT,
    ReportFigure,
    accuracy_label,
    add_legend,
    by_rate,
    drawn,
    looks,
    of_the_paper,
    set_levels,
    set_step_axis,
    shown,
    step_text,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import half_width, mean_interval
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask


def student_figures(results: Results) -> list[ReportFigure]:
    """Draws for every learning rate the accuracy by budget and, for every comparison and budget, during training."""
    figures = []
    for rate, suffix, title_suffix in by_rate(results):
        groups = [group for group in results.groups.values() if group.learning_rate == rate and group.steps.size]
        finished = [group for group in groups if group.run.complete]
        overview = [group for group in finished if group.strategy in results.compared]
        if overview and len(results.budgets) > 1:
            name, title = f"accuracy_by_budget{suffix}", f"Accuracy by budget{title_suffix}"
            figures.append(drawn(name, title, _budget_caption(results, None), draw_budgets, results, overview))
        for key, comparison in _comparisons(results).items():
            chosen = [group for group in finished if group.strategy in comparison.strategies]
            if comparison.kind == "budgets" and chosen:
                name, title = f"budgets_{key}{suffix}", f"{comparison.title}{title_suffix}"
                caption = _budget_caption(results, comparison)
                figures.append(drawn(name, title, caption, draw_budgets, results, chosen))
            for budget in results.budgets if comparison.kind == "training" else ():
                by_strategy = {group.strategy: group for group in groups if group.budget == budget}
                chosen = [by_strategy[strategy] for strategy in comparison.strategies if strategy in by_strategy]
                if chosen:
                    name, title = f"{key}_{budget}{suffix}", f"{comparison.title}, {budget:,} steps{title_suffix}"
                    caption = _training_caption(chosen, comparison)
                    figures.append(drawn(f"training_{name}", title, caption, draw_training, results, chosen))
    return figures


def _comparisons(results: Results) -> Mapping[str, Comparison]:
    """Returns the configured comparisons; without any, one of all strategies."""
    tasks = {PcfgTask: "figure 1", PcfgLanguageTask: "figure 30", ParityTask: "figure 1", HierarchicalTask: "figure 18"}
    figure = tasks.get(type(results.experiment.task), "")  # tasks of others are none of the paper's
    everything = Comparison("all", "All strategies", tuple(results.strategies), figure)
    return results.comparisons or {"all": everything}


def _budget_caption(results: Results, comparison: Comparison | None) -> str:
    """Returns the caption of a comparison by budget, or of the overview of what is drawn over training."""
    figure = {PcfgTask: "figure 1 (right)", PcfgLanguageTask: "figure 30"}.get(type(results.experiment.task))
    figure = figure if comparison is None else comparison.figure
    left_out = " Unfinished runs are left out." if results.unfinished else ""
    return (
        "Final held-out accuracy of the students against their training budget: mean over seeds with 95% Student t "
        "confidence intervals (moved sideways so that they do not cover each other), single seeds as faint points, "
        f"the teacher's final accuracy as a dashed line.{of_the_paper(figure)}{left_out}"
    )


def _training_caption(groups: Sequence[Group], comparison: Comparison) -> str:
    switches, adaptive = any(_switches(group) for group in groups), any(len(_switches(group)) > 1 for group in groups)
    ticks = (
        "Vertical ticks at the bottom, in the strategy's colour, mark the steps at which the student moves on to the "
        "next teacher checkpoint"
        + (" (faint where each seed moves on by itself: one tick for each). " if adaptive else ". ")
        if switches
        else ""
    )
    source = of_the_paper(comparison.figure, "The training curves of")
    return (
        "Held-out accuracy during training: mean over seeds, shaded 95% Student t confidence interval at each step "
        f"(cut off where it leaves the range of the single runs). {ticks}"
        f"The thin grey line is the teacher over its own steps.{source}"
    )


def draw_budgets(results: Results, groups: Sequence[Group]) -> Figure:
    """Draws final held-out accuracy against the budget (steps), one line per strategy."""
    figure = Figure(figsize=(style.WIDTH, 4.0), layout="constrained")
    axes = figure.add_subplot()
    present = [key for key in results.labels if any(group.strategy == key for group in groups)]
    handles, levels = [], [] if results.teacher_accuracy is None else [results.teacher_accuracy]
    for index, key in enumerate(present):
        look = looks(results)[key]
        by_budget = sorted((group for group in groups if group.strategy == key), key=lambda group: group.budget)
        shift = (index - (len(present) - 1) / 2) * min(7, 40 / len(present)) * POINT
        moved = axes.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
        for group in by_budget:
            x = np.full(len(group.seeds), group.budget)
            axes.plot(x, group.final_accuracy, ".", color=look.color, alpha=0.35, markersize=9, mew=0, transform=moved)
        intervals = [mean_interval(group.final_accuracy) for group in by_budget]
        means = np.array([interval.mean for interval in intervals])
        bars = np.nan_to_num(np.array([interval.high - interval.mean for interval in intervals]))
        drawing = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 6}
        budgets = [group.budget for group in by_budget]
        axes.errorbar(budgets, means, yerr=bars, capsize=3, elinewidth=1.4, transform=moved, **drawing)
        handles.append(Line2D([], [], label=shown(results.labels[key]), **drawing))
        levels += [level for group in by_budget for level in group.final_accuracy] + [*(means - bars), *(means + bars)]
    if results.teacher_accuracy is not None:
        axes.axhline(results.teacher_accuracy, color=style.TEACHER_COLOR, linestyle="--", linewidth=1.2)
        handles.append(Line2D([], [], label="teacher, final", color=style.TEACHER_COLOR, linestyle="--", linewidth=1.2))
    _set_budget_axis(axes, results.budgets)
    margin = max(0.06 * (max(levels) - min(levels)), 0.005)  # explicit: autoscaling misreads the moved points
    axes.set_ylim(max(min(levels) - margin, 0), min(max(levels) + margin, 1.005))
    axes.set_ylabel(accuracy_label(results, "final held-out accuracy"))
    add_legend(figure, handles)
    return figure


def _set_budget_axis(axes: Axes, budgets: Sequence[int]) -> None:
    if budgets[-1] / budgets[0] > 4:
        axes.set_xscale("log")
        margin = (budgets[-1] / budgets[0]) ** 0.1
        axes.set_xlim(budgets[0] / margin, budgets[-1] * margin)
    else:
        margin = 0.2 * (budgets[-1] - budgets[0] or budgets[0])
        axes.set_xlim(budgets[0] - margin, budgets[-1] + margin)
    axes.set_xticks(budgets, [step_text(budget, budgets[-1]) for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("student's training budget (steps)")


def draw_training(results: Results, groups: Sequence[Group]) -> Figure:
    """Draws held-out accuracy during training, groups of one budget and learning rate."""
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    budget, levels, handles = groups[0].budget, [], []
    moving = [group for group in groups if _switches(group)]
    row_height = min(0.05, 0.22 / max(len(moving), 1))  # of the axes: ticks never take more than a quarter of them
    for index, group in enumerate(groups):
        look = looks(results)[group.strategy]
        mean, half = np.mean(group.accuracy, axis=1), half_width(group.accuracy)
        axes.fill_between(group.steps, mean - half, mean + half, color=look.color, alpha=0.18, linewidth=0)
        every = max(1, group.steps.size // 8)
        drawing = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 5}
        axes.plot(group.steps, mean, markevery=(index * every // len(groups), every), **drawing)
        label = results.labels[group.strategy] + ("" if group.run.complete else " (unfinished)")
        handles.append(Line2D([], [], label=shown(label), **drawing))
        levels.append(group.accuracy)
        if group in moving:
            _draw_switches(axes, group, look.color, moving.index(group) * row_height, row_height)
    if results.teacher is not None and results.teacher.evaluation.steps.size:
        curves = results.teacher.evaluation
        axes.plot(curves.steps, curves.accuracy[:, 0], color="#999999", linewidth=1, zorder=1.5)
        handles.append(Line2D([], [], label="teacher", color="#999999", linewidth=1))
        levels.append(curves.accuracy[curves.steps <= budget, :1])
    if moving:
        tick = {"color": "#444444", "marker": "|", "linestyle": "none", "markersize": 9, "markeredgewidth": 2}
        handles.append(Line2D([], [], label="next teacher checkpoint", **tick))
    axes.set_xlim(0, budget * 1.01)
    set_levels(axes, levels, room=row_height * (len(moving) + 0.5))
    set_step_axis(axes, "student's training steps")
    axes.set_ylabel(accuracy_label(results))
    add_legend(figure, handles)
    return figure


def _switches(group: Group) -> list[tuple[int, ...]]:
    """Returns the steps at which students move on, once for each seed that does so by itself."""
    tables = dict.fromkeys(group.run.starts[replica] for replica in group.replicas)
    return [table[1:] for table in tables if table[1:]]


def _draw_switches(axes: Axes, group: Group, color: str, bottom: float, height: float) -> None:
    """Draws a group's switches as a row of ticks at a height of the axes."""
    tables = _switches(group)
    bottom, top = bottom + 0.15 * height, bottom + 0.9 * height
    for table in tables:
        look = {"alpha": 1.0 if len(tables) == 1 else 0.4, "linewidth": 2 if len(table) <= 100 else 0.8}
        axes.vlines(table, bottom, top, color, transform=axes.get_xaxis_transform(), **look)
