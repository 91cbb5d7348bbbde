"""How figures look: colours that the colour-blind can tell apart, line styles, markers, and file output."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

WIDTH = 7.0  # inches: 700 px at page width, one column and a half in print

TEACHER_COLOR = "#555555"
SHADE_COLOR = "#e2e8ef"  # of the teacher's transition
INSIDE_COLOR, OUTSIDE_COLOR = "#D55E00", "#0072B2"  # in and off the support

# Okabe and Ito's palette without its black and its yellow, which vanishes on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LINES = ("", (4, 1.6), (6, 1.5, 1.2, 1.5), (1.2, 1.2), (5, 1, 1.2, 1, 1.2, 1))  # on and off, in line widths
_MARKERS = ("o", "s", "D", "P", "X", "p", "*")
_FILLS = ("full", "none", "left", "bottom", "right")

NUM_STYLES = len(_COLORS) * len(_MARKERS)
"""Places that differ in colour or marker: the two numbers have no common divisor."""

PARAMETERS: Mapping[str, Any] = {
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # labels come from the config; a "$" in them is a "$"
    "svg.fonttype": "path",  # the same on every device
    "savefig.dpi": 160.0,
}
"""On top of matplotlib's defaults, whatever the user's own matplotlibrc says."""


class StrategyStyle(NamedTuple):
    """A strategy's look, the same in every figure."""

    color: str
    line: Any  # dashes as seaborn takes them
    marker: str
    fill: str  # of the triangles that mark its checkpoints

    @property
    def matplotlib_line(self) -> Any:
        """The dashes as matplotlib takes them."""
        return (0, self.line) if self.line else "-"


def strategy_style(index: int) -> StrategyStyle:
    """Returns the look of the strategy at a place; ``NUM_STYLES`` places differ in colour or marker."""
    return StrategyStyle(
        _COLORS[index % len(_COLORS)],
        _LINES[index % len(_LINES)],
        _MARKERS[index % len(_MARKERS)],
        _FILLS[index % len(_FILLS)],
    )


def sequential_colors(count: int) -> list[tuple[float, float, float, float]]:
    """Returns colours from light to dark, for sizes in increasing order."""
    shades = np.linspace(0.38, 1.0, count) if count > 1 else [0.85]
    return [matplotlib.colormaps["YlGnBu"](float(shade)) for shade in shades]


def context(salt: str) -> Any:
    """Returns a context in which figures have this look and reproducible SVG identifiers.

    The parameters are matplotlib's and thereby global while the context lasts; pyplot is not involved.
    """
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    parameters: Any = {**defaults, **PARAMETERS, "svg.hashsalt": salt}
    return matplotlib.rc_context(parameters)


def svg_bytes(figure: Figure) -> bytes:
    """Draws a figure as SVG, without the date and the addresses that matplotlib's metadata would add."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """Draws a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
