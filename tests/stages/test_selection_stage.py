import pytest

from pdjax.io.sealed import read_json, write_json, write_lines
from pdjax.stages.selection import select_checkpoints

CHANCE, END = 0.5, 1.0


@pytest.fixture
def smoke(experiment):
    """Two parity teachers of 8000 steps, with a checkpoint every 500."""
    return experiment("parity_mlp", "smoke")


@pytest.fixture
def workdir(tmp_path):
    """The records of two teachers whose accuracy rises evenly from step 2350 to 4200 and from 3350 to 5200."""
    replicas = [{"seed": seed, "learning_rate": 0.02, "loss": {"class": "pdjax.distill:Labels"}} for seed in (0, 1)]
    run = {"role": "teacher", "name": "teacher", "strategies": [], "budget": 8000, "identity": "0"}
    write_json(tmp_path / "teacher" / "run.json", run | {"replicas": replicas, "starts": [], "teacher_steps": []})
    records = []
    for step in range(0, 8001, 50):
        for replica, begin in enumerate((2350, 3350)):
            accuracy = CHANCE + (END - CHANCE) * min(max((step - begin) / 1850, 0.0), 1.0)
            measured = {"loss": [0.7, 1.0], "accuracy": [accuracy, 1.0]}
            records.append({"split": "evaluation", "step": step, "replica": replica, **measured})
    write_lines(tmp_path / "teacher" / "metrics.jsonl", records)
    return tmp_path


def test_points_of_a_transition_are_stored_checkpoints_that_are_what_they_are_called(smoke, workdir):
    """Among all evaluations the rise begins at 2400 and ends at 4200. The checkpoints nearest to these are 2500, where
    it has begun, and 4000, where it has not ended."""
    chosen = select_checkpoints(smoke, workdir, range(500, 8001, 500))
    assert {point: chosen[point].teacher_steps for point in ("start", "middle", "end")} == {
        "start": (2000, 8000),
        "middle": (3500, 8000),
        "end": (4500, 8000),
    }


def test_every_teacher_has_its_own_transition(smoke, workdir):
    select_checkpoints(smoke, workdir, range(500, 8001, 500))
    transitions = read_json(workdir / "selection.json")["transitions"]
    assert [(t["start"], t["middle"], t["end"]) for t in transitions] == [(2000, 3500, 4500), (3000, 4500, 5500)]
