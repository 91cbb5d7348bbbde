"""Samples against the size of a problem, on logarithmic axes, with exponents (steps to an accuracy, by size)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from pdjax.models.mlp import Mlp
from pdjax.report import style
from pdjax.report.figures.drawing import ReportFigure, drawn, grid, legend_above, looks, shown
from pdjax.report.results import Results
from pdjax.report.scaling import Line, lines
from pdjax.report.text import interval_text
from pdjax.report.variants import varies_alone
from pdjax.tasks.parity import ParityTask

REACHED = 0.95
"""The accuracy until which steps are counted."""

THEORY: Mapping[str, Any] = {"color": "#777777", "linestyle": "--", "linewidth": 1.2}

_SIZES = {
    "dimension": ("d", "the dimension"),
    "degree": ("k", "the degree"),
    "width": ("W", "the student’s width"),
    "error": ("e", "the final teacher’s held-out loss (nats)"),
}
_TEACHER = ""  # in the place of a strategy


class Curve(NamedTuple):
    """What theory says of a source."""

    x: Sequence[float]
    y: Sequence[float]


def scaling_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws the steps of SGD until an accuracy by what an ablation varies: dimension, degree, width or the teacher."""
    for key, ablation in results.asked_ablations.items():
        rows = reached([results, *(one for (name, _), one in results.variants.items() if name == key)])
        for axis, (letter, words) in _SIZES.items():
            # Teachers of other seeds have other losses too.
            if axis == "error" and not varies_alone(ablation, "teacher_training", "steps"):
                continue
            rest = [other for other in _SIZES if other not in (axis, "error")]
            chosen = list(lines(rows, axis, rest))
            if chosen:
                caption = (
                    f"Training steps (at batch 1: samples) until the held-out accuracy is at least {REACHED:.0%}, "
                    f"against {words}: medians over seeds, single ones faint, none where half of the seeds did not get "
                    "there. In brackets: exponents of the medians with 95% bootstrap intervals over seeds."
                )
                table = pd.concat([_table(line, axis) for line in chosen], ignore_index=True)
                name, title = f"steps_{key}", f"{ablation.title}: steps"
                labels = (letter, words if axis == "error" else f"{letter}, {words}", "training steps, at batch 1")
                names = {_TEACHER: "the teacher"} | {key: shown(label) for key, label in results.labels.items()}
                yield drawn(name, title, caption, draw_lines, table, chosen, _styles(results), *labels, (), names)


def _styles(results: Results) -> dict[str, dict[str, Any]]:
    """Returns the looks that strategies have in all figures, by their names, and that of the teacher."""
    known = looks(results)
    styles = {
        key: {"color": known.palette[shown(label)], "marker": known.markers[shown(label)]}
        for key, label in results.labels.items()
    }
    return {_TEACHER: {"color": style.TEACHER_COLOR, "marker": "^"}, **styles}


def reached(every: Sequence[Results]) -> pd.DataFrame:
    """Returns the first evaluated step at which each model of a parity had reached ``REACHED``, infinite if none.

    A row for each model: ``dimension``, ``degree``, ``width`` (of the student; 0 of a teacher), ``error`` (the held-out
    loss of the final teacher that students learn from), ``source`` (the strategy, "" of a teacher), ``seed`` and
    ``samples``. Of batch 1 alone: there steps are samples.
    """
    columns = pd.Index(("dimension", "degree", "width", "error", "source", "seed", "samples"))
    tables = []
    for one in every:
        task, student, table = one.experiment.task, one.experiment.student, one.table
        alone = one.experiment.student_training.batch_size == one.experiment.teacher_training.batch_size == 1
        if not isinstance(task, ParityTask) or not isinstance(student, Mlp) or table.empty or not alone:
            continue
        rows = table[(table.measure == "accuracy") & table.complete & table.role.isin(("teacher", "student"))]
        steps = rows.step.where(rows.value >= REACHED, np.inf)
        first = steps.groupby([rows.role, rows.strategy, rows.seed], sort=False).min().reset_index(name="samples")
        widths = np.where(first.role == "teacher", 0, student.widths[0])
        losses = one.teacher_curve("loss").set_index("step").value
        error = float(losses.get(one.last_teacher_step, np.nan))
        at = {"dimension": task.dimension, "degree": task.degree, "width": widths, "error": error}
        tables.append(first.rename(columns={"strategy": "source"}).assign(**at)[list(columns)])
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return whole.astype({"samples": float})


def _table(line: Line, axis: str) -> pd.DataFrame:
    """Returns the units of a line as rows."""
    rows = [{axis: size, "samples": one} for size, each in line.values.items() for one in each]
    return pd.DataFrame(rows).assign(source=line.source, **line.rest)


def draw_lines(
    table: pd.DataFrame,
    chosen: Sequence[Line],
    looks: Mapping[str, Mapping[str, Any]],
    letter: str,
    x_label: str,
    y_label: str,
    theory: Sequence[Curve] = (),
    names: Mapping[str, str] | None = None,
) -> Figure:
    """Draws medians by size, single units faint, with exponents in the legend and what theory says dashed."""
    figure, (axes,) = grid(1, columns=1, height=4.2)
    for line in chosen:
        look, fitted = looks[line.source], line.exponent
        text = "" if fitted is None else f" ({letter}^{fitted.mean:.2f} {interval_text(fitted)})"
        text = text if line.medians else " (not found)"
        for size, values in line.values.items():
            finite = [value for value in values if np.isfinite(value)]
            axes.plot([size] * len(finite), finite, linestyle="", alpha=0.25, markersize=4, markeredgewidth=0, **look)
        medians, label = line.medians, (names or {}).get(line.source, line.source)
        axes.plot(list(medians), list(medians.values()), label=f"{label}{text}", markersize=7, **look)
    for curve in theory:
        axes.plot(curve.x, curve.y, **THEORY)
    axes.set(xlabel=x_label, ylabel=y_label)
    logarithmic(axes)
    ticks = sorted({size for line in chosen for size in line.values})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    handles = [Line2D([], [], label="theorem B.1", **THEORY)] if theory else []
    legend_above(figure, *handles)
    return figure


def logarithmic(axes: Axes, x: bool = True) -> None:
    """Makes axes logarithmic whose numbers are written out: 10,000 or 0.001."""
    axes.set(yscale="log", **({"xscale": "log"} if x else {}))
    for axis in (axes.yaxis, *((axes.xaxis,) if x else ())):
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float, position: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
