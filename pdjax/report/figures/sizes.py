"""Models of several sizes trained from labels: larger ones learn faster (figures 7, 10, 23 and 28)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pdjax.report import style
from pdjax.report.claims.sizes import best_replicas
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    accuracy_label,
    drawn,
    grid,
    of_the_paper,
    set_step_axis,
    shown,
    step_text,
)
from pdjax.report.results import Results
from pdjax.report.stats import half_width

MOST = 0.8
"""Share of the final accuracy at which the curves of models of strings are marked, as in the paper."""


class SizePanel(NamedTuple):
    """A panel of models of several sizes."""

    title: str
    results: Results
    panel: str  # of ``config.sizes``


def size_figures(results: Results) -> list[ReportFigure]:
    """Draws the accuracy of models of several sizes during training, if any of it is recorded."""
    panels = _panels(results)
    if not panels:
        return []
    figure = "figure 23" if results.has_strings else "figures 7 and 10"
    return [drawn("sizes", "Model sizes", size_caption(panels, figure), draw_sizes, results)]


def size_caption(panels: Sequence[SizePanel], figure: str | None) -> str:
    """Returns the caption of a figure of sizes; ``figure`` is that of the paper, if any."""
    several = any(
        p.results.experiment.sizes is not None and len(p.results.experiment.sizes.learning_rates) > 1 for p in panels
    )
    rates = (
        "Each size is drawn with the learning rate (lr) of its highest mean final accuracy; ties are broken by the "
        "mean accuracy over training. "
        if several
        else ""
    )
    marks = (
        f"The x axis is logarithmic. Dots, and steps in the legend: the first evaluation at which the mean has reached "
        f"{MOST:.0%} of what it is in the end. "
        if panels[0].results.has_strings
        else ""
    )
    return (
        "Held-out accuracy of models trained from labels, from small (light) to large (dark): mean over seeds with 95% "
        f"Student t confidence bands. {rates}{marks}{of_the_paper(figure).strip()}"
    )


def draw_sizes(results: Results) -> Figure:
    """Draws held-out accuracy during training, one panel for each way of counting size and one line for each size."""
    return draw_size_panels(_panels(results))


def _panels(results: Results) -> list[SizePanel]:
    evaluated = dict.fromkeys(panel for panel, _, _ in results.size_groups)
    return [SizePanel(panel, results, panel) for panel in evaluated]


def draw_size_panels(panels: Sequence[SizePanel]) -> Figure:
    """Draws held-out accuracy during training, one line for each size of a panel."""
    texts = [_texts(panel) for panel in panels]
    lines = max(len(labels) for labels in texts)
    across = min(len(panels), 2)
    entry = 45 + 5 * max(len(text) for labels in texts for text in labels.values())  # points, about
    columns = max(1, min(lines, int(72 * (style.WIDTH / across - 0.6) / entry)))
    figure, grid_of_axes = grid(len(panels), across, height=3.2 + 0.18 * math.ceil(lines / columns))
    for index, (axes, panel) in enumerate(zip(grid_of_axes, panels, strict=True)):
        _draw_panel(axes, panel)
        axes.legend(
            title=panel.title,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=columns,
            fontsize=SMALL,
        )
        axes.set_ylabel(accuracy_label(panel.results) if index % 2 == 0 else "", fontsize=10)
    lowest, highest = (pick(axes.get_ylim()[end] for axes in grid_of_axes) for end, pick in enumerate((min, max)))
    for axes, panel in zip(grid_of_axes, panels, strict=True):
        axes.set_ylim(lowest, highest if panel.results.has_strings else 1.01)
    return figure


def _draw_panel(axes: Axes, panel: SizePanel) -> None:
    results = panel.results
    assert results.experiment.sizes is not None
    texts = _texts(panel)
    colors = style.sequential_colors(len(results.panels[panel.panel]))
    lowest, highest, first = 1.0, 0.0, results.experiment.sizes.steps
    for label, color in zip(results.panels[panel.panel], colors, strict=True):
        run = results.size_runs[panel.panel, label]
        if run is None or not run.evaluation.steps.size:
            continue
        accuracy, steps = run.evaluation.accuracy[:, best_replicas(run)], run.evaluation.steps
        mean, half = np.mean(accuracy, axis=1), half_width(accuracy)
        axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.13, linewidth=0)
        axes.plot(steps, mean, color=color, label=shown(texts[label]))
        if results.has_strings and run.complete:
            index = _mostly_learned(mean)
            axes.plot(steps[[index]], mean[[index]], "o", color=color, markeredgecolor="white", markersize=8)
        lowest, highest = min(lowest, float(np.nanmin(accuracy))), max(highest, float(np.nanmax(accuracy)))
        first = int(steps[steps > 0].min(initial=first))
    axes.set_ylim(bottom=max(lowest - 0.03, 0), top=highest + 0.03)
    last = results.experiment.sizes.steps
    set_step_axis(axes, "training steps", ticks=5, size=10)
    axes.set_xlim(-0.02 * last, 1.02 * last)
    if results.has_strings:
        axes.set_xscale("log")
        axes.set_xlim(0.9 * first, 1.1 * last)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        set_step_axis(axes, "training steps", size=10)  # a scale has a format of its own


def _mostly_learned(mean: Float[np.ndarray, "E"]) -> int:
    """Returns the index of the first evaluation at which most of the final accuracy is reached."""
    return int(np.argmax(mean >= MOST * mean[-1]))


def _texts(panel: SizePanel) -> dict[str, str]:
    """Returns how the legend names the evaluated sizes of a panel."""
    results = panel.results
    assert results.experiment.sizes is not None
    texts = {}
    for label in results.panels[panel.panel]:
        run = results.size_runs[panel.panel, label]
        if run is not None and run.evaluation.steps.size:
            replicas = best_replicas(run)
            rate = run.description.replicas[replicas[0]].learning_rate
            text = f"{label}, lr {rate:g}" if len(results.experiment.sizes.learning_rates) > 1 else label
            if results.has_strings and run.complete:
                step = run.evaluation.steps[_mostly_learned(run.evaluation.accuracy[:, replicas].mean(axis=1))]
                text += f" ({MOST:.0%} at {step_text(int(step), results.experiment.sizes.steps)})"
            texts[label] = text if run.complete else f"{text} (unfinished)"
    return texts
