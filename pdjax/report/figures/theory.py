"""Algorithm 1 beside what appendix B says of it: first-layer weights, correlations, and samples of the first stage."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pdjax.models.symmetric import SymmetricMlp
from pdjax.report import style
from pdjax.report.figures.drawing import ReportFigure, drawn, grid, legend_above, set_step_axis
from pdjax.report.results import Results
from pdjax.report.samples import ALIGNED, BETWEEN, FINAL, FIRST, LABELS, by, exponent, searched, series
from pdjax.report.text import interval_text
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import (
    expected_coefficients,
    first_batch_of_student,
    majority_coefficient,
    off_support_ratio,
)

_COLORS = {LABELS: "#D55E00", FIRST: "#0072B2", FINAL: "#009E73", BETWEEN: "#CC79A7"}
_COLORS |= {FIRST + ALIGNED: "#56B4E9", FINAL + ALIGNED: "#E69F00"}
_MARKERS = {LABELS: "s", FIRST: "o", FINAL: "D", BETWEEN: "P", FIRST + ALIGNED: "p", FINAL + ALIGNED: "X"}
_THEORY = {"color": "#777777", "linestyle": "--", "linewidth": 1.2}
_FAILURE = 0.1
"""delta where theory asks for one: it stands in logarithms alone."""

_OF_ERRORS = (
    "Samples of a student’s first stage until it finds the support, against the error of the checkpoint that it learns "
    "from (the teacher’s expected hinge loss), a point for each teacher. Hollow points at the top: not found within "
    "the search. Dashed: one over the squared error, which theorem B.1 gives as a lower bound of one-shot distillation."
)
_OF_COEFFICIENTS = (
    "Sizes of the correlations of teachers’ outputs with coordinates in the support (orange) and off it (blue), "
    "|E f x_j|, by the teacher’s step: mean over coordinates and teachers, with the range of their middle 90%. Dashed: "
    "1/8k, which lemma B.5 gives as a lower bound in the support after the first stage. Bars at the first checkpoint: "
    "the root mean square that follows when the signs of neurons are not all taken to be equal. Grey: the expected "
    "hinge loss, below which corollary B.8 puts all correlations at the end."
)
_OF_WEIGHTS = (
    "Root mean square distance of first-layer weights after the first stage to those of lemma B.2, in the support "
    "(orange) and off it (blue), and the share of neurons that have found the support (green, right axis), by the "
    "batch of that stage. Dashed: the noise of a mean over so many samples, 1/(k |zeta| sqrt(2 B))."
)
_NAMES = {LABELS: "from labels", FIRST: "from the teacher’s first stage", FINAL: "from the final teacher"}
_NAMES |= {source + ALIGNED: f"{_NAMES[source]}{ALIGNED}" for source in (FIRST, FINAL)}


def theory_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws what there is to draw of Algorithm 1."""
    rows = searched(results)
    yield from _by(rows, "dimension", "degree", "d", "k")
    yield from _by(rows, "degree", "dimension", "k", "d")
    own = _own(results, rows)
    if own.source.isin((BETWEEN, FINAL)).any():
        yield drawn("samples_by_error", "Samples by the checkpoint’s error", _OF_ERRORS, draw_errors, own)
    if (table := _coefficients(results)) is not None:
        title = "Correlations with single coordinates"
        yield drawn("coefficients", title, _OF_COEFFICIENTS, draw_coefficients, *table)
    weights = _first_weights(results)
    if weights.batch.nunique() > 1:
        ratio = f" Weights of the lemma are 1/2k in the support, and {weights.ratio.iloc[0]:.3f} times that off it."
        yield drawn("first_weights", "Weights after the first stage", _OF_WEIGHTS + ratio, draw_weights, weights)


@FuncFormatter
def _plain(value: float, position: int | None = None) -> str:
    """Writes a number of a logarithmic axis without mathematics: 10,000 or 0.001 or 1e-05."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _own(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the searches of the experiment itself, without its variants."""
    task = results.experiment.task
    if not isinstance(task, ParityTask):
        return rows.iloc[:0]
    return rows[(rows.dimension == task.dimension) & (rows.degree == task.degree)]


def _by(rows: pd.DataFrame, axis: str, other: str, letter: str, fixed: str) -> Iterator[ReportFigure]:
    found = list(series(rows, axis, other))
    for value in dict.fromkeys(value for _, value, _ in found):
        chosen = pd.concat([each for _, at, each in found if at == value], ignore_index=True)
        caption = (
            "Smallest batch of a student’s first stage with which in 90% of its neurons the k largest weights are the "
            f"support, {fixed} = {value:.0f}: medians over teachers (of labels, over students), single ones faint. "
            "Only teachers count from which the support can be found at all. In brackets: exponents of the medians "
            "with 95% bootstrap intervals. Dashed: what theorem B.1 says, k² log(d m/δ) from a teacher’s first stage "
            "with constant 1, and d^(k-1) from labels through the first point."
        )
        name = f"samples_by_{axis}" + ("" if len({at for _, at, _ in found}) == 1 else f"_{fixed}{value:.0f}")
        title = f"Samples of the first stage by {axis}, {fixed} = {value:.0f}"
        yield drawn(name, title, caption, draw_samples, chosen, axis, letter)


def draw_samples(rows: pd.DataFrame, axis: str, letter: str) -> Figure:
    """Draws medians of samples by dimension or degree, a line for each source."""
    figure, (axes,) = grid(1, columns=1, height=4.2)
    for source, each in rows.groupby("source", sort=False):
        values = by(each, axis)
        fitted = exponent(values)
        text = "" if fitted is None else f" ({letter}^{fitted.mean:.2f} {interval_text(fitted)})"
        look = {"color": _COLORS[source], "marker": _MARKERS[source]}
        finite = {x: np.array(v)[np.isfinite(v)] for x, v in values.items()}
        for x, v in finite.items():
            axes.plot([x] * len(v), v, linestyle="", alpha=0.25, markersize=4, markeredgewidth=0, **look)
        medians = {x: np.sort(v)[len(v) // 2] for x, v in values.items()}
        drawn_ones = {x: m for x, m in medians.items() if math.isfinite(m)}
        axes.plot(list(drawn_ones), list(drawn_ones.values()), label=f"{_NAMES[source]}{text}", markersize=7, **look)
        _draw_theory(axes, str(source), each, axis, drawn_ones)
    axes.set(xscale="log", yscale="log", xlabel=f"{letter}, the {axis}", ylabel="samples of the first stage")
    axes.yaxis.set_major_formatter(_plain)
    ticks = sorted(rows[axis].unique())
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    legend_above(figure, Line2D([], [], label="theorem B.1", **_THEORY))
    return figure


def _draw_theory(axes: Axes, source: str, rows: pd.DataFrame, axis: str, medians: dict[float, float]) -> None:
    points = rows.drop_duplicates(axis).sort_values(axis)
    pairs = list(zip(points.dimension, points.degree, strict=True))
    if source == FIRST + ALIGNED:
        values = [first_batch_of_student(d, k, 2**k * k, _FAILURE) for d, k in pairs]
    elif source == LABELS and medians:
        powers = np.array([float(d) ** (k - 1) for d, k in pairs])
        first = list(points[axis]).index(next(iter(medians)))
        values = powers / powers[first] * next(iter(medians.values()))
    else:
        return
    axes.plot(points[axis], values, **_THEORY)


def draw_errors(rows: pd.DataFrame) -> Figure:
    """Draws samples against a checkpoint's error, a point for each teacher."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    finite = rows.samples[np.isfinite(rows.samples)]
    top = 2 * float(finite.max())
    kinds = {FIRST: "after the first stage", BETWEEN: "within the second stage", FINAL: "final"}
    for source, label in kinds.items():
        each = rows[rows.source == source]
        look = {"color": _COLORS[source], "marker": _MARKERS[source], "linestyle": ""}
        there = np.isfinite(each.samples)
        axes.plot(each.error[there], each.samples[there], label=f"{label} ({there.sum()} of {len(each)} found)", **look)
        axes.plot(each.error[~there], [top] * int((~there).sum()), fillstyle="none", alpha=0.5, **look)
    errors = np.geomspace(rows.error[rows.error > 0].min(), 1, 50)
    axes.plot(errors, errors**-2.0, label="1/error² (theorem B.1)", **_THEORY)
    median = float(np.median(rows.samples[rows.source == LABELS])) if (rows.source == LABELS).any() else np.nan
    if math.isfinite(median):
        axes.axhline(median, color=_COLORS[LABELS], linewidth=1.2, label="from labels (median)")
    axes.set(xscale="log", yscale="log", xlabel="expected hinge loss of the checkpoint")
    axes.set_ylabel("samples of the first stage")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain)
    axes.invert_xaxis()  # training goes to the right
    legend_above(figure)
    return figure


def _coefficients(results: Results) -> tuple[pd.DataFrame, Sequence[float]] | None:
    """Returns sizes of correlations by step and side, and what theory says: 1/8k, and our means off and in."""
    task, teacher, table = results.experiment.task, results.experiment.teacher, results.table
    rows = table[(table.role == "teacher") & table.measure.isin(("coefficient", "hinge"))]
    if not isinstance(task, ParityTask) or not isinstance(teacher, SymmetricMlp) or rows.empty:
        return None
    inside = rows.coordinate.isin(task.features[0])
    label = np.where(rows.measure == "hinge", "hinge", np.where(inside, "in", "off"))
    sizes = rows.assign(value=rows.value.abs(), label=label)
    means = expected_coefficients(task.dimension, task.degree, teacher.width)
    return sizes, (1 / (8 * task.degree), *means)


def draw_coefficients(rows: pd.DataFrame, theory: Sequence[float]) -> Figure:
    """Draws correlations by step, in and off the support."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    lemma, off, inside = theory
    colors = {"in": style.INSIDE_COLOR, "off": style.OUTSIDE_COLOR, "hinge": "#999999"}
    names = {"in": "in the support", "off": "off it", "hinge": "expected hinge loss"}
    for label, color in colors.items():
        steps = rows[rows.label == label].groupby("step").value
        mean, low, high = steps.mean(), steps.quantile(0.05), steps.quantile(0.95)
        axes.plot(mean.index, mean, color=color, marker="o" if label != "hinge" else "", label=names[label])
        if label != "hinge":
            axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
    axes.axhline(lemma, label="1/8k (lemma B.5)", **_THEORY)
    first = rows.step.min()
    for value, color in ((off, style.OUTSIDE_COLOR), (inside, style.INSIDE_COLOR)):
        axes.plot([first], [value], marker="_", markersize=22, color=color, linestyle="")
    axes.set(xscale="log", yscale="log", ylabel="|E f(x) x_j|")
    set_step_axis(axes, "teacher’s training steps")
    note = Line2D(
        [], [], marker="_", markersize=14, color="#444444", linestyle="", label="expected after the first stage"
    )
    legend_above(figure, note)
    return figure


def _first_weights(results: Results) -> pd.DataFrame:
    """Returns what is measured of first layers after first stages at mean gradients, by batch."""
    tables = [pd.DataFrame(columns=pd.Index(("batch", "measure", "inside", "value", "noise", "ratio")))]
    for one in (results, *results.variants.values()):
        task, rule = one.experiment.task, one.experiment.teacher_training.optimizer
        steps = rule.turns.get("first_steps")
        exact = getattr(rule, "support", None) is not None
        rows = one.table[(one.table.role == "teacher") & one.table.measure.isin(("weight_error", "found"))]
        if steps is None or exact or rows.empty or not isinstance(task, ParityTask):
            continue
        zeta = abs(majority_coefficient(task.dimension, task.degree - 1))
        noise = 1 / (task.degree * zeta * math.sqrt(2 * steps))
        at_end = rows[rows.step == rows.step.min()]
        tables.append(at_end.assign(batch=steps, noise=noise, ratio=off_support_ratio(task.dimension, task.degree)))
    return pd.concat([table for table in tables if not table.empty] or tables, ignore_index=True)


def draw_weights(rows: pd.DataFrame) -> Figure:
    """Draws errors of weights by batch, and the share of neurons that found the support."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    errors = rows[rows.measure == "weight_error"]
    for inside, color, label in ((1, style.INSIDE_COLOR, "in the support"), (0, style.OUTSIDE_COLOR, "off it")):
        means = errors[errors.inside == inside].groupby("batch").value.mean()
        axes.plot(means.index, means, color=color, marker="o", label=label)
    noise = rows.groupby("batch").noise.first()
    axes.plot(noise.index, noise, label="noise of the mean (claim B.4)", **_THEORY)
    axes.set(xscale="log", yscale="log", xlabel="samples of the first stage", ylabel="error of weights (rms)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain)
    twin = axes.twinx()
    shares = rows[rows.measure == "found"].groupby("batch").value.mean()
    twin.plot(shares.index, shares, color="#009E73", marker="D", label="found (right axis)")
    twin.set(ylim=(-0.03, 1.03), ylabel="share of neurons")
    twin.grid(False)
    legend_above(figure)
    return figure
