"""What the figures of students and sizes show, read back from matplotlib's objects."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from pdjax.distill.losses import Labels
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Comparison
from pdjax.report import style
from pdjax.report.figures.budgets import budget_figures
from pdjax.report.figures.drawing import looks, step_text
from pdjax.report.figures.sizes import size_figures
from pdjax.report.figures.training import training_figures
from pdjax.report.reading import read_results


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def curves_of(axes: Any) -> list[list[float]]:
    """Returns the heights of the lines that have data and are no intervals."""
    lines = [np.asarray(line.get_ydata(), float).tolist() for line in axes.lines if line.get_marker() != "_"]
    return [line for line in lines if line]


def intervals_of(axes: Any) -> list[list[float]]:
    """Returns the ends of the intervals, those drawn at the left first."""
    bars = [line for line in axes.lines if line.get_marker() == "_"]
    bars.sort(key=lambda bar: np.asarray(bar.get_xdata())[0])
    return [np.asarray(bar.get_ydata()).tolist() for bar in bars]


def two_rates(workdir: Any, one_shot: dict[int, tuple[float, ...]], complete: bool = True) -> None:
    """Writes students of two seeds by two learning rates; those of labels are the best with the first, 0.001."""
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "seeds": (0, 1)})
    workdir.start()
    replicas = [(seed, rate) for rate in (0.001, 0.01) for seed in (0, 1)]
    for budget in (100, 200):
        workdir.student("labels", budget, {budget: (0.5, 0.7, 0.4, 0.6)}, replicas)
    workdir.student("one_shot", 100, one_shot, replicas, complete=complete)


def test_a_figure_for_the_budgets_and_for_every_budget(finished: Any):
    results = read_results(finished.path)
    assert [figure.name for figure in budget_figures(results)] == ["accuracy_by_budget"]
    assert [figure.name for figure in training_figures(results)] == ["training_all_100", "training_all_200"]


def test_one_budget_has_no_figure_by_budget(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: (0.1, 0.2, 0.3)})
    results = read_results(workdir.path)
    assert not list(budget_figures(results))
    assert [figure.name for figure in training_figures(results)] == ["training_all_100"]


def test_figures_of_learning_rates_come_after_that_of_the_best(workdir: Any, drawings: Any):
    two_rates(workdir, {100: (0.1, 0.3, 0.8, 0.9)})
    results = read_results(workdir.path)
    drawn = drawings(training_figures(results))
    both = [f"training_all_{budget}" for budget in (100, 200)]
    assert list(drawn) == [f"{name}{suffix}" for suffix in ("_best", "_lr0.001", "_lr0.01") for name in both]
    assert legend_of(drawn["training_all_100_best"]) == ["labels only, lr 0.001", "one-shot, lr 0.01"]
    np.testing.assert_allclose(curves_of(drawn["training_all_100_best"].axes[0]), [[0.6], [0.85]])
    np.testing.assert_allclose(curves_of(drawn["training_all_100_lr0.001"].axes[0]), [[0.6], [0.2]])
    figures = {figure.name: figure for figure in (*training_figures(results), *budget_figures(results))}
    assert figures["training_all_100_best"].title == "All, 100 steps, best learning rate of each"
    for name, figure in figures.items():
        assert ("chosen by the seeds that are shown" in figure.caption) == name.endswith("_best")


def test_the_best_learning_rate_by_budget_is_in_the_legend(workdir: Any, drawings: Any):
    two_rates(workdir, {100: (0.1, 0.3, 0.8, 0.9)})
    replicas = [(seed, rate) for rate in (0.001, 0.01) for seed in (0, 1)]
    workdir.student("one_shot", 200, {200: (0.9, 0.9, 0.8, 0.9)}, replicas)
    figure = drawings(budget_figures(read_results(workdir.path)))["accuracy_by_budget_best"]
    assert legend_of(figure) == ["labels only, lr 0.001", "one-shot, lr 0.01 / 0.001"]


def test_the_best_learning_rate_of_unfinished_runs_is_that_of_the_last_evaluation(workdir: Any):
    two_rates(workdir, {25: (0.9, 0.9, 0.1, 0.1), 50: (0.5, 0.5, 0.6, 0.6)}, complete=False)
    results = read_results(workdir.path)
    assert results.best_rate("one_shot", 100) == 0.01
    assert results.best_rate("two", 100) is None
    assert results.group("two", None, 100) is None
    assert results.finished("one_shot", None, 100) is None


def test_of_equally_good_learning_rates_the_faster_is_best(workdir: Any):
    two_rates(workdir, {50: (0.5, 0.5, 0.6, 0.6), 100: (0.9004, 0.9, 0.9, 0.9)})
    assert read_results(workdir.path).best_rate("one_shot", 100) == 0.01


def test_budget_ticks_are_the_budgets_and_points_the_means(finished: Any, drawings: Any):
    figure = drawings(budget_figures(read_results(finished.path)))["accuracy_by_budget"]
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_xticks().tolist()) == ("log", [100, 200])
    means = [[0.42, 0.55], [0.42, 0.55], [0.52, 0.55 + 0.02 / 3]]
    np.testing.assert_allclose(curves_of(axes)[:3], means)
    intervals = intervals_of(axes)
    low, high = intervals[0]
    assert (high - low) / 2 == pytest.approx(4.303 * 0.02 / 3**0.5, rel=1e-3)
    assert len(intervals) == 6
    (seeds,) = (points for points in axes.collections if isinstance(points, PathCollection))
    assert len(np.asarray(seeds.get_offsets())) == 18
    assert axes.get_ylim()[0] < low < 0.7 < axes.get_ylim()[1]
    assert legend_of(figure) == ["labels only", "one-shot", "progressive (2, 50)", "teacher, final"]


def test_intervals_of_accuracies_stay_within_their_range(workdir: Any, drawings: Any):
    workdir.start()
    for budget in (100, 200):
        workdir.student("labels", budget, {budget: (0.1, 0.1, 0.1) if budget == 100 else (0.0, 1.0, 1.0)})
    (axes,) = drawings(budget_figures(read_results(workdir.path)))["accuracy_by_budget"].axes
    np.testing.assert_allclose(intervals_of(axes), [[0.1, 0.1], [0, 1]])


def test_training_shows_means_moves_and_unfinished_runs(finished: Any, drawings: Any):
    (finished.path / "students" / "two-200" / "result.json").unlink()
    results = read_results(finished.path)
    figure = drawings(training_figures(results))["training_all_200"]
    (axes,) = figure.axes
    drawn = curves_of(axes)
    np.testing.assert_allclose(drawn[0], [0.45, 0.55])
    np.testing.assert_allclose(drawn[-1], [accuracy for _, accuracy in finished.TEACHER.values()])
    (moves,) = (lines for lines in axes.collections if isinstance(lines, LineCollection))
    assert [segment[:, 0].tolist() for segment in moves.get_segments()] == [[50, 50]]
    assert np.asarray(moves.get_alpha()).tolist() == [1]
    entries = ["labels only", "one-shot", "progressive (2, 50)", "teacher", "next teacher checkpoint"]
    assert legend_of(figure) == entries
    captions = [drawn.caption for drawn in training_figures(results)]
    assert ["Unfinished: progressive (2, 50)." in caption for caption in captions] == [False, True]


def test_ticks_of_students_that_move_on_by_themselves_are_faint(finished: Any, drawings: Any):
    table = ((0, 100), (0, 200), (0, 400))
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=table, starts=[[0, 50], [0, 50, 150], [0, 100]])
    (axes,) = drawings(training_figures(read_results(finished.path)))["training_all_200"].axes
    (moves,) = (lines for lines in axes.collections if isinstance(lines, LineCollection))
    drawn = zip(moves.get_segments(), np.asarray(moves.get_alpha()).tolist(), strict=True)
    alphas = {segment[0, 0]: alpha for segment, alpha in drawn}
    assert set(alphas) == {50, 100, 150}
    assert alphas[150] == alphas[100] < alphas[50] < 1


def test_a_comparison_names_its_figure_and_its_strategies_in_order(finished: Any, drawings: Any):
    some, others = (Comparison("b", "Some", ("two", "labels"), "figure 99"), Comparison("c", "Others", ("one_shot",)))
    finished.change(comparisons=(some, others))
    finished.start()
    results = read_results(finished.path)
    figures = {figure.name: figure for figure in training_figures(results)}
    assert list(figures) == [f"training_{key}_{budget}" for key in "bc" for budget in (100, 200)]
    assert figures["training_b_100"].title == "Some, 100 steps"
    assert "figure 99 of the paper" in figures["training_b_100"].caption
    assert "paper" not in figures["training_c_100"].caption
    shown = drawings(training_figures(results))["training_b_100"]
    assert legend_of(shown)[:2] == ["progressive (2, 50)", "labels only"]


def test_a_comparison_by_budget_has_a_figure_of_its_own(finished: Any, drawings: Any):
    splits = Comparison("splits", "Splits", ("one_shot", "two"), "figure 24", kind="budgets")
    finished.change(comparisons=(*finished.experiment.comparisons, splits))
    finished.start()
    drawn = drawings(budget_figures(read_results(finished.path)))
    assert list(drawn) == ["accuracy_by_budget", "budgets_splits"]
    assert legend_of(drawn["budgets_splits"]) == ["one-shot", "progressive (2, 50)", "teacher, final"]


def test_figures_are_saved_with_what_they_show(finished: Any):
    (figure,) = budget_figures(read_results(finished.path))
    rows = list(csv.DictReader(figure.csv.decode().splitlines()))
    shown = {(row["strategy"], int(row["budget"])): [] for row in rows}
    for row in rows:
        shown[row["strategy"], int(row["budget"])].append(float(row["value"]))
    assert shown == {key: list(final) for key, final in finished.FINAL.items()}


def test_axes_of_next_tokens_name_what_counts(finished: Any, drawings: Any):
    finished.language()
    finished.start()
    (axes,) = drawings(training_figures(read_results(finished.path)))["training_all_100"].axes
    assert axes.get_ylabel() == "held-out accuracy\n(top 1, counted tokens)"


def test_sizes_have_their_best_learning_rate_and_say_when_they_have_learned(workdir: Any, drawings: Any):
    workdir.widths(["20", "5", "10"], (0.001, 0.01))
    workdir.start()
    replicas = [(seed, rate) for rate in (0.001, 0.01) for seed in (0, 1)]
    workdir.size("width/5", {50: (0.4, 0.4, 0.2, 0.2), 100: (0.5, 0.6, 0.4, 0.4)}, replicas)
    workdir.size("width/10", {50: (0.4, 0.4, 0.6, 0.6), 100: (0.9, 0.9, 0.9, 0.9)}, replicas)
    workdir.size("width/20", {50: (0.9, 0.9, 0.9, 1.0)}, replicas, complete=False)
    results = read_results(workdir.path)
    (axes,) = drawings(size_figures(results))["sizes"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "5, lr 0.001 (below 80%)",
        "10, lr 0.01 (80% at 100)",
        "20, lr 0.01 (unfinished)",
    ]
    np.testing.assert_allclose(curves_of(axes)[0], [0.4, 0.55])
    np.testing.assert_allclose(curves_of(axes)[1], [0.6, 0.9])
    (figure,) = size_figures(results)
    assert "ties are broken by the mean accuracy over training" in figure.caption


@pytest.mark.parametrize(
    ("step", "largest", "text"),
    [(1200, 8000, "1,200"), (50_000, 240_000, "50k"), (0, 2e7, "0"), (2_500_000, 2e7, "2.5M"), (5e6, 2e7, "5M")],
)
def test_large_steps_are_short(step: float, largest: float, text: str):
    assert step_text(step, largest) == text


def test_strategies_of_a_comparison_differ_in_colour(workdir: Any):
    keys = [f"s{i}" for i in range(12)]
    groups = (keys[6:], keys[:5], [keys[0], keys[7], keys[11]])
    workdir.change(
        strategies=tuple(map(Strategy, keys)),
        comparisons=tuple(Comparison(f"c{i}", "", tuple(group)) for i, group in enumerate(groups)),
    )
    workdir.start()
    results = read_results(workdir.path)
    styles = looks(results)
    assert len({(styles.palette[label], styles.markers[label]) for label in results.labels.values()}) == 12
    for group in groups[:2]:
        assert len({styles.palette[results.labels[key]] for key in group}) == len(group)


def test_no_two_strategies_look_alike():
    looks = [(look.color, look.marker) for look in map(style.strategy_style, range(42))]
    assert len(set(looks)) == 42


@pytest.mark.parametrize("label", ["$x", "_hidden", "<b>&", "$\\frac{1$"])
def test_any_label_is_shown_as_it_is(finished: Any, drawings: Any, monkeypatch: pytest.MonkeyPatch, label: str):
    monkeypatch.setattr(Labels, "label", label)
    figure = drawings(budget_figures(read_results(finished.path)))["accuracy_by_budget"]
    assert legend_of(figure)[0].strip() == label
    figure.savefig(io.BytesIO())  # a formula could not be drawn
