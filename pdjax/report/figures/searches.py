"""Which first checkpoint is best: final accuracy of (2, T) students by it and by T (figure 4 right)."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pdjax.report import style
from pdjax.report.figures.bars import draw_bars
from pdjax.report.figures.drawing import (
    Looks,
    ReportFigure,
    accuracy_label,
    by_rate,
    count_units,
    drawn,
    grid,
    labelled,
    legend_above,
    looks,
    of_the_paper,
    shade_phases,
    step_text,
)
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.searches import Search, Series, automatic_strategies, chosen_steps, searches

_MARKS = {
    "C1": "C1, where M_robust turns",
    "mid": "mid, the one nearest to the middle of phase 2",
    "auto": "auto, the automatic choice",
}


def search_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws every search of which anything is finished."""
    added = {rate: texts for rate, *texts in by_rate(results)}
    for search in searches(results):
        finished = {cell: group for cell, group in search.groups.items() if group is not None}
        if finished:
            suffix, of_rate = added[search.learning_rate]
            name = f"first_checkpoints_{search.key}_{search.budget}{suffix}"
            title = f"{search.comparison.title}, {search.budget:,} steps{of_rate}"
            marks, labels = _marks(results, search), [_series_text(search, series) for series in search.series]
            caption = _caption(results, search, list(finished.values()), marks)
            table = pd.concat([_searched(results, search, finished), _baselines(results, search)], ignore_index=True)
            yield drawn(name, title, caption, draw_search, table, labels, looks(results), marks, results)


def _searched(results: Results, search: Search, finished: Mapping[tuple[int, Series], Group]) -> pd.DataFrame:
    """Returns final accuracies by first checkpoint, ``first``, and series, ``label``."""
    tables = [
        labelled(results, [group]).assign(first=first, label=_series_text(search, series))
        for (first, series), group in finished.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[table.step == table.budget]


def _baselines(results: Results, search: Search) -> pd.DataFrame:
    """Returns those without an intermediate checkpoint, of what comparisons over training draw; they have no first."""
    keys = [key for key in results.compared or results.labels if not results.strategies[key].is_progressive]
    found = [results.finished(key, search.learning_rate, search.budget) for key in keys]
    table = labelled(results, [group for group in found if group is not None])
    return table[table.step == table.budget]


def _series_text(search: Search, series: Series) -> str:
    several = len({other.loss for other in search.series}) > 1
    return f"T = {series.duration:,}" + (f", {series.loss.label or 'as in the paper'}" if several else "")


def _marks(results: Results, search: Search) -> dict[str, int]:
    """Returns the first checkpoints that are known for something."""
    chosen, marks = results.selection, {}
    if results.experiment.further_teachers:  # each has its own
        return {}
    if chosen is not None and chosen.robust_peak is not None:
        marks["C1"] = chosen.robust_peak.step
    if chosen is not None and chosen.phases is not None:
        middle = chosen.phases.middle
        marks["mid"] = min(search.firsts, key=lambda first: abs(first - middle))
    for key in automatic_strategies(results)[:1]:
        marks["auto"] = chosen_steps(results, key)[0]
    return {mark: step for mark, step in marks.items() if step in search.firsts}


def _caption(results: Results, search: Search, finished: Sequence[Group], marks: Mapping[str, int]) -> str:
    missing = len(search.groups) - len(finished)
    known = results.selection is not None and results.selection.phases is not None
    shaded = known and not results.experiment.further_teachers
    left_out = f" {missing} of {len(search.groups)} are not finished and left out." if missing else ""
    marked = f" Below the axis: {'; '.join(_MARKS[mark] for mark in marks)}." if marks else ""
    phases = " Shaded: where the phases of the teacher lie between the checkpoints." if shaded else ""
    return (
        f"Final held-out accuracy of (2, T) students after {search.budget:,} steps by the step of their first teacher "
        f"checkpoint, which they learn from for T steps: means over {count_units(finished)} with 95% Student t "
        f"confidence intervals, single seeds as points. The axis does not begin at 0. Horizontal: strategies without "
        f"an intermediate checkpoint.{marked}{phases}{left_out}{of_the_paper(search.comparison.figure)}"
    )


def draw_search(
    table: pd.DataFrame, series: Sequence[str], looks: Looks, marks: Mapping[str, int], results: Results
) -> Figure:
    """Draws a group of bars for each first checkpoint, a bar for each series, and those without one as lines."""
    figure, (axes,) = grid(1, columns=1, height=4.2)
    colors = style.sequential_colors(len(series) + 1)[:-1]  # on the darkest no interval can be seen
    searched, others = table[table["first"].notna()], table[table["first"].isna()]
    others = others.groupby("label", sort=False).value.mean()
    draw_bars(axes, searched, "first", dict(zip(series, colors, strict=True)), levels=others)
    for label, mean in others.items():
        look = {"color": looks.palette[str(label)], "dashes": looks.dashes[str(label)]}
        axes.axhline(mean, linewidth=1.5, zorder=1.2, label=label, **look)
    firsts = searched["first"].unique()
    texts = ["".join([step_text(f, firsts[-1]), *(f"\n▲ {m}" for m, at in marks.items() if at == f)]) for f in firsts]
    axes.set_xticks(range(len(firsts)), texts)
    known = [0, *firsts, max(results.last_teacher_step, firsts[-1] + 1)]
    positions = [-0.5, *range(len(firsts)), len(firsts) - 0.5]
    if not results.experiment.further_teachers:  # of which each has its own
        shade_phases(results, [axes], lambda step: float(np.interp(step, known, positions)))
    axes.set_xlabel("first checkpoint (teacher's training steps)")
    axes.set_ylabel(accuracy_label(results, "final held-out accuracy"))
    legend_above(figure)
    return figure
