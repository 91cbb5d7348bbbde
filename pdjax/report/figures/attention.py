"""Attention of the teachers' last position, by step (figure 11)."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from pdjax.distill.phases import Transition
from pdjax.probes.monomials import OFF_SUPPORT
from pdjax.report import style
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    add_accuracy,
    drawn,
    grid,
    legend_above,
    set_step_axis,
    shade_transition,
    transitions,
)
from pdjax.report.results import Results

MOST_TEACHERS = 4

_INSIDE, _OUTSIDE, _WHOLE = "position in the support", "position off it", "whole support (right axis)"
_MEASURES = ("attention", "attention to the support")


def attention_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws the measured attention, if there is any."""
    rows = results.table[results.table.role == "teacher"]
    seeds = rows.seed[rows.measure == "attention"].unique()
    if len(seeds):
        table = rows[rows.measure.isin((*_MEASURES, "accuracy")) & rows.seed.isin(seeds[:MOST_TEACHERS])]
        # Each layer's attention sums to the number of its heads.
        total = getattr(results.experiment.teacher, "num_heads", 1) ** 2
        table = table.assign(
            value=np.where(table.measure == "accuracy", table.value, table.value / total),
            label=np.where(table.feature == OFF_SUPPORT, _OUTSIDE, _INSIDE),
        )
        few = f" The first {MOST_TEACHERS} of {len(seeds)} teachers are shown." if len(seeds) > MOST_TEACHERS else ""
        caption = (
            "Attention of the last position to each position along paths of two layers, summed over heads, as a share "
            "of the whole: medians over random inputs; orange to the positions of the support, blue to the others. On "
            "the right axis, from 0 to 1: the share of all positions of the support together and the held-out "
            f"accuracy. Shaded: each teacher's transition, where it has one.{few}"
        )
        yield drawn("attention", "Attention of the teachers", caption, draw_attention, table, transitions(results))


def draw_attention(table: pd.DataFrame, transitions: Mapping[int, Transition | None]) -> Figure:
    """Draws the share of attention that each position gets by step, one panel for each teacher."""
    seeds = table.seed.unique().tolist()
    figure, panels = grid(len(seeds), columns=min(len(seeds), 2), height=2.6 if len(seeds) > 1 else 3.4)
    looks = {"hue": "label", "palette": {_INSIDE: style.INSIDE_COLOR, _OUTSIDE: style.OUTSIDE_COLOR}}
    looks |= {"size": "label", "sizes": {_INSIDE: 1.4, _OUTSIDE: 0.5}, "units": "position", "estimator": None}
    handles: list[Artist] = []
    for axes, seed in zip(panels, seeds, strict=True):
        rows = table[table.seed == seed]
        positions, support, accuracy = (rows[rows.measure == measure] for measure in (*_MEASURES, "accuracy"))
        sns.lineplot(positions, x="step", y="value", ax=axes, **looks)
        handles += shade_transition(axes, transitions[seed])
        handles += add_accuracy(axes, accuracy, label="accuracy, support's share")
        if not accuracy.empty:
            whole = {"color": style.INSIDE_COLOR, "linestyle": "--", "linewidth": 1.2, "label": _WHOLE}
            figure.axes[-1].plot(support.step, support.value, **whole)
        axes.set(title=f"seed {seed}", ylim=(0, None))
        axes.set_ylabel("attention (share)", fontsize=SMALL)
        set_step_axis(axes, "teacher's training steps", ticks=5, size=SMALL)
    legend_above(figure, *handles)
    return figure
