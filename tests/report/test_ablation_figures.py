"""The variants of an ablation beside each other: bars with relative gaps, and sizes."""

import dataclasses
from typing import Any

import numpy as np

from pdjax.distill.losses import Distillation
from pdjax.distill.strategy import Strategy
from pdjax.report.figures.ablations import ablation_figures
from pdjax.report.reading import read_results

VARIANTS = {"15 %": {"task": {"mask_rate": 0.15}}, "5 %": {"task": {"mask_rate": 0.05}}}


def ablated(workdir: Any, **fields: Any) -> None:
    """Writes an ablation of mask rates at 100 steps; in the variant 15 % one-shot wins, 5 % is not begun."""
    workdir.ablation("mask", VARIANTS, [100], **{"strategies": ("one_shot", "two"), "base": "30 %", **fields})
    workdir.start()
    variant = workdir.variant("mask", "15 %")
    variant.teacher({400: (1.0, 0.8)})
    variant.student("one_shot", 100, {100: (0.60, 0.61, 0.62)}, table=((0, 400),))
    variant.student("two", 100, {100: (0.54, 0.55, 0.56)}, table=((0, 200), (50, 400)))


def texts_of(axes: Any) -> list[str]:
    """Returns the texts above bars."""
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_bars_are_grouped_by_variant_with_relative_gaps(finished: Any, drawings: Any):
    ablated(finished)
    figure = drawings(ablation_figures(read_results(finished.path)))["ablation_mask"]
    (axes,) = figure.axes
    assert axes.get_title() == "100 steps"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["15 %", "30 %"]  # 5 % has nothing to show
    heights = {label: [bar.get_height() for bar in bars] for label, bars in zip("ab", axes.containers, strict=True)}
    np.testing.assert_allclose(heights["a"], [0.61, 0.42])
    np.testing.assert_allclose(heights["b"], [0.55, 0.52])
    assert texts_of(axes) == ["−9.8%", "+23.8%"]  # 0.55 / 0.61 and 0.52 / 0.42
    places = [text.xy[0] for text in axes.texts if text.get_text()]
    np.testing.assert_allclose(places, [bar.get_x() + bar.get_width() / 2 for bar in axes.containers[1]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one-shot", "progressive (2, 50)"]


def test_the_gap_is_to_the_better_one_shot_strategy(finished: Any, drawings: Any):
    finished.add(Strategy("soft", Distillation(2.0)))
    ablated(finished, base=None, strategies=("one_shot", "soft", "two"))
    variant = finished.variant("mask", "15 %")
    variant.student("soft", 100, {100: (0.44, 0.44, 0.44)})
    (axes,) = drawings(ablation_figures(read_results(finished.path)))["ablation_mask"].axes
    assert texts_of(axes) == ["−9.8%"]


def test_equal_accuracies_of_1_are_drawn_with_room_above(finished: Any, drawings: Any):
    ablated(finished, base=None)
    variant = finished.variant("mask", "15 %")
    for key in ("one_shot", "two"):
        variant.student(key, 100, {100: (1.0, 1.0, 1.0)})
    (axes,) = drawings(ablation_figures(read_results(finished.path)))["ablation_mask"].axes
    assert 0.9 < axes.get_ylim()[0] < 1 < axes.get_ylim()[1]
    assert max(axes.get_yticks()) <= 1


def test_each_variant_has_its_best_learning_rate(workdir: Any, drawings: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "budgets": (100,)})
    workdir.ablation("mask", VARIANTS, [100], strategies=("one_shot",), base=None)
    workdir.start()
    for name, accuracies in {"5 %": (0.5, 0.6), "15 %": (0.8, 0.7)}.items():
        workdir.variant("mask", name).student("one_shot", 100, {100: accuracies}, [(0, 0.001), (0, 0.01)])
    drawn = drawings(ablation_figures(read_results(workdir.path)))
    assert list(drawn) == ["ablation_mask_best", "ablation_mask_lr0.001", "ablation_mask_lr0.01"]
    (bars,) = drawn["ablation_mask_best"].axes[0].containers
    np.testing.assert_allclose([bar.get_height() for bar in bars], [0.6, 0.8])
    (legend,) = drawn["ablation_mask_best"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["one-shot, lr 0.01 / 0.001"]


def test_sizes_have_a_panel_for_each_variant(workdir: Any, drawings: Any):
    model = workdir.experiment.student
    workdir.sizes({"heads": {"1 head": dataclasses.replace(model, num_heads=1), "2 heads": model}})
    workdir.ablation("mask", VARIANTS, [100], base="30 %", sizes=True)
    workdir.start()
    for experiment in (workdir, workdir.variant("mask", "15 %")):
        for label, more in {"1 head": 0.0, "2 heads": 0.2}.items():
            accuracy = {50: (0.3 + more, 0.31 + more), 100: (0.5 + more, 0.51 + more)}
            experiment.size(f"heads/{label}", accuracy, [(0, 1e-3), (1, 1e-3)])
    drawn = drawings(ablation_figures(read_results(workdir.path)))
    assert list(drawn) == ["ablation_mask_sizes"]
    panels = drawn["ablation_mask_sizes"].axes
    assert [axes.get_legend().get_title().get_text() for axes in panels] == ["15 %", "30 %"]
    assert panels[0].get_ylim() == panels[1].get_ylim()
