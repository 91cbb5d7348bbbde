"""Every configuration's ``:smoke``, as a user starts it, to the report."""

import json
import re

import pytest

from pdjax.stages.runs import asked_runs, foresee_runs

NAMES = ["parity_mlp", "parity_transformer", "hierarchical", "pcfg", "pcfg_gpt", "text", "theory"]


def names_of_runs(workdir):
    """Returns the student runs of a working directory that are complete, with the strategies of each."""
    runs = {}
    for path in workdir.glob("students/*/result.json"):
        run = json.loads((path.parent / "run.json").read_text())
        runs[run["name"]] = {(strategy, run["budget"]) for strategy in run["strategies"]}
    return runs


def asked(config):
    """Returns the strategies that a configuration asks for, with their budgets."""
    return {(strategy.name, budget) for budget, strategy in asked_runs(config)}


def bytes_of(directory):
    """Returns the bytes of disk that a directory takes, in blocks of 4 KiB whatever file system it is on."""
    sizes = (path.lstat().st_size for path in [directory, *directory.rglob("*")])
    return sum(-(-max(size, 1) // 4096) * 4096 for size in sizes)


@pytest.mark.parametrize("name", NAMES)
def test_smoke_runs_every_stage_to_the_report(experiment, finish, tmp_path, name):
    workdir = tmp_path / "run"
    code, log = finish(f"--config=configs/{name}.py:smoke", f"--workdir={workdir}", cpu_devices=1)
    assert code == 0, log
    assert "Traceback" not in log
    announced = float(re.search(r"disk: ([\d.]+) MB in all", log)[1]) * 1e6
    # Of tokens that the few batches had not the optimizer holds zeros, which are stored compressed.
    assert announced == pytest.approx(bytes_of(workdir), rel=0.4 if name == "text" else 0.2)
    config = experiment(name, "smoke")
    runs = names_of_runs(workdir)
    assert set().union(*runs.values()) == asked(config)
    foreseen = foresee_runs(config, config.teacher_training.checkpoints)
    assert len(runs) <= len(foreseen) <= len(asked(config))
    for run in foreseen:  # may have become part of another, and is never taken apart
        assert any({(strategy, run.budget) for strategy in run.strategies} <= members for members in runs.values())
    for stage in ("teacher", "probes"):
        assert (workdir / stage / "result.json").exists()
    if config.sizes is not None:
        expected = {path for path, _ in config.sizes.models()}
        assert {str(p.parent.relative_to(workdir / "sizes")) for p in workdir.glob("sizes/*/*/result.json")} == expected
    for run, members in runs.items():
        if any(config.strategy(key).is_adaptive for key, _ in members):
            assert (workdir / "students" / run / "curriculum.json").exists()
        probed = [key for key, budget in members if config.probes_students_of(budget) and key in config.probes.students]
        assert (workdir / "students" / run / "probes" / "result.json").exists() == bool(probed)
    for seed in config.teacher_training.extra_seeds:
        assert (workdir / "teacher" / f"trajectory-seed{seed}" / "store.json").exists()
    page = (workdir / "report" / "index.html").read_text()
    for part in (*config.comparisons, *config.ablations):
        assert part.title in page
    for ablation in config.ablations:
        for variant in ablation.variants:
            there = workdir / "ablations" / ablation.name / variant.name
            assert set().union(*names_of_runs(there).values()) == asked(config.variant(ablation, variant))
            # A variant of the student alone has the teacher of the experiment.
            assert (there / "teacher").is_symlink() == (set(variant.changes) == {"student"})
            assert (there / "teacher" / "result.json").exists()


@pytest.mark.parametrize("name", ["parity_mlp", "pcfg"])
def test_smoke_of_a_tuning_and_a_study_run_to_the_report(experiment, finish, tmp_path, name):
    for stage in ("tune", "study"):
        workdir, config = tmp_path / stage, experiment(name, f"smoke-{stage}")
        code, log = finish(f"--config=configs/{name}.py:smoke-{stage}", f"--workdir={workdir}", cpu_devices=1)
        assert code == 0, log
        announced = float(re.search(r"disk: ([\d.]+) MB in all", log)[1]) * 1e6
        assert announced == pytest.approx(bytes_of(workdir), rel=0.2)
        page = (workdir / "report" / "index.html").read_text()
        if stage == "tune":
            tuned = json.loads((workdir / "tuned.json").read_text())
            assert {*tuned["chosen"]} < {strategy.name for strategy in config.strategies}
            assert "Chosen by tuning" in page
            continue
        assert {path.name for path in (workdir / "teachers").iterdir()} == {*map(str, config.further_teachers)}
        for place in (workdir, *(workdir / "teachers").iterdir()):
            assert set().union(*names_of_runs(place).values()) == asked(config)
        assert "over teachers" in page
