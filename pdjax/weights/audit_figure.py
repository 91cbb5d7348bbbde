"""An audit as a figure: losses and distances between neighbours against steps, with marks where something is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from pdjax.report import style
from pdjax.report.figures.drawing import add_legend, grid, set_step_axis
from pdjax.weights.audit import Audit, Finding, Kind

_CURVE: Mapping[str, Any] = {"color": "#555555", "marker": ".", "markersize": 5, "linewidth": 1.2}
_DECADES = 100  # times the smallest distance: from there on the axis is one of logarithms
_UNEVEN = 0.1  # of the steps: where half of the checkpoints lie within this, the axis is one of logarithms


def save_figure(audit: Audit, file: Path) -> None:
    """Draws an audit into a file, as SVG if its name says so, and as PNG otherwise."""
    with style.context(salt="audit"):
        figure = draw_audit(audit)
        file.write_bytes(style.svg_bytes(figure) if file.suffix == ".svg" else style.png_bytes(figure))


def draw_audit(audit: Audit) -> Figure:
    """Draws the distance of every checkpoint to the one before, and above it the losses if there are any."""
    steps = np.array([row.step for row in audit.rows], float)
    panels = {
        "loss\n(nats)": _floats([row.loss for row in audit.rows]),
        "distance to the one before\n(of its norm)": _floats([row.distance for row in audit.rows]),
    }
    panels = {label: values for label, values in panels.items() if np.isfinite(values).any()} or panels
    figure, axes = grid(len(panels), columns=1, height=2.5, sharex=True)
    for panel, (label, values) in zip(axes, panels.items(), strict=True):
        panel.plot(steps, values, **_CURVE)
        panel.set_ylabel(label)
        if "distance" in label and 0 < _DECADES * np.nanmin(values, initial=np.inf) < np.nanmax(values, initial=0):
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        _mark(panel, dict(zip(steps, values, strict=True)), audit.findings)
    _set_steps(axes[-1], steps)
    if audit.findings:
        add_legend(figure, _legend(audit.findings))
    return figure


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _looks(findings: Sequence[Finding]) -> dict[Kind, style.StrategyStyle]:
    kinds: dict[Kind, None] = dict.fromkeys(finding.kind for finding in findings)
    return {kind: style.strategy_style(place) for place, kind in enumerate(kinds)}


def _mark(panel: Axes, values: Mapping[float, float], findings: Sequence[Finding]) -> None:
    """Marks the steps of findings, around each other where a step has several; below where there is no value."""
    looks = _looks(findings)
    for step in sorted({step for finding in findings for step in finding.steps}):
        kinds: dict[Kind, None] = dict.fromkeys(finding.kind for finding in findings if step in finding.steps)
        value = values.get(step, np.nan)
        for place, kind in enumerate(kinds):
            at: dict[str, Any] = {"transform": panel.get_xaxis_transform()} if np.isnan(value) else {}
            panel.plot([step], [0.04 if np.isnan(value) else value], **_marker(looks[kind], 8 + 4 * place), **at)


def _marker(look: style.StrategyStyle, size: float) -> dict[str, Any]:
    face = {"markerfacecolor": "none", "markeredgecolor": look.color, "markeredgewidth": 1.5}
    return {"linestyle": "none", "marker": look.marker, "markersize": size, "clip_on": False, **face}


def _legend(findings: Sequence[Finding]) -> list[Artist]:
    likely = {finding.kind for finding in findings if not finding.certain}
    return [
        Line2D([], [], label=f"{kind} (likely)" if kind in likely else kind, **_marker(look, 8))
        for kind, look in _looks(findings).items()
    ]


def _set_steps(panel: Axes, steps: np.ndarray) -> None:
    positive = steps[steps > 0]
    if len(positive) and np.median(steps) < _UNEVEN * steps.max():
        panel.set_xscale("symlog", linthresh=float(positive.min()))
    set_step_axis(panel, "training steps")
