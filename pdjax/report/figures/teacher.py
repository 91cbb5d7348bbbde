"""The teacher's training: loss, accuracy, phases or transition, and the checkpoints chosen (figures 2, 4, 29, left)."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.report.figures.drawing import (
    Looks,
    ReportFigure,
    accuracy_label,
    drawn,
    grid,
    legend_above,
    looks,
    set_step_axis,
    shade_phases,
    shade_transition,
    shown,
)
from pdjax.report.results import Results
from pdjax.report.searches import chosen_steps

_CROWDED = 40  # checkpoints whose triangles would touch


def teacher_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws the teacher's training, if any of it is recorded."""
    rows = results.table[results.table.role == "teacher"]
    table = rows[rows.measure.isin(("loss", "accuracy"))]
    if results.teacher is not None and not table.empty:
        chosen = _above_the_loss(results, chosen_checkpoints(results, results.prominent))
        labels = {
            "loss": f"held-out loss\n(nats per {results.counted.removesuffix('s')})",
            "accuracy": accuracy_label(results),
        }
        seed, shade = results.experiment.teacher_training.seed, functools.partial(_shade, results)
        title, caption = f"The teacher{'' if results.teacher.complete else ' (unfinished)'}", _caption(results, chosen)
        yield drawn("teacher", title, caption, draw_teacher, table, seed, labels, chosen, looks(results), shade)


def _caption(results: Results, chosen: pd.DataFrame) -> str:
    spans = "No phases are recorded."
    if results.selection is not None and results.selection.transition is not None:
        spans = "The shaded span is the transition, the rise of the accuracy from chance (its middle dotted)."
    elif results.selection is not None and results.selection.phases is not None:
        spans = "The shaded phases are 1: little change, 2: rapid drop of the loss (its middle dotted), 3: plateau."
    triangles = "" if chosen.empty else " Triangles mark the checkpoints that each strategy learns from."
    lines = " Thin grey: teachers of further seeds." if results.experiment.teacher_training.extra_seeds else ""
    return f"Held-out loss and accuracy of the teacher against its training steps. {spans}{triangles}{lines}"


def _shade(results: Results, panels: Sequence[Axes]) -> None:
    if results.selection is None or results.selection.transition is None:
        shade_phases(results, panels)
    else:
        for axes in panels:
            shade_transition(axes, results.selection.transition)


def draw_teacher(
    table: pd.DataFrame,
    seed: int,
    labels: Mapping[str, str],
    chosen: pd.DataFrame,
    looks: Looks,
    shade: Callable[[Sequence[Axes]], None],
) -> Figure:
    """Draws loss and accuracy by step, dark those of the teacher that students learn from, and its checkpoints."""
    figure, panels = grid(2, columns=1, height=2.6, sharex=True, height_ratios=(1.25, 1))
    others = [other for other in table.seed.unique() if other != seed]
    lines = {"hue": "seed", "palette": {**dict.fromkeys(others, "#bbbbbb"), seed: "#222222"}}
    lines |= {"size": "seed", "sizes": {**dict.fromkeys(others, 0.8), seed: 1.8}, "hue_order": [*others, seed]}
    for axes, measure in zip(panels, labels, strict=True):
        sns.lineplot(table[table.measure == measure], x="step", y="value", ax=axes, legend=False, **lines)
        axes.set(ylabel=labels[measure])
        axes.margins(x=0.02)
    mark_checkpoints(panels[0], chosen, looks)
    shade(panels)
    set_step_axis(panels[-1], "teacher's training steps")
    figure.align_ylabels()
    if not chosen.empty:
        legend_above(figure, title="checkpoints chosen for", handlelength=1)
    return figure


def chosen_checkpoints(results: Results, strategies: Sequence[str]) -> pd.DataFrame:
    """Returns the ``step`` of every checkpoint that strategies chose; those that chose the same share their rows.

    Besides there are the ``label`` of the first of them, the labels of all ``strategies``, and how many choices with
    the same checkpoint come before, the ``place`` in a stack.
    """
    choices: dict[tuple[int, ...], list[str]] = {}
    for key in strategies:
        choices.setdefault(chosen_steps(results, key), []).append(shown(results.labels[key]))
    rows = [(step, labels[0], "\n".join(labels)) for steps, labels in choices.items() for step in steps]
    table = pd.DataFrame(rows, columns=["step", "label", "strategies"])
    return table.assign(place=table.groupby("step").cumcount())


def _above_the_loss(results: Results, chosen: pd.DataFrame) -> pd.DataFrame:
    """Adds the ``height`` of triangles that are stacked on the teacher's loss."""
    curve = results.teacher_curve("loss")
    # A choice may lie between evaluations: a place to draw at.
    loss = np.interp(chosen.step.astype(float), curve.step.astype(float), curve.value)
    return chosen.assign(height=loss + (0.08 + 0.095 * chosen.place) * (curve.value.max() - curve.value.min()))


def mark_checkpoints(axes: Axes, chosen: pd.DataFrame, looks: Looks, **options: Any) -> None:
    """Marks chosen checkpoints with triangles at their ``height``, in the look of the first strategy that chose so."""
    for label, rows in chosen.groupby("label", sort=False):
        look = {"color": looks.palette[str(label)], "fillstyle": looks.fills[str(label)], "linestyle": "none"}
        size = 8 if len(rows) <= _CROWDED else 4
        entry = rows.strategies.iloc[0]
        axes.plot(rows.step, rows.height, marker="v", markersize=size, label=entry, clip_on=False, **look, **options)
