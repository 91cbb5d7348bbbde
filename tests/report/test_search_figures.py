"""Searches for the best first checkpoint, as bars."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.collections import PathCollection

from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Auto
from pdjax.distill.strategy import Strategy
from pdjax.report.figures.searches import search_figures
from pdjax.report.figures.training import training_figures
from pdjax.report.reading import read_results

NAME = "first_checkpoints_search_100"
BEST_AT_300 = {100: 0.4, 200: 0.45, 300: 0.6, 400: 0.55, 500: 0.42}


def searched(workdir: Any, means: Mapping[int, float], auto: int | None = None) -> None:
    """Writes a search with T = 25 and T = 50, which is 0.02 less accurate, and a peak of M_robust at 300."""
    automatic = Strategy("auto", Distillation(0.0), FixedDuration(25), Auto())
    workdir.strings()
    workdir.search(sorted(means), (25, 50), *([] if auto is None else [automatic]))
    workdir.change(student_training={"budgets": (100,)}, teacher_training={"steps": 600})
    workdir.start()
    chosen = {f"c{first}_{t}": (first, 600) for first in means for t in (25, 50)}
    chosen |= {} if auto is None else {"auto": (auto, 600)}
    workdir.select(chosen, robust_peak={"step": 300, "reason": "it peaks there", "peaked": True})
    for first, mean in means.items():
        for t, less in {25: 0, 50: 0.02}.items():
            final = [mean - less + off for off in (-0.01, 0, 0.01)]
            workdir.student(f"c{first}_{t}", 100, {100: final}, table=((0, first), (t, 600)))


def test_bars_are_means_by_first_checkpoint_and_duration(workdir: Any, drawings: Any):
    searched(workdir, BEST_AT_300)
    workdir.student("labels", 100, {100: (0.41, 0.42, 0.43)})
    workdir.student("one_shot", 100, {100: (0.43, 0.44, 0.45)}, table=((0, 600),))
    figure = drawings(search_figures(read_results(workdir.path)))[NAME]
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, [[mean - less for mean in BEST_AT_300.values()] for less in (0, 0.02)])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["T = 25", "T = 50", "labels only", "one-shot"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["100", "200\n▲ mid", "300\n▲ C1", "400", "500"]
    horizontal = [line.get_ydata() for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    np.testing.assert_allclose([np.asarray(heights)[0] for heights in horizontal], [0.42, 0.44])
    shades = [(patch.get_x(), patch.get_width()) for patch in axes.patches[-3:]]
    assert shades == [(-0.5, 0.5), (0, 2), (2, 2.5)]  # phase 2 is from step 100, place 0, to step 300, place 2
    seeds = [np.asarray(points.get_offsets()) for points in axes.collections if isinstance(points, PathCollection)]
    np.testing.assert_allclose(seeds[0][:, 1], [0.39, 0.4, 0.41])
    assert len(seeds) == 10


def test_the_caption_says_what_is_shown(workdir: Any):
    searched(workdir, BEST_AT_300, auto=400)
    (workdir.path / "students" / "c500_50-100" / "result.json").unlink()
    (drawn,) = search_figures(read_results(workdir.path))
    assert drawn.title == "First checkpoints, 100 steps"
    assert "means over 3 seeds" in drawn.caption
    assert "auto, the automatic choice" in drawn.caption
    assert "1 of 10 are not finished and left out" in drawn.caption
    assert drawn.caption.endswith("Corresponds to figure 4 (right) of the paper.")


def test_strategies_of_a_search_are_in_no_other_figure(workdir: Any):
    searched(workdir, BEST_AT_300)
    workdir.student("labels", 100, {100: (0.41, 0.42, 0.43)})
    results = read_results(workdir.path)
    assert [figure.name for figure in training_figures(results)] == ["training_all_100"]
    assert results.compared == ("labels", "one_shot", "two")
    assert set(results.prominent) == {"labels", "one_shot", "two"}


def test_every_learning_rate_has_its_search(workdir: Any, drawings: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "budgets": (100,)})
    workdir.search((100,), (25,))
    workdir.start()
    workdir.select({"c100_25": (100, 600)})
    workdir.student("c100_25", 100, {100: (0.4, 0.6)}, [(0, 0.001), (0, 0.01)], ((0, 100), (25, 600)))
    drawn = drawings(search_figures(read_results(workdir.path)))
    heights = {name: figure.axes[0].containers[0][0].get_height() for name, figure in drawn.items()}
    assert heights == {f"{NAME}_lr0.001": 0.4, f"{NAME}_lr0.01": 0.6}
