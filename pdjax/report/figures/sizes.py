"""Models of several sizes trained from labels: larger ones learn faster (figures 7 and 10)."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.report import style
from pdjax.report.claims.sizes import best_columns
from pdjax.report.figures.drawing import SMALL, ReportFigure, accuracy_label, drawn, grid, set_step_axis, shown
from pdjax.report.results import Results
from pdjax.report.stats import half_width


def size_figures(results: Results) -> list[ReportFigure]:
    """Draws the accuracy of models of several sizes during training, if any of it is recorded."""
    if not results.size_arms or results.config.sizes is None:
        return []
    several = len(results.config.sizes.learning_rates) > 1
    rates = (
        "Each size is drawn with the learning rate (lr) of its highest mean final accuracy; ties are broken by the "
        "mean accuracy over training. "
        if several
        else ""
    )
    caption = (
        "Held-out accuracy of models trained from labels, from small (light) to large (dark): mean over seeds with 95% "
        f"Student t confidence bands. {rates}Corresponds to figures 7 and 10 of the paper."
    )
    return [drawn("sizes", "Model sizes", caption, draw_sizes, results)]


def draw_sizes(results: Results) -> Figure:
    """Draws held-out accuracy during training, one panel for each way of counting size and one line for each size."""
    panels = list(dict.fromkeys(panel for panel, _, _ in results.size_arms))
    lines = max(len(results.panels[panel]) for panel in panels)
    across = min(len(panels), 2)
    entry = 45 + 5 * max(len(text) for panel in panels for text in _texts(results, panel).values())  # points, about
    columns = max(1, min(lines, int(72 * (style.WIDTH / across - 0.6) / entry)))
    figure, grid_of_axes = grid(len(panels), across, height=3.2 + 0.18 * math.ceil(lines / columns))
    for place, (axes, panel) in enumerate(zip(grid_of_axes, panels, strict=True)):
        _draw_panel(results, axes, panel)
        axes.legend(
            title=panel,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=columns,
            fontsize=SMALL,
        )
        axes.set_ylabel(accuracy_label(results) if place % 2 == 0 else "", fontsize=10)
        set_step_axis(axes, "training steps", ticks=5, size=10)
    for axes in grid_of_axes:
        axes.set_ylim(min(axes.get_ylim()[0] for axes in grid_of_axes), 1.01)
    return figure


def _draw_panel(results: Results, axes: Axes, panel: str) -> None:
    assert results.config.sizes is not None
    labels, texts = results.panels[panel], _texts(results, panel)
    lowest = 1.0
    for label, color in zip(labels, style.sequential_colors(len(labels)), strict=True):
        run = results.size_runs[panel, label]
        if run is None or not run.evaluation.steps.size:
            continue
        columns = best_columns(run)
        accuracy, steps = run.evaluation.accuracy[:, columns], run.evaluation.steps
        mean, half = np.mean(accuracy, axis=1), half_width(accuracy)
        axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.13, linewidth=0)
        axes.plot(steps, mean, color=color, label=shown(texts[label]))
        lowest = min(lowest, float(np.nanmin(accuracy)))
    axes.set_ylim(bottom=max(lowest - 0.03, 0))
    axes.set_xlim(-0.02 * results.config.sizes.steps, 1.02 * results.config.sizes.steps)


def _texts(results: Results, panel: str) -> dict[str, str]:
    """Returns how the legend names the evaluated sizes of a panel."""
    assert results.config.sizes is not None
    texts = {}
    for label in results.panels[panel]:
        run = results.size_runs[panel, label]
        if run is not None and run.evaluation.steps.size:
            rate = run.description.replicas[best_columns(run)[0]].learning_rate
            text = f"{label}, lr {rate:g}" if len(results.config.sizes.learning_rates) > 1 else label
            texts[label] = text if run.complete else f"{text} (unfinished)"
    return texts
