"""Which first checkpoint is best: final accuracy of (2, T) students by it and by T (figure 4 right)."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pdjax.report import style
from pdjax.report.figures.bars import Bar, draw_bars
from pdjax.report.figures.drawing import (
    ReportFigure,
    accuracy_label,
    add_legend,
    by_rate,
    count_seeds,
    drawn,
    looks,
    of_the_paper,
    shade_phases,
    shown,
    step_text,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import Search, Series, automatic_strategies, chosen_steps, searches


def search_figures(results: Results) -> list[ReportFigure]:
    """Draws every search of which anything is finished."""
    figures = []
    for search in searches(results):
        finished = [group for group in search.groups.values() if group is not None]
        if finished:
            (suffix, title_suffix) = next((s, p) for rate, s, p in by_rate(results) if rate == search.learning_rate)
            name = f"first_checkpoints_{search.key}_{search.budget}{suffix}"
            title = f"{search.comparison.title}, {search.budget:,} steps{title_suffix}"
            figures.append(drawn(name, title, _caption(results, search, finished), draw_search, results, search))
    return figures


def _caption(results: Results, search: Search, finished: list[Group]) -> str:
    missing = len(search.groups) - len(finished)
    left_out = f" {missing} of {len(search.groups)} are not finished and left out." if missing else ""
    marks = {
        "C1": "C1, the peak of M_robust",
        "mid": "mid, the one nearest to the middle of phase 2",
        "auto": "auto, the automatic choice",
    }
    used = [text for mark, text in marks.items() if any(mark in names for names in _marks(results, search).values())]
    marked = f" Below the axis: {'; '.join(used)}." if used else ""
    phases = " Shaded: where the phases of the teacher lie between the checkpoints." if _has_phases(results) else ""
    return (
        f"Final held-out accuracy of (2, T) students after {search.budget:,} steps by the step of their first teacher "
        f"checkpoint, which they learn from for T steps: means over {count_seeds(finished)} with 95% Student t "
        f"confidence intervals, single seeds as points. The axis does not begin at 0. Horizontal: strategies without "
        f"an intermediate checkpoint.{marked}{phases}{left_out}{of_the_paper(search.comparison.figure)}"
    )


def draw_search(results: Results, search: Search) -> Figure:
    """Draws a group of bars for each first checkpoint, a bar for each T."""
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colors = style.sequential_colors(len(search.series) + 1)[:-1]  # on the darkest no interval can be seen
    bars = []
    for first in search.firsts:
        groups = [search.groups.get((first, series)) for series in search.series]
        pairs = zip(groups, colors, strict=True)
        bars.append([None if group is None else Bar(group.final_accuracy, color) for group, color in pairs])
    baselines = _baselines(results, search)
    draw_bars(axes, bars, [float(group.final_accuracy.mean()) for group in baselines])
    handles: list[Artist] = [
        Patch(color=color, label=_series_text(search, series))
        for series, color in zip(search.series, colors, strict=True)
    ]
    for group in baselines:
        look = looks(results)[group.strategy]
        line = {"color": look.color, "linestyle": look.line, "linewidth": 1.5}
        axes.axhline(float(group.final_accuracy.mean()), zorder=1.2, **line)
        handles.append(Line2D([], [], label=shown(results.labels[group.strategy]), **line))
    _label_checkpoints(results, search, axes)
    axes.set_xlabel("first checkpoint (teacher's training steps)")
    axes.set_ylabel(accuracy_label(results, "final held-out accuracy"))
    add_legend(figure, handles)
    return figure


def _series_text(search: Search, series: Series) -> str:
    several = len({other.loss for other in search.series}) > 1
    return f"T = {series.duration:,}" + (f", {series.loss.label or 'as in the paper'}" if several else "")


def _baselines(results: Results, search: Search) -> list[Group]:
    """Returns the finished groups without an intermediate checkpoint, those that comparisons over training draw."""
    keys = [key for key in results.compared or results.labels if not results.strategies[key].is_progressive]
    groups = [results.finished(key, search.learning_rate, search.budget) for key in keys]
    return [group for group in groups if group is not None]


def _has_phases(results: Results) -> bool:
    return bool(results.selection.get("phases"))


def _label_checkpoints(results: Results, search: Search, axes: Axes) -> None:
    """Names the groups by their checkpoints, with marks below, and shades the phases between them."""
    firsts, marks = search.firsts, _marks(results, search)
    texts = [step_text(first, firsts[-1]) for first in firsts]
    for index, first in enumerate(firsts):
        texts[index] += "".join(f"\n▲ {mark}" for mark in marks.get(first, []))
    axes.set_xticks(range(len(firsts)), texts)
    if _has_phases(results):
        last = max(results.experiment.teacher_training.steps, firsts[-1] + 1)
        known, positions = [0, *firsts, last], [-0.5, *range(len(firsts)), len(firsts) - 0.5]
        shade_phases(results, [axes], lambda step: float(np.interp(step, known, positions)))


def _marks(results: Results, search: Search) -> dict[int, list[str]]:
    """Returns what first checkpoints are known for."""
    marks: dict[int, list[str]] = {}
    peak, phases = results.selection.get("robust_peak"), results.selection.get("phases")
    if peak:
        marks.setdefault(peak["step"], []).append("C1")
    if phases:
        nearest = min(search.firsts, key=lambda first: abs(first - phases["middle"]))
        marks.setdefault(nearest, []).append("mid")
    for key in automatic_strategies(results)[:1]:
        marks.setdefault(chosen_steps(results, key)[0], []).append("auto")
    return {first: names for first, names in marks.items() if first in search.firsts}
