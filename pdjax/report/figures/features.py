"""What students of strings depend on and know, at the end and over training (figure 5)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.report import style
from pdjax.report.features import Feature, Measure, probed_groups, student_feature, teacher_feature, untrained_feature
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    add_legend,
    by_rate,
    count_seeds,
    drawn,
    grid,
    looks,
    set_step_axis,
    shown,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import half_width

_TEACHER = {"color": style.TEACHER_COLOR, "linestyle": "--", "linewidth": 1.3}
_UNTRAINED = {"color": style.TEACHER_COLOR, "linestyle": ":", "linewidth": 1.3}


class _Panel(NamedTuple):
    measure: Measure
    x_label: str  # what the x axis of the last checkpoints is
    label: str
    mean: str  # the same over training


_PANELS = (
    _Panel("close", "n", "median M_close", "median M_close,\nmean over n"),
    _Panel("robust", "n", "median M_robust", "median M_robust,\nmean over n"),
    _Panel(
        "nonterminals", "level (0: the root)", "accuracy of the probes", "accuracy of the probes,\nmean over levels"
    ),
)
_AGREEMENT = _Panel("agreement", "", "", "agreement with the\nfinal teacher (top 1)")


def feature_figures(results: Results) -> list[ReportFigure]:
    """Draws what was measured on students, for every learning rate and budget."""
    figures = []
    for rate, suffix, title_suffix in by_rate(results):
        for budget in results.budgets:
            groups = probed_groups(results, rate, budget)
            ends = _measured(results, groups, _PANELS)
            if ends:
                title = f"What students depend on and know after {budget:,} steps{title_suffix}"
                caption = _caption(results, groups, ends)
                figures.append(drawn(f"features_{budget}{suffix}", title, caption, draw_features, results, groups))
            courses = _measured(results, groups, (*_PANELS, _AGREEMENT))
            if courses and max(_steps(results, groups)) > 1:
                title = f"The same during training of {budget:,} steps{title_suffix}"
                caption = _course_caption(groups, courses)
                name = f"features_over_training_{budget}{suffix}"
                figures.append(drawn(name, title, caption, draw_features_over_training, results, groups))
    return figures


def _measured(results: Results, groups: Sequence[Group], panels: Sequence[_Panel]) -> list[_Panel]:
    """Returns the panels that there is anything to draw in."""
    return [p for p in panels if any(student_feature(results, group, p.measure) is not None for group in groups)]


def _steps(results: Results, groups: Sequence[Group]) -> list[int]:
    """Returns the numbers of probed checkpoints."""
    features = [student_feature(results, group, p.measure) for group in groups for p in (*_PANELS, _AGREEMENT)]
    return [feature.steps.size for feature in features if feature is not None]


def _bands(groups: Sequence[Group]) -> str:
    cut = "cut off where they leave the range of a strategy's values"
    return f"Lines are means over {count_seeds(groups)}, bands 95% Student t confidence intervals ({cut}). "


def _caption(results: Results, groups: Sequence[Group], panels: Sequence[_Panel]) -> str:
    grams = "M_close and M_robust (total variation, 0 to 1; medians over strings and positions) by n"
    probes = "held-out accuracy of probes for the non-terminals of each level, those next to the terminals at the left"
    measures = {panel.measure for panel in panels}
    shown = [
        text for text, part in ((grams, measures - {"nonterminals"}), (probes, "nonterminals" in measures)) if part
    ]
    teacher = any(teacher_feature(results, panel.measure) is not None for panel in panels)
    line = "Dashed grey: the final teacher. " if teacher else ""
    if any(untrained_feature(results, groups, panel.measure) for panel in panels):
        line += "Dotted grey: the students before training. "
    return (
        f"The students' last checkpoints: {'; '.join(shown)}. {_bands(groups)}{line}"
        "Corresponds to figure 5 of the paper."
    )


def _course_caption(groups: Sequence[Group], panels: Sequence[_Panel]) -> str:
    agreement = any(panel.measure == "agreement" for panel in panels)
    share = (
        "Agreement is the share of held-out places with the same most likely token as the final teacher. "
        if agreement
        else ""
    )
    return (
        f"The measures of the figure before, averaged over n or levels, at the students' checkpoints. {share}"
        f"{_bands(groups)}Dashed grey: the final teacher. The paper has no such figure."
    )


def draw_features(results: Results, groups: Sequence[Group]) -> Figure:
    """Draws M_close and M_robust against n and the accuracy of probes against the level, of the last checkpoints."""
    panels = _measured(results, groups, _PANELS)
    figure, grid_of_axes = grid(len(panels), columns=len(panels), height=3.0)

    def last(feature: Feature) -> tuple[np.ndarray, np.ndarray]:
        return np.array(feature.places), feature.values[-1].T

    for axes, panel in zip(grid_of_axes, panels, strict=True):
        _draw_lines(results, axes, groups, panel.measure, last)
        teacher = teacher_feature(results, panel.measure)
        if teacher is not None:
            axes.plot(teacher.places, teacher.values[-1, 0], **_TEACHER)
        untrained = untrained_feature(results, groups, panel.measure)
        if untrained is not None:
            axes.plot(untrained.places, untrained.values[0].mean(axis=0), **_UNTRAINED)
        ticks = _ticks(results, groups, panel.measure)
        axes.set_xticks(ticks)
        if panel.measure == "nonterminals":
            axes.set_xlim(max(ticks) + 0.3, min(ticks) - 0.3)
        axes.set_xlabel(panel.x_label, fontsize=SMALL)
        axes.set_title(panel.label, fontsize=10)
    handles = _handles(results, groups, any(teacher_feature(results, p.measure) for p in panels))
    if any(untrained_feature(results, groups, panel.measure) for panel in panels):
        handles.append(Line2D([], [], label="untrained students", **_UNTRAINED))
    add_legend(figure, handles)
    return figure


def draw_features_over_training(results: Results, groups: Sequence[Group]) -> Figure:
    """Draws the same measures averaged over n and levels, and the agreement with the teacher, by student step."""
    panels = _measured(results, groups, (*_PANELS, _AGREEMENT))
    figure, grid_of_axes = grid(len(panels), columns=min(len(panels), 2), height=2.4)

    def course(feature: Feature) -> tuple[np.ndarray, np.ndarray]:
        return feature.steps, feature.mean

    for axes, panel in zip(grid_of_axes, panels, strict=True):
        _draw_lines(results, axes, groups, panel.measure, course)
        teacher = None if panel.measure == "agreement" else teacher_feature(results, panel.measure)
        if teacher is not None:
            axes.axhline(float(teacher.mean[-1, 0]), **_TEACHER)
        axes.set_ylabel(panel.mean, fontsize=SMALL)
        set_step_axis(axes, "student's training steps", ticks=5, size=SMALL)
    add_legend(figure, _handles(results, groups, any(teacher_feature(results, p.measure) for p in _PANELS)))
    return figure


def _draw_lines(
    results: Results,
    axes: Axes,
    groups: Sequence[Group],
    measure: Measure,
    part: Callable[[Feature], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Draws a line with a band for each group; ``part`` gives places [X] and values [X, R]."""
    for group in groups:
        feature = student_feature(results, group, measure)
        if feature is None:
            continue
        look = looks(results)[group.strategy]
        x, values = part(feature)
        mean, half = values.mean(axis=1), half_width(values)
        low, high = np.maximum(mean - half, values.min()), np.minimum(mean + half, values.max())
        axes.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=look.color, linestyle=look.line, marker=look.marker, markersize=5)


def _ticks(results: Results, groups: Sequence[Group], measure: Measure) -> tuple[int, ...]:
    features = [student_feature(results, group, measure) for group in groups]
    return next(feature.places for feature in features if feature is not None)


def _handles(results: Results, groups: Sequence[Group], teacher: bool) -> list[Artist]:
    handles: list[Artist] = []
    for group in groups:
        look = looks(results)[group.strategy]
        drawing = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 5}
        handles.append(Line2D([], [], label=shown(results.labels[group.strategy]), **drawing))
    return [*handles, Line2D([], [], label="final teacher", **_TEACHER)] if teacher else handles
