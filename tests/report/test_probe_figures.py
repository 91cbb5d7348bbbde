"""Figures of correlations and attention, read back from matplotlib's objects."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.distill.selection import Transition
from pdjax.probes.attention import AttentionProbe
from pdjax.probes.monomials import MonomialProbe
from pdjax.report import style
from pdjax.report.figures.attention import attention_figures
from pdjax.report.figures.probes import probe_figures
from pdjax.report.reading import read_results
from pdjax.tasks.parity import HierarchicalTask

STEPS = (100, 200, 300, 400)
MEMBERS = [[0], [1], [0, 1], [2], [3], [4], [5], [0, 2], [3, 4]]
GROUPS = [0, 0, 0, -1, -1, -1, -1, -1, -1]
PROBES = (MonomialProbe(), AttentionProbe())
TRANSITION = {"start": 150, "middle": 200, "end": 250, "reason": "it rises"}


def values_at(step: int, seed: int) -> list[float]:
    """Returns correlations: degree 1 in the support has the mean step / 1000 + seed, and lies 0.05 around it."""
    level = step / 1000 + seed
    return [level - 0.05, level + 0.05, level / 2, 0.01, 0.01, 0.03, 0.03, 0.02, 0.04]


def parity(workdir: Any, seeds: tuple[int, ...]) -> None:
    """Writes a parity experiment with teachers of these seeds, their transition and correlations."""
    workdir.parity()
    workdir.change(teacher_training={"seed": seeds[0], "extra_seeds": seeds[1:]}, probes={"measured": PROBES})
    workdir.add(dataclasses.replace(workdir.experiment.strategy("two"), selection=Transition(("middle",))))
    workdir.start()
    workdir.teacher()
    transitions = [TRANSITION, *[None for _ in seeds[2:]], *[{**TRANSITION, "end": 300} for _ in seeds[1:2]]]
    workdir.select({"one_shot": (400,), "two": (200, 400)}, transition=TRANSITION, transitions=transitions)
    records = [{"seed": s, "step": t, "correlations": values_at(t, s)} for t in STEPS for s in seeds]
    workdir.probe("monomials", records, members=MEMBERS, groups=GROUPS)


def curves(axes: Axes, color: str) -> list[list[float]]:
    """Returns the heights of the lines over all steps that have a colour."""
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) == len(STEPS)]
    return [np.asarray(line.get_ydata()).tolist() for line in lines if line.get_color() == color]


def verticals(axes: Axes) -> list[float]:
    """Returns where vertical lines stand."""
    lines = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    return [x[0] for x in lines if len(x) == 2 and x[0] == x[1]]


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_correlations_in_and_off_the_support_with_accuracy_and_transition(workdir: Any, drawings: Any):
    parity(workdir, (0,))
    drawn = drawings(probe_figures(read_results(workdir.path)))
    assert list(drawn) == ["correlations"]
    first, second, *twins = drawn["correlations"].axes
    np.testing.assert_allclose(curves(first, style.INSIDE_COLOR), [[0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_allclose(curves(first, style.OUTSIDE_COLOR), [[0.02] * 4])
    np.testing.assert_allclose(curves(second, style.INSIDE_COLOR), [[0.05, 0.1, 0.15, 0.2]])
    np.testing.assert_allclose(curves(second, style.OUTSIDE_COLOR), [[0.03] * 4])
    inside = np.asarray(first.collections[0].get_paths()[0].vertices)[:, 1]
    deviation = 0.05 * 2**0.5  # of two values 0.05 around their mean
    assert (inside.min(), inside.max()) == pytest.approx((0.1 - deviation, 0.4 + deviation))
    assert first.get_ylim()[0] == 0
    for twin in twins:
        assert np.asarray(twin.lines[0].get_ydata()).tolist() == [0.3, 0.4, 0.6, 0.7]
        assert twin.get_ylim() == (0, 1.05)
    assert verticals(first) == [200]  # the middle of the transition
    assert [(patch.get_x(), patch.get_width()) for patch in first.patches] == [(150, 100)]
    (triangles,) = [line for line in first.lines if line.get_marker() == "v"]
    assert np.asarray(triangles.get_xdata()).tolist() == [200]  # not the last checkpoint, which every strategy has
    assert "progressive (2, 50), middle" in legend_of(drawn["correlations"])


def test_every_teacher_has_a_column_and_every_low_degree_a_row(workdir: Any, drawings: Any):
    parity(workdir, (0, 1, 2))
    figure = drawings(probe_figures(read_results(workdir.path)))["correlations_by_seed"]
    panels, twins = figure.axes[:6], figure.axes[6:]
    assert [axes.get_title() for axes in panels] == ["seed 0", "seed 1", "seed 2", "", "", ""]
    for seed in range(3):
        mean = np.array(STEPS) / 1000 + seed
        np.testing.assert_allclose(curves(panels[seed], style.INSIDE_COLOR), [mean])
        np.testing.assert_allclose(curves(panels[3 + seed], style.INSIDE_COLOR), [mean / 2])
    widths = [[patch.get_width() for patch in axes.patches] for axes in panels]
    assert widths == [[100], [], [150]] * 2  # each teacher's own transition; the second has none
    last = sorted(np.asarray(twin.lines[0].get_ydata())[-1] for twin in twins)
    assert last == pytest.approx([0.68, 0.68, 0.69, 0.69, 0.70, 0.70])  # each teacher's own accuracy
    assert len({axes.get_ylim() for axes in panels[:3]}) == 1
    assert panels[0].get_ylim()[1] > 2.4  # the highest mean, of the last seed


def test_more_teachers_than_columns_go_on_below(workdir: Any, drawings: Any):
    parity(workdir, tuple(range(7)))
    figure = drawings(probe_figures(read_results(workdir.path)))["correlations_by_seed"]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"seed {seed}" for seed in range(7)]


def test_levels_have_curves_and_spikes_of_their_own(workdir: Any, drawings: Any):
    workdir.parity(HierarchicalTask(8, 2, 2))
    workdir.change(probes={"measured": PROBES})
    workdir.start()
    workdir.teacher()
    spikes = [{"step": 300, "reason": "late"}, {"step": 100, "reason": "early"}]
    workdir.select({}, transition=TRANSITION, spikes=spikes)
    members, groups = [[0], [1], [2], [3], [6], [7]], [0, 0, 1, 1, -1, -1]
    rows = {t: [t / 1000, t / 1000 + 0.2, 0.5, 0.7, 0.01, 0.03] for t in STEPS}
    records = [{"seed": 0, "step": t, "correlations": row} for t, row in rows.items()]
    workdir.probe("monomials", records, members=members, groups=groups)
    drawn = drawings(probe_figures(read_results(workdir.path)))
    assert list(drawn) == ["correlations", "levels"]
    axes = drawn["levels"].axes[0]
    solid = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if len(np.asarray(line.get_xdata())) == 4]
    np.testing.assert_allclose(solid, [[0.2, 0.3, 0.4, 0.5], [0.6] * 4, [0.02] * 4])
    assert verticals(axes) == [300, 100]
    expected = ["level 0 (root), spike at 300", "level 1, spike at 100", "off the support"]
    assert legend_of(drawn["levels"])[:3] == expected


def test_attention_is_a_share_and_coloured_by_support(workdir: Any, drawings: Any):
    seeds = (0, 1, 2, 3, 4)
    parity(workdir, seeds)
    records = [
        {"seed": s, "step": t, "positions": [1.0, t / 400, 0.1, 0.1, 0.1, 0.1], "support": 1 + t / 400}
        for t in STEPS
        for s in seeds
    ]
    workdir.probe("attention", records)
    results = read_results(workdir.path)
    assert "The first 4 of 5 teachers are shown." in next(attention_figures(results)).caption
    figure = drawings(attention_figures(results))["attention"]
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [f"seed {seed}" for seed in seeds[:4]]
    total = 4  # two heads in each of two layers: the attention of all positions sums to 2 * 2
    inside, outside = (curves(panels[0], color) for color in (style.INSIDE_COLOR, style.OUTSIDE_COLOR))
    np.testing.assert_allclose(inside, np.array([[1, 1, 1, 1], [0.25, 0.5, 0.75, 1]]) / total)
    np.testing.assert_allclose(outside, np.full((4, 4), 0.1 / total))
    twin = next(axes for axes in figure.axes if not axes.get_title())
    accuracy, support = (np.asarray(line.get_ydata()) for line in twin.lines)
    np.testing.assert_allclose(accuracy, [0.3, 0.4, 0.6, 0.7])
    np.testing.assert_allclose(support, np.array([1.25, 1.5, 1.75, 2]) / total)


def test_without_probes_there_are_no_figures_of_them(finished: Any):
    results = read_results(finished.path)
    assert not [*probe_figures(results), *attention_figures(results)]
