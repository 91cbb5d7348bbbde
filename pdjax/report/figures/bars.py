"""Groups of bars: means over seeds with their intervals, and the single seeds as points."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from pdjax.report import style
from pdjax.report.stats import mean_interval

_GROUP = 0.82  # width of a group of bars, in units of the distance between groups
_LETTER = 0.06  # inches, about, of a text above a bar


class Bar(NamedTuple):
    """One bar."""

    values: Float[np.ndarray, "R"]  # by seed
    color: Any
    text: str = ""  # above it


def draw_bars(axes: Axes, groups: Sequence[Sequence[Bar | None]], levels: Sequence[float] = ()) -> None:
    """Draws groups of bars at 0, 1, 2 ...; None leaves a bar's place empty.

    The axis begins where differences can be seen, not at 0, and has room for the ``levels`` too.
    """
    bars = [bar for group in groups for bar in group if bar is not None]
    low, high = _limits(bars, levels)
    width = _GROUP / max(len(group) for group in groups)
    inches = width * style.WIDTH * 0.85 / len(groups)
    longest = max(len(bar.text) for bar in bars)
    upright = longest * _LETTER > inches
    room = 0.36 if upright else (0.15 if longest else 0.08)
    axes.set_ylim(max(low - 0.35 * (high - low), 0), high + room * (high - low))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    for number, group in enumerate(groups):
        for index, bar in enumerate(group):
            if bar is not None:
                x = number + (index - (len(group) - 1) / 2) * width
                top = _draw_bar(axes, bar, x, width)
                place_of_text = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
                turned = {"fontsize": 7.5, "rotation": 90 if upright else 0}
                axes.annotate(bar.text, (x, min(top, high)), **place_of_text, **turned)
    axes.grid(axis="x", visible=False)


def _draw_bar(axes: Axes, bar: Bar, x: float, width: float) -> float:
    """Draws a bar and returns where what belongs to it ends."""
    interval = mean_interval(bar.values)
    axes.bar([x], [interval.mean], width * 0.92, color=bar.color, linewidth=0)
    if interval.size > 1:
        ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar([x], [interval.mean], yerr=ends, fmt="none", ecolor="#222222", elinewidth=1.1, capsize=2)
    spread = np.linspace(-0.22, 0.22, len(bar.values)) * width if len(bar.values) > 1 else np.zeros(1)
    axes.plot(x + spread, bar.values, ".", color="white", markeredgecolor="#222222", markersize=5, mew=0.6)
    return max(float(bar.values.max()), interval.high if interval.size > 1 else -np.inf)


def _limits(bars: Sequence[Bar], levels: Sequence[float]) -> tuple[float, float]:
    """Returns the range of what is drawn; an interval does not count beyond the range of the values once more."""
    values = np.concatenate([*[bar.values for bar in bars], np.array(levels, dtype=float)])
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.01)
    ends = [end for bar in bars if bar.values.size > 1 for end in mean_interval(bar.values)[1:3]]
    return max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
