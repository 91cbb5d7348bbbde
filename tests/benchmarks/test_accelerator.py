"""The benchmark of accelerators at tiny sizes: what it writes, how it stops, and that its comparisons can fail."""

import functools
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

COMMAND = [sys.executable, "benchmarks/accelerator.py", "--tiny"]


@pytest.fixture
def card(root, monkeypatch):
    """The modules behind the command, by name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))

    def load(name):
        __import__(f"card.{name}")
        return sys.modules[f"card.{name}"]

    return load


@pytest.fixture
def records(card, tmp_path):
    return card("records").Records(tmp_path / "results.jsonl", time.time() + 600, True)


def test_a_dry_run_checks_writes_and_goes_on_where_it_stopped(root, tmp_path):
    one_of_each = "--cases=products,gradient mlp,blocks,strings,of 8 dimensions"
    command = [*COMMAND, "--parts=checks", one_of_each, "--seconds=45", f"--out={tmp_path}"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "all that was checked works" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["part"] == "machine"
    assert lines[0]["jax"] == jax.__version__
    checks = {line["case"]: line for line in lines[1:]}
    assert checks["products float32"]["ok"]
    assert 0 < checks["products float32"]["error"] < 1e-6 < checks["products bfloat16"]["error"]
    assert "| products float32 | yes |" in (tmp_path / "tables.md").read_text()
    command = [*COMMAND, "--parts=checks", "--seconds=0", f"--out={tmp_path}"]
    again = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert after[: len(lines)] == lines
    assert all(line["case"].startswith("left out") for line in after[len(lines) :])


def test_results_of_another_machine_are_left_alone(root, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"part": "machine", "case": "x", "card": "another", "tiny": True}) + "\n")
    before = path.read_text()
    result = subprocess.run([*COMMAND, f"--out={tmp_path}"], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "give another --out" in result.stderr
    assert path.read_text() == before


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_step_is_measured(card, compute):
    training = card("training")
    case = training.BASE._replace(replicas=2, compute=compute)
    measurement = training.measure(training.prepare_case(case, training.Size(1, 1, 1, 8, 2, 4, 2)))
    assert measurement["ms"] > 0
    assert measurement["compile s"] > 0
    assert measurement["fits"]
    forward = 2 * 8 * (8 * 8 * (4 + 2 * 4) + 8 * 8 + 2 * 7 * 8) + 2 * 2 * 2 * 4 * 4 * (8 + 8)
    assert measurement["GFLOP a step"] == pytest.approx(
        (1 + 2 * 3) * forward / 1e9, rel=0.2
    )  # attention's unused weights
    assert measurement["of peak"] is None  # no list of chips has this machine


def test_the_first_cases_differ_from_the_base_in_one_choice(card):
    training = card("training")
    cases = training.cases()
    assert len(cases) == len(set(cases)) == 2 * 3 * 2 * 3 * 3 + 3
    assert cases[0] == training.BASE
    assert [training.differences(case) for case in cases[:11]] == [0, *[1] * 8, 2, 2]


def test_what_there_is_no_time_for_is_said(card, tmp_path):
    make = functools.partial(card("records").Records, tmp_path / "results.jsonl", tiny=True)
    late = make(time.time() - 1)
    assert list(late.timely("speed", ["a", "b"])) == []
    assert late.lines() == [{"part": "speed", "case": "left out for lack of time", "count": 2, "first": "a"}]
    early = make(time.time() + 600)
    early.write("speed", "a", ms=1.0)
    assert list(early.timely("speed", ["a", "b"])) == ["b"]
    assert "left out" not in card("records").as_tables(early.lines())


def test_programs_are_compiled_together_and_measured_alone(card, records, monkeypatch):
    speed, training = card("speed"), card("training")
    names, said = [str(case) for case in training.cases()[:3]], []
    monkeypatch.setattr(speed, "AT_ONCE", 2)
    monkeypatch.setattr(speed, "prepare_case", lambda case, size: said.append(f"compiled {case}") or str(case))
    monkeypatch.setattr(speed, "measure", lambda name: said.append(f"measured {name}") or {"ms": 1.0})
    some = card("records").Records(records.path, time.time() + 600, True, names)
    some.write("speed", names[1], ms=1.0)
    speed.run(some)
    first, _, second = names
    expected = [f"compiled {first}", f"compiled {second}", f"measured {first}", f"measured {second}"]
    assert [line for line in said if line.endswith((first, second))] == expected
    assert {line["case"] for line in some.lines()} == set(names)


STAND_IN = """
import pathlib, sys, time
workdir = pathlib.Path(sys.argv[1])
for path in ("teacher/state/checkpoints/1", "students/run/state/checkpoints/1", "report"):
    (workdir / path).mkdir(parents=True, exist_ok=True)
    if path != "report":
        killed = workdir / f"{path}/seen"
        if not killed.exists():
            killed.touch()
            if "killed" in workdir.name:
                time.sleep(60)
(workdir / "metrics.jsonl").write_text("{}" if DIFFERENT not in workdir.name else "other")
(workdir / "report" / "index.html").touch()
"""


@pytest.mark.parametrize(("different", "verdicts"), [("nothing", [True] * 3), ("killed", [True, False, True])])
def test_runs_are_killed_and_compared(card, records, monkeypatch, different, verdicts):
    """A stand-in for the experiment waits to be killed at each place; one that leaves something else is found."""
    runs = card("runs")
    script = STAND_IN.replace("DIFFERENT", repr(different))

    def start(config, workdir, environment, cache):
        return subprocess.Popen([sys.executable, "-c", script, str(workdir)])

    monkeypatch.setattr(runs, "_start", start)
    runs.run(records, ["one"])
    assert [line["ok"] for line in records.lines()] == verdicts
    before = records.lines()
    runs.run(records, ["one"])
    assert records.lines() == before


def test_runs_without_time_are_left_out_and_made_by_a_later_call(card, records, monkeypatch):
    runs, script = card("runs"), STAND_IN.replace("DIFFERENT", repr("nothing"))
    late = card("records").Records(records.path, time.time() - 1, True)
    runs.run(late, ["one"])
    assert late.lines() == [
        {"part": "runs", "case": "left out for lack of time", "count": 3, "first": "one, to its report"}
    ]

    def start(config, workdir, environment, cache):
        return subprocess.Popen([sys.executable, "-c", script, str(workdir)])

    monkeypatch.setattr(runs, "_start", start)
    runs.run(records, ["one"])
    assert [line.get("ok") for line in records.lines()] == [None, True, True, True]


def test_a_check_that_fails_is_a_result(card, records, monkeypatch):
    checks = card("checks")
    monkeypatch.setattr(checks, "ALLOWED", {"float32": 1e-9})
    monkeypatch.setattr(checks, "HEAD_DIMS", ())
    monkeypatch.setattr(checks, "_gradient", lambda kind: 1 / 0)
    monkeypatch.setattr(checks, "_blocks", lambda: {"ok": True})
    checks.run(records)
    lines = {line["case"]: line for line in records.lines()}
    assert not lines["products float32"]["ok"]
    assert lines["gradient bert float32"] == {
        "part": "checks", "case": "gradient bert float32", "ok": False, "error": "ZeroDivisionError: division by zero",
    }  # fmt: skip
    assert lines["strings of the grammar"]["ok"]


def test_a_gradient_that_is_no_number_is_no_success(card, monkeypatch):
    checks = card("checks")
    assert checks._attention(8, "keys", True, 4)["ok"]
    errors = iter([1e-3, float("nan"), 1e-3, 1e-3, 1e-3])
    monkeypatch.setattr(checks, "relative_error", lambda result, right: next(errors))
    assert not checks._attention(8, "keys", True, 4)["ok"]


def test_a_case_that_kills_its_process_is_named_and_not_tried_again(root, tmp_path):
    script = """
import os, sys
sys.path.insert(0, "benchmarks")
import accelerator
from card import checks
checks._product = lambda compute: {"ok": True} if compute == "float32" else os.kill(os.getpid(), 9)
accelerator.__file__ = __file__
sys.exit(accelerator.main())
"""
    (tmp_path / "run.py").write_text(script)
    command = [sys.executable, str(tmp_path / "run.py"), "--tiny", "--parts=checks", f"--out={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    result = subprocess.run(
        [*command, "--seconds=120"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    lines = {line["case"]: line for line in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert lines["products float32"]["ok"]
    assert not lines["products tf32"]["ok"]
    assert "its process ended with" in lines["products tf32"]["error"]
    assert "does not work: the whole part; products tf32" in result.stdout


def test_kernels_of_a_profile(card, tmp_path):
    x = jnp.ones((64, 64))
    function = jax.jit(lambda x: jnp.sort(x @ x, axis=0))
    function(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            function(x).block_until_ready()
    (path,) = tmp_path.rglob("*.xplane.pb")
    times = card("profile").kernel_times(jax.profiler.ProfileData.from_file(str(path)))
    assert any(name.startswith("sort") and len(each) == 3 and min(each) > 0 for name, each in times.items())
