"""The figure of the teacher's training, read back from matplotlib's objects."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from pdjax.report.figures.teacher import teacher_figures
from pdjax.report.reading import read_results

TRANSITION = {"start": 150, "middle": 200, "end": 250, "reason": "it rises"}


def curves(axes: Axes) -> list[list[float]]:
    """Returns the heights of the lines with a point for every evaluation."""
    heights = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    return [height for height in heights if len(height) == 4]


def test_teacher_shows_phases_and_stacks_shared_checkpoints(finished: Any, drawings: Any):
    figure = drawings(teacher_figures(read_results(finished.path)))["teacher"]
    loss_axes, accuracy_axes = figure.axes
    assert [text.get_text() for text in loss_axes.texts] == ["phase", "1", "2", "3"]
    assert curves(accuracy_axes) == [[0.3, 0.4, 0.6, 0.7]]
    marks = [line for line in loss_axes.lines if line.get_marker() == "v"]
    assert [np.asarray(mark.get_xdata()).tolist() for mark in marks] == [[400], [200, 400]]
    (one_shot,), (between, progressive) = (np.asarray(mark.get_ydata()) for mark in marks)
    assert between > 1.5  # above the loss there
    assert progressive > one_shot > 1.0  # both use the final checkpoint, one above the other
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one-shot", "progressive (2, 50)"]


def test_teacher_shows_its_transition_and_other_seeds(finished: Any, drawings: Any):
    finished.change(teacher_training={"extra_seeds": (7,)})
    finished.start()
    finished.teacher()
    finished.select({"two": (200, 400)}, transition=TRANSITION)
    loss_axes, accuracy_axes = drawings(teacher_figures(read_results(finished.path)))["teacher"].axes
    assert not loss_axes.texts  # no phases
    (span,) = accuracy_axes.patches
    assert (span.get_x(), span.get_width()) == (150, 100)
    other, chosen, middle = (line for line in accuracy_axes.lines if len(np.asarray(line.get_xdata())))
    np.testing.assert_allclose(curves(accuracy_axes), [[0.29, 0.39, 0.59, 0.69], [0.3, 0.4, 0.6, 0.7]])
    assert other.get_linewidth() < chosen.get_linewidth()
    assert np.asarray(middle.get_xdata()).tolist() == [200, 200]


def test_strategies_with_the_same_checkpoints_share_triangles(finished: Any, drawings: Any):
    finished.select({"labels": (), "one_shot": (100, 400), "two": (100, 400)})
    figure = drawings(teacher_figures(read_results(finished.path)))["teacher"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one-shot\nprogressive (2, 50)"]
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert np.asarray(mark.get_xdata()).tolist() == [100, 400]


@pytest.mark.parametrize(
    ("evidence", "text"),
    [({"transition": TRANSITION}, "shaded span"), ({}, "shaded phases"), ({"phases": None}, "No phases are recorded")],
)
def test_the_caption_says_what_is_shaded(finished: Any, evidence: dict[str, Any], text: str):
    finished.select({"labels": ()}, **evidence)
    (teacher,) = teacher_figures(read_results(finished.path))
    assert text in teacher.caption
    assert "Triangles" not in teacher.caption  # nothing was chosen


def test_an_unfinished_teacher_says_so_and_one_without_evaluations_is_not_drawn(workdir: Any):
    workdir.start()
    assert not list(teacher_figures(read_results(workdir.path)))
    workdir.teacher({}, complete=False)
    assert not list(teacher_figures(read_results(workdir.path)))
    workdir.teacher({100: (2.0, 0.3)}, complete=False)
    (teacher,) = teacher_figures(read_results(workdir.path))
    assert teacher.title == "The teacher (unfinished)"


def test_the_loss_of_next_tokens_is_per_counted_token(finished: Any, drawings: Any):
    finished.language()
    finished.start()
    loss_axes, accuracy_axes = drawings(teacher_figures(read_results(finished.path)))["teacher"].axes
    assert loss_axes.get_ylabel() == "held-out loss\n(nats per counted token)"
    assert accuracy_axes.get_ylabel() == "held-out accuracy\n(top 1, counted tokens)"
