"""Algorithm 1 beside what appendix B says of it: first-layer weights, correlations, and samples of the first stage."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.models.symmetric import SymmetricMlp
from pdjax.report import style
from pdjax.report.figures.drawing import SMALL, ReportFigure, drawn, grid, legend_above, set_step_axis
from pdjax.report.figures.scaling import THEORY, Curve, draw_lines, logarithmic
from pdjax.report.results import Results
from pdjax.report.samples import ALIGNED, BETWEEN, FINAL, FIRST, LABELS, searched
from pdjax.report.scaling import Line, lines, median
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import (
    expected_coefficients,
    first_batch_of_student,
    majority_coefficient,
    off_support_ratio,
)

_SOURCES = (FIRST, LABELS, FINAL, BETWEEN, FIRST + ALIGNED, FINAL + ALIGNED)
_STYLES = {source: style.strategy_style(index) for index, source in enumerate(_SOURCES)}
_LOOKS = {source: {"color": look.color, "marker": look.marker} for source, look in _STYLES.items()}
_FAILURE = 0.1
"""delta where theory asks for one: it stands in logarithms alone."""

_OF_ERRORS = (
    "Samples of a student’s first stage until it finds the support, against the error of the checkpoint that it learns "
    "from (the teacher’s expected hinge loss), a point for each teacher. Hollow points: not found "
    "with so many. Dashed: one over the squared error, a lower bound of one-shot distillation in theorem B.1."
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


def _own(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the searches in the experiment's own problem where errors are known, but those of aligned teachers."""
    task = results.experiment.task
    if not isinstance(task, ParityTask):
        return rows.iloc[:0]
    known = rows[rows.error.notna() & ~rows.source.str.endswith(ALIGNED)]
    return known[(known.dimension == task.dimension) & (known.degree == task.degree)]


def _by(rows: pd.DataFrame, axis: str, other: str, letter: str, fixed: str) -> Iterator[ReportFigure]:
    """Draws samples by dimension or degree, a figure for each value that the other has."""
    rows = rows[rows.separated & ~rows.source.str.startswith(BETWEEN)]  # of any teachers, aligned or not
    found = list(lines(rows, axis, [other]))
    for value in sorted({line.rest[other] for line in found}):
        chosen = [line for line in found if line.rest[other] == value]
        caption = (
            "Smallest batch of a student’s first stage with which in 90% of its neurons the k largest weights are the "
            f"support, {fixed} = {value:.0f}: medians over teachers (of labels, over students), single ones faint. "
            "Only teachers count from which the support can be found at all, and none is drawn where half of these did "
            "not suffice within the search. In brackets: exponents of the medians with 95% bootstrap intervals. "
            "Dashed: what theorem B.1 says, k² log(d m/δ) with constant 1 from the first stage of aligned teachers, "
            "which its proof supposes, and d^(k-1) from labels through their first point."
        )
        name, title = f"samples_by_{axis}_{fixed}{value:.0f}", f"Samples of the first stage, {fixed} = {value:.0f}"
        table = rows[rows[other] == value]
        theory = [curve for line in chosen for curve in _theory(line, axis)]
        labels = (letter, f"{letter}, the {axis}", "samples of the first stage")
        yield drawn(name, title, caption, draw_lines, table, chosen, _LOOKS, *labels, theory, _NAMES)


def _theory(line: Line, axis: str) -> Iterator[Curve]:
    """Yields what theorem B.1 says of a source."""
    pairs = [{**line.rest, axis: size} for size in line.values]
    pairs = [(int(pair["dimension"]), int(pair["degree"])) for pair in pairs]
    if line.source == FIRST + ALIGNED:
        yield Curve(list(line.values), [first_batch_of_student(d, k, 2**k * k, _FAILURE) for d, k in pairs])
    if line.source == LABELS and line.medians:
        (first, start), *_ = line.medians.items()
        powers = {size: d ** (k - 1) for size, (d, k) in zip(line.values, pairs, strict=True)}
        yield Curve(list(powers), [start * power / powers[first] for power in powers.values()])


def draw_errors(rows: pd.DataFrame) -> Figure:
    """Draws samples against a checkpoint's error, a point for each teacher."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    kinds = {FIRST: "after the first stage", BETWEEN: "within the second stage", FINAL: "final"}
    for source, label in kinds.items():
        each = rows[rows.source == source]
        if each.empty:
            continue
        look: dict[str, Any] = {**_LOOKS[source], "linestyle": ""}
        there = np.isfinite(each.samples)
        axes.plot(each.error[there], each.samples[there], label=f"{label} ({there.sum()} of {len(each)} found)", **look)
        axes.plot(each.error[~there], each.tried[~there], fillstyle="none", alpha=0.5, **look)
    errors = np.geomspace(rows.error[rows.error > 0].min(), 1, 50)
    axes.plot(errors, errors**-2.0, label="1/error² (theorem B.1)", **THEORY)
    of_labels = rows.samples[rows.source == LABELS]
    if len(of_labels) and np.isfinite(enough := float(median(of_labels.to_numpy()))):
        axes.axhline(enough, color=_LOOKS[LABELS]["color"], linewidth=1.2, label="from labels (median)")
    axes.set(xlabel="expected hinge loss of the checkpoint", ylabel="samples of the first stage")
    logarithmic(axes)
    axes.invert_xaxis()  # training goes to the right
    legend_above(figure)
    return figure


_PRINTED, _ALIGNED = "as printed", "aligned on the support"
_SIDES = {"in": style.INSIDE_COLOR, "off": style.OUTSIDE_COLOR, "hinge": "#999999"}
_SIDE_NAMES = {"in": "in the support", "off": "off it", "hinge": "expected hinge loss"}


def _coefficients(results: Results) -> tuple[pd.DataFrame, Mapping[str, Sequence[float]]] | None:
    """Returns sizes of correlations by step and side, of teachers as they are and aligned, and what theory says.

    That is, by the kind of teacher: 1/8k, and what is expected off the support and in it.
    """
    task, tables, theory = results.experiment.task, [], {}
    for one in (results, *results.variants.values()):
        teacher, table = one.experiment.teacher, one.table
        rows = table[(table.role == "teacher") & table.measure.isin(("coefficient", "hinge"))]
        if one.experiment.task != task or not isinstance(teacher, SymmetricMlp) or rows.empty:
            continue
        kind = _ALIGNED if teacher.aligned else _PRINTED
        assert isinstance(task, ParityTask)  # which is all that such a teacher is for
        side = np.where(rows.coordinate.isin(task.features[0]), "in", "off")
        side = np.where(rows.measure == "hinge", "hinge", side)
        tables.append(rows.assign(value=rows.value.abs(), side=side, teachers=kind))
        expected = expected_coefficients(task.dimension, task.degree, teacher.width, teacher.aligned)
        theory[kind] = (1 / (8 * task.degree), *expected)
    return (pd.concat(tables, ignore_index=True), theory) if tables else None


def draw_coefficients(table: pd.DataFrame, theory: Mapping[str, Sequence[float]]) -> Figure:
    """Draws correlations by step, in and off the support, a panel for each kind of teacher."""
    figure, panels = grid(len(theory), columns=2 if len(theory) > 1 else 1, height=3.6, sharey=True)
    for axes, (kind, (lemma, off, inside)) in zip(panels, theory.items(), strict=True):
        rows = table[table.teachers == kind]
        for side, color in _SIDES.items():
            steps = rows[rows.side == side].groupby("step").value
            mean, low, high = steps.mean(), steps.quantile(0.05), steps.quantile(0.95)
            marker = "" if side == "hinge" else "o"
            axes.plot(mean.index, mean, color=color, marker=marker, label=_SIDE_NAMES[side])
            if side != "hinge":
                axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
        axes.axhline(lemma, label="1/8k (lemma B.5)", **THEORY)
        for value, color in ((off, style.OUTSIDE_COLOR), (inside, style.INSIDE_COLOR)):
            axes.plot([rows.step.min()], [value], marker="_", markersize=22, color=color, linestyle="")
        axes.set(xscale="log", title=f"initial weights {kind}" if len(theory) > 1 else "")
        logarithmic(axes, x=False)
        set_step_axis(axes, "teacher’s training steps", size=SMALL)
    panels[0].set_ylabel("|E f(x) x_j|")
    bar = {"marker": "_", "markersize": 14, "color": "#444444", "linestyle": ""}
    legend_above(figure, Line2D([], [], label="expected after the first stage", **bar))
    return figure


def _first_weights(results: Results) -> pd.DataFrame:
    """Returns what is measured of first layers after first stages at mean gradients, by batch."""
    tables = [pd.DataFrame(columns=pd.Index(("batch", "measure", "inside", "value", "noise", "ratio")))]
    for one in (results, *results.variants.values()):
        task, rule = one.experiment.task, one.experiment.teacher_training.optimizer
        steps = rule.turns.get("first_steps")
        exact = bool(getattr(rule, "support", ()))
        rows = one.table[(one.table.role == "teacher") & one.table.measure.isin(("weight_error", "found"))]
        if steps is None or exact or rows.empty or not isinstance(task, ParityTask):
            continue
        zeta = abs(majority_coefficient(task.dimension, task.degree - 1))
        batch = steps * one.experiment.teacher_training.batch_size
        noise = 1 / (task.degree * zeta * math.sqrt(2 * batch))
        at_end = rows[rows.step == steps]
        tables.append(at_end.assign(batch=batch, noise=noise, ratio=off_support_ratio(task.dimension, task.degree)))
    return pd.concat([table for table in tables if not table.empty] or tables, ignore_index=True)


def draw_weights(rows: pd.DataFrame) -> Figure:
    """Draws errors of weights by batch, and the share of neurons that found the support."""
    figure, (axes,) = grid(1, columns=1, height=4.0)
    errors = rows[rows.measure == "weight_error"]
    for inside, color, label in ((1, style.INSIDE_COLOR, "in the support"), (0, style.OUTSIDE_COLOR, "off it")):
        means = errors[errors.inside == inside].groupby("batch").value.mean()
        axes.plot(means.index, means, color=color, marker="o", label=label)
    noise = rows.groupby("batch").noise.first()
    axes.plot(noise.index, noise, label="noise of the mean (claim B.4)", **THEORY)
    axes.set(xlabel="samples of the first stage", ylabel="error of weights (rms)")
    logarithmic(axes)
    twin = axes.twinx()
    shares = rows[rows.measure == "found"].groupby("batch").value.mean()
    twin.plot(shares.index, shares, color="#009E73", marker="D", label="found (right axis)")
    twin.set(ylim=(-0.03, 1.03), ylabel="share of neurons")
    twin.grid(False)
    legend_above(figure)
    return figure
