"""Figures of what models of strings depend on and know, read back from matplotlib's objects."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.distill.strategy import Strategy
from pdjax.report.figures.features import feature_figures, probed_groups
from pdjax.report.figures.strings import string_figures
from pdjax.report.reading import read_results

STEPS = (100, 200, 300, 400)


def grams(robust: tuple[float, float], close: tuple[float, float]) -> list[list[list[float]]]:
    """Returns a model's medians of n = 2 and n = 4."""
    return [[[value] for value in robust], [[value] for value in close]]


def curves(axes: Axes) -> list[list[float]]:
    """Returns the heights of the lines by step, which are marked with dots."""
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) and line.get_marker() == "o"]
    return [np.asarray(line.get_ydata()).tolist() for line in lines]


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def teacher(workdir: Any) -> None:
    """Writes a teacher whose measures are known: M_robust of n = 2 is 0.1 to 0.4, of n = 4 twice that."""
    workdir.strings()
    workdir.start()
    workdir.teacher()
    workdir.select({}, robust_peak={"step": 300, "peaked": True, "reason": "it peaks there"})
    workdir.measure(
        None,
        ngrams={s: [grams((s / 1000, s / 500), (0.5, 0.25))] for s in STEPS},
        nonterminals={s: [[s / 1000, s / 800]] for s in STEPS},
    )


def test_ngrams_have_a_line_for_each_n_with_phases_and_the_peak(workdir: Any, drawings: Any):
    teacher(workdir)
    drawn = drawings(string_figures(read_results(workdir.path)))
    assert list(drawn) == ["ngrams", "nonterminals"]
    robust, close = drawn["ngrams"].axes
    np.testing.assert_allclose(curves(robust), [[0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.6, 0.8]])
    np.testing.assert_allclose(curves(close), [[0.5] * 4, [0.25] * 4])
    assert (robust.get_ylabel(), close.get_ylabel()) == ("median M_robust", "median M_close")
    assert legend_of(drawn["ngrams"]) == ["n = 2", "n = 4", "peak: step 300"]
    for axes in (robust, close):
        assert [(patch.get_x(), patch.get_width()) for patch in axes.patches] == [(0, 100), (100, 200), (300, 100)]
        verticals = [line for line in axes.lines if len(set(np.asarray(line.get_xdata()).tolist())) == 1]
        assert [np.asarray(line.get_xdata())[0] for line in verticals] == [300, 200]  # the peak, the drop's middle
    assert [text.get_text() for text in robust.texts] == ["phase", "1", "2", "3"]


def test_other_percentiles_than_the_median_are_not_drawn(workdir: Any, drawings: Any):
    teacher(workdir)
    probe = dataclasses.replace(workdir.experiment.probes["ngrams"], n=(2,), percentiles=(25, 50))
    workdir.change(probes={"measured": (probe,)})
    workdir.start()
    workdir.measure(None, ngrams={s: [[[[0.1, s / 1000]], [[0.2, 0.4]]]] for s in STEPS})
    robust, close = drawings(string_figures(read_results(workdir.path)))["ngrams"].axes
    np.testing.assert_allclose([curves(robust), curves(close)], [[[0.1, 0.2, 0.3, 0.4]], [[0.4] * 4]])


def test_without_a_peak_none_is_drawn(workdir: Any, drawings: Any):
    teacher(workdir)
    workdir.select({}, robust_peak=None)
    results = read_results(workdir.path)
    assert legend_of(drawings(string_figures(results))["ngrams"]) == ["n = 2", "n = 4"]
    assert "Dashed" not in next(string_figures(results)).caption


def test_nonterminals_have_a_line_for_each_level(workdir: Any, drawings: Any):
    teacher(workdir)
    figure = drawings(string_figures(read_results(workdir.path)))["nonterminals"]
    np.testing.assert_allclose(curves(figure.axes[0]), [[s / 1000 for s in STEPS], [s / 800 for s in STEPS]])
    assert legend_of(figure) == ["level 1", "level 2"]


def probed(workdir: Any) -> None:
    """Writes an experiment whose students of one-shot and progressive are probed at 50 and 100 steps."""
    workdir.strings(students=["one_shot", "two"])
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.teacher()
    workdir.select({})
    workdir.measure(None, ngrams={400: [grams((0.1, 0.2), (0.3, 0.1))]}, nonterminals={400: [[0.9, 0.7]]})
    for key, level in (("one_shot", 0.2), ("two", 0.1)):
        workdir.student(key, 100, {100: (0.5, 0.5, 0.5)})
        values = {s: [level + 0.01 * r + (100 - s) / 500 for r in range(3)] for s in (50, 100)}
        workdir.measure(
            f"{key}-100",
            ngrams={s: [grams((v, v + 0.2), (v + 0.3, v)) for v in row] for s, row in values.items()},
            nonterminals={s: [[1 - v, 0.6 - v] for v in row] for s, row in values.items()},
            agreement={s: [(1 - v, v) for v in row] for s, row in values.items()},
        )


def lines_of(axes: Axes) -> list[list[float]]:
    """Returns the heights of the lines, in the order of the legend."""
    return [np.asarray(line.get_ydata()).tolist() for line in axes.lines if len(np.asarray(line.get_ydata()))]


def test_features_are_means_over_seeds_of_the_last_checkpoints(workdir: Any, drawings: Any):
    probed(workdir)
    drawn = drawings(feature_figures(read_results(workdir.path)))
    assert list(drawn) == ["features_100", "features_over_training_100"]
    figure = drawn["features_100"]
    close, robust, levels = figure.axes
    np.testing.assert_allclose(lines_of(close), [[0.51, 0.21], [0.41, 0.11], [0.3, 0.1]])
    np.testing.assert_allclose(lines_of(robust), [[0.21, 0.41], [0.11, 0.31], [0.1, 0.2]])
    np.testing.assert_allclose(lines_of(levels), [[0.79, 0.39], [0.89, 0.49], [0.9, 0.7]])
    assert [axes.get_title() for axes in figure.axes] == ["median M_close", "median M_robust", "accuracy of the probes"]
    assert (close.get_xticks().tolist(), robust.get_xticks().tolist()) == ([2, 4], [2, 4])
    left, right = levels.get_xlim()
    assert left > 2 > 1 > right  # the terminals are at the left
    assert legend_of(figure) == ["one-shot", "progressive (2, 50)", "final teacher"]
    band = np.asarray(robust.collections[0].get_paths()[0].vertices)[:, 1]
    half = 4.303 * 0.01 / 3**0.5
    assert (band.min(), band.max()) == pytest.approx((0.21 - half, 0.41 + half), abs=1e-4)


def test_untrained_students_are_drawn_where_they_were_probed(workdir: Any, drawings: Any):
    probed(workdir)
    for key in ("one_shot", "two"):
        workdir.measure(
            f"{key}-100",
            ngrams={s: [grams((0.1, 0.2), (0.3, 0.1))] * 3 for s in (0, 100)},
            nonterminals={0: [[0.5, 0.3], [0.6, 0.3], [0.7, 0.3]], 100: [[0.9, 0.8]] * 3},
        )
    figure = drawings(feature_figures(read_results(workdir.path)))["features_100"]
    np.testing.assert_allclose(lines_of(figure.axes[2])[-1], [0.6, 0.3])
    assert legend_of(figure) == ["one-shot", "progressive (2, 50)", "final teacher", "untrained students"]


def test_features_over_training_average_over_n_and_levels(workdir: Any, drawings: Any):
    probed(workdir)
    figure = drawings(feature_figures(read_results(workdir.path)))["features_over_training_100"]
    close, robust, levels, agreement = (lines_of(axes) for axes in figure.axes)
    np.testing.assert_allclose(close, [[0.46, 0.36], [0.36, 0.26], [0.2, 0.2]])  # the last is the teacher
    np.testing.assert_allclose(robust, [[0.41, 0.31], [0.31, 0.21], [0.15, 0.15]])
    np.testing.assert_allclose(levels, [[0.49, 0.59], [0.59, 0.69], [0.8, 0.8]])
    np.testing.assert_allclose(agreement, [[0.69, 0.79], [0.79, 0.89]])  # a teacher agrees with itself


def test_a_single_probed_checkpoint_has_no_course(workdir: Any, drawings: Any):
    probed(workdir)
    for key in ("one_shot", "two"):
        workdir.measure(f"{key}-100", ngrams={100: [grams((0.1, 0.2), (0.3, 0.1))] * 3})
    drawn = drawings(feature_figures(read_results(workdir.path)))
    assert list(drawn) == ["features_100"]
    titles = [axes.get_title() for axes in drawn["features_100"].axes]
    assert titles == ["median M_close", "median M_robust"]  # no panel of what no student was measured with


def test_the_same_students_are_one_line(workdir: Any):
    workdir.add(Strategy("again"))
    probed(workdir)
    workdir.change(probes={"students": ("one_shot", "again")})
    workdir.start()
    workdir.shared(["one_shot", "again"], 100, {"one_shot": (0.5, 0.5, 0.5)})
    assert [group.strategy for group in probed_groups(read_results(workdir.path), 1e-3, 100)] == ["one_shot"]
