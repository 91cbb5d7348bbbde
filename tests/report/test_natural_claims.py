"""Claim N from hand-made numbers: phases, the peak of M_robust, and progressive against one-shot students."""

from typing import Any

import pytest

from pdjax.distill.phases import LossPhases, RobustPeak
from pdjax.io.selection import SelectionRecord, write_selection
from pdjax.models.bert import Bert
from pdjax.report.claims.natural import N
from pdjax.tasks.text import Prepared, TextTask

PHASES = LossPhases(100, 200, 300, "a plateau, then a drop")


@pytest.fixture
def text(workdir: Any) -> Any:
    """A working directory of an experiment on text, whose students' accuracies are those of ``FINAL``."""
    workdir.change(task=TextTask(Prepared("nowhere", None, 200, 16)), teacher=Bert(1, 2, 4), student=Bert(1, 1, 4))
    workdir.start()
    workdir.teacher()
    return workdir


def verdicts(workdir: Any, phases: LossPhases | None, peak: RobustPeak | None) -> list[str]:
    """Returns those of the teacher's two cases."""
    write_selection(workdir.path, SelectionRecord(phases, (None,), robust_peak=peak))
    return [case.verdict for case in workdir.cases(N)[:2]]


def test_phases_and_the_peak_of_m_robust(text: Any):
    assert verdicts(text, PHASES, RobustPeak(200, True, "")) == ["holds", "holds"]
    assert verdicts(text, PHASES, RobustPeak(100, True, "")) == ["holds", "holds"]
    assert verdicts(text, PHASES, RobustPeak(400, True, "")) == ["holds", "fails"]  # behind the drop
    assert verdicts(text, PHASES, RobustPeak(200, False, "")) == ["holds", "fails"]  # it never falls again
    assert verdicts(text, None, RobustPeak(200, True, "")) == ["fails", "fails"]
    assert verdicts(text, PHASES, None) == ["holds", "not tested"]


def test_what_a_loss_without_phases_does_is_said(text: Any):
    write_selection(text.path, SelectionRecord(None, (None,)))
    assert text.cases(N)[0].note.endswith("it falls from 2.000 to 1.000 nats")


def test_a_folder_of_few_checkpoints_is_no_curve(text: Any):
    text.teacher({100: (2.0, 0.1), 200: (1.5, 0.2), 300: (1.0, 0.3)})
    assert verdicts(text, None, RobustPeak(200, True, "")) == ["not tested", "not tested"]


def test_progressive_against_one_shot_students(text: Any):
    """Labels are no rival; seeds are paired."""
    write_selection(text.path, SelectionRecord(PHASES, (None,)))
    for budget in (100, 200):
        for key in ("labels", "one_shot", "two"):
            text.student(key, budget, {budget: text.FINAL[key, budget]})
    short, long = text.cases(N)[2:]
    assert [m.quantity for m in short.measurements] == ["margin over one-shot"]
    assert short.measurements[0].interval.mean == pytest.approx((0.07 + 0.10 + 0.13) / 3)
    assert (short.verdict, long.verdict) == ("holds", "undecided")


def test_other_tasks_say_nothing_of_it(workdir: Any):
    workdir.start()
    assert workdir.absence(N) == "the task is not about natural language"
