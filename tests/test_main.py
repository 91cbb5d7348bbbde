"""The command line as a user meets it: real processes, real signals, real files."""

import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest

from pdjax.errors import UserError
from pdjax.io.sealed import read_json

SMALL = ("--config=tests/minimal.py",)
STRINGS = ("--config=configs/pcfg.py:smoke",)


@pytest.fixture(scope="module")
def undisturbed(finish, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, log = finish(*SMALL, f"--workdir={workdir}")
    assert code == 0, log
    return workdir, log


def results(workdir):
    """All that must not depend on interruptions: metrics, selection, and the digests of every checkpoint."""
    names = ["selection.json", *(str(p.relative_to(workdir)) for p in workdir.glob("**/metrics.jsonl"))]
    contents = {name: (workdir / name).read_text() for name in names}
    for path in sorted((workdir / "teacher" / "trajectory" / "checkpoints").glob("*/record/metadata")):
        contents[str(path.relative_to(workdir))] = path.read_text()
    assert len(contents) == 1 + 5 + 8  # teacher and four runs of students; checkpoints every 40 of 320 steps
    return contents


def test_second_call_does_nothing_again(call, undisturbed):
    workdir, log = undisturbed
    assert "teacher 320/320" in log
    before = results(workdir)
    code, log = call(*SMALL, f"--workdir={workdir}")
    assert code == 0
    assert "0 of 4 runs to do" in log
    assert "320/320" not in log
    assert results(workdir) == before


def test_what_xla_was_asked_for_is_on_record(call, undisturbed, monkeypatch, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    code, log = call(*SMALL, f"--workdir={workdir}", "--stage=teacher")
    assert code == 0
    assert "goes on elsewhere (XLA_FLAGS" in log
    (later,) = read_json(workdir / "environment.json")["later"]
    assert later["versions"]["XLA_FLAGS"] == "--xla_other=1 --xla_gpu_deterministic_ops=true"


def test_a_run_keeps_to_its_chunks(call, undisturbed):
    before = results(undisturbed[0])
    code, log = call(*SMALL, f"--workdir={undisturbed[0]}", "--config.loop.chunk_steps=40")
    assert code == 2
    assert "config.loop.chunk_steps: 4 there, 40 here" in log
    assert results(undisturbed[0]) == before


def test_processes_join_before_a_configuration_may_use_a_device(call, monkeypatch, tmp_path):
    def join(*_):
        raise UserError("processes", "none", "start them")

    (tmp_path / "mine.py").write_text("raise ValueError('loaded')")
    monkeypatch.setattr("pdjax.io.processes.join", join)
    code, log = call(f"--config={tmp_path / 'mine.py'}")
    assert code == 2
    assert "expected processes; found none" in log


def test_fields_with_a_value_are_no_run(call, tmp_path):
    code, log = call(*SMALL, "--print_config=true", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert "write --print_config" in log
    assert not (tmp_path / "run").exists()


def test_killed_at_any_stage_ends_with_the_same_bits(start, call, undisturbed, tmp_path):
    """SIGKILL while the teacher, its probes and the students are at work, seen by what they left."""
    workdir = tmp_path / "run"
    for seen in ("teacher/metrics.jsonl", "teacher/result.json", "students/*/state/checkpoints/[0-9]*"):
        process = start(*SMALL, f"--workdir={workdir}")
        wait_for(lambda seen=seen: any(workdir.glob(seen)), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not (workdir / "report").exists()
    code, log = call(*SMALL, f"--workdir={workdir}")
    assert code == 0, log
    assert results(workdir) == results(undisturbed[0])


def test_signals_save_and_exit_cleanly(start, call, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    for number, seen in ((signal.SIGTERM, "teacher/metrics.jsonl"), (signal.SIGINT, "students/*/metrics.jsonl")):
        process = start(*SMALL, f"--workdir={workdir}")
        wait_for(lambda seen=seen: any(workdir.glob(seen)), process)
        process.send_signal(number)
        _, log = process.communicate(timeout=120)
        assert process.returncode == 128 + number, log
        assert "saved at step" in log
        assert "Traceback" not in log
    code, log = call(*SMALL, f"--workdir={workdir}")
    assert code == 0, log
    assert results(workdir) == results(undisturbed[0])


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stages_run_one_by_one(call, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    code, log = call(*SMALL, f"--workdir={workdir}", "--stage=students")
    assert code == 2
    assert "--stage=teacher first" in log
    for stage in ("teacher", "probes", "students", "report"):
        code, log = call(*SMALL, f"--workdir={workdir}", f"--stage={stage}")
        assert code == 0, log
        assert (workdir / "report").exists() == (stage == "report")
    assert results(workdir) == results(undisturbed[0])


def test_given_trajectory_replaces_the_teacher_stage(call, undisturbed, tmp_path):
    given = f"--config.teacher_training.trajectory={undisturbed[0] / 'teacher' / 'trajectory'}"
    code, log = call(*SMALL, given, f"--workdir={tmp_path / 'run'}")
    assert code == 0, log
    assert not (tmp_path / "run" / "teacher" / "trajectory").exists()
    first, second = (w / "students" / "two_shot-160" / "metrics.jsonl" for w in (undisturbed[0], tmp_path / "run"))
    assert first.read_text() == second.read_text()
    code, log = call(*SMALL, given, "--config.teacher.widths=(8,)", f"--workdir={tmp_path / 'other'}")
    assert code == 2
    assert "widths" in log


BAD_INPUT = {
    "unknown flag": (["--workdirr=runs/first"], ["--workdirr", "--workdir"]),
    "unknown key": (["--config.student.nun_heads=4"], ["nun_heads"]),
    "wrong type": (["--config.student.num_heads=many"], ["num_heads"]),
    "heads do not divide the width": (
        ["--config.student.num_heads=3", "--config.student.width=16"],
        ["config.student", "3 heads", "width 16"],
    ),
    "curriculum out of order": (
        ["--config.strategies.two_shot.selection.steps=(16, 8)"],
        ["increasing", "(16, 8)", "sort"],
    ),
    "no such class": (
        ["--config.student_training.optimizer.kind=Adagrad"],
        ["config.student_training.optimizer", "'Adagrad'", "pdjax.train:Adam"],
    ),
    "no such strategy": (["--strategies=labels,progresive"], ["'progresive'", "progressive"]),
    "checkpoint that will not be stored": (
        ["--config.strategies.two_shot.selection.steps=(6,)"],
        ["no checkpoint for [6]", "checkpoint_every"],
    ),
    "no such trajectory": (
        ["--config.teacher_training.trajectory=runs/nowhere"],
        ["a folder of checkpoints, or a pattern", "runs/nowhere, which is none", "name another"],
    ),
    "seed of more than 31 bits": (["--config.seed=99999999999"], ["config.seed", "99999999999", str(2**31)]),
    "no such variant": (["--config=configs/pcfg.py:huge"], ["huge", "smoke"]),
    "no such file": (["--config=configs/nothing.py"], ["configs/nothing.py"]),
    "no such grammar": (["--config.task.grammar=cfg9"], ["cfg9", "cfg3b"]),
    "stray argument": (["configs/pcfg.py"], ["--flag=value"]),
    "a name that is a path": (["--config.name=../../evil"], ["a name of files", "'..'", "rename it"]),
    "no UTF-8": (["--workdir=a/\udcff"], ["a directory whose path is UTF-8", r"/a/\udcff"]),
    "a bucket": (["--workdir=gs://bucket/run"], ["a directory of this machine", "gs://bucket/run", "mount the bucket"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_clear_message(call, tmp_path, name):
    arguments, words = BAD_INPUT[name]
    assert_one_message(*call(*STRINGS, f"--workdir={tmp_path / 'run'}", *arguments), words)
    assert not (tmp_path / "run").exists()


def test_bad_input_of_a_process_is_the_same_message_before_anything_slow_is_imported(root, tmp_path):
    arguments, words = BAD_INPUT["unknown flag"]
    script = "import sys; from pdjax import main; code = main.main(sys.argv); print(*sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", script, *STRINGS, f"--workdir={tmp_path / 'run'}", *arguments]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert_one_message(result.returncode, result.stderr, words)
    assert not {"jax", "orbax", "scipy", "matplotlib"} & set(result.stdout.split())


def test_a_training_that_fails_says_so_and_exits_with_1(call, tmp_path):
    wild = "--config.teacher_training.learning_rate=1e30"
    code, log = call("--config=tests/minimal.py:few", wild, f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert "failed: teacher: " in log
    assert "not finite" in log
    assert "Traceback" not in log


def test_a_jaxlib_that_sums_wrongly_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda _: "0.10.2")
    code, log = call(*SMALL, f"--workdir={tmp_path / 'run'}")
    assert_one_message(code, log, ["0.10.2", "pip install"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("asking", ["--help", "-h"])
def test_help_lists_flags_and_configurations_whatever_stands_beside_it(call, capsys, asking):
    code, log = call(asking, "--workdirr=elsewhere")
    text = capsys.readouterr().out
    assert (code, log) == (0, "")
    for words in (
        "--workdir",
        "Where results go",
        "--stage",
        "(default: all)",
        "Example: python -m pdjax.main --config=",
    ):
        assert words in text
    assert "configs/pcfg.py: Progressive distillation of BERT on a PCFG" in text
    assert "--topology" not in text  # a flag of the plan


@pytest.mark.parametrize("asking", ["--print_config", "--helpfull"])
def test_every_field_of_the_configuration_is_printed_with_its_overrides_type_and_meaning(call, capsys, asking):
    overrides = ("--config.student.num_heads=4", "--config.strategies.two_shot.duration=3")
    code, log = call(*STRINGS, *overrides, "--strategies=labels,two_shot", asking)
    lines = capsys.readouterr().out.splitlines()
    assert (code, log) == (0, "")
    for line in (
        "--config.student.num_heads=4  (int)",
        "--config.student_training.budgets=(8, 16)  (tuple[int, ...]): "
        "training lengths in steps, of every strategy without budgets of its own",
        "--config.strategies.two_shot.duration=3  (int): T, student steps on each checkpoint",
        "--config.strategies.two_shot.schedule='FixedDuration'  (a Schedule): when it moves on to the next checkpoint",
    ):
        assert line in lines
    assert all(line.startswith("--config.") for line in lines)
    assert not any("strategies.one_shot" in line for line in lines)
    code, log = call("--config=configs/pcfg.py:huge", asking)
    assert_one_message(code, log, BAD_INPUT["no such variant"][1])


def test_who_reads_no_further_gets_no_traceback(root):
    command = [sys.executable, "-m", "pdjax.main", *STRINGS, "--print_config"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=root, **pipes) as process:
        assert process.stdout.readline().startswith("--config.name=")
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("return ParityTask(dimension=0)", ["line 5", "ParityTask.dimension of at least 1", "found 0"]),
        ("return ParityTask(dimension=4, dgree=2)", ["line 5", "no field ParityTask.dgree", "found 2"]),
        ("return 1 / 0", ["a configuration that can be loaded from", "ZeroDivisionError", "line 5"]),
        ("raise SystemExit(3)", ["a configuration that can be loaded from", "SystemExit: 3", "line 5"]),
        ("return ParityTask()", ["ends with configure(experiment)", "found ParityTask"]),
    ],
)
def test_a_users_file_that_fails_is_one_clear_message(call, tmp_path, line, words):
    path = tmp_path / "failing.py"
    path.write_text(f"from pdjax.tasks.parity import ParityTask\n\n\ndef get_config(variant=''):\n    {line}\n")
    assert_one_message(*call(f"--config={path}", f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run").exists()


def test_help_of_a_plan_lists_its_own_flags_before_anything_slow_is_imported(root):
    script = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('pdjax.plan', run_name='__main__')\n"
        "finally:\n    print('jax' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "--help"], cwd=root, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "False"
    assert "--topology: v5e:2x4" in result.stdout
    assert "--workdir" not in result.stdout


def assert_one_message(code, log, words):
    assert code == 2, log
    assert "Traceback" not in log
    (message,) = [line for line in log.splitlines() if "error: " in line]
    for word in ("expected", "found", *words):
        assert word in message


def test_another_experiments_workdir_is_refused_untouched(call, undisturbed):
    def files():
        found = (path for path in workdir.glob("**/*") if path.is_file() and not path.name.startswith(".lock"))
        return {path: path.stat().st_mtime_ns for path in found}

    workdir, _ = undisturbed
    before = files()
    code, log = call(*SMALL, "--config.seed=1", f"--workdir={workdir}")
    assert code == 2
    assert "config.seed: 0 there, 1 here" in log
    assert files() == before


def test_checkpoints_that_do_not_exist_are_named(call, undisturbed, tmp_path):
    """With a trajectory of steps 40, 80, ..., 320, a strategy asks for 60."""
    given = f"--config.teacher_training.trajectory={undisturbed[0] / 'teacher' / 'trajectory'}"
    wanted = "--config.strategies.two_shot.selection.steps=(60,)"
    code, log = call(*SMALL, given, wanted, f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert "no checkpoint for [60] among [40, 80, 120" in log
    assert not (tmp_path / "run").exists()


def test_changed_teacher_is_noticed(call, undisturbed, tmp_path):
    """The same directory with the trajectory of another teacher: its students are not those of the new one."""
    workdir, teacher = tmp_path / "run", tmp_path / "teacher"
    shutil.copytree(undisturbed[0] / "teacher", teacher)
    given = f"--config.teacher_training.trajectory={teacher / 'trajectory'}"
    assert call(*SMALL, given, f"--workdir={workdir}")[0] == 0
    other = tmp_path / "other"
    code, log = call(*SMALL, "--config.teacher_training.seed=7", f"--workdir={other}", "--stage=teacher")
    assert code == 0, log
    shutil.rmtree(teacher)
    shutil.copytree(other / "teacher", teacher)
    before = (workdir / "students" / "one_shot-160" / "run.json").read_text()
    code, log = call(*SMALL, given, f"--workdir={workdir}")
    assert code == 2, log
    assert "remove the directory" in log
    assert (workdir / "students" / "one_shot-160" / "run.json").read_text() == before
