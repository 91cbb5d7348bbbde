"""The fingerprint sees every bit of a result, and nothing else: no index, no directory's name, no clock."""

import importlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pdjax import main
from pdjax.io.command_line import parse_flags
from pdjax.stages.runs import foresee_runs
from pdjax.stages.teacher import stored_steps

# Three strategies with the same curriculum: one run of six students holds all of them.
ALIKE = {"one_shot": 0.0, "progressive": 0.5, "two_shot": 1.0}
SAME = ("schedule=FixedDuration(duration=40)", "selection.kind=Steps(steps=(80,))")
FLAGS = (
    "--config=tests/minimal.py",
    "--config.student_training.seeds=(0, 1)",
    *(f"--config.strategies.{name}.{field}" for name in ALIKE for field in SAME),
    *(f"--config.strategies.{name}.temperature={temperature}" for name, temperature in ALIKE.items()),
)
RUN, REPLICAS = "students/one_shot-160", 6


@pytest.fixture
def fingerprint(root, monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(root / "tests")
    return importlib.import_module("fingerprint")


@pytest.fixture
def runs(root, monkeypatch):
    """The script that runs experiments as a module."""
    monkeypatch.syspath_prepend(root / "tests")
    return importlib.import_module("fingerprint_runs")


@pytest.fixture(scope="module")
def finished(call, tmp_path_factory):
    """A finished experiment, to read only."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    for stage in ("teacher", "probes", "students"):
        code, log = call(*FLAGS, f"--workdir={workdir}", f"--stage={stage}")
        assert code == 0, log
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished experiment under another name, to change."""
    return shutil.copytree(finished, tmp_path / "another", symlinks=True)


def rewrite(path, change):
    """Replaces what a JSON file, or each line of a file of them, holds."""
    parts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("".join(json.dumps(change(json.loads(part))) + "\n" for part in parts))


def rewrite_arrays(fingerprint, directory, change):
    """Replaces the arrays of a checkpoint."""
    arrays = {name.replace("/", "."): change(name, array) for name, array in fingerprint.arrays(directory)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory, arrays, force=True)


def test_it_prints_the_same_lines_without_pdjax_wherever_it_is_called(fingerprint, root, finished, tmp_path):
    without = "import runpy, sys; sys.modules['pdjax'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-c", without, str(root / "tests" / "fingerprint.py"), str(finished)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert printed == "".join(f"{key} = {value}\n" for key, value in fingerprint.read(finished).items())


def test_every_value_of_every_replica_has_a_line(fingerprint, finished):
    lines = fingerprint.read(finished)
    assert list(lines) == sorted(lines)
    replica = "student strategy=two_shot budget=160 label_weight=0 learning_rate=0.02 seed=1 temperature=1"
    assert f"{replica} state step=160 params/output/bias dtype=float32 shape=2" in lines
    assert lines[f"{replica} curriculum teacher_steps"] == "[80,320]"
    assert lines[f"{replica} end step"] == "160"
    assert lines[f"{replica} curriculum starts"] == "[0,40]"
    assert lines["selection strategies progressive teacher_steps"] == "[80,320]"
    assert lines["environment jax"] == jax.__version__
    teacher = "teacher budget=320 label_weight=1 learning_rate=0.02 seed=0 temperature=0"
    digests = json.loads((finished / "teacher/trajectory/checkpoints/40/record/metadata").read_text())["digests"]
    for name in ("output/bias", "hidden_0/kernel"):
        digest = digests["".join(f"[{part!r}]" for part in name.split("/"))]
        shape = "x".join(str(size) for size in digest["shape"])
        assert lines[f"{teacher} checkpoint step=40 {name} dtype=float32 shape={shape}"] == digest["sha256"]
    probes = [json.loads(line) for line in (finished / "probes" / "monomials.jsonl").read_text().splitlines()]
    assert sum(" probe monomials " in key for key in lines) >= len(probes) == 8
    records = map(json.loads, (finished / RUN / "metrics.jsonl").read_text().splitlines())
    loss = next(r["loss"] for r in records if (r["split"], r["step"], r["replica"]) == ("train", 8, 5))
    assert [float.fromhex(value) for value in lines[f"{replica} train step=8 loss"].split()] == loss


def test_the_order_of_replicas_and_the_names_of_directories_mean_nothing(fingerprint, finished, copy):
    run = (copy / RUN).rename(copy / "students" / "elsewhere")
    rewrite(run / "run.json", lambda value: value | {"replicas": value["replicas"][::-1], "name": "elsewhere"})
    rewrite(run / "metrics.jsonl", lambda record: record | {"replica": REPLICAS - 1 - record["replica"]})
    for path in run.glob("*/checkpoints/*/state"):
        rewrite_arrays(fingerprint, path, lambda _, array: array[::-1] if array.ndim else array)
    (run / "progress.jsonl").unlink()
    assert fingerprint.differences(fingerprint.read(finished), fingerprint.read(copy)) == []


def test_strategies_of_one_run_have_the_lines_that_they_would_have_alone(fingerprint, finished, copy):
    for name in ALIKE:
        run = shutil.copytree(copy / RUN, copy / "students" / f"{name}-alone")
        rewrite(run / "run.json", lambda value, name=name: value | {"strategies": [name]})
    shutil.rmtree(copy / RUN)
    assert fingerprint.read(finished) == fingerprint.read(copy)


def test_one_bit_of_one_replica_is_one_line(fingerprint, finished, copy):
    def flip(name, array):
        array = np.array(array)
        if name == "params/output/bias":
            array[4].view(np.int32)[0] ^= 1
        return array

    rewrite_arrays(fingerprint, copy / RUN / "state/checkpoints/160/state", flip)
    minus, plus = fingerprint.differences(fingerprint.read(finished), fingerprint.read(copy))
    key = "student strategy=two_shot budget=160 label_weight=0 learning_rate=0.02 seed=0 temperature=1"
    assert minus.startswith(f"- {key} state step=160 params/output/bias dtype=float32 shape=2 = ")
    assert plus.startswith(f"+ {key} state step=160 params/output/bias dtype=float32 shape=2 = ")


def test_curricula_of_adaptive_runs_and_variants_of_ablations_are_read(fingerprint, finished, copy):
    (copy / RUN / "curriculum.json").write_text(json.dumps({"starts": [[0], [0], [0], [0], [0, 8], [0, 12]]}))
    inner = copy / "ablations" / "student" / "2 heads"
    shutil.copytree(finished / "students" / "labels-160", inner / "students" / "labels-160")
    shutil.copy(finished / "config.json", inner)
    (inner / "teacher").symlink_to("../../../teacher")
    rewrite(
        copy / "config.json",
        lambda value: value | {"ablations": [{"name": "student", "variants": [{"name": "2 heads"}]}]},
    )
    before, after = fingerprint.read(finished), fingerprint.read(copy)
    adapted = "student strategy=two_shot budget=160 label_weight=0 learning_rate=0.02 seed=1 temperature=1"
    assert after[f"{adapted} curriculum starts"] == "[0,12]"
    labels = {key: value for key, value in before.items() if key.startswith("student strategy=labels")}
    inner = {f"ablation=student/2_heads {key}": value for key, value in labels.items()}
    assert {key: value for key, value in after.items() if key.startswith("ablation=")} == inner


@pytest.fixture
def sides(tmp_path):
    """Two saved outputs."""
    before, after = tmp_path / "before.txt", tmp_path / "after.txt"
    before.write_text("teacher seed=0 a/old = 1\nteacher seed=0 b = 2\nteacher seed=0 same = 3\n")
    after.write_text("teacher seed=0 a/new = 1\nteacher seed=0 c decay=0 = 2\nteacher seed=0 same = 3\n")
    return before, after


@pytest.fixture
def compare(fingerprint, monkeypatch, capsys):
    """Calls the command line with a table of what was renamed; returns the exit code and what was printed."""

    def run(*paths, **renamed):
        monkeypatch.setattr(fingerprint, "RENAMED", {old.replace("_", "/"): new for old, new in renamed.items()})
        monkeypatch.setattr(sys, "argv", ["fingerprint.py", *map(str, paths)])
        return fingerprint.main(), capsys.readouterr().out.splitlines()

    return run


def test_what_is_on_one_side_alone_or_differs_is_printed(compare, sides, tmp_path):
    assert compare(sides[0], sides[0]) == (0, [])
    rest = ["- teacher seed=0 b = 2", "+ teacher seed=0 c decay=0 = 2"]
    assert compare(*sides) == (1, ["+ teacher seed=0 a/new = 1", "- teacher seed=0 a/old = 1", *rest])
    assert compare(*sides, a_old="a/new") == (1, rest)
    assert compare(*sides, a_old="a/new", b="c decay=0") == (0, [])
    assert compare(*reversed(sides), a_old="a/new", b="c decay=0") == (0, [])
    changed = tmp_path / "changed.txt"
    changed.write_text(sides[0].read_text().replace("b = 2", "b = 4"))
    assert compare(sides[0], changed) == (1, ["- teacher seed=0 b = 2", "+ teacher seed=0 b = 4"])


@pytest.mark.parametrize(
    ("renamed", "words"),
    [
        (dict(b="same"), "one value of 'teacher seed=0 same'"),
        (dict(b="b/c"), "'b/c' has an old one"),  # lines of the new code would be renamed too
    ],
)
def test_ambiguous_names_are_refused(compare, sides, capsys, renamed, words):
    with pytest.raises(SystemExit, match="2"):
        compare(*sides, **renamed)
    assert words in capsys.readouterr().err


def test_missing_files_are_not_compared(compare, sides, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        compare(sides[0], tmp_path / "nowhere")
    assert "nowhere" in capsys.readouterr().err


def test_a_directory_of_outputs_has_the_lines_of_all(fingerprint, sides, tmp_path):
    assert fingerprint.read(tmp_path) == {
        f"{path.stem}: {key}": value for path in sides for key, value in fingerprint.read(path).items()
    }


def test_all_runs_of_a_comparison_are_sound_configurations(runs, call, monkeypatch, tmp_path):
    sound = []

    def check(argv, _):
        config = parse_flags(argv, lambda: None)
        for one in (config, *config.variants().values()):
            foresee_runs(one, stored_steps(one, tmp_path))
        sound.append(config)

    monkeypatch.setattr(main, "_run", check)
    for name, run in runs.RUNS.items():
        code, log = call(*(flag for flag in run.flags if flag.startswith("--config")))
        assert code == 0, (name, log)
    assert len(sound) == len(runs.RUNS)
