"""What users add outside of the package, as they run it."""

import csv
import json
import shutil

import pytest

from pdjax.io.workdir import read_experiment

MINE = "tests/examples/modular.py"


@pytest.fixture(scope="module")
def finished(finish, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("modular") / "run"
    code, log = finish(f"--config={MINE}", f"--workdir={workdir}", cpu_devices=1)
    assert code == 0, log
    return workdir, log


def test_a_strangers_classes_go_through_every_stage_to_the_report(finished):
    workdir, log = finished
    assert "Traceback" not in log
    page = (workdir / "report" / "index.html").read_text()
    for label in ("labels only", "doubling from 8, from half of the training, total variation", "until 50% are right"):
        assert label in page
    for probes in (workdir / "probes", workdir / "students" / "halfway-64" / "probes"):
        lines = [json.loads(line) for line in (probes / "weight_norm.jsonl").read_text().splitlines()]
        assert all(line["norm"] > 0 for line in lines)
    run = json.loads((workdir / "students" / "halfway-64" / "run.json").read_text())
    assert run["starts"] == [0, 8]
    assert run["teacher_steps"] == [32, 64]
    assert run["replicas"][0]["loss"] == {"class": "addition:TotalVariation", "weight": 1.0}


def test_the_files_are_kept_with_the_results(finished, root):
    workdir, _ = finished
    for name in ("modular.py", "addition.py", "arithmetic.py", "shown.py"):
        assert (workdir / "source" / name).read_text() == (root / "tests" / "examples" / name).read_text()
    assert type(read_experiment(workdir).task).__name__ == "ModularTask"


def test_a_strangers_figure_and_claim_are_in_the_report(finished):
    workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    assert "Loss over training" in page
    assert (workdir / "report" / "figures" / "loss_over_training.svg").stat().st_size > 1000
    reached = {}
    for run in ("labels-64", "halfway-64"):
        for line in (workdir / "students" / run / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["split"] == "evaluation":
                right, count = record["accuracy"]
                if right / count >= 0.3:
                    reached.setdefault((run, record["replica"]), record["step"])
    saved = [reached["labels-64", seed] - reached["halfway-64", seed] for seed in (0, 1)]
    with open(workdir / "report" / "tables" / "claims.csv") as file:
        (row,) = [row for row in csv.DictReader(file) if row["claim"] == "sooner"]
    assert float(row["mean"]) == sum(saved) / 2
    assert row["quantity"] == "steps sooner than labels"


def copied(root, directory):
    for path in (root / "tests" / "examples").glob("*.py"):
        shutil.copy(path, directory)


def test_a_figure_may_change_when_all_is_trained(finished, call, root, tmp_path):
    workdir, _ = finished
    copied(root, tmp_path)
    text = (tmp_path / "shown.py").read_text()
    (tmp_path / "shown.py").write_text(text.replace('"Loss over training"', '"Losses"'))
    code, log = call(f"--config={tmp_path / 'modular.py'}", f"--workdir={workdir}")
    assert code == 0, log
    assert "0 of 4 runs to do" in log
    assert "Losses" in (workdir / "report" / "index.html").read_text()
    (tmp_path / "shown.py").write_text(text.replace("axes = figure.add_subplot()", "axes = figure.add_axis()"))
    code, log = call(f"--config={tmp_path / 'modular.py'}", f"--workdir={workdir}")
    assert code == 2
    assert "expected LossOverTraining (loss_over_training) to work on the results" in log
    assert "has no attribute 'add_axis'" in log
    assert "Losses" in (workdir / "report" / "index.html").read_text()
    code, log = call(f"--config={MINE}", f"--workdir={workdir}")
    assert code == 0, log


def test_a_changed_file_is_another_experiment(finished, call, root, tmp_path):
    workdir, _ = finished
    copied(root, tmp_path)
    code, log = call(f"--config={tmp_path / 'modular.py'}", f"--workdir={workdir}")
    assert code == 0  # the same content elsewhere
    assert "0 of 4 runs to do" in log
    text = (tmp_path / "arithmetic.py").read_text()
    (tmp_path / "arithmetic.py").write_text(text + "\n# another remark\n")
    code, log = call(f"--config={tmp_path / 'modular.py'}", f"--workdir={workdir}")
    assert code == 2
    assert "changes in arithmetic.py; go on with --config=" in log
    assert len(log.splitlines()) == 1
    code, log = call(f"--config={workdir / 'source' / 'modular.py'}", f"--workdir={workdir}")
    assert code == 0, log


def test_fields_of_a_strangers_classes_are_flags(call, capsys):
    changes = (
        "--config.task.modulus=7",
        "--config.strategies.halfway.first=4",
        "--config.strategies.halfway.weight=3.0",
    )
    code, log = call(f"--config={MINE}", *changes, "--print_config")
    assert code == 0, log
    printed = capsys.readouterr().out
    for change in changes:
        assert change in printed
