"""Correlations of the teachers' predictions with monomials, by step (figures 2 middle, 9, 12 and 17)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.distill import selection
from pdjax.distill.phases import Transition
from pdjax.probes.monomials import OFF_SUPPORT
from pdjax.report import style
from pdjax.report.figures.drawing import (
    SMALL,
    Looks,
    ReportFigure,
    add_accuracy,
    drawn,
    grid,
    legend_above,
    looks,
    set_step_axis,
    shade_transition,
    step_text,
    transitions,
)
from pdjax.report.figures.teacher import chosen_checkpoints, mark_checkpoints
from pdjax.report.results import Results

_INSIDE, _OUTSIDE = "in the support", "off the support"
_COLORS = {_INSIDE: style.INSIDE_COLOR, _OUTSIDE: style.OUTSIDE_COLOR}
_LEVEL_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
_SEED_COLUMNS = 5  # panels beside each other
_HIGHEST = 3  # degree with whose monomials spikes are found
_SEED_DEGREES = (1, 2)  # where degree 1 shows no gap, degree 2 may (figure 9)

_MEASURE = (
    "The correlation with a monomial is |E[p₁(x) · product of its coordinates]|, with p₁ the probability of the first "
    "class and x uniform."
)
_BANDS = (
    "Lines are means over the monomials of a degree, bands one standard deviation over them: orange in the support, "
    "dotted blue off it (at least one coordinate outside)."
)


def probe_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws the measured correlations: of the students' teacher, of all teachers, and by level of the task."""
    rows = results.table[results.table.role == "teacher"]
    measured = rows[rows.measure == "correlation"]
    if measured.empty:
        return
    table = pd.concat([measured, rows[rows.measure == "accuracy"]], ignore_index=True)
    table = table[["seed", "step", "measure", "value", "monomial", "degree", "feature"]]
    table = table.assign(label=np.where(table.feature == OFF_SUPPORT, _OUTSIDE, _INSIDE))
    own, spans = table[table.seed == results.experiment.teacher_training.seed], transitions(results)
    inside, outside = (set(measured.degree[belongs]) for belongs in (measured.feature >= 0, measured.feature < 0))
    low = [int(degree) for degree in sorted(inside & outside) if degree <= _HIGHEST]
    if inside:
        points = _points(results)
        lines = "" if points.empty else " Triangles mark the checkpoints of the two-checkpoint strategies."
        title, caption = "Correlations with monomials", f"{_MEASURE} {_BANDS}{lines}"
        shown = own[own.degree.isin(inside) | (own.measure == "accuracy")]
        marks = spans[results.experiment.teacher_training.seed], points, looks(results)
        yield drawn("correlations", title, caption, draw_correlations, shown, *marks)
    few = table[table.degree.isin(set(low) & set(_SEED_DEGREES)) | (table.measure == "accuracy")]
    if measured.seed.nunique() > 1 and few.degree.notna().any():
        caption = (
            f"The same for every teacher: seeds from left to right, degrees from top to bottom. {_BANDS} Dashed grey: "
            "each teacher's held-out accuracy, from 0 to 1; shaded: its transition, where it has one."
        )
        yield drawn("correlations_by_seed", "Correlations of every teacher", caption, draw_teacher_seeds, few, spans)
    if measured.feature.max() > 0 and low:
        caption = (
            f"{_MEASURE} Lines are means over the monomials of each feature on the way to class 0, level 0 being the "
            "tree's root, bands one standard deviation over them; dotted blue: off the support. Dotted in a level's "
            "colour: its spike."
        )
        shown = own[own.degree.isin(low) | (own.measure == "accuracy")]
        yield drawn("levels", "Correlations by level", caption, draw_levels, *_levels(results, shown))


def _points(results: Results) -> pd.DataFrame:
    """Returns the checkpoints of strategies that learn from one at a point of the transition before the last one."""
    chosen = {key: strategy.selection for key, strategy in results.strategies.items() if not strategy.is_partial}
    keys = [key for key, s in chosen.items() if isinstance(s, selection.Transition) and len(s.at) == 1]
    points = chosen_checkpoints(results, keys)
    return points[points.step < results.last_teacher_step].assign(height=1.03 + 0.06 * points.place)


def _levels(results: Results, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str], dict[str, int]]:
    """Returns the table with levels as labels, and by label the colours and the steps of spikes."""
    found = () if results.selection is None else results.selection.spikes or ()
    names = [f"level {level}{'' if level else ' (root)'}" for level in range(int(table.feature.max()) + 1)]
    for level, spike in enumerate(found[: len(names)]):
        names[level] += f", spike at {step_text(spike.step, results.last_teacher_step)}"
    colors = {**dict(zip(names, itertools.cycle(_LEVEL_COLORS), strict=False)), _OUTSIDE: style.OUTSIDE_COLOR}
    labels = [_OUTSIDE if not feature >= 0 else names[int(feature)] for feature in table.feature]
    return table.assign(label=labels), colors, {name: spike.step for name, spike in zip(names, found, strict=False)}


def draw_correlations(table: pd.DataFrame, span: Transition | None, points: pd.DataFrame, looks: Looks) -> Figure:
    """Draws the correlations of the students' teacher by step, one panel for each degree."""
    degrees = sorted(table.degree.dropna().unique())
    figure, panels = grid(len(degrees), columns=min(len(degrees), 2), height=2.3)
    handles: list[Artist] = []
    for axes, degree in zip(panels, degrees, strict=True):
        handles = _draw_degree(axes, table, degree, _COLORS, span)
        mark_checkpoints(axes, points, looks, transform=axes.get_xaxis_transform())
        axes.set_ylabel(f"correlation, degree {degree:g}", fontsize=SMALL)
        set_step_axis(axes, "teacher's training steps", ticks=5, size=SMALL)
    _finish(figure, panels, handles)
    return figure


def draw_teacher_seeds(table: pd.DataFrame, spans: Mapping[int, Transition | None]) -> Figure:
    """Draws the low-degree correlations of every teacher by step: a row for each degree, a column for each seed."""
    degrees, seeds = sorted(table.degree.dropna().unique()), table.seed[table.degree.notna()].unique().tolist()
    columns = min(len(seeds), _SEED_COLUMNS)
    seeds += [None] * (-len(seeds) % columns)
    blocks = [seeds[start : start + columns] for start in range(0, len(seeds), columns)]
    cells = [(degree, seed) for block in blocks for degree in degrees for seed in block]
    figure, panels = grid(len(cells), columns, height=1.5, sharey="row")
    handles: list[Artist] = []
    for place, (axes, (degree, seed)) in enumerate(zip(panels, cells, strict=True)):
        if seed is None:
            axes.remove()
            continue
        handles += _draw_degree(axes, table[table.seed == seed], degree, _COLORS, spans[seed], ticks=False)
        axes.set_title(f"seed {seed}" if degree == degrees[0] else "", fontsize=10)
        axes.set_ylabel("" if place % columns else f"degree {degree:g}", fontsize=SMALL)
        set_step_axis(axes, "steps" if degree == degrees[-1] else "", ticks=3, size=SMALL)
        axes.tick_params(labelsize=8, labelbottom=degree == degrees[-1])
    _finish(figure, panels, handles)
    return figure


def draw_levels(table: pd.DataFrame, colors: Mapping[str, str], spikes: Mapping[str, int]) -> Figure:
    """Draws the correlations with each level's feature by step, one panel for each low degree, spikes dotted."""
    degrees = sorted(table.degree.dropna().unique())
    figure, panels = grid(len(degrees), columns=1, height=2.4, sharex=True)
    handles: list[Artist] = []
    for axes, degree in zip(panels, degrees, strict=True):
        handles = _draw_degree(axes, table, degree, colors, None)
        for label, step in spikes.items():
            axes.axvline(step, color=colors[label], linestyle=":", linewidth=1.2)
        axes.set_ylabel(f"correlation, degree {degree:g}", fontsize=SMALL)
    set_step_axis(panels[-1], "teacher's training steps", size=SMALL)
    _finish(figure, panels, handles)
    return figure


def _finish(figure: Figure, panels: Sequence[Axes], handles: Sequence[Artist]) -> None:
    """Lets the axes begin at 0, when all is drawn: panels may share them."""
    for axes in panels:
        axes.set_ylim(bottom=0)
    legend_above(figure, *handles)


def _draw_degree(
    axes: Axes,
    table: pd.DataFrame,
    degree: float,
    colors: Mapping[str, str],
    span: Transition | None,
    ticks: bool = True,
) -> list[Artist]:
    """Draws a teacher's correlations with the monomials of a degree by label, its transition and its accuracy."""
    dashes = {label: (1.2, 1.2) if label == _OUTSIDE else "" for label in colors}
    looks = {"hue": "label", "palette": colors, "style": "label", "dashes": dashes, "hue_order": list(colors)}
    bands = {"errorbar": "sd", "err_kws": {"alpha": 0.22, "linewidth": 0}}
    sns.lineplot(table[table.degree == degree], x="step", y="value", ax=axes, **looks, **bands)
    axes.set_xlabel("")
    return shade_transition(axes, span) + add_accuracy(axes, table[table.measure == "accuracy"], ticks=ticks)
