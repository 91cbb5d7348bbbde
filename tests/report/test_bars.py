"""Groups of bars."""

import itertools

import pandas as pd
from matplotlib.figure import Figure

from pdjax.report.figures.bars import draw_bars


def test_bars_of_one_colour_differ_by_hatching_and_so_does_the_legend():
    palette = {"first": "#0072B2", "second": "#D55E00", "third": "#0072B2", "absent": "#0072B2", "fourth": "#D55E00"}
    labels = [label for label in palette if label != "absent"]
    rows = itertools.product(labels, ["a", "b"], [0.4, 0.6])
    axes = Figure().add_subplot()
    draw_bars(axes, pd.DataFrame(rows, columns=["label", "variant", "value"]), "variant", palette)
    hatches = {label: {bar.get_hatch() for bar in bars} for label, bars in zip(palette, axes.containers, strict=True)}
    assert {label: hatches[label] for label in labels} == {
        "first": {None},
        "second": {None},
        "third": {"////"},
        "fourth": {"////"},
    }
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    assert {label: {entries[label].get_hatch()} for label in labels} == {label: hatches[label] for label in labels}
