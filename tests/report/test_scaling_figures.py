"""Steps until an accuracy against the size of a problem, read back from matplotlib's objects."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdjax.models.mlp import Mlp
from pdjax.report.figures.drawing import looks
from pdjax.report.figures.scaling import REACHED, scaling_figures
from pdjax.report.figures.training import training_figures
from pdjax.report.reading import read_results
from pdjax.settings import plain
from pdjax.tasks.parity import ParityTask

BUDGET = 1000


def ask(workdir: Any, key: str, variants: dict[str, Any]) -> dict[str, Any]:
    """Asks for MLPs on parities at batch 1, in an experiment and its variants; returns the directories of these."""
    workdir.change(
        task=ParityTask(6, 2),
        teacher=Mlp((8,)),
        student=Mlp((4,)),
        teacher_training={"batch_size": 1},
        student_training={"batch_size": 1, "budgets": (BUDGET,)},
    )
    workdir.ablation(key, variants, [BUDGET])
    workdir.start()
    return {name: workdir.variant(key, name) for name in variants}


def student(one: Any, key: str, steps: Sequence[int | None], complete: bool = True) -> None:
    """Writes students of three seeds that reach the accuracy at these steps, None not at all, and lose it again."""
    times = sorted({step for step in steps if step is not None} | {50, BUDGET})
    curves = {time: [REACHED if time == step else REACHED - 0.01 for step in steps] for time in times}
    one.student(key, BUDGET, curves, complete=complete)


def teacher(one: Any, reached: int, loss: float = 0.1) -> None:
    """Writes a teacher that reaches the accuracy at a step, and has a loss in the end."""
    one.teacher({step: (loss, 1.0 if step >= reached else 0.5) for step in (100, 200, 300, 400)})


def drawn_lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Returns medians by the labels of their lines, without the exponents behind these."""
    lines = {str(line.get_label()).rsplit(" (", 1)[0]: line for line in axes.lines}
    return {label: points(line) for label, line in lines.items() if not label.startswith("_")}


def points(line: Any) -> list[tuple[float, float]]:
    """Returns the points of a line."""
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def legend_of(figure: Figure) -> list[str]:
    """Returns the legend's entries."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def by_dimension(workdir: Any) -> None:
    """Writes steps that students of labels need, as the third power of the dimension, and of others."""
    variants = ask(workdir, "dimension", {str(d): {"task": {"dimension": d}} for d in (12, 24)})
    needed = {6: (100, 50, 200), 12: (400, 800, None), 24: (None, None, 800)}
    for d, one in {6: workdir, 12: variants["12"], 24: variants["24"]}.items():
        teacher(one, 100 * (1 + (d > 6)))
        student(one, "labels", needed[d])
        student(one, "one_shot", (50 * d // 6,) * 3)
    student(workdir, "two", (100, 100, 100))
    student(variants["12"], "two", (100, 100, 100), complete=False)


def test_steps_by_dimension_are_medians_of_first_steps_at_the_accuracy(workdir: Any, drawings: Any):
    by_dimension(workdir)
    drawn = drawings(scaling_figures(read_results(workdir.path)))
    assert list(drawn) == ["steps_dimension"]
    (axes,) = drawn["steps_dimension"].axes
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xticks().tolist()) == ("log", "log", [6, 12, 24])
    assert axes.get_xlabel() == "d, the dimension"
    assert drawn_lines(axes) == {
        "the teacher": [(6, 100), (12, 200), (24, 200)],
        "labels only": [(6, 100), (12, 800)],  # of 24 no median
        "one-shot": [(6, 50), (12, 100), (24, 200)],
    }  # and nothing of two, unfinished in all but one
    assert "one-shot (d^1.00 [1.000, 1.000])" in legend_of(drawn["steps_dimension"])
    assert "labels only" in legend_of(drawn["steps_dimension"])  # without an exponent
    single = [points(line) for line in axes.lines if line.get_linestyle() == "None"]
    assert [(6, 100), (6, 50), (6, 200)] in single
    assert [(12, 400), (12, 800)] in single
    assert [(24, 800)] in single


def test_looks_are_those_of_other_figures(workdir: Any, drawings: Any):
    by_dimension(workdir)
    results = read_results(workdir.path)
    (axes,) = drawings(scaling_figures(results))["steps_dimension"].axes
    lines = {str(line.get_label()).split(" (")[0]: line for line in axes.lines}
    for label in ("labels only", "one-shot"):
        assert lines[label].get_color() == looks(results).palette[label]
        assert lines[label].get_marker() == looks(results).markers[label]
    (curves,) = drawings(training_figures(results)).values()
    assert lines["one-shot"].get_color() in {line.get_color() for line in curves.axes[0].lines}
    assert len({lines[label].get_color() for label in ("the teacher", "labels only", "one-shot")}) == 3


def test_the_caption_and_the_csv_say_what_is_shown(workdir: Any):
    by_dimension(workdir)
    (figure,) = scaling_figures(read_results(workdir.path))
    assert figure.title == "Dimension: steps"
    assert "until the held-out accuracy is at least 95%, against the dimension: medians over seeds" in figure.caption
    rows = list(csv.DictReader(io.StringIO(figure.csv.decode())))
    of_labels = [(row["dimension"], float(row["samples"])) for row in rows if row["source"] == "labels"]
    assert sorted(of_labels)[-3:] == [("6.0", 50), ("6.0", 100), ("6.0", 200)]
    assert len(of_labels) == 9


def test_steps_by_width_are_of_students_alone(workdir: Any, drawings: Any):
    widths = {str(width): {"student": plain(Mlp((width,)))} for width in (8, 16)}
    variants = ask(workdir, "width", widths)
    for width, one in {4: workdir, 8: variants["8"], 16: variants["16"]}.items():
        teacher(one, 100)
        student(one, "labels", (50, 3200 // width, BUDGET))
    (axes,) = drawings(scaling_figures(read_results(workdir.path)))["steps_width"].axes
    assert drawn_lines(axes) == {"labels only": [(4, 800), (8, 400), (16, 200)]}
    assert axes.get_xlabel() == "W, the student’s width"


def test_steps_by_degree_are_not_mixed_with_other_dimensions(workdir: Any, drawings: Any):
    degrees = {"4": {"task": {"degree": 4}}, "3 of 9": {"task": {"degree": 3, "dimension": 9}}}
    variants = ask(workdir, "degree", degrees)
    for steps, one in zip((100, 800, 400), (workdir, variants["4"], variants["3 of 9"]), strict=True):
        student(one, "labels", (steps,) * 3)
    (axes,) = drawings(scaling_figures(read_results(workdir.path)))["steps_degree"].axes
    assert drawn_lines(axes) == {"labels only": [(2, 100), (4, 800)]}


def test_steps_by_the_loss_of_the_teacher_that_students_learn_from(workdir: Any, drawings: Any):
    workdir.change(teacher_training={"seed": 5, "extra_seeds": (1,)})
    variants = ask(workdir, "teacher", {n: {"teacher_training": {"steps": int(n)}} for n in ("300", "200")})
    losses = {400: 0.001, 300: 0.01, 200: 0.1}
    for steps, one in {400: workdir, 300: variants["300"], 200: variants["200"]}.items():
        one.teacher({step: (losses[steps] if step == steps else 1.0, 0.5) for step in range(100, steps + 1, 100)})
        # The other teacher, of a lower seed, has a loss of its own.
        one.replace("teacher/metrics.jsonl", f'"replica": 1, "loss": [{losses[steps]}', '"replica": 1, "loss": [9')
        student(one, "one_shot", (steps - 100,) * 3)
    (axes,) = drawings(scaling_figures(read_results(workdir.path)))["steps_teacher"].axes
    found = drawn_lines(axes)
    assert found["one-shot"] == [(0.001, 300), (0.01, 200), (0.1, 100)]
    assert axes.get_xlabel() == "the final teacher’s held-out loss (nats)"


@pytest.mark.parametrize("of", [("teacher",), ("student",), ("teacher", "student")])
def test_steps_are_samples_at_batch_1_alone(workdir: Any, of: Sequence[str]):
    batches = {f"{model}_training": {"batch_size": 2} for model in of}
    variants = ask(workdir, "dimension", {"12": {"task": {"dimension": 12}, **batches}})
    for one in (workdir, variants["12"]):
        student(one, "labels", (100, 100, 100))
    assert not list(scaling_figures(read_results(workdir.path)))


def test_without_sizes_to_compare_there_is_no_figure(workdir: Any, finished: Any):
    assert not list(scaling_figures(read_results(finished.path)))
    ask(workdir, "seeds", {"1": {"teacher_training": {"seed": 1}}})
    for one in (workdir, workdir.variant("seeds", "1")):
        student(one, "labels", (100, 100, 100))
    assert not list(scaling_figures(read_results(workdir.path)))
