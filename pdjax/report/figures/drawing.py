"""What the figures share: files, looks of strategies, axes of steps, legends, and the teacher's transition."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import Formatter, MaxNLocator

from pdjax.io.records import Curves
from pdjax.report import style
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


def drawn(name: str, title: str, caption: str, draw: Callable[..., Figure], *arguments: Any) -> ReportFigure:
    """Draws a figure in the report's style; what cannot be part of a file's name and an identifier becomes ``_``."""
    name = re.sub(r"[^\w.-]", "_", name)
    with style.context(salt=name):
        figure = draw(*arguments)
        return ReportFigure(name, title, caption, style.svg_bytes(figure), style.png_bytes(figure))


def looks(results: Results) -> Mapping[str, style.StrategyStyle]:
    """Returns every strategy's look, the same in all figures; those drawn together differ in colour if they can."""
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


def grid(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure with ``count`` panels in rows of ``columns``, each ``height`` inches high."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(style.WIDTH, height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    for axes in panels[:count]:
        axes.tick_params(labelsize=SMALL)
    return figure, panels[:count]


def shade_transition(results: Results, axes: Axes, teacher: int = 0) -> list[Artist]:
    """Shades a teacher's transition and dots its middle; returns what the legend says about it.

    The teachers are counted in the order of their seeds; students learn from number 0.
    """
    selection = results.selection
    transitions = selection.get("transitions") or [selection.get("transition")]
    transition = transitions[teacher] if teacher < len(transitions) else None
    if not transition:
        return []
    axes.axvspan(transition["start"], transition["end"], color=style.SHADE_COLOR, linewidth=0, zorder=0)
    axes.axvline(transition["middle"], color="#888888", linestyle=":", linewidth=1)
    return [Patch(color=style.SHADE_COLOR, linewidth=0, label="transition (its middle dotted)")]


def shade_phases(results: Results, panels: Sequence[Axes], position_of: Callable[[float], float] = float) -> None:
    """Shades the phases of the teacher's training with their numbers above the first panel, and dots the middle.

    Args:
      results: with phases.
      panels: below each other, against the teacher's steps.
      position_of: where a step lies on the x axis, if that is not one of steps.
    """
    phases, teacher = results.selection["phases"], results.teacher
    last = results.experiment.teacher_training.steps
    if teacher is not None:
        last = max(teacher.description.budget, *teacher.evaluation.steps.tolist())
    edges = [position_of(step) for step in (0, phases["start"], phases["end"], last)]
    for axes in panels:
        for (left, right), color in zip(itertools.pairwise(edges), _PHASE_COLORS, strict=True):
            axes.axvspan(left, right, color=color, linewidth=0, zorder=0)
        axes.axvline(position_of(phases["middle"]), color="#888888", linestyle=":", linewidth=1)
    first = panels[0]
    first.text(-0.01, 1.01, "phase", transform=first.transAxes, ha="right", va="bottom")
    for number, (left, right) in zip("123", itertools.pairwise(edges), strict=True):
        alignment = {"transform": first.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        first.text((left + right) / 2, 1.01, number, **alignment)


def of_the_paper(figure: str | None, what: str = "Corresponds to") -> str:
    """Returns the sentence of a caption that names a figure of the paper; nothing where there is none."""
    return f" {what} {figure} of the paper." if figure else ""


def count_seeds(groups: Sequence[Group]) -> str:
    """Says over how many seeds means are: "3 seeds"."""
    counts = sorted({len(group.seeds) for group in groups})
    if counts[:1] == [1] and len(counts) == 1:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def by_rate(results: Results) -> list[tuple[float, str, str]]:
    """Returns the students' learning rates, each with what figures of it add to their names and titles."""
    if len(results.learning_rates) == 1:
        return [(results.learning_rates[0], "", "")]
    return [(rate, f"_lr{rate}", f", learning rate {rate}") for rate in results.learning_rates]


def add_accuracy(axes: Axes, curves: Curves, replica: int, label: str = "accuracy", ticks: bool = True) -> list[Artist]:
    """Draws a teacher's held-out accuracy, dashed grey on an axis from 0 to 1 at the right, and returns its legend."""
    look = {"color": "#888888", "linestyle": "--", "linewidth": 1.2}
    twin = axes.twinx()
    twin.plot(curves.steps, curves.accuracy[:, replica], **look)
    twin.set_ylim(0, 1.05)
    twin.set_yticks([0, 0.5, 1])
    twin.grid(False)
    twin.spines["right"].set_visible(True)
    twin.tick_params(labelsize=SMALL, labelright=ticks, colors="#666666")
    if ticks:
        twin.set_ylabel(label, fontsize=SMALL, color="#666666")
    return [Line2D([], [], label="accuracy (right axis)" if ticks else "accuracy, from 0 to 1", **look)]


def teacher_replica(results: Results, seed: int) -> int | None:
    """Returns the replica with a seed in the teacher's curves; None if it has none with evaluations."""
    if results.teacher is None or not results.teacher.evaluation.steps.size:
        return None
    seeds = [replica.seed for replica in results.teacher.description.replicas]
    return seeds.index(seed) if seed in seeds else None


def set_levels(axes: Axes, levels: Sequence[Float[np.ndarray, "E R"]], room: float) -> None:
    """Fits the axis to measured values, not to bands (two seeds make them enormous), with room at the bottom."""
    values = np.concatenate([level.ravel() for level in levels])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = max(high - low, 0.01) * 1.06
    axes.set_ylim(low - span * room / (1 - room), min(low + span, 1.005))
    axes.set_yticks([tick for tick in axes.get_yticks() if max(axes.get_ylim()[0], 0) <= tick <= axes.get_ylim()[1]])


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
