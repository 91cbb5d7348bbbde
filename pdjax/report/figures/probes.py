"""Correlations of the teachers' predictions with monomials, by step (figures 2 middle, 9, 12 and 17)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.distill.selection import Transition
from pdjax.io.probe_records import MonomialRecord
from pdjax.report import style
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    add_accuracy,
    add_legend,
    drawn,
    grid,
    looks,
    set_step_axis,
    shade_transition,
    step_text,
    teacher_replica,
)
from pdjax.report.results import Results

_LEVEL_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
_SEED_COLUMNS = 5  # panels beside each other
_SEED_DEGREES = (1, 2)  # where degree 1 shows no gap, degree 2 may (figure 9)

_MEASURE = (
    "The correlation with a monomial is |E[p₁(x) · product of its coordinates]|, with p₁ the probability of the first "
    "class and x uniform."
)
_BANDS = (
    "Lines are means over the monomials of a degree, bands one standard deviation over them: orange in the support, "
    "blue off it (at least one coordinate outside)."
)


def probe_figures(results: Results) -> list[ReportFigure]:
    """Draws the measured correlations: of the students' teacher, of all teachers, and by level of the task."""
    record = results.monomials
    if record is None:
        return []
    figures = []
    if _degrees(record):
        caption = (
            f"{_MEASURE} {_BANDS} {_points_sentence(results)}Corresponds to figures 2 (middle) and 9 of the paper."
        )
        title = "Correlations with monomials"
        figures.append(drawn("correlations", title, caption, draw_correlations, results))
    if len(record.seeds) > 1 and _seed_degrees(record):
        caption = (
            f"The same for every teacher: seeds from left to right, degrees from top to bottom. {_BANDS} Dashed grey: "
            "each teacher's held-out accuracy, from 0 to 1; shaded: its transition, where it has one. "
            "Corresponds to figure 12 of the paper."
        )
        title = "Correlations of every teacher"
        figures.append(drawn("correlations_by_seed", title, caption, draw_teacher_seeds, results))
    if record.num_features > 1 and record.low_degrees():
        caption = (
            f"{_MEASURE} Lines are means over the monomials of each feature on the way to class 0, level 0 being the "
            "tree's root; the blue band is one standard deviation around the mean off the support. Dotted in a "
            "level's colour: its spike. Corresponds to figure 17 of the paper."
        )
        figures.append(drawn("levels", "Correlations by level", caption, draw_levels, results))
    return figures


def _degrees(record: MonomialRecord) -> list[int]:
    """Returns the degrees that there are in the support."""
    return sorted(set(record.degrees[record.groups >= 0].tolist()))


def _seed_degrees(record: MonomialRecord) -> list[int]:
    return [degree for degree in record.low_degrees() if degree in _SEED_DEGREES]


def draw_correlations(results: Results) -> Figure:
    """Draws the correlations of the students' teacher by step, one panel for each degree."""
    record = results.monomials
    assert record is not None
    degrees = _degrees(record)
    figure, panels = grid(len(degrees), columns=min(len(degrees), 2), height=2.3)
    handles: list[Artist] = []
    for axes, degree in zip(panels, degrees, strict=True):
        handles = _draw_gap(axes, record, 0, degree) + shade_transition(results, axes) + _mark_points(results, axes)
        replica = teacher_replica(results, record.seeds[0])
        if replica is not None and results.teacher is not None:
            handles += add_accuracy(axes, results.teacher.evaluation, replica)
        axes.set_ylabel(f"correlation, degree {degree}", fontsize=SMALL)
        set_step_axis(axes, "teacher's training steps", ticks=5, size=SMALL)
    add_legend(figure, handles)
    return figure


def draw_teacher_seeds(results: Results) -> Figure:
    """Draws the low-degree correlations of every teacher by step: a row for each degree, a column for each seed."""
    record = results.monomials
    assert record is not None
    degrees, seeds = _seed_degrees(record), record.seeds
    columns = min(len(seeds), _SEED_COLUMNS)
    blocks = math.ceil(len(seeds) / columns)
    rows = blocks * len(degrees)
    figure, panels = grid(rows * columns, columns=columns, height=1.5)
    handles: list[Artist] = []
    for teacher, seed in enumerate(seeds):
        block, across = divmod(teacher, columns)
        for down, degree in enumerate(degrees):
            axes = panels[(block * len(degrees) + down) * columns + across]
            entries = _draw_gap(axes, record, teacher, degree) + shade_transition(results, axes, teacher)
            replica = teacher_replica(results, seed)
            if replica is not None and results.teacher is not None:
                entries += add_accuracy(axes, results.teacher.evaluation, replica, ticks=False)
            handles = entries if len(entries) > len(handles) else handles
            if down == 0:
                axes.set_title(f"seed {seed}", fontsize=10)
            axes.set_ylabel(f"degree {degree}" if across == 0 else "", fontsize=SMALL)
            set_step_axis(axes, "steps" if down == len(degrees) - 1 else "", ticks=3, size=SMALL)
            axes.tick_params(labelsize=8, labelleft=across == 0)
    _remove_unused(panels)
    for down in range(len(degrees)):
        _share_height([axes for i, axes in enumerate(panels) if axes.lines and (i // columns) % len(degrees) == down])
    add_legend(figure, handles)
    return figure


def _remove_unused(panels: Sequence[Axes]) -> None:
    for axes in panels:
        if not axes.lines:
            axes.remove()


def _share_height(panels: Sequence[Axes]) -> None:
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)


def draw_levels(results: Results) -> Figure:
    """Draws the correlations with each level's feature by step, one panel for each low degree, spikes dotted."""
    record = results.monomials
    assert record is not None
    degrees = record.low_degrees()
    figure, panels = grid(len(degrees), columns=1, height=2.4)
    spikes = results.selection.get("spikes") or []
    handles: list[Artist] = []
    for axes, degree in zip(panels, degrees, strict=True):
        handles = []
        for level in range(record.num_features):
            color = _LEVEL_COLORS[level % len(_LEVEL_COLORS)]
            axes.plot(record.steps, record.mean(degree, level)[:, 0], color=color)
            label = f"level {level}" + (" (root)" if level == 0 else "")
            if level < len(spikes):
                axes.axvline(spikes[level]["step"], color=color, linestyle=":", linewidth=1.2)
                label += f", spike at {step_text(spikes[level]['step'], float(record.steps[-1]))}"
            handles.append(Line2D([], [], color=color, label=label))
        _draw_band(axes, record, 0, record.chosen(degree, -1), style.OUTSIDE_COLOR)
        handles.append(Line2D([], [], color=style.OUTSIDE_COLOR, label="off the support"))
        axes.set_ylim(bottom=0)
        replica = teacher_replica(results, record.seeds[0])
        if replica is not None and results.teacher is not None:
            handles += add_accuracy(axes, results.teacher.evaluation, replica)
        axes.set_ylabel(f"correlation, degree {degree}", fontsize=SMALL)
        set_step_axis(axes, "teacher's training steps" if degree == degrees[-1] else "", size=SMALL)
    add_legend(figure, handles)
    return figure


def _draw_gap(axes: Axes, record: MonomialRecord, teacher: int, degree: int) -> list[Artist]:
    """Draws a teacher's correlations with the monomials of a degree, in the support and off it."""
    inside, outside = record.chosen(degree, None), record.chosen(degree, -1)
    handles: list[Artist] = []
    for chosen, color, label in (
        (inside, style.INSIDE_COLOR, "in the support"),
        (outside, style.OUTSIDE_COLOR, "off the support"),
    ):
        if chosen.any():
            _draw_band(axes, record, teacher, chosen, color)
        handles.append(Line2D([], [], color=color, label=label))
    axes.set_ylim(bottom=0)
    return handles


def _draw_band(axes: Axes, record: MonomialRecord, teacher: int, chosen: np.ndarray, color: str) -> None:
    values = record.values[:, teacher, chosen]
    mean, spread = values.mean(axis=1), values.std(axis=1)
    axes.plot(record.steps, mean, color=color)
    axes.fill_between(record.steps, np.maximum(mean - spread, 0), mean + spread, color=color, alpha=0.22, linewidth=0)


def _points(results: Results) -> Mapping[str, tuple[int, str]]:
    """Returns the checkpoint and the strategy of each point of the transition that a strategy learns from alone."""
    by_point: dict[str, tuple[int, str]] = {}
    for key, strategy in results.strategies.items():
        chosen = results.selection.get("strategies", {}).get(key, {}).get("teacher_steps", ())
        if isinstance(strategy.selection, Transition) and len(strategy.selection.at) == 1 and chosen:
            by_point.setdefault(strategy.selection.at[0], (chosen[0], key))
    return {point: by_point[point] for point in ("start", "middle", "end") if point in by_point}


def _points_sentence(results: Results) -> str:
    return "Vertical lines mark the checkpoints of the two-checkpoint strategies. " if _points(results) else ""


def _mark_points(results: Results, axes: Axes) -> list[Artist]:
    """Marks the single checkpoints chosen at points of the transition, in the colours of their strategies."""
    handles: list[Artist] = []
    for number, (point, (step, key)) in enumerate(_points(results).items()):
        look = looks(results)[key]
        axes.axvline(step, color=look.color, linewidth=1)
        marker = {"color": look.color, "marker": "v", "fillstyle": look.fill, "linestyle": "none", "markersize": 6}
        shared = sum(step == other for other, _ in list(_points(results).values())[:number])
        top = 1.03 + 0.06 * shared
        axes.plot([step], [top], transform=axes.get_xaxis_transform(), clip_on=False, zorder=4, **marker)
        handles.append(Line2D([], [], label=f"{point}: step {step:,}", **marker))
    return handles
