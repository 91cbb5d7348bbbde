"""Figures of what models of strings depend on and know, read back from matplotlib's objects."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.distill.strategy import Strategy
from pdjax.report.features import probed_groups
from pdjax.report.figures import (
    all_figures,
    draw_features,
    draw_features_over_training,
    draw_ngrams,
    draw_nonterminals,
    draw_sizes,
)
from pdjax.report.reading import read_results

STEPS = (100, 200, 300, 400)


def grams(robust: tuple[float, float], close: tuple[float, float]) -> list[list[list[float]]]:
    """Returns a model's medians of n = 2 and n = 4."""
    return [[[value] for value in robust], [[value] for value in close]]


def curves(axes: Axes) -> list[list[float]]:
    """Returns the heights of the lines that are neither vertical nor horizontal marks."""
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 2 or line.get_marker() == "o"]
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
    workdir.select({}, robust_peak={"step": 300, "reason": "it peaks there"})
    workdir.measure(
        None,
        ngrams={s: [grams((s / 1000, s / 500), (0.5, 0.25))] for s in STEPS},
        nonterminals={s: [[s / 1000, s / 800]] for s in STEPS},
    )


def test_ngrams_have_a_line_for_each_n_with_phases_and_the_peak(workdir: Any):
    teacher(workdir)
    results = read_results(workdir.path)
    assert [figure.name for figure in all_figures(results)] == ["teacher", "ngrams", "nonterminals"]
    figure = draw_ngrams(results)
    robust, close = figure.axes
    np.testing.assert_allclose(curves(robust), [[0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.6, 0.8]])
    np.testing.assert_allclose(curves(close), [[0.5] * 4, [0.25] * 4])
    assert (robust.get_ylabel(), close.get_ylabel()) == ("median M_robust", "median M_close")
    assert legend_of(figure) == ["n = 2", "n = 4", "peak: step 300"]
    for axes in (robust, close):
        assert [(patch.get_x(), patch.get_width()) for patch in axes.patches] == [(0, 100), (100, 200), (300, 100)]
        verticals = [line for line in axes.lines if len(set(np.asarray(line.get_xdata()).tolist())) == 1]
        assert [np.asarray(line.get_xdata())[0] for line in verticals] == [300, 200]  # the peak, the drop's middle
    assert [text.get_text() for text in robust.texts] == ["phase", "1", "2", "3"]


def test_the_caption_of_ngrams_says_over_how_many_places(workdir: Any):
    teacher(workdir)
    (drawn,) = [figure for figure in all_figures(read_results(workdir.path)) if figure.name == "ngrams"]
    assert "Medians over 16 places (2 in each of 8 strings)" in drawn.caption
    assert "figures 4 (middle) and 22 (left)" in drawn.caption
    assert "other percentiles" not in drawn.caption


def test_without_a_peak_none_is_drawn(workdir: Any):
    teacher(workdir)
    workdir.select({}, robust_peak=None)
    results = read_results(workdir.path)
    assert legend_of(draw_ngrams(results)) == ["n = 2", "n = 4"]
    (drawn,) = [figure for figure in all_figures(results) if figure.name == "ngrams"]
    assert "peak" not in drawn.caption


def test_nonterminals_have_a_line_for_each_level(workdir: Any):
    teacher(workdir)
    figure = draw_nonterminals(read_results(workdir.path))
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


def test_features_are_means_over_seeds_of_the_last_checkpoints(workdir: Any):
    probed(workdir)
    results = read_results(workdir.path)
    assert {"features_100", "features_over_training_100"} <= {figure.name for figure in all_figures(results)}
    figure = draw_features(results, probed_groups(results, 1e-3, 100))
    close, robust, levels = figure.axes
    drawn = [[np.asarray(line.get_ydata()).tolist() for line in axes.lines] for axes in figure.axes]
    np.testing.assert_allclose(drawn[0], [[0.51, 0.21], [0.41, 0.11], [0.3, 0.1]])
    np.testing.assert_allclose(drawn[1], [[0.21, 0.41], [0.11, 0.31], [0.1, 0.2]])
    np.testing.assert_allclose(drawn[2], [[0.79, 0.39], [0.89, 0.49], [0.9, 0.7]])
    assert [axes.get_title() for axes in figure.axes] == ["median M_close", "median M_robust", "accuracy of the probes"]
    assert (close.get_xticks().tolist(), robust.get_xticks().tolist()) == ([2, 4], [2, 4])
    left, right = levels.get_xlim()
    assert left > 2 > 1 > right  # the terminals are at the left
    assert legend_of(figure) == ["one-shot", "progressive (2, 50)", "final teacher"]
    band = np.asarray(robust.collections[0].get_paths()[0].vertices)[:, 1]
    assert band.min() == pytest.approx(0.2)  # an interval that leaves the range of the seeds is cut off there


def test_untrained_students_are_drawn_where_they_were_probed(workdir: Any):
    probed(workdir)
    for key in ("one_shot", "two"):
        workdir.measure(
            f"{key}-100",
            ngrams={s: [grams((0.1, 0.2), (0.3, 0.1))] * 3 for s in (0, 100)},
            nonterminals={0: [[0.5, 0.3], [0.6, 0.3], [0.7, 0.3]], 100: [[0.9, 0.8]] * 3},
        )
    results = read_results(workdir.path)
    figure = draw_features(results, probed_groups(results, 1e-3, 100))
    (levels,) = [axes for axes in figure.axes if "probes" in axes.get_title()]
    np.testing.assert_allclose(np.asarray(levels.lines[-1].get_ydata()), [0.6, 0.3])
    assert legend_of(figure) == ["one-shot", "progressive (2, 50)", "final teacher", "untrained students"]
    captions = [figure.caption for figure in all_figures(results) if figure.name == "features_100"]
    assert "Dotted grey: the students before training." in captions[0]


def test_features_over_training_average_over_n_and_levels(workdir: Any):
    probed(workdir)
    results = read_results(workdir.path)
    figure = draw_features_over_training(results, probed_groups(results, 1e-3, 100))
    curves = [[np.asarray(line.get_ydata()).tolist() for line in axes.lines[:2]] for axes in figure.axes]
    np.testing.assert_allclose(curves[0], [[0.46, 0.36], [0.36, 0.26]])  # M_close
    np.testing.assert_allclose(curves[1], [[0.41, 0.31], [0.31, 0.21]])  # M_robust
    np.testing.assert_allclose(curves[2], [[0.49, 0.59], [0.59, 0.69]])  # non-terminals
    np.testing.assert_allclose(curves[3], [[0.69, 0.79], [0.79, 0.89]])  # agreement
    dashed = [[np.asarray(line.get_ydata())[0] for line in axes.lines[2:]] for axes in figure.axes]
    np.testing.assert_allclose(np.concatenate(dashed), [0.2, 0.15, 0.8])
    assert [len(row) for row in dashed] == [1, 1, 1, 0]  # a teacher agrees with itself


def test_a_single_probed_checkpoint_has_no_course(workdir: Any):
    probed(workdir)
    for key in ("one_shot", "two"):
        workdir.measure(f"{key}-100", ngrams={100: [grams((0.1, 0.2), (0.3, 0.1))] * 3})
        for name in ("nonterminals", "agreement"):
            (workdir.path / "students" / f"{key}-100" / "probes" / f"{name}.jsonl").unlink()
    results = read_results(workdir.path)
    names = [figure.name for figure in all_figures(results)]
    assert "features_100" in names
    assert "features_over_training_100" not in names
    assert len(draw_features(results, probed_groups(results, 1e-3, 100)).axes) == 2  # no panel of what is not measured


def test_the_same_students_are_one_line(workdir: Any):
    workdir.add(Strategy("again"))
    probed(workdir)
    workdir.change(probes={"students": ("one_shot", "again")})
    workdir.start()
    workdir.shared(["one_shot", "again"], 100, {"one_shot": (0.5, 0.5, 0.5)})
    assert [group.strategy for group in probed_groups(read_results(workdir.path), 1e-3, 100)] == ["one_shot"]


def test_sizes_of_models_of_strings_are_marked_where_most_is_learned(workdir: Any):
    model = workdir.experiment.student
    models = {f"{heads} heads": dataclasses.replace(model, num_heads=heads) for heads in (1, 2)}
    workdir.sizes({"heads": models}, steps=200)
    workdir.start()
    replicas = [(0, 1e-3), (1, 1e-3)]
    workdir.size("heads/1 heads", {50: (0.2, 0.2), 100: (0.3, 0.3), 200: (0.5, 0.5)}, replicas)
    workdir.size("heads/2 heads", {50: (0.3, 0.3), 100: (0.47, 0.49), 200: (0.6, 0.6)}, replicas)
    (axes,) = draw_sizes(read_results(workdir.path)).axes
    marks = [(line.get_xdata(), line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.array(marks)[:, :, 0], [[200, 0.5], [100, 0.48]])  # 0.48 is 80 % of 0.6
    assert axes.get_xscale() == "log"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["1 heads (80% at 200)", "2 heads (80% at 100)"]
