"""What the figures show, read back from matplotlib's objects."""

import csv
import dataclasses
import html
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from pdjax.distill.losses import Labels, Loss, Number
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Comparison
from pdjax.models.base import Architecture
from pdjax.probes.base import Probe
from pdjax.report import style
from pdjax.report.claims import evaluate_claims
from pdjax.report.figures import all_figures, draw_budgets, draw_teacher, draw_training, looks
from pdjax.report.figures.drawing import step_text
from pdjax.report.page import render_page
from pdjax.report.reading import read_results
from pdjax.report.tables import all_tables
from pdjax.settings import settings
from pdjax.tasks.base import Task
from pdjax.types import Batch


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_a_figure_for_the_teacher_the_budgets_and_every_budget(finished: Any):
    assert [figure.name for figure in all_figures(read_results(finished.path))] == [
        "teacher",
        "accuracy_by_budget",
        "training_all_100",
        "training_all_200",
    ]


@settings
class OwnTask(Task):
    """A task that the package does not know."""

    predicts: ClassVar[Literal["positions", "example"]] = "example"
    num_classes: ClassVar[int] = 2  # pyright: ignore
    vocabulary: ClassVar[int] = 2  # pyright: ignore
    num_positions: ClassVar[int] = 3  # pyright: ignore

    def sample(self, key: Any, batch_size: int) -> Batch:
        """Draws nothing but zeros."""
        places = jnp.zeros(batch_size, int)
        return Batch({"own": places}, places, jnp.ones(batch_size), {})


@settings
class OwnModel(Architecture):
    """A model that the package does not know."""

    reads: ClassVar[tuple[str, ...]] = ("own",)
    power: int = 1

    def build(self, task: Task) -> Any:
        """Builds none: a report needs no model."""
        raise NotImplementedError


@settings
class OwnLoss(Loss):
    """A loss that the package does not know, without a temperature."""

    margin: Number = 0.5

    def values(self, student: Any, teacher: Any, batch: Batch, numbers: Any, params: Any) -> Any:
        """Returns nothing: a report needs no values."""
        raise NotImplementedError


@settings
class OwnProbe(Probe):
    """A probe that the package does not know."""

    name: ClassVar[str] = "own"

    def prepare(self, subject: Any) -> Any:
        """Measures nothing: a report needs records alone."""
        raise NotImplementedError


def test_an_experiment_of_ones_own_parts_has_the_same_figures_and_none_of_the_papers(finished: Any):
    """And the page around them is written."""
    known = all_figures(read_results(finished.path))
    assert "Corresponds to figure 4 (left)" in known[0].caption
    finished.change(
        task=OwnTask(), teacher=OwnModel(), student=OwnModel(), comparisons=(), probes={"measured": (OwnProbe(),)}
    )
    finished.sizes({"power": {"two": OwnModel(power=2), "one": OwnModel()}})
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), loss=OwnLoss()))
    finished.ablation("margin", {"power 3": {"student": {"power": 3}}}, [100], strategies=("one_shot", "two"))
    finished.start()
    for budget in (100, 200):
        finished.student("two", budget, {budget // 2: (0.4,) * 3, budget: finished.FINAL["two", budget]})
    variant = finished.variant("margin", "power 3")
    for key in ("one_shot", "two"):
        variant.student(key, 100, {100: (0.4, 0.5, 0.6)})
    for label in ("one", "two"):
        finished.size(f"power/{label}", {100: (0.5, 0.6)}, [(0, 1e-3), (1, 1e-3)])
    finished.probe("own", [{"seed": 0, "step": 100, "value": 0.5}])
    results = read_results(finished.path)
    figures = {figure.name: figure for figure in all_figures(results)}
    assert list(figures) == [*(figure.name for figure in known), "sizes", "ablation_margin"]
    assert not [figure.name for figure in known if "paper" in figures[figure.name].caption]
    claims = evaluate_claims(results)
    tables = {table.name: table for table in all_tables(results, claims)}
    page = html.unescape(render_page(results, claims, list(figures.values()), list(tables.values())))
    assert figures["teacher"].caption in page
    assert "progressive (2, 50), OwnLoss" in page
    row = next(row for row in csv.DictReader(tables["students"].csv().splitlines()) if row["strategy"] == "two")
    assert (row["temperature"], row["label_weight"], row["state"]) == ("", "", "complete")


def test_several_learning_rates_have_figures_of_their_own(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01)})
    workdir.start()
    workdir.student("labels", 100, {100: (0.1, 0.9)}, [(0, 0.001), (0, 0.01)])
    results = read_results(workdir.path)
    names = [figure.name for figure in all_figures(results)]
    expected = [f"{name}_lr{rate}" for rate in (0.001, 0.01) for name in ("accuracy_by_budget", "training_all_100")]
    assert names == expected
    slow = draw_training(results, [results.groups["labels", 0.001, 100]]).axes[0].lines[0]
    assert np.asarray(slow.get_ydata()).tolist() == [0.1]


def test_budget_ticks_are_the_budgets_and_points_the_means(finished: Any):
    results = read_results(finished.path)
    figure = draw_budgets(results, list(results.groups.values()))
    axes = figure.axes[0]
    assert axes.get_xticks().tolist() == [100, 200]
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    lines = [container.lines[0] for container in bars]
    drawn = [np.asarray(line.get_ydata()) for line in lines]
    np.testing.assert_allclose(drawn, [[0.42, 0.55], [0.42, 0.55], [0.52, 0.55 + 0.02 / 3]])
    assert [line.get_color() for line in lines] == [style.strategy_style(i).color for i in range(3)]
    low, high = axes.get_ylim()
    assert low < 0.42 - 4.303 * 0.02 / 3**0.5
    assert high > 0.7
    assert legend_of(figure) == ["labels only", "one-shot", "progressive (2, 50)", "teacher, final"]


def test_far_apart_budgets_are_on_a_logarithmic_axis(workdir: Any):
    workdir.change(student_training={"budgets": (50, 100, 400)})
    workdir.start()
    workdir.student("labels", 400, {400: (0.5, 0.5, 0.5)})
    results = read_results(workdir.path)
    axes = draw_budgets(results, list(results.groups.values())).axes[0]
    assert (axes.get_xscale(), axes.get_xticks().tolist()) == ("log", [50, 100, 400])


def test_training_shows_means_switches_and_unfinished_runs(finished: Any):
    (finished.path / "students" / "two-200" / "result.json").unlink()
    results = read_results(finished.path)
    figure = draw_training(results, [group for group in results.groups.values() if group.budget == 200])
    axes = figure.axes[0]
    lines = [np.asarray(line.get_ydata()) for line in axes.lines]
    np.testing.assert_allclose(lines[0], [0.45, 0.55])
    np.testing.assert_allclose(lines[-1], [accuracy for _, accuracy in finished.TEACHER.values()])
    (switches,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert [segment[:, 0].tolist() for segment in switches.get_segments()] == [[50, 50]]
    assert legend_of(figure) == [
        "labels only",
        "one-shot",
        "progressive (2, 50) (unfinished)",
        "teacher",
        "next teacher checkpoint",
    ]


def test_teacher_shows_phases_and_stacks_shared_checkpoints(finished: Any):
    figure = draw_teacher(read_results(finished.path))
    loss_axes, accuracy_axes = figure.axes
    assert [text.get_text() for text in loss_axes.texts] == ["phase", "1", "2", "3"]
    assert np.asarray(accuracy_axes.lines[0].get_ydata()).tolist() == [0.3, 0.4, 0.6, 0.7]
    marks = [line for line in loss_axes.lines if line.get_marker() == "v"]
    assert [np.asarray(mark.get_xdata()).tolist() for mark in marks] == [[400], [200], [400]]
    heights = [mark.get_transform().transform((400, 1.0))[1] for mark in (marks[0], marks[2])]
    assert heights[1] > heights[0] + 5  # dots: both strategies use the final checkpoint, one above the other
    assert legend_of(figure) == ["one-shot", "progressive (2, 50)"]


def test_teacher_shows_its_transition_and_other_seeds(finished: Any):
    finished.change(teacher_training={"extra_seeds": (7,)})
    finished.start()
    finished.teacher()
    finished.select({"two": (200, 400)}, transition={"start": 150, "middle": 200, "end": 250, "reason": "it rises"})
    loss_axes, accuracy_axes = draw_teacher(read_results(finished.path)).axes
    assert not loss_axes.texts  # no phases
    (span,) = accuracy_axes.patches
    assert (span.get_extents().transformed(accuracy_axes.transData.inverted()).x0, span.get_x() + span.get_width()) == (
        pytest.approx(150),
        250,
    )
    chosen, other, middle = accuracy_axes.lines
    np.testing.assert_allclose(np.asarray(other.get_ydata()), np.asarray(chosen.get_ydata()) - 0.01)
    assert other.get_linewidth() < chosen.get_linewidth()
    assert list(middle.get_xdata()) == [200, 200]


def test_strategies_with_the_same_checkpoints_share_triangles(finished: Any):
    finished.select({"labels": (), "one_shot": (100, 400), "two": (100, 400)})
    figure = draw_teacher(read_results(finished.path))
    assert legend_of(figure) == ["one-shot · progressive (2, 50)"]
    assert len([line for line in figure.axes[0].lines if line.get_marker() == "v"]) == 2


def test_a_comparison_names_its_figure_and_its_strategies_in_order(finished: Any):
    finished.change(
        comparisons=(
            Comparison("b", "Some", ("two", "labels"), "figure 99"),
            Comparison("c", "Others", ("one_shot",), "figure 98"),
        )
    )
    finished.start()
    figures = {figure.name: figure for figure in all_figures(read_results(finished.path))}
    assert set(figures) >= {"training_b_100", "training_b_200", "training_c_100", "training_c_200"}
    assert figures["training_b_100"].title == "Some, 100 steps"
    assert "figure 99 of the paper" in figures["training_b_100"].caption
    results = read_results(finished.path)
    drawn = draw_training(results, [results.groups[key, 1e-3, 100] for key in ("two", "labels")])
    assert legend_of(drawn)[:2] == ["progressive (2, 50)", "labels only"]


def test_figures_of_next_tokens_name_what_counts_and_their_figures(finished: Any):
    finished.language()
    finished.start()
    results = read_results(finished.path)
    captions = {figure.name: figure.caption for figure in all_figures(results)}
    assert captions["teacher"].endswith("Corresponds to figure 29 (left) of the paper.")
    assert captions["accuracy_by_budget"].endswith("Corresponds to figure 30 of the paper.")
    loss_axes, accuracy_axes = draw_teacher(results).axes
    assert loss_axes.get_ylabel() == "held-out loss\n(nats per counted token)"
    assert accuracy_axes.get_ylabel() == "held-out accuracy\n(top 1, counted tokens)"


def test_one_budget_has_no_figure_by_budget(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: (0.1, 0.2, 0.3)})
    assert [figure.name for figure in all_figures(read_results(workdir.path))] == ["training_all_100"]


def test_adaptive_students_have_faint_ticks_each(finished: Any):
    table = ((0, 100), (0, 200), (0, 400))
    starts = [[0, 50], [0, 50, 150], [0]]
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=table, starts=starts)
    results = read_results(finished.path)
    axes = draw_training(results, [results.groups["two", 1e-3, 200]]).axes[0]
    ticks = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert [[segment[0, 0] for segment in c.get_segments()] for c in ticks] == [[50], [50, 150]]
    assert all((c.get_alpha() or 1) < 1 for c in ticks)


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
    styles = looks(read_results(workdir.path))
    assert len({(look.color, look.marker) for look in styles.values()}) == 12
    for group in groups[:2]:
        assert len({styles[key].color for key in group}) == len(group)


def test_no_two_strategies_look_alike():
    looks = [(look.color, look.marker) for look in map(style.strategy_style, range(42))]
    assert len(set(looks)) == 42


@pytest.mark.parametrize("label", ["$x", "_hidden", "<b>&", "$\\frac{1$"])
def test_any_label_is_shown_as_it_is(finished: Any, monkeypatch: pytest.MonkeyPatch, label: str):
    monkeypatch.setattr(Labels, "label", label)
    results = read_results(finished.path)
    with style.context("test"):
        figure = draw_budgets(results, list(results.groups.values()))
        style.svg_bytes(figure)
    assert legend_of(figure)[0].strip() == label
