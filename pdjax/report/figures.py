"""The report's figures, drawn with matplotlib's objects; each comes with its caption."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from pdjax.report import style
from pdjax.report.results import Arm, Results
from pdjax.report.stats import half_width, mean_interval

_POINT = 1 / 72  # inches
_PHASE_COLORS = ("#f6f6f6", "#e2e8ef", "#f6f6f6")
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


class ReportFigure(NamedTuple):
    """A drawn figure."""

    name: str  # of its files
    title: str
    caption: str
    svg: bytes
    png: bytes


def all_figures(results: Results) -> list[ReportFigure]:
    """Draws every figure that there are results for."""
    figures = []
    if results.teacher is not None and results.teacher.evaluation.steps.size:
        title = "The teacher" if results.teacher.complete else "The teacher (unfinished)"
        figures.append(_drawn("teacher", title, _teacher_caption(results), draw_teacher, results))
    for rate in results.learning_rates:
        several = len(results.learning_rates) > 1
        suffix, place = (f"_lr{rate}", f", learning rate {rate}") if several else ("", "")
        arms = [arm for arm in results.arms.values() if arm.learning_rate == rate and arm.steps.size]
        finished = [arm for arm in arms if arm.run.complete]
        if finished:
            name, title = f"accuracy_by_budget{suffix}", f"Accuracy by budget{place}"
            caption = _BUDGET_CAPTION + (" Unfinished runs are left out." if results.unfinished else "")
            figures.append(_drawn(name, title, caption, draw_budgets, results, finished))
        for budget in results.budgets:
            chosen = [arm for arm in arms if arm.budget == budget]
            if chosen:
                name, title = f"training_{budget}{suffix}", f"Training for {budget:,} steps{place}"
                figures.append(_drawn(name, title, _TRAINING_CAPTION, draw_training, results, chosen))
    return figures


_BUDGET_CAPTION = (
    "Final held-out accuracy of the students against their training budget: mean over seeds with 95% Student t "
    "confidence intervals (moved sideways so that they do not cover each other), single seeds as faint points, the "
    "teacher's final accuracy as a dashed line. Corresponds to figure 1 (right) of the paper."
)
_TRAINING_CAPTION = (
    "Held-out accuracy during training: mean over seeds, shaded 95% Student t confidence interval at each step "
    "(cut off where it leaves the range of the single runs). "
    "Vertical ticks at the bottom, in the strategy's colour, mark the steps at which the student moves on to the next "
    "teacher checkpoint; the thin grey line is the teacher over its own steps. The training curves behind figure 1 "
    "(right) of the paper."
)


def _teacher_caption(results: Results) -> str:
    phases = (
        "The shaded phases are 1: little change, 2: rapid drop of the loss (its middle dotted), 3: plateau. "
        if results.selection.get("phases")
        else "No phases are recorded. "
    )
    chosen = any(strategy["teacher_steps"] for strategy in results.selection.get("strategies", {}).values())
    triangles = "Triangles mark the checkpoints that each strategy learns from. " if chosen else ""
    return (
        f"Held-out loss and accuracy of the teacher against its training steps. {phases}{triangles}"
        "Corresponds to figure 4 (left) of the paper."
    )


def _drawn(name: str, title: str, caption: str, draw: Callable[..., Figure], *arguments: Any) -> ReportFigure:
    with style.context(salt=name):
        figure = draw(*arguments)
        return ReportFigure(name, title, caption, style.svg_bytes(figure), style.png_bytes(figure))


def draw_teacher(results: Results) -> Figure:
    """Draws the teacher's loss (nats) and accuracy by step, its phases and the chosen checkpoints."""
    assert results.teacher is not None
    curves = results.teacher.evaluation
    figure = Figure(figsize=(style.WIDTH, 5.2), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    for axes, values in ((loss_axes, curves.loss), (accuracy_axes, curves.accuracy)):
        axes.plot(curves.steps, values[:, 0], color="#222222")
        axes.margins(x=0.02)
    loss_axes.set_ylabel("held-out loss\n(nats per selected position)")
    accuracy_axes.set_ylabel("held-out accuracy\n(top 1)")
    figure.align_ylabels()
    accuracy_axes.set_xlabel("teacher's training steps")
    accuracy_axes.xaxis.set_major_formatter(_THOUSANDS)
    phases = results.selection.get("phases")
    if phases:
        edges = (0, phases["start"], phases["end"], max(results.teacher.description.budget, *curves.steps))
        for axes in (loss_axes, accuracy_axes):
            for (left, right), color in zip(itertools.pairwise(edges), _PHASE_COLORS, strict=True):
                axes.axvspan(left, right, color=color, linewidth=0, zorder=0)
            axes.axvline(phases["middle"], color="#888888", linestyle=":", linewidth=1)
        loss_axes.text(-0.01, 1.01, "phase", transform=loss_axes.transAxes, ha="right", va="bottom")
        for number, (left, right) in zip("123", itertools.pairwise(edges), strict=True):
            place = {"transform": loss_axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            loss_axes.text((left + right) / 2, 1.01, number, **place)
    handles = _mark_checkpoints(results, figure, loss_axes)
    if handles:
        _add_legend(figure, handles, title="checkpoints chosen for", handlelength=1)
    return figure


def _mark_checkpoints(results: Results, figure: Figure, axes: Axes) -> list[Line2D]:
    """Puts the chosen checkpoints above the loss curve; those that several strategies share are stacked."""
    assert results.teacher is not None
    curves = results.teacher.evaluation
    height: dict[int, int] = {}
    handles = []
    for index, (key, label) in enumerate(results.labels.items()):
        look = style.strategy_style(index)
        steps = results.selection.get("strategies", {}).get(key, {}).get("teacher_steps", ())
        marker = {"color": look.color, "marker": "v", "fillstyle": look.fill, "linestyle": "none", "markersize": 8}
        for step in steps:
            height[step] = height.get(step, 0) + 1
            lift = ScaledTranslation(0, (11 * height[step] - 1) * _POINT, figure.dpi_scale_trans)
            level = np.interp(step, curves.steps, curves.loss[:, 0])  # a place to draw at, between evaluations
            axes.plot([step], [level], transform=axes.transData + lift, **marker, clip_on=False)
        if steps:
            handles.append(Line2D([], [], label=_shown(label), **marker))
    tallest = max(height.values(), default=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.05 * tallest * (high - low))
    return handles


def draw_budgets(results: Results, arms: Sequence[Arm]) -> Figure:
    """Draws final held-out accuracy against the budget (steps), one line per strategy."""
    figure = Figure(figsize=(style.WIDTH, 4.0), layout="constrained")
    axes = figure.add_subplot()
    present = [key for key in results.labels if any(arm.strategy == key for arm in arms)]
    handles, levels = [], [] if results.teacher_accuracy is None else [results.teacher_accuracy]
    for place, key in enumerate(present):
        look = style.strategy_style(list(results.labels).index(key))
        own = sorted((arm for arm in arms if arm.strategy == key), key=lambda arm: arm.budget)
        shift = (place - (len(present) - 1) / 2) * min(7, 40 / len(present)) * _POINT
        moved = axes.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
        for arm in own:
            x = np.full(len(arm.seeds), arm.budget)
            axes.plot(x, arm.final_accuracy, ".", color=look.color, alpha=0.35, markersize=9, mew=0, transform=moved)
        intervals = [mean_interval(arm.final_accuracy) for arm in own]
        means = np.array([interval.mean for interval in intervals])
        bars = np.nan_to_num(np.array([interval.high - interval.mean for interval in intervals]))
        drawing = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 6}
        budgets = [arm.budget for arm in own]
        axes.errorbar(budgets, means, yerr=bars, capsize=3, elinewidth=1.4, transform=moved, **drawing)
        handles.append(Line2D([], [], label=_shown(results.labels[key]), **drawing))
        levels += [level for arm in own for level in arm.final_accuracy] + [*(means - bars), *(means + bars)]
    if results.teacher_accuracy is not None:
        axes.axhline(results.teacher_accuracy, color=style.TEACHER_COLOR, linestyle="--", linewidth=1.2)
        handles.append(Line2D([], [], label="teacher, final", color=style.TEACHER_COLOR, linestyle="--", linewidth=1.2))
    _set_budget_axis(axes, results.budgets)
    margin = max(0.06 * (max(levels) - min(levels)), 0.005)  # explicit: autoscaling misreads the moved points
    axes.set_ylim(max(min(levels) - margin, 0), min(max(levels) + margin, 1.005))
    axes.set_ylabel("final held-out accuracy\n(top 1, selected positions)")
    _add_legend(figure, handles)
    return figure


def _set_budget_axis(axes: Axes, budgets: Sequence[int]) -> None:
    if budgets[-1] / budgets[0] > 4:
        axes.set_xscale("log")
        margin = (budgets[-1] / budgets[0]) ** 0.1
        axes.set_xlim(budgets[0] / margin, budgets[-1] * margin)
    else:
        margin = 0.2 * (budgets[-1] - budgets[0] or budgets[0])
        axes.set_xlim(budgets[0] - margin, budgets[-1] + margin)
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("student's training budget (steps)")


def draw_training(results: Results, arms: Sequence[Arm]) -> Figure:
    """Draws held-out accuracy during training, arms of one budget and learning rate."""
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    budget, levels, handles, switches = arms[0].budget, [], [], 0
    for place, arm in enumerate(arms):
        look = style.strategy_style(list(results.labels).index(arm.strategy))
        mean, half = np.mean(arm.accuracy, axis=1), half_width(arm.accuracy)
        axes.fill_between(arm.steps, mean - half, mean + half, color=look.color, alpha=0.18, linewidth=0)
        every = max(1, arm.steps.size // 8)
        drawing = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 5}
        axes.plot(arm.steps, mean, markevery=(place * every // len(arms), every), **drawing)
        label = results.labels[arm.strategy] + ("" if arm.run.complete else " (unfinished)")
        handles.append(Line2D([], [], label=_shown(label), **drawing))
        levels.append(arm.accuracy)
        if results.config.strategies[arm.strategy].is_progressive and arm.run.description.starts[1:]:
            ticks = np.array(arm.run.description.starts[1:])
            bottom = 0.01 + 0.045 * switches
            axes.vlines(ticks, bottom, bottom + 0.035, look.color, transform=axes.get_xaxis_transform(), linewidth=2)
            switches += 1
    if results.teacher is not None and results.teacher.evaluation.steps.size:
        curves = results.teacher.evaluation
        axes.plot(curves.steps, curves.accuracy[:, 0], color="#999999", linewidth=1, zorder=1.5)
        handles.append(Line2D([], [], label="teacher", color="#999999", linewidth=1))
        levels.append(curves.accuracy[curves.steps <= budget])
    if switches:
        tick = {"color": "#444444", "marker": "|", "linestyle": "none", "markersize": 9, "markeredgewidth": 2}
        handles.append(Line2D([], [], label="next teacher checkpoint", **tick))
    axes.set_xlim(0, budget * 1.01)
    _set_levels(axes, levels, room=0.05 * (switches + 0.5))
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.set_xlabel("student's training steps")
    axes.set_ylabel("held-out accuracy\n(top 1, selected positions)")
    _add_legend(figure, handles)
    return figure


def _set_levels(axes: Axes, levels: Sequence[Float[np.ndarray, "E R"]], room: float) -> None:
    """Fits the axis to measured values, not to bands (two seeds make them enormous), with room at the bottom."""
    values = np.concatenate([level.ravel() for level in levels])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = max(high - low, 0.01) * 1.06
    axes.set_ylim(low - span * room / (1 - room), min(low + span, 1.005))


def _add_legend(figure: Figure, handles: Sequence[Line2D], **options: Any) -> None:
    """Puts the legend above the axes, in as many columns as its longest label leaves room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = int(72 * style.WIDTH / (55 + 6 * longest))  # points: a handle with its gaps, and about 6 a letter
    columns = min(max(columns, 1), 4)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(handles) / columns))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, **options)


def _shown(label: str) -> str:
    """Keeps matplotlib from leaving labels that begin with an underscore out of the legend."""
    return f" {label}" if label.startswith("_") else label
