"""The teacher's training: loss, accuracy, phases or transition, and the checkpoints chosen (figures 2, 4, 29, left)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from pdjax.report import style
from pdjax.report.figures.drawing import (
    POINT,
    ReportFigure,
    accuracy_label,
    add_legend,
    drawn,
    looks,
    of_the_paper,
    set_step_axis,
    shade_phases,
    shade_transition,
    shown,
)
from pdjax.report.results import Results
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask

_LEGEND_WIDTH = 80  # letters
_CROWDED = 40  # checkpoints whose triangles would touch


def teacher_figures(results: Results) -> list[ReportFigure]:
    """Draws the teacher's training, if any of it is recorded."""
    if results.teacher is None or not results.teacher.evaluation.steps.size:
        return []
    title = "The teacher" if results.teacher.complete else "The teacher (unfinished)"
    return [drawn("teacher", title, _caption(results), draw_teacher, results)]


def _caption(results: Results) -> str:
    if results.selection.get("transition"):
        spans = "The shaded span is the transition, the rise of the accuracy from chance (its middle dotted). "
    elif results.selection.get("phases"):
        spans = "The shaded phases are 1: little change, 2: rapid drop of the loss (its middle dotted), 3: plateau. "
    else:
        spans = "No phases are recorded. "
    chosen = any(strategy["teacher_steps"] for strategy in results.selection.get("strategies", {}).values())
    triangles = "Triangles mark the checkpoints that each strategy learns from. " if chosen else ""
    others = results.experiment.teacher_training.extra_seeds
    lines = f"Thin grey lines are the {len(others)} other teachers, of further seeds. " if others else ""
    figure = {
        PcfgTask: "figure 4 (left)",
        PcfgLanguageTask: "figure 29 (left)",
        ParityTask: "figure 2 (left)",
        HierarchicalTask: "figure 18 (left)",
    }.get(type(results.experiment.task))  # tasks of others are none of the paper's
    said = f"Held-out loss and accuracy of the teacher against its training steps. {spans}{triangles}{lines}"
    return f"{said.rstrip()}{of_the_paper(figure)}"


def draw_teacher(results: Results) -> Figure:
    """Draws the teacher's loss (nats) and accuracy by step, its transition or phases and the chosen checkpoints."""
    assert results.teacher is not None
    curves = results.teacher.evaluation
    figure = Figure(figsize=(style.WIDTH, 5.2), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    for axes, values in ((loss_axes, curves.loss), (accuracy_axes, curves.accuracy)):
        axes.plot(curves.steps, values[:, 0], color="#222222")
        if values.shape[1] > 1:
            axes.plot(curves.steps, values[:, 1:], color="#999999", alpha=0.6, linewidth=0.8, zorder=1.5)
        axes.margins(x=0.02)
    loss_axes.set_ylabel(f"held-out loss\n(nats per {results.counted.removesuffix('s')})")
    accuracy_axes.set_ylabel(accuracy_label(results))
    figure.align_ylabels()
    set_step_axis(accuracy_axes, "teacher's training steps")
    if results.selection.get("transition"):
        for axes in (loss_axes, accuracy_axes):
            shade_transition(results, axes)
    elif results.selection.get("phases"):
        shade_phases(results, (loss_axes, accuracy_axes))
    handles = _mark_checkpoints(results, figure, loss_axes)
    if handles:
        add_legend(figure, handles, title="checkpoints chosen for", handlelength=1)
    return figure


def _mark_checkpoints(results: Results, figure: Figure, axes: Axes) -> list[Line2D]:
    """Puts the chosen checkpoints above the loss curve; those that several choices share are stacked.

    Strategies that chose the same checkpoints have one row of triangles together.
    """
    assert results.teacher is not None
    curves = results.teacher.evaluation
    height: dict[int, int] = {}
    handles = []
    choices = _choices(results)
    shared_looks = _looks_of_choices(results, choices)
    for steps, keys in choices.items():
        look = shared_looks[steps]
        marker: dict[str, Any] = {"color": look.color, "marker": "v", "fillstyle": look.fill, "linestyle": "none"}
        size = 8 if len(steps) <= _CROWDED else 4
        for step in steps:
            height[step] = height.get(step, 0) + 1
            lift = ScaledTranslation(0, (11 * height[step] - 1) * POINT, figure.dpi_scale_trans)
            level = np.interp(step, curves.steps, curves.loss[:, 0])  # a place to draw at, between evaluations
            axes.plot([step], [level], transform=axes.transData + lift, **marker, markersize=size, clip_on=False)
        handles.append(
            Line2D([], [], label=shown(_joined([results.labels[key] for key in keys])), **marker, markersize=8)
        )
    tallest = max(height.values(), default=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.05 * tallest * (high - low))
    return handles


def _choices(results: Results) -> dict[tuple[int, ...], Sequence[str]]:
    """Returns the strategies by the checkpoints they chose."""
    chosen = results.selection.get("strategies", {})
    choices: dict[tuple[int, ...], list[str]] = {}
    for key in results.prominent:
        steps = tuple(chosen.get(key, {}).get("teacher_steps", ()))
        if steps:
            choices.setdefault(steps, []).append(key)
    return dict(choices)


def _looks_of_choices(
    results: Results, choices: Mapping[tuple[int, ...], Sequence[str]]
) -> dict[tuple[int, ...], style.StrategyStyle]:
    """Returns for each choice the look of one of its strategies, those with fewest to choose from first."""
    shared_looks: dict[tuple[int, ...], style.StrategyStyle] = {}
    for steps, keys in sorted(choices.items(), key=lambda item: len(item[1])):
        candidates = [looks(results)[key] for key in keys]
        taken = {look.color for look in shared_looks.values()}
        shared_looks[steps] = next((look for look in candidates if look.color not in taken), candidates[0])
    return shared_looks


def _joined(labels: Sequence[str]) -> str:
    """Joins labels to lines of a legend, broken between labels where possible."""
    unbroken = [label.replace(" ", "\N{NO-BREAK SPACE}") for label in labels]
    return textwrap.fill(" · ".join(unbroken), _LEGEND_WIDTH).replace("\N{NO-BREAK SPACE}", " ")
