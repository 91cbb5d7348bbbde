"""Attention of the teachers' last position, by step (figure 11)."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.report import style
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    add_accuracy,
    add_legend,
    drawn,
    grid,
    set_step_axis,
    shade_transition,
    teacher_replica,
)
from pdjax.report.results import Results

MOST_TEACHERS = 4


def attention_figures(results: Results) -> list[ReportFigure]:
    """Draws the measured attention, if there is any."""
    if results.attention is None:
        return []
    seeds = results.attention.seeds
    colors = (
        "orange to the positions of the support, blue to the others"
        if results.support is not None
        else "the support is not recorded"
    )
    left_out = f" The first {MOST_TEACHERS} of {len(seeds)} teachers are shown." if len(seeds) > MOST_TEACHERS else ""
    caption = (
        "Attention of the last position to each position along paths of two layers, summed over heads, as a share of "
        f"the whole: medians over random inputs; {colors}. On the right axis, from 0 to 1: the share of all positions "
        "of the support together and the held-out accuracy. Shaded: each teacher's transition, where it has one."
        f"{left_out} Corresponds to figure 11 of the paper."
    )
    return [drawn("attention", "Attention of the teachers", caption, draw_attention, results)]


def draw_attention(results: Results) -> Figure:
    """Draws the share of attention that each position gets by step, one panel for each teacher."""
    record = results.attention
    assert record is not None
    seeds = record.seeds[:MOST_TEACHERS]
    figure, panels = grid(len(seeds), columns=min(len(seeds), 2), height=2.6 if len(seeds) > 1 else 3.4)
    handles: list[Artist] = []
    for teacher, (axes, seed) in enumerate(zip(panels, seeds, strict=True)):
        handles += _draw_positions(results, axes, teacher)
        handles += shade_transition(results, axes, teacher)
        replica = teacher_replica(results, seed)
        if replica is not None and results.teacher is not None:
            handles += add_accuracy(axes, results.teacher.evaluation, replica, label="accuracy, support's share")
            look = {"color": style.INSIDE_COLOR, "linestyle": "--", "linewidth": 1.2}
            twin = axes.figure.axes[-1]
            twin.plot(record.steps, record.support[:, teacher] / total_attention(results), **look)
            handles.append(Line2D([], [], label="whole support (right axis)", **look))
        axes.set_title(f"seed {seed}", fontsize=10)
        axes.set_ylabel("attention (share)", fontsize=SMALL)
        set_step_axis(axes, "teacher's training steps", ticks=5, size=SMALL)
        axes.set_ylim(bottom=0)
    add_legend(figure, list({handle.get_label(): handle for handle in handles}.values()))
    return figure


def total_attention(results: Results) -> int:
    """Returns the attention to all positions together: each layer's attention sums to the number of its heads."""
    return getattr(results.experiment.teacher, "num_heads", 1) ** 2


def _draw_positions(results: Results, axes: Axes, teacher: int) -> list[Artist]:
    record = results.attention
    assert record is not None
    shares = record.positions[:, teacher] / total_attention(results)
    inside = np.isin(np.arange(shares.shape[1]), results.support or ())
    if results.support is None:
        axes.plot(record.steps, shares, color="#444444", linewidth=0.8, alpha=0.5)
        return [Line2D([], [], color="#444444", label="one position")]
    axes.plot(record.steps, shares[:, ~inside], color=style.OUTSIDE_COLOR, linewidth=0.7, alpha=0.4)
    axes.plot(record.steps, shares[:, inside], color=style.INSIDE_COLOR, linewidth=1.4)
    return [
        Line2D([], [], color=style.INSIDE_COLOR, label="position in the support"),
        Line2D([], [], color=style.OUTSIDE_COLOR, label="position off it"),
    ]
