"""Every configuration's ``:smoke``, as a user starts it, to the report."""

import pytest


def test_smoke_runs_every_stage_of_the_config_as_it_is(finish, tmp_path):
    code, log = finish("--config=configs/pcfg.py:smoke", f"--workdir={tmp_path / 'run'}")
    assert code == 0, log
    assert "MB on disk" in log
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "F1" in page
    for strategy in ("labels", "one_shot", "progressive", "two_shot"):
        assert (tmp_path / "run" / "students" / f"{strategy}-16" / "result.json").exists()


@pytest.mark.parametrize("name", ["parity_mlp", "parity_transformer", "hierarchical"])
def test_smoke_of_the_parities_runs_every_stage_to_the_report(load_config_file, finish, tmp_path, name):
    workdir = tmp_path / "run"
    code, log = finish(f"--config=configs/{name}.py:smoke", f"--workdir={workdir}")
    assert code == 0, log
    assert "Traceback" not in log
    config = load_config_file(name).get_config("smoke")
    (budget,) = config.student_training.budgets
    done = {str(path.parent.relative_to(workdir)) for path in workdir.glob("**/result.json")}
    expected = {"teacher", "probes"} | {f"students/{strategy}-{budget}" for strategy in config.strategies}
    if config.sizes is not None:
        expected |= {f"sizes/{panel}/{label}" for panel, models in config.sizes.panels.items() for label in models}
    assert done == expected
    assert (workdir / "students" / f"adaptive-{budget}" / "curriculum.json").exists()
    for seed in config.teacher_training.extra_seeds:
        assert (workdir / "teacher" / f"trajectory-seed{seed}" / "store.json").exists()
    page = (workdir / "report" / "index.html").read_text()
    for comparison in config.comparisons.values():
        assert comparison.title in page
