"""Figures of Algorithm 1, read back from matplotlib's objects."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.report import style
from pdjax.report.claims.samples import R3
from pdjax.report.figures.theory import theory_figures
from pdjax.report.reading import read_results
from pdjax.settings import plain
from pdjax.theory.algorithm import (
    expected_coefficients,
    first_batch_of_student,
    majority_coefficient,
    off_support_ratio,
)
from pdjax.train.two_stage import TwoStage

INFINITE = math.inf
DIMENSIONS = (7, 15)

APART = (0.5, 0.1, 0.9)
"""Coefficients in and off the support and hinge loss of a teacher from which the support can be found."""


def write(workdir: Any, samples: Mapping[int, Sequence[float]], labels: Sequence[float] = ()) -> None:
    """Writes what the student of each of three teachers needed by step, and labels."""
    workdir.teacher()
    workdir.searched({step: [[one] for one in each] for step, each in samples.items()}, labels)
    workdir.lemmas({step: [APART] * 3 for step in samples})


def by_dimension(workdir: Any) -> None:
    """Writes teachers of two dimensions, as printed and aligned, at the ends of both stages and between."""
    workdir.theory(7, 4)
    workdir.problems("dimension", {"15": {"task": {"dimension": 15}}})
    aligned = {str(d): {"task": {"dimension": d}, "teacher": {"aligned": True}} for d in DIMENSIONS}
    workdir.problems("aligned", aligned)
    workdir.start()
    first = {7: (40, 10, 20), 15: (50, 30, INFINITE)}
    labels = {7: (300, 100, 200, 50), 15: (INFINITE, 2000, 1000)}
    for d, one in zip(DIMENSIONS, (workdir, workdir.variant("dimension", "15")), strict=True):
        write(one, {100: first[d], 200: (1, 1, 1), 400: (INFINITE, INFINITE, 600)}, labels[d])
    for d in DIMENSIONS:
        write(workdir.variant("aligned", str(d)), {100: (d, d, d), 300: (1, 1, 1), 400: (10 * d, 9 * d, 11 * d)})


def figures_of(workdir: Any) -> dict[str, Any]:
    """Returns the report's figures by name."""
    return {figure.name: figure for figure in theory_figures(read_results(workdir.path))}


def curves(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Returns the points of lines by their labels, without what those of the legend say in brackets."""
    lines = {str(line.get_label()).split(" (")[0]: line for line in axes.lines}
    return {label: points(line) for label, line in lines.items() if not label.startswith("_")}


def points(line: Any) -> list[tuple[float, float]]:
    """Returns the points of a line."""
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def dashed(axes: Axes) -> list[list[tuple[float, float]]]:
    """Returns the curves of the theory."""
    return [points(line) for line in axes.lines if line.get_linestyle() == "--"]


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_samples_by_dimension_are_medians_of_every_source(workdir: Any, drawings: Any):
    by_dimension(workdir)
    figure = drawings(theory_figures(read_results(workdir.path)))["samples_by_dimension_k4"]
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xticks().tolist()) == ("log", "log", [7, 15])
    assert curves(axes) == {
        "from labels": [(7, 200), (15, 2000)],
        "from the teacher’s first stage": [(7, 20), (15, 50)],
        "from the final teacher": [],  # not even half of them within the search
        "from the teacher’s first stage, aligned teachers": [(7, 7), (15, 15)],
        "from the final teacher, aligned teachers": [(7, 70), (15, 150)],
    }
    entries = legend_of(figure)
    assert "from the final teacher (not found)" in entries
    assert "from the teacher’s first stage, aligned teachers (d^1.00 [1.000, 1.000])" in entries
    assert "from labels" in entries  # of three students one did not find it: too few for an exponent
    assert entries[-1] == "theorem B.1"
    single = [points(line) for line in axes.lines if line.get_linestyle() == "None"]
    # In the order of sources and dimensions, without those that did not find it.
    assert single[:6] == [
        [(7, 300), (7, 100), (7, 200), (7, 50)],
        [(15, 2000), (15, 1000)],
        [(7, 40), (7, 10), (7, 20)],
        [(15, 50), (15, 30)],
        [(7, 600)],
        [(15, 600)],
    ]


def test_theory_by_dimension_is_that_of_the_proof(workdir: Any, drawings: Any):
    by_dimension(workdir)
    (axes,) = drawings(theory_figures(read_results(workdir.path)))["samples_by_dimension_k4"].axes
    from_labels, from_teachers = dashed(axes)
    np.testing.assert_allclose(from_labels, [(7, 200), (15, 200 * 15**3 / 7**3)])  # through the first point
    m = 2**4 * 4
    expected = [(d, first_batch_of_student(d, 4, m, 0.1)) for d in DIMENSIONS]
    np.testing.assert_allclose(from_teachers, expected)


def test_the_caption_and_the_csv_say_what_is_shown(workdir: Any):
    by_dimension(workdir)
    figure = figures_of(workdir)["samples_by_dimension_k4"]
    assert figure.name.startswith(R3.figure)
    assert figure.title == "Samples of the first stage, k = 4"
    assert "medians over teachers (of labels, over students), single ones faint" in figure.caption
    assert "d^(k-1) from labels through their first point" in figure.caption
    rows = list(csv.DictReader(io.StringIO(figure.csv.decode())))
    assert not any(row["source"].startswith("between") for row in rows)
    of_labels = [row for row in rows if row["source"] == "labels"]
    assert [float(row["samples"]) for row in of_labels] == [300, 100, 200, 50, INFINITE, 2000, 1000]
    assert float(of_labels[4]["tried"]) == workdir.TRIED


def test_teachers_that_are_not_separated_are_not_drawn(workdir: Any, drawings: Any):
    by_dimension(workdir)
    flat = (0.1, 0.1, 0.9)
    workdir.lemmas({100: [APART, flat, APART], 200: [flat] * 3, 400: [flat] * 3})
    (axes,) = drawings(theory_figures(read_results(workdir.path)))["samples_by_dimension_k4"].axes
    found = curves(axes)
    assert found["from the teacher’s first stage"] == [(7, 40), (15, 50)]  # of two the larger
    assert "from the final teacher" not in found


def test_samples_by_degree_have_a_figure_for_the_dimension(workdir: Any, drawings: Any):
    workdir.theory(7, 4)
    exact = plain(TwoStage(100, support=(0, 1)))
    workdir.problems("degree", {"k2": {"task": {"degree": 2}, "teacher_training": {"optimizer": exact}}})
    workdir.start()
    write(workdir, {100: (20, 30, 40)}, (700, 700))
    write(workdir.variant("degree", "k2"), {100: (1, 2, 3)}, (100, 100))
    drawn = drawings(theory_figures(read_results(workdir.path)))
    assert list(drawn) == ["samples_by_degree_d7", "coefficients"]
    (axes,) = drawn["samples_by_degree_d7"].axes
    assert curves(axes) == {
        "from labels": [(2, 100), (4, 700)],
        "from the teacher’s first stage": [(2, 2), (4, 30)],
    }
    # Of other than aligned teachers the proof says nothing.
    assert [[tuple(point) for point in curve] for curve in dashed(axes)] == [[(2, 100), (4, 100 * 7**2)]]
    assert legend_of(drawn["samples_by_degree_d7"])[0].startswith("from labels (k^2.81 ")  # log(7) / log(2)


def errors(workdir: Any) -> None:
    """Writes teachers with their errors, aligned ones beside them in a variant of the same task."""
    workdir.theory(7, 4)
    workdir.problems("aligned", {"7": {"teacher": {"aligned": True}}})
    workdir.start()
    samples = {100: (10, 20, 30), 200: (50, 60, INFINITE), 400: (INFINITE, 500, INFINITE)}
    hinges = {100: (0.9, 0.8, 0.7), 200: (0.5, 0.4, 0.3), 400: (0.03, 0.02, 0.01)}
    for one in (workdir, workdir.variant("aligned", "7")):
        write(one, samples, (300, 100, 200, 150))
        less = 1 if one is workdir else 1e-3
        one.lemmas({step: [(0.5, 0.1, less * hinge) for hinge in each] for step, each in hinges.items()})


def test_samples_by_error_are_points_of_teachers_hollow_where_not_found(workdir: Any, drawings: Any):
    errors(workdir)
    figure = drawings(theory_figures(read_results(workdir.path)))["samples_by_error"]
    (axes,) = figure.axes
    shown = [(line.get_fillstyle(), points(line)) for line in axes.lines if line.get_linestyle() == "None"]
    assert [(fill, each) for fill, each in shown if each] == [
        ("full", [(0.9, 10), (0.8, 20), (0.7, 30)]),
        ("full", [(0.5, 50), (0.4, 60)]),
        ("none", [(0.3, workdir.TRIED)]),
        ("full", [(0.02, 500)]),
        ("none", [(0.03, workdir.TRIED), (0.01, workdir.TRIED)]),
    ]
    assert legend_of(figure) == [
        "after the first stage (3 of 3 found)",
        "within the second stage (2 of 3 found)",
        "final (1 of 3 found)",
        "1/error² (theorem B.1)",
        "from labels (median)",
    ]
    (theory,) = dashed(axes)
    x, y = np.transpose(theory)
    np.testing.assert_allclose(y, 1 / x**2)
    assert (x[0], x[-1]) == pytest.approx((0.01, 1))  # from the smallest error, that of no aligned teacher
    (level,) = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert list(level.get_ydata()) == [200, 200]  # of an even number the larger in the middle
    left, right = axes.get_xlim()
    assert left > right  # training goes to the right
    assert "a point for each teacher. Hollow points: not found" in figures_of(workdir)["samples_by_error"].caption


def test_labels_without_a_median_and_kinds_without_teachers_are_not_in_the_figure(workdir: Any, drawings: Any):
    workdir.theory(7, 4)
    workdir.start()
    write(workdir, {100: (10, 20, 30), 400: (40, 50, 60)}, (100, INFINITE))
    figure = drawings(theory_figures(read_results(workdir.path)))["samples_by_error"]
    assert legend_of(figure) == [
        "after the first stage (3 of 3 found)",
        "final (3 of 3 found)",
        "1/error² (theorem B.1)",
    ]


def test_coefficients_by_step_of_both_kinds_of_teachers(workdir: Any, drawings: Any):
    workdir.theory(7, 4)
    changes = {"7": {"teacher": {"aligned": True}}, "15": {"task": {"dimension": 15}, "teacher": {"aligned": True}}}
    workdir.problems("aligned", changes)
    workdir.start()
    variants = {d: workdir.variant("aligned", d) for d in changes}
    sizes = np.random.default_rng(0).uniform(0.1, 1, (2, 2, 3, 7))  # by kind, step, teacher and coordinate
    signs = np.tile([1, -1, -1, 1, 1, 1, -1], (3, 1))
    for of_kind, one in zip(sizes, (workdir, variants["7"]), strict=True):
        one.teacher()
        records = [
            {"seed": seed, "step": step, "coefficient": row.tolist(), "hinge": hinge}
            for step, rows in zip((100, 400), of_kind, strict=True)
            for seed, (row, hinge) in enumerate(zip(rows * signs, (0.9, 0.8, 0.4), strict=True))
        ]
        one.probe("lemmas", records)
    variants["15"].teacher()
    variants["15"].lemmas({100: [(9, 9, 9)] * 3})  # of another dimension: not in the figure
    drawn = drawings(theory_figures(read_results(workdir.path)))
    assert list(drawn) == ["coefficients"]
    panels = drawn["coefficients"].axes
    assert [axes.get_title() for axes in panels] == [
        "initial weights as printed",
        "initial weights aligned on the support",
    ]
    for of_kind, aligned, axes in zip(sizes, (False, True), panels, strict=True):
        found, bands = curves(axes), axes.collections
        sides = {"in the support": of_kind[:, :, :4], "off it": of_kind[:, :, 4:]}
        for (label, values), band in zip(sides.items(), bands, strict=True):
            np.testing.assert_allclose(found[label], [(100, values[0].mean()), (400, values[1].mean())])
            heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
            ends = np.quantile(values.reshape(2, -1), (0.05, 0.95), axis=1)
            np.testing.assert_allclose(np.unique(heights), np.unique(ends))
        np.testing.assert_allclose(found["expected hinge loss"], [(100, 0.7), (400, 0.7)])
        (lemma,) = dashed(axes)
        assert [y for _, y in lemma] == [1 / 32, 1 / 32]
        bars = {line.get_color(): points(line) for line in axes.lines if line.get_marker() == "_"}
        off, inside = expected_coefficients(7, 4, 16, aligned)
        assert bars == {style.OUTSIDE_COLOR: [(100, off)], style.INSIDE_COLOR: [(100, inside)]}
    assert "expected after the first stage" in legend_of(drawn["coefficients"])


def test_one_kind_of_teacher_has_one_panel_without_a_title(workdir: Any, drawings: Any):
    workdir.theory(7, 4)
    workdir.start()
    write(workdir, {100: (10, 20, 30)})
    (axes,) = drawings(theory_figures(read_results(workdir.path)))["coefficients"].axes
    assert axes.get_title() == ""
    assert "1/8k, which lemma B.5 gives as a lower bound" in figures_of(workdir)["coefficients"].caption


def test_weights_by_batch_with_the_noise_of_a_mean(workdir: Any, drawings: Any):
    workdir.theory(7, 4)
    changes = {
        str(steps): {"teacher_training": {"optimizer": plain(TwoStage(steps)), "batch_size": 2}} for steps in (100, 200)
    }
    workdir.problems("batch", changes)
    workdir.start()
    workdir.teacher()
    workdir.probe("lemmas", [{"seed": s, "step": 100, "weight_error": [9, 9], "found": 0.5} for s in range(3)])
    for steps in (100, 200):
        one = workdir.variant("batch", str(steps))
        one.teacher()
        ends = [
            {"seed": s, "step": steps, "weight_error": [s / steps, 2 * s / steps], "found": s * steps / 400}
            for s in range(3)
        ]
        later = [{"seed": s, "step": 400, "weight_error": [7, 7], "found": 0.7} for s in range(3)]
        one.probe("lemmas", ends + later)
    figure = drawings(theory_figures(read_results(workdir.path)))["first_weights"]
    axes, twin = figure.axes
    found = curves(axes)
    np.testing.assert_allclose(found["off it"], [(200, 1 / 100), (400, 1 / 200)])  # samples are twice the steps
    np.testing.assert_allclose(found["in the support"], [(200, 2 / 100), (400, 2 / 200)])
    zeta = majority_coefficient(7, 3)
    expected = [(batch, 1 / (4 * abs(zeta) * math.sqrt(2 * batch))) for batch in (200, 400)]
    np.testing.assert_allclose(found["noise of the mean"], expected)
    np.testing.assert_allclose(curves(twin)["found"], [(200, 0.25), (400, 0.5)])
    assert "found (right axis)" in legend_of(figure)
    caption = figures_of(workdir)["first_weights"].caption
    assert f"1/2k in the support, and {off_support_ratio(7, 4):.3f} times that off it" in caption


def test_one_batch_is_no_figure_of_batches(workdir: Any):
    workdir.theory(7, 4)
    workdir.change(teacher_training={"optimizer": TwoStage(100)})
    workdir.start()
    workdir.teacher()
    records = [{"seed": s, "step": 100, "weight_error": [0.1, 0.2], "found": 0.5} for s in range(3)]
    workdir.probe("lemmas", records)
    assert "first_weights" not in figures_of(workdir)


def test_without_searches_and_probes_there_are_no_figures_of_them(workdir: Any, finished: Any):
    assert not figures_of(finished)
    workdir.theory(7, 4)
    workdir.start()
    assert not figures_of(workdir)
    write(workdir, {100: (10, 20, 30), 400: (40, 50, 60)}, (100, 200))
    assert list(figures_of(workdir)) == ["samples_by_error", "coefficients"]
    workdir.forget("lemmas")
    assert not figures_of(workdir)  # no errors, and no teacher that is known to be separated
