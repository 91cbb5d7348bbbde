"""Models of several sizes trained from labels: larger ones learn faster (figures 7, 10, 23 and 28)."""

import math
from collections.abc import Iterator

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pdjax.report import stats, style
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    accuracy_label,
    drawn,
    fit,
    grid,
    set_step_axis,
    shown,
    step_text,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results

# Of the highest final accuracy; the paper marks it in each curve, where it says little of those that stay low.
_MOST = 0.8


def size_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws the accuracy of models of several sizes over training, if any of it is recorded."""
    table = sized(results)
    if not table.empty:
        yield drawn("sizes", "Model sizes", size_caption(results), draw_sizes, table, accuracy_label(results))


def sized(results: Results) -> pd.DataFrame:
    """Returns the curves of every size's best learning rate, with its ``panel``, and its name there as ``label``."""
    tables = []
    for panel, sizes in results.panels.items():
        chosen = {size: group for size in sizes if (group := results.best_size(panel, size)) is not None}
        means = {size: group.over().mean(axis="columns") for size, group in chosen.items()}
        level = _MOST * max((mean.iloc[-1] for mean in means.values()), default=0)
        for size, group in chosen.items():
            rate = f", lr {group.learning_rate:g}" if _several_rates(results) else ""
            label = shown(f"{size}{rate} ({_reached(means[size], level, group)})")
            tables.append(group.rows[group.rows.measure == "accuracy"].assign(panel=panel, label=label))
    return pd.concat(tables, ignore_index=True) if tables else results.table.iloc[:0]


def _several_rates(results: Results) -> bool:
    return results.experiment.sizes is not None and len(results.experiment.sizes.learning_rates) > 1


def _reached(mean: pd.Series, level: float, group: Group) -> str:
    """Says when a mean accuracy by step reaches a level, or that training goes on."""
    if not group.complete:
        return "unfinished"
    above = mean.index[mean >= level]
    return f"{_MOST:.0%} at {step_text(above[0], group.budget)}" if len(above) else f"below {_MOST:.0%}"


def size_caption(results: Results) -> str:
    """Returns the caption of a figure of sizes."""
    rates = (
        " Each size is drawn with the learning rate (lr) of its highest mean final accuracy; ties are broken by the "
        "mean accuracy over training. It is chosen by the seeds that are shown, and nothing corrects for that."
    )
    return (
        "Held-out accuracy of models trained from labels, from small (light) to large (dark): mean over seeds with 95% "
        f"Student t bands. In brackets: the first evaluation at which the mean has reached {_MOST:.0%} of the highest "
        f"final accuracy in the panel.{rates if _several_rates(results) else ''}"
    )


def draw_sizes(table: pd.DataFrame, y_label: str) -> Figure:
    """Draws accuracy by step, a panel for each way of counting size and a line for each size."""
    panels = table.groupby("panel", sort=False)
    small = 10 if len(panels) > 1 else None
    across, lines = min(len(panels), 2), panels.label.nunique().max()
    entry = 45 + 5 * table.label.str.len().max()  # points, about
    columns = max(1, min(lines, int(72 * (style.WIDTH / across - 0.6) / entry)))
    figure, grid_of_axes = grid(len(panels), across, height=3.2 + 0.18 * math.ceil(lines / columns))
    for index, (axes, (panel, rows)) in enumerate(zip(grid_of_axes, panels, strict=True)):
        colors = style.sequential_colors(rows.label.nunique())
        band = {"errorbar": stats.band(low=0.0, high=1.0), "err_kws": {"alpha": 0.13, "linewidth": 0}}
        sns.lineplot(rows, x="step", y="value", hue="label", palette=colors, ax=axes, **band)
        axes.legend(title=panel, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize=SMALL)
        fit(axes, table.value)  # the same in all panels
        axes.set(xlim=(0, 1.02 * rows.budget.max()))
        axes.set_ylabel(y_label if index % across == 0 else "", fontsize=small)
        set_step_axis(axes, "training steps", ticks=5, size=small)
    return figure
