"""Groups of recorded models, and the state of every run that the configuration asks for."""

from typing import Any

import numpy as np
import pytest

from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.io.sealed import read_lines, write_json, write_lines
from pdjax.models.gpt_neox import GptNeoX
from pdjax.report.reading import read_results


def test_groups_hold_the_recorded_accuracies(finished: Any):
    results = read_results(finished.path)
    assert len(results.groups) == 6
    for (key, rate, budget), group in results.groups.items():
        assert (rate, group.units, group.over().index.tolist()) == (1e-3, (0, 1, 2), [budget // 2, budget])
        np.testing.assert_array_equal(group.final(), finished.FINAL[key, budget])
        np.testing.assert_allclose(group.over("loss"), 2 - group.over())
    assert results.teacher_accuracy == 0.7


def test_a_group_has_one_learning_rate_and_its_seeds_in_order(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01)})
    workdir.start()
    workdir.student("labels", 100, {100: (0.1, 0.2, 0.3, 0.4)}, [(1, 0.001), (0, 0.001), (1, 0.01), (0, 0.01)])
    groups = read_results(workdir.path).groups
    assert groups["labels", 0.001, 100].final().tolist() == [0.2, 0.1]
    assert groups["labels", 0.01, 100].final().tolist() == [0.4, 0.3]


def test_checkpoints_by_which_students_were_trained_are_not_unknown(finished):
    (finished.path / "selection.json").unlink()
    with pytest.raises(UserError, match=r"selection\.json as it was written; found no such file; .* command again"):
        read_results(finished.path)


def test_costs_that_are_lost_are_said(finished, caplog):
    """Only of a run that is complete: who reads meanwhile may be behind."""
    run = finished.path / "students" / "two-200"
    lines = [{"split": "train", "step": 50, "replica": 0, "loss": [1.0, 1.0], "accuracy": [0.5, 1.0]}]
    lines += read_lines(run / "metrics.jsonl").records
    write_json(run / "result.json", {"records": write_lines(run / "metrics.jsonl", lines)})
    read_results(finished.path)
    assert not caplog.records
    (run / "progress.jsonl").unlink()
    read_results(finished.path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{run}: the costs of 1 of its chunks were lost, so its time is too short"
    ]


def test_states_name_every_run_asked_for(workdir: Any):
    workdir.start()
    workdir.teacher({100: (2.0, 0.3)}, complete=False)
    workdir.student("labels", 100, {50: (0.1, 0.1, 0.1), 100: (0.2, 0.2, 0.2)})
    workdir.student("two", 200, {50: (0.1, 0.1, 0.1)}, complete=False)
    results = read_results(workdir.path)
    assert {state.name: state.text for state in results.states} == {
        "teacher": "unfinished: evaluated to step 100 of 400",
        "labels-100": "complete",
        "labels-200": "not started",
        "one_shot-100": "not started",
        "one_shot-200": "not started",
        "two-100": "not started",
        "two-200": "unfinished: evaluated to step 50 of 200",
    }
    assert results.teacher_accuracy is None
    assert results.finished("two", 1e-3, 200) is None


def test_peak_memory_is_the_largest_recorded(finished: Any):
    assert {state.peak_memory_bytes for state in read_results(finished.path).states} == {300 << 20}


def test_a_teacher_copied_from_a_trajectory_counts_as_complete_at_its_end(finished: Any):
    finished.change(teacher_training={"trajectory": "elsewhere"})
    finished.start()
    (finished.path / "teacher" / "result.json").unlink()
    assert read_results(finished.path).unfinished == []


def test_runs_the_configuration_does_not_ask_for_are_strays(finished: Any):
    finished.student("old", 100, {100: (0.9, 0.9, 0.9)})
    results = read_results(finished.path)
    assert results.strays == ["old-100"]
    assert all(strategy != "old" for strategy, _, _ in results.groups)


def test_equal_labels_are_told_apart(workdir: Any):
    workdir.add(Strategy("again"))
    workdir.start()
    labels = read_results(workdir.path).labels
    assert labels["one_shot"] == "one-shot (one_shot)"
    assert labels["again"] == "one-shot (again)"
    assert labels["labels"] == "labels only"


def test_models_of_a_panel_are_in_increasing_size(workdir: Any):
    workdir.widths(["100", "1000", "2000", "300"], [0.1])
    workdir.start()
    results = read_results(workdir.path)
    assert results.panels == {"width": ("100", "300", "1000", "2000")}
    assert [state.name for state in results.states][-4:] == [f"width/{w}" for w in (100, 300, 1000, 2000)]


def test_transformers_of_every_kind_are_in_increasing_size(workdir: Any):
    workdir.language()
    workdir.sizes({"layers": {name: GptNeoX(layers, num_heads=1) for name, layers in (("deep", 2), ("flat", 1))}})
    workdir.start()
    assert read_results(workdir.path).panels == {"layers": ("flat", "deep")}


def test_a_size_run_without_its_last_evaluation_is_an_error(workdir: Any):
    workdir.widths(["100"], [0.1])
    workdir.start()
    workdir.size("width/100", {50: (0.5, 0.5)}, [(0, 0.1), (1, 0.1)])
    with pytest.raises(UserError, match="step 100 of the complete run width/100"):
        read_results(workdir.path)


def test_a_size_that_nobody_asks_for_is_a_stray(workdir: Any):
    workdir.widths(["100"], [0.1])
    workdir.start()
    workdir.size("width/7", {100: (0.5, 0.5)}, [(0, 0.1), (1, 0.1)])
    assert read_results(workdir.path).strays == ["width/7"]


def test_a_directory_without_an_experiment_is_an_error(workdir: Any):
    with pytest.raises(UserError, match=r"config\.json"):
        read_results(workdir.path)


def test_a_seed_of_another_configuration_is_an_error(finished: Any):
    finished.student("labels", 100, {100: (0.4,)}, [(7, 1e-3)])
    with pytest.raises(UserError, match=r"seed=7.*students/labels-100"):
        read_results(finished.path)


def test_a_complete_run_without_its_last_evaluation_is_an_error(finished: Any):
    finished.student("labels", 200, {100: (0.4, 0.4, 0.4)})
    with pytest.raises(UserError, match="step 200 of the complete run labels-200"):
        read_results(finished.path)
