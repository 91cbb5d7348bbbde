"""What was chosen is read back as it was, and records of earlier versions are understood."""

from pathlib import Path

import pytest

from pdjax.distill.phases import LossPhases, RobustPeak, Spike, Transition
from pdjax.distill.selection import Chosen
from pdjax.io.sealed import read_json, write_json
from pdjax.io.selection import SelectionRecord, read_selection, write_selection

RISE = Transition(2, 4, 6, "it rises there")
FULL = SelectionRecord(
    LossPhases(1, 2, 3, "it drops there"),
    (RISE, None),
    (Spike(2, "the root’s"), Spike(4, "its children’s")),
    RobustPeak(3, False, "it rises fastest there"),
    {"two": Chosen((4, 8), "the middle")},
)


@pytest.mark.parametrize("selection", [FULL, SelectionRecord(transitions=(None,))], ids=["all", "nothing found"])
def test_it_is_read_back_as_it_was(tmp_path: Path, selection: SelectionRecord):
    write_selection(tmp_path, selection)
    assert read_selection(tmp_path) == selection


def test_nothing_is_recorded_before_anything_is_chosen(tmp_path: Path):
    assert read_selection(tmp_path) is None


def test_students_learn_from_the_first_teacher(tmp_path: Path):
    assert FULL.transition == RISE
    assert SelectionRecord().transition is None
    assert (FULL.steps("two"), FULL.steps("labels")) == ((4, 8), ())


def test_a_record_of_one_teacher_alone_is_understood(tmp_path: Path):
    write_selection(tmp_path, FULL)
    fields = read_json(tmp_path / "selection.json")
    del fields["transitions"]
    write_json(tmp_path / "selection.json", fields)
    selection = read_selection(tmp_path)
    assert selection is not None
    assert selection.transitions == (RISE,)
