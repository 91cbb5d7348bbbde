"""What the figures share: files, looks of strategies, axes of steps, legends, and the teacher's transition."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import Formatter, MaxNLocator

from pdjax.distill.phases import Transition
from pdjax.report import interactive, stats, style
from pdjax.report.groups import Group
from pdjax.report.results import Results

POINT = 1 / 72  # inches
SMALL = 9  # points, the text of small panels

_PHASE_COLORS = ("#f6f6f6", style.SHADE_COLOR, "#f6f6f6")


class ReportFigure(NamedTuple):
    """A drawn figure."""

    name: str  # of its files
    title: str
    caption: str
    svg: bytes
    png: bytes
    csv: bytes  # what is drawn
    series: tuple[interactive.Series, ...]  # entries of the legend, which the page shows and hides
    element: str  # the figure in the page


class Looks(NamedTuple):
    """How seaborn draws each strategy, by its label: the same in all figures."""

    palette: Mapping[str, str]
    dashes: Mapping[str, Any]
    markers: Mapping[str, str]
    fills: Mapping[str, str]

    @property
    def lines(self) -> dict[str, Any]:
        """The arguments of ``seaborn.lineplot`` for a column ``label``."""
        return {**self.bars, "style": "label", "dashes": self.dashes, "markers": self.markers}

    @property
    def bars(self) -> dict[str, Any]:
        """The arguments of seaborn's categorical plots for a column ``label``."""
        return {"hue": "label", "palette": self.palette}


def drawn(
    name: str, title: str, caption: str, draw: Callable[..., Figure], table: pd.DataFrame, *arguments: Any
) -> ReportFigure:
    """Draws a figure in the report's style; what cannot be part of a file's name and an identifier becomes ``_``.

    Args:
      name: of its files.
      title: above it.
      caption: below it: what is shown, over how many seeds, and what bands are.
      draw: a function of the table and the arguments.
      table: what is drawn; it is saved beside the figure without its empty columns.
      *arguments: of ``draw``.
    """
    name = re.sub(r"[^\w.-]", "_", name)
    with style.context(salt=name):
        figure = draw(table, *arguments)
        series = interactive.name_series(figure)
        svg = style.svg_bytes(figure)
        figure.set_layout_engine("none")  # the PNG has the same, found once
        element = interactive.opened(name, title, svg, figure, series)
        images = interactive.plain(svg), style.png_bytes(figure)
    csv = table.dropna(axis="columns", how="all").to_csv(index=False, lineterminator="\n")
    return ReportFigure(name, title, caption, *images, csv.encode(), series, element)


def looks(results: Results, labels: Mapping[str, str] | None = None) -> Looks:
    """Returns every strategy's look, the same in all figures; those drawn together differ in colour if they can.

    Args:
      results: the experiment's.
      labels: what the figure calls strategies, if not by their own labels.
    """
    labels = {**results.labels, **(labels or {})}
    chosen = {shown(labels[key]): look for key, look in _strategy_styles(results).items()}
    columns = [{label: getattr(look, part) for label, look in chosen.items()} for part in style.StrategyStyle._fields]
    return Looks(*columns)


def _strategy_styles(results: Results) -> Mapping[str, style.StrategyStyle]:
    kinds = ("training", "budgets", "first_checkpoints")  # the bars of the last have colours of their own
    comparisons = sorted(results.comparisons.values(), key=lambda comparison: kinds.index(comparison.kind))
    chosen: dict[str, style.StrategyStyle] = {}
    free = [style.strategy_style(index) for index in range(style.NUM_STYLES + len(results.labels))]
    together = [comparison.strategies for comparison in comparisons]
    together += [ablation.strategies for ablation in results.asked_ablations.values()]
    for members in (*together, results.experiment.probes.students, tuple(results.labels)):
        taken = {chosen[key].color for key in members if key in chosen}
        for key in members:
            if key not in chosen:
                chosen[key] = next((look for look in free if look.color not in taken), free[0])
                free.remove(chosen[key])
                taken.add(chosen[key].color)
    return chosen


def labelled(
    results: Results, groups: Sequence[Group], measure: str = "accuracy", labels: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Returns the rows of a measure of some groups, in their order, with the strategies' ``label`` as in ``looks``."""
    labels = {**results.labels, **(labels or {})}
    rows = [group.drawn(measure) for group in groups]
    table = pd.concat(rows, ignore_index=True) if rows else results.table.iloc[:0]
    return table.assign(label=[shown(labels[strategy]) for strategy in table.strategy])


def curves(axes: Axes, table: pd.DataFrame, looks: Looks, x: str = "step", **options: Any) -> None:
    """Draws the mean of ``value`` by ``x`` over the units, a line with its 95% band for each ``label``."""
    every = max(1, int(table.groupby("label")[x].nunique().max()) // 8)
    band = stats.band(low=0.0, high=1.0)
    bands = {"errorbar": band, "err_kws": {"alpha": 0.18, "linewidth": 0}}
    drawing = {**looks.lines, **bands, "markersize": 6.5, "markeredgewidth": 0, **options}
    sns.lineplot(table, x=x, y="value", ax=axes, **drawing)
    lines = [line for line in axes.lines if np.size(line.get_xdata())]  # entries of the legend are lines without data
    for index, line in enumerate(lines):  # beside each other, where curves cover each other
        line.set_markevery((index * every // len(lines), every))
    axes.set(xlabel="", ylabel="")


class StepFormatter(Formatter):
    """Steps in one unit for the whole axis: 1,200 or 50k or 2.5M."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        assert self.axis is not None
        return step_text(x, max(abs(limit) for limit in self.axis.get_view_interval()))


def step_text(step: float, largest: float) -> str:
    """Writes a step; if the largest beside it is at least 10,000 in thousands (k), from 1,000,000 on in millions (M).

    >>> step_text(1200, 8000), step_text(50_000, 240_000), step_text(2_500_000, 20_000_000), step_text(0, 20_000_000)
    ('1,200', '50k', '2.5M', '0')
    """
    for start, unit, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if largest >= start and step != 0:
            return f"{step / unit:g}{letter}"
    return f"{step:,.0f}"


def set_step_axis(axes: Axes, label: str, ticks: int | None = None, size: float | None = None) -> None:
    """Formats the x axis as training steps, with at most ``ticks`` intervals and a label of ``size`` points."""
    axes.xaxis.set_major_formatter(StepFormatter())
    if ticks is not None:
        axes.xaxis.set_major_locator(MaxNLocator(ticks))
    axes.set_xlabel(label, fontsize=size)


def accuracy_label(results: Results, kind: str = "held-out accuracy") -> str:
    """Names an axis of accuracies."""
    return f"{kind}\n(top 1, {results.counted})"


def grid(count: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """Returns a figure with ``count`` panels in rows of ``columns``, each ``height`` inches high.

    The options are those of ``Figure.subplots``.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(style.WIDTH, height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for spare in panels[count:]:
        spare.remove()
    for axes in panels[:count] if count > 1 else ():
        axes.tick_params(labelsize=SMALL)
    return figure, panels[:count]


def transitions(results: Results) -> dict[int, Transition | None]:
    """Returns the transitions of the teachers by their seeds; of students' own teacher too, where nothing is chosen."""
    by_seed = {}
    for one in results.by_teacher.values():
        seeds = one.experiment.teacher_training.seeds
        found = () if one.selection is None else one.selection.transitions
        by_seed |= {seed: found[place] if place < len(found) else None for place, seed in enumerate(seeds)}
    return by_seed


def shade_transition(axes: Axes, transition: Transition | None) -> list[Artist]:
    """Shades a teacher's transition and dots its middle; returns what the legend says about it."""
    if transition is None:
        return []
    axes.axvspan(transition.start, transition.end, color=style.SHADE_COLOR, linewidth=0, zorder=0)
    axes.axvline(transition.middle, color="#888888", linestyle=":", linewidth=1)
    return [Patch(color=style.SHADE_COLOR, linewidth=0, label="transition (its middle dotted)")]


def shade_phases(results: Results, panels: Sequence[Axes], position_of: Callable[[float], float] = float) -> None:
    """Shades the phases of the teacher's training with their numbers above the first panel, and dots the middle.

    Args:
      results: perhaps with phases.
      panels: below each other, against the teacher's steps.
      position_of: where a step lies on the x axis, if that is not one of steps.
    """
    if results.selection is None or results.selection.phases is None:
        return
    phases, last = results.selection.phases, results.last_teacher_step
    edges = [position_of(step) for step in (0, phases.start, phases.end, last)]
    for axes in panels:
        for (left, right), color in zip(itertools.pairwise(edges), _PHASE_COLORS, strict=True):
            axes.axvspan(left, right, color=color, linewidth=0, zorder=0)
        axes.axvline(position_of(phases.middle), color="#888888", linestyle=":", linewidth=1)
    first = panels[0]
    first.text(-0.01, 1.01, "phase", transform=first.transAxes, ha="right", va="bottom")
    for number, (left, right) in zip("123", itertools.pairwise(edges), strict=True):
        alignment = {"transform": first.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        first.text((left + right) / 2, 1.01, number, **alignment)


def of_the_paper(figure: str | None, what: str = "Corresponds to") -> str:
    """Returns the sentence of a caption that names a figure of the paper; nothing where there is none."""
    return f" {what} {figure} of the paper." if figure else ""


def count_units(groups: Sequence[Group]) -> str:
    """Says over how many means are: "3 seeds", "2 to 3 seeds", "5 teachers with 2 students each"."""
    counts = sorted({len(group.units) for group in groups})
    if len(counts) == 1:
        return groups[0].count
    return f"{counts[0]} to {counts[-1]} {groups[0].unit}s"


def by_rate(results: Results) -> list[tuple[float | None, str, str]]:
    """Returns the students' learning rates, each with what figures of it add to their names and titles."""
    if len(results.learning_rates) == 1:
        return [(results.learning_rates[0], "", "")]  # None: each strategy's own
    return [(rate, f"_lr{rate}", f", learning rate {rate}") for rate in results.learning_rates]


def by_rate_and_best(results: Results) -> list[tuple[float | None, str, str]]:
    """Returns the same after None, which is each strategy's best, where there are several."""
    best = (None, "_best", ", best learning rate of each")
    return [*([best] if len(results.learning_rates) > 1 else []), *by_rate(results)]


def rate_labels(results: Results, groups: Sequence[Group]) -> dict[str, str]:
    """Returns the labels of strategies with the learning rates (lr) of their groups, in the order of these."""
    rates: dict[str, dict[str, None]] = {}
    for group in groups:
        rates.setdefault(group.strategy, {})[f"{group.learning_rate:g}"] = None
    return {strategy: f"{results.labels[strategy]}, lr {' / '.join(found)}" for strategy, found in rates.items()}


def of_the_choice(results: Results, rate: float | None) -> str:
    """Returns the sentence of a caption that says how learning rates were chosen; nothing where none were."""
    if rate is not None:
        return ""
    if results.experiment.has_own_rates:
        return " Each strategy has a learning rate (lr) of its own, which the configuration gives it."
    return (
        " Each strategy has the learning rate (lr) of its highest mean final accuracy (where runs are unfinished, of "
        "that after the last evaluation that all have): it is chosen by the seeds that are shown, and nothing corrects "
        "for that."
    )


def add_accuracy(axes: Axes, curve: pd.DataFrame, label: str = "accuracy", ticks: bool = True) -> list[Artist]:
    """Draws a teacher's held-out accuracy, dashed grey on an axis from 0 to 1 at the right, and returns its legend.

    Args:
      axes: of what the teacher's accuracy goes with.
      curve: its rows of the table.
      label: of the axis.
      ticks: whether the axis has any; small panels need the room.
    """
    if curve.empty:
        return []
    look = {"color": "#888888", "linestyle": "--", "linewidth": 1.2}
    twin = axes.twinx()
    twin.plot(curve.step, curve.value, **look)
    twin.set_ylim(0, 1.05)
    twin.set_yticks([0, 0.5, 1])
    twin.grid(False)
    twin.spines["right"].set_visible(True)
    twin.tick_params(labelsize=SMALL, labelright=ticks, colors="#666666")
    if ticks:
        twin.set_ylabel(label, fontsize=SMALL, color="#666666")
    return [Line2D([], [], label="accuracy (right axis)" if ticks else "accuracy, from 0 to 1", **look)]


def fit(axes: Axes, values: pd.Series, room: float = 0.0) -> None:
    """Fits the y axis to measured values, not to bands (two seeds make them enormous), with room at the bottom."""
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.01) * 1.06
    axes.set_ylim(low - span * room / (1 - room), min(low + span, 1.005))
    axes.set_yticks([tick for tick in axes.get_yticks() if max(axes.get_ylim()[0], 0) <= tick <= axes.get_ylim()[1]])


def legend_above(figure: Figure, *more: Artist, **options: Any) -> None:
    """Moves the legends that seaborn put into the panels above them, as one without repetitions, and adds to it."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    for label, handle in handles.items():
        handle.set_label(label)
    for handle in more:
        handles.setdefault(str(handle.get_label()), handle)
    add_legend(figure, list(handles.values()), **options)


def add_legend(figure: Figure, handles: Sequence[Artist], **options: Any) -> None:
    """Puts the legend above the axes, in as many columns as its longest label leaves room for."""
    labels = [str(handle.get_label()) for handle in handles]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = int(72 * style.WIDTH / (55 + 6 * longest))  # points: a handle with its gaps, and about 6 a letter
    columns = min(max(columns, 1), 4)
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(lines / columns))
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, **options)


def shown(label: str) -> str:
    """Keeps matplotlib from leaving labels that begin with an underscore out of the legend."""
    return f" {label}" if label.startswith("_") else label
