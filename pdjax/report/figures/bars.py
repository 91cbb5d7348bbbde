"""Groups of bars: means over the units with their intervals, and the single units as points."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from pdjax.report import stats, style

_WIDTH = 0.8  # of a group of bars, in units of the distance between groups
_LETTER = 0.06  # inches, about, of a text above a bar
_HATCHES = ("", "////", "....", "xxxx", "----")


def draw_bars(
    axes: Axes, table: pd.DataFrame, x: str, palette: Mapping[str, Any], levels: Iterable[float] = ()
) -> None:
    """Draws the mean accuracy ``value`` by ``x``, in the order of the rows, a bar for each ``label`` of a palette.

    The axis begins where differences can be seen, not at 0, and has room for the ``levels`` too. Where the table has
    a column ``text``, it stands above.
    """
    texts = "text" in table
    places, labels, band = list(table[x].unique()), list(palette), stats.band(low=0.0, high=1.0)
    table = table.assign(place=table[x].map(places.index))  # numbers: matplotlib warns of texts that look like some
    bars = {"x": "place", "y": "value", "hue": "label", "native_scale": True, "hue_order": labels, "ax": axes}
    look = {"saturation": 1, "err_kws": {"color": "#222222", "linewidth": 1.1}, "capsize": 0.08 / len(labels)}
    sns.barplot(table, palette=palette, width=_WIDTH, gap=0.08, errorbar=band, **bars, **look)
    _hatch(axes, palette)
    points = {"palette": dict.fromkeys(labels, "white"), "edgecolor": "#222222", "linewidth": 0.6, "size": 3.5}
    sns.swarmplot(table, dodge=True, legend=False, zorder=3, warn_thresh=1, **bars, **points)
    low, high = min([table.value.min(), *levels]), max([table.value.max(), *levels])
    span = max(high - low, 0.01)
    ends = [end for line in axes.lines for end in np.asarray(line.get_ydata()) if np.isfinite(end)]  # intervals
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    span = high - low or span
    upright = texts and table.text.str.len().max() * _LETTER > _WIDTH * 0.85 * style.WIDTH / len(places) / len(labels)
    room = 0.36 if upright else 0.15 if texts else 0.08
    for (place, label), rows in table.groupby(["place", "label"], sort=False) if texts else ():
        at = int(str(place)) + _WIDTH * ((labels.index(str(label)) + 0.5) / len(labels) - 0.5)
        top = min(np.nanmax([rows.value.max(), band(rows.value)[1]]), high)
        above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(rows.text.iloc[0], (at, top), fontsize=7.5, rotation=90 if upright else 0, **above)
    axes.set(xlim=(-0.5, len(places) - 0.5), xlabel="", ylim=(max(low - 0.35 * span, 0), high + room * span))
    axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= min(axes.get_ylim()[1], 1)])


def _hatch(axes: Axes, palette: Mapping[str, Any]) -> None:
    """Hatches the bars of labels whose colour an earlier label has, here and in the legend."""
    earlier: Counter[Any] = Counter()
    of_legend = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # seaborn draws a container for each label, in their order.
    for (label, color), container in zip(palette.items(), axes.containers, strict=True):
        hatch = _HATCHES[earlier[color] % len(_HATCHES)]
        earlier[color] += 1
        for bar in (*container, of_legend[label]) if hatch else ():
            bar.set(hatch=hatch, edgecolor="white", linewidth=0)
