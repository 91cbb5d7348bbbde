"""What a teacher of strings depends on and knows, by step (figures 4 middle, 22 and 29)."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.report import style
from pdjax.report.figures.drawing import (
    ReportFigure,
    drawn,
    grid,
    legend_above,
    set_step_axis,
    shade_phases,
    step_text,
)
from pdjax.report.groups import medians
from pdjax.report.results import Results
from pdjax.report.searches import turn_name

_PHASES = "Shaded: the phases of the teacher's loss, the middle of phase 2 dotted."


def string_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws what was measured on the teacher of strings that students learn from."""
    phases = "" if results.selection is None or results.selection.phases is None else _PHASES
    turn, shade = turn_name(results), functools.partial(shade_phases, results)
    peak = None if results.selection is None else results.selection.robust_peak
    dashed = {} if peak is None else {f"{turn}: step {step_text(peak.step, results.last_teacher_step)}": peak.step}
    grams = _rows(results, "M_robust", "M_close")
    if not grams.empty:
        labels = {"M_robust": "median M_robust", "M_close": "median M_close"}
        caption = (
            "How far the predictions of one teacher depend on n-grams: total variation (0 to 1) between the prediction "
            "with the whole string and without the n-gram around the place (M_robust), or with nothing but the n-gram "
            "(M_close). Medians over places of strings, one line for each n, from small (light) to large (dark). "
            f"{f'Dashed: the {turn} of M_robust, averaged over short n. ' if turn else ''}{phases}"
        )
        grams = grams.assign(label=[f"n = {n:g}" for n in grams.n])
        title = "Dependence of the teacher on n-grams"
        yield drawn("ngrams", title, caption.rstrip(), draw_lines, grams, labels, shade, dashed)
    levels = _rows(results, "non-terminals")
    if not levels.empty:
        caption = (
            "Held-out accuracy of probes that tell the non-terminals of each level from the hidden states of one "
            "teacher: a line for each level of the grammar, from the root's children (light) to those next to the "
            f"terminals (dark); the root is level 0. {phases}"
        )
        levels = levels.assign(label=[f"level {level:g}" for level in levels.level])
        title = "Non-terminals in the teacher"
        labels = {"non-terminals": "accuracy of the probes"}
        yield drawn("nonterminals", title, caption.rstrip(), draw_lines, levels, labels, shade, {})


def _rows(results: Results, *measures: str) -> pd.DataFrame:
    return medians(pd.concat([results.teacher_curve(measure) for measure in measures], ignore_index=True))


def draw_lines(
    table: pd.DataFrame,
    y_labels: Mapping[str, str],
    shade: Callable[[Sequence[Axes]], None],
    dashed: Mapping[str, int],
) -> Figure:
    """Draws measures below each other by step, a line for each ``label``, from light to dark, and dashed steps."""
    figure, panels = grid(len(y_labels), columns=1, height=2.6 if len(y_labels) > 1 else 3.6, sharex=True)
    order = table.label.unique().tolist()
    colors = dict(zip(order, style.sequential_colors(len(order)), strict=True))
    for axes, (measure, y_label) in zip(panels, y_labels.items(), strict=True):
        rows = table[table.measure == measure]
        looks = {"hue": "label", "palette": colors, "marker": "o", "markersize": 3.5, "markeredgewidth": 0}
        sns.lineplot(rows, x="step", y="value", ax=axes, **looks)
        for label, step in dashed.items():
            axes.axvline(step, color="#D55E00", linestyle="--", linewidth=1.3, label=label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.02)
    set_step_axis(panels[-1], "teacher's training steps")
    shade(panels)
    figure.align_ylabels()
    legend_above(figure)
    return figure
