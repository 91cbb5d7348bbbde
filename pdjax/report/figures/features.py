"""What students of strings depend on and know, at the end and over training (figure 5)."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from pdjax.report import style
from pdjax.report.figures.drawing import (
    SMALL,
    Looks,
    ReportFigure,
    by_rate,
    count_units,
    curves,
    drawn,
    fit,
    grid,
    labelled,
    legend_above,
    looks,
    set_step_axis,
)
from pdjax.report.groups import Group, medians
from pdjax.report.results import Results

_TEACHER, _UNTRAINED = "final teacher", "untrained students"


class _Panel(NamedTuple):
    place: str  # the column that the last checkpoints are drawn against; empty: they are not
    label: str
    mean: str  # the same over training
    says: str  # what it is


_PANELS = {
    "M_close": _Panel(
        "n",
        "median M_close",
        "median M_close,\nmean over n",
        "M_close, how far predictions change with nothing but the n-gram (total variation, 0 to 1, median)",
    ),
    "M_robust": _Panel(
        "n", "median M_robust", "median M_robust,\nmean over n", "M_robust, how far without the n-gram (the same unit)"
    ),
    "non-terminals": _Panel(
        "level",
        "accuracy of the probes",
        "accuracy of the probes,\nmean over levels",
        "held-out accuracy of probes for the non-terminals of each level",
    ),
    "agreement": _Panel(
        "",
        "",
        "agreement with the\nfinal teacher (top 1)",
        "the share of held-out places with the same most likely token as the final teacher",
    ),
}
_BY_PLACE = [measure for measure, panel in _PANELS.items() if panel.place]


def feature_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws what was measured on students, for every learning rate and budget."""
    teacher, drawing = _final_teacher(results), _looks(results)
    for rate, suffix, of_rate in by_rate(results):
        for budget in results.budgets:
            groups = probed_groups(results, rate, budget)
            if not groups:
                continue
            table = medians(pd.concat([labelled(results, groups, measure) for measure in _PANELS], ignore_index=True))
            bands = (
                f"Lines are means over {count_units(groups)} with 95% Student t bands, cut off where they leave the "
                "range of the values. Dashed grey: the final teacher."
            )
            ends, course = _ends(table, teacher, budget), _course(table, teacher, budget)
            if not ends.empty:
                title = f"What students depend on and know after {budget:,} steps{of_rate}"
                shown = "; ".join(_PANELS[measure].says for measure in _BY_PLACE if measure in set(ends.measure))
                caption = f"The students' last checkpoints: {shown}. {bands} Dotted grey: the students before training."
                yield drawn(f"features_{budget}{suffix}", title, caption, draw_features, ends, drawing)
            if table.groupby("measure").step.nunique().max() > 1:
                name, title = f"features_over_training_{budget}{suffix}", f"The same over {budget:,} steps{of_rate}"
                shown = "; ".join(panel.says for measure, panel in _PANELS.items() if measure in set(course.measure))
                caption = f"At the students' checkpoints, averaged over n or levels: {shown}. {bands}"
                yield drawn(name, title, caption, draw_features_over_training, course, drawing)


def probed_groups(results: Results, learning_rate: float | None, budget: int) -> list[Group]:
    """Returns the finished groups of strategies whose students are probed, in the order the configuration names them.

    Of strategies whose students are the same the first stands for all.
    """
    groups: list[Group] = []
    for key in results.experiment.probes.students if results.experiment.probes_students_of(budget) else ():
        group = results.finished(key, learning_rate, budget)
        if group is not None and not any(group.is_same(other) for other in groups):
            groups.append(group)
    return groups


def _final_teacher(results: Results) -> pd.DataFrame:
    """Returns what was measured on the last checkpoint of the teacher that students learn from."""
    rows = medians(pd.concat([results.teacher_curve(measure) for measure in _BY_PLACE], ignore_index=True))
    return rows[rows.step == rows.step.max()].assign(label=_TEACHER)


def _looks(results: Results) -> Looks:
    """Returns the looks of strategies, and those of the teacher and of untrained students."""
    palette, dashes, markers, fills = looks(results)
    grey = dict.fromkeys((_TEACHER, _UNTRAINED), style.TEACHER_COLOR)
    dashes = {**dashes, _TEACHER: (4, 1.6), _UNTRAINED: (1.2, 1.2)}
    return Looks({**palette, **grey}, dashes, {**markers, _TEACHER: "^", _UNTRAINED: "v"}, fills)


def _ends(table: pd.DataFrame, teacher: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Returns the students' last checkpoints, the teacher's, and the mean of students before training, all alike."""
    rows = table[table.measure.isin(_BY_PLACE)]
    places = ["measure", *(name for name in ("n", "level") if name in rows)]
    untrained = rows[rows.step == 0].groupby(places, dropna=False).value.mean().reset_index().assign(label=_UNTRAINED)
    ends = rows[rows.step == budget]
    return pd.concat(
        [ends, *(other[other.measure.isin(ends.measure)] for other in (teacher, untrained))], ignore_index=True
    )


def _course(table: pd.DataFrame, teacher: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Returns the students' measures averaged over places, and the final teacher's as a level line."""
    level = teacher[teacher.measure.isin(table.measure)]
    rows = pd.concat([table, level.assign(step=0), level.assign(step=budget)], ignore_index=True)
    return rows.groupby(["label", "measure", "step", "teacher_seed", "seed"], sort=False).value.mean().reset_index()


def draw_features(table: pd.DataFrame, looks: Looks) -> Figure:
    """Draws M_close and M_robust against n and the accuracy of probes against the level, of the last checkpoints."""
    panels = {measure: _PANELS[measure] for measure in _BY_PLACE if measure in set(table.measure)}
    figure, grid_of_axes = grid(len(panels), columns=len(panels), height=3.0)
    for axes, (measure, panel) in zip(grid_of_axes, panels.items(), strict=True):
        rows = table[table.measure == measure]
        curves(axes, rows, looks, x=panel.place)
        fit(axes, rows.value, room=0.05)
        axes.set(xticks=sorted(rows[panel.place].unique()))
        axes.set_title(panel.label, fontsize=10)
        axes.set_xlabel("level (0: the root)" if panel.place == "level" else "n", fontsize=SMALL)
        axes.xaxis.set_inverted(panel.place == "level")
    legend_above(figure)
    return figure


def draw_features_over_training(table: pd.DataFrame, looks: Looks) -> Figure:
    """Draws the same measures averaged over n and levels, and the agreement with the teacher, by student step."""
    panels = {measure: panel for measure, panel in _PANELS.items() if measure in set(table.measure)}
    figure, grid_of_axes = grid(len(panels), columns=min(len(panels), 2), height=2.4)
    for axes, (measure, panel) in zip(grid_of_axes, panels.items(), strict=True):
        rows = table[table.measure == measure]
        curves(axes, rows, looks)
        fit(axes, rows.value, room=0.05)
        axes.set_ylabel(panel.mean, fontsize=SMALL)
        set_step_axis(axes, "student's training steps", ticks=5, size=SMALL)
    legend_above(figure)
    return figure
