"""Several real processes on this machine, started by launch/local.py."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.io.processes import join, several_started
from pdjax.io.sealed import read_json
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source
from tests.fingerprint import arrays

FLAGS = (
    "--config=tests/minimal.py:few",
    "--config.student_training.seeds=(0, 1)",
    "--config.placement.mesh.data=-1",
)
DEADLINE = 300


@pytest.fixture(scope="module")
def start(root):
    """Starts two processes of two devices each, or one of four."""

    def start(workdir, processes, **options):
        flags = [*FLAGS, f"--workdir={workdir}"]
        launch = [sys.executable, "launch/local.py", f"--processes={processes}", "--cpu_devices=2", "--"]
        alone = [sys.executable, "-m", "pdjax.main", "--distributed=off", "--cpu_devices=4"]
        command = [*(launch if processes > 1 else alone), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, **pipes, **options)

    return start


def finish(process):
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def two(start, tmp_path_factory):
    """The finished experiment of two processes."""
    workdir = tmp_path_factory.mktemp("two") / "work"
    output = finish(start(workdir, 2))
    assert "[0]" in output
    return workdir


def records(workdir):
    return {path.relative_to(workdir): path.read_text() for path in sorted(workdir.rglob("metrics.jsonl"))}


def losses(text):
    return [record["loss"] for record in map(json.loads, text.splitlines())]


def test_two_processes_of_two_devices_measure_what_one_of_four_does(start, two, tmp_path):
    finish(start(tmp_path / "one", 1))
    ours, theirs = records(two), records(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    assert len(ours) == 3  # the teacher, and two runs of students
    for name in ours:
        np.testing.assert_allclose(losses(ours[name]), losses(theirs[name]), rtol=1e-5)
    assert (two / "report" / "index.html").exists()
    # How far the two are one: what is decided is the same, and arrays differ by rounding.
    kept = sorted(path.relative_to(two) for path in two.glob("**/checkpoints/*/state"))
    assert len(kept) > 10
    assert kept == sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").glob("**/checkpoints/*/state")
    )
    for path in kept:
        mine, alone = dict(arrays(two / path)), dict(arrays(tmp_path / "one" / path))
        assert mine.keys() == alone.keys()
        for name, values in mine.items():
            np.testing.assert_allclose(values, alone[name], rtol=1e-4, atol=1e-6, err_msg=f"{path} {name}")
    decided, alone = (read_json(place / "selection.json") for place in (two, tmp_path / "one"))
    assert decided == alone


def begin(start, workdir, reached):
    """Starts two processes and waits until a path of the work directory exists."""
    process = start(workdir, 2, start_new_session=True)
    deadline = time.monotonic() + DEADLINE
    while not any(workdir.glob(reached)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def test_a_signal_saves_a_lost_process_ends_the_other_and_the_same_command_goes_on(start, two, tmp_path):
    """SIGTERM amid the teacher's training, as a queue sends it; then SIGKILL to one of two among the students."""
    workdir = tmp_path / "stopped"
    process = begin(start, workdir, "teacher/state/checkpoints/[0-9]*")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert not (workdir / "report").exists()

    process = begin(start, workdir, "students/*/metrics.jsonl")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children.split()[1]), signal.SIGKILL)
    began = time.monotonic()
    output, _ = process.communicate(timeout=DEADLINE)
    assert time.monotonic() - began < 60
    assert process.returncode != 0
    assert "ended with status" in output
    assert "Traceback" not in output
    assert not (workdir / "report").exists()

    finish(start(workdir, 2))
    assert records(workdir) == records(two)
    shutil.rmtree(workdir)


FAILING = """
import sys
from pdjax import main
from pdjax.errors import UserError
from pdjax.io import processes
from pdjax.stages import run

def teacher(*_):
    if processes.is_first() == (FAILS == 0):
        raise KIND("only here")
    processes.meet("the others wait")

run.train_teacher = teacher
sys.exit(main.main(sys.argv))
"""


def end_of_two(root, tmp_path, scripts, flags=((), ())):
    """Starts two processes, and returns their exit codes, what they said and how long they took."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = ["--config=tests/minimal.py:few", f"--workdir={tmp_path / 'work'}", f"--coordinator=localhost:{port}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *common, "--processes=2", f"--process={number}", *more],
            cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, **pipes,
        )
        for number, (script, more) in enumerate(zip(scripts, flags, strict=True))
    ]  # fmt: skip
    began = time.monotonic()
    outputs = [process.communicate(timeout=DEADLINE)[0] for process in started]
    return [process.returncode for process in started], outputs, time.monotonic() - began


@pytest.mark.parametrize(("fails", "kind", "code"), [(0, "UserError", 2), (1, "ValueError", 1)])
def test_an_error_in_one_process_ends_all_with_its_message(root, tmp_path, fails, kind, code):
    call = '(lambda text: UserError("a", text, "b"))' if kind == "UserError" else kind
    script = FAILING.replace("FAILS", str(fails)).replace("KIND", call)
    codes, outputs, seconds = end_of_two(root, tmp_path, [script, script])
    assert codes == [code, code], outputs
    assert "only here" in outputs[fails]
    assert f"another process failed: {kind}: " in outputs[1 - fails]
    assert "only here" in outputs[1 - fails]
    assert ("Traceback" in outputs[fails]) == (kind == "ValueError")
    assert seconds < 60


def test_processes_of_other_configurations_do_not_begin(root, tmp_path):
    script = "import sys; from pdjax import main; sys.exit(main.main(sys.argv))"
    codes, outputs, _ = end_of_two(root, tmp_path, [script, script], ((), ("--config.seed=5",)))
    assert codes == [2, 2], outputs
    assert all("the same configuration in all processes; found others; start all" in output for output in outputs)
    assert not (tmp_path / "work").exists()


def test_flags_that_contradict_each_other():
    with pytest.raises(UserError, match=r"--coordinator, --processes and --process together"):
        join("auto", "localhost:1", None, 0, None)


@pytest.mark.parametrize(
    ("coordinator", "count", "index", "message"),
    [
        ("localhost", 2, 0, "--coordinator=host:port with a port from 1 to 65535; found localhost"),
        ("localhost:99999", 2, 0, "--coordinator=host:port with a port from 1 to 65535"),
        ("localhost:1234", 0, 0, "--processes of at least 1; found 0"),
        ("localhost:1234", 2, 2, "--process from 0 to 1, as there are 2; found 2"),
        ("localhost:1234", 2, -1, "--process from 0 to 1"),
    ],
)
def test_flags_that_make_no_sense(coordinator, count, index, message):
    with pytest.raises(UserError, match=re.escape(message)):
        join("auto", coordinator, count, index, None)


def test_an_occupied_port_is_refused():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"a free port of this machine in --coordinator; found .* \({port}\)"):
            join("auto", f"localhost:{port}", 2, 0, None)


@pytest.mark.parametrize("asked", [False, True])
def test_the_port_of_a_queues_job_is_tried_before(asked, monkeypatch):
    """By its number, or where the remedy of the message says."""
    job, port = 7, 65535 - 2**12 + 1 + 7
    queue = {"JOB_ID": job, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": 0, "LOCALID": 0}
    for name, value in queue.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    with socket.socket() as other:
        other.bind(("", 0 if asked else port))
        other.listen()
        if asked:
            port = other.getsockname()[1]
            monkeypatch.setenv("JAX_COORDINATOR_PORT", str(port))
        with pytest.raises(UserError, match=rf"for the job; found .* \({port}\); set JAX_COORDINATOR_PORT"):
            join("auto", None, None, None, None)


@pytest.mark.parametrize(("name", "value"), [("SLURM_JOB_ID", "x7"), ("JAX_COORDINATOR_PORT", "70000")])
def test_a_queues_port_that_is_none_is_one_line(name, value, monkeypatch):
    queue = {"JOB_ID": 7, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": 0, "LOCALID": 0}
    for key, number in queue.items():
        monkeypatch.setenv(f"SLURM_{key}", str(number))
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="processes that find each other"):
        join("auto", None, None, None, None)


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "", "OMPI_COMM_WORLD_SIZE": "", "NUM_PROCESSES": ""}, False),
        ({"SLURM_NTASKS": "4"}, False),  # an allocation without srun: nobody else was started
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-2]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"}, False),
        ({"SLURM_NTASKS": "4", "OMPI_COMM_WORLD_SIZE": "4"}, True),  # mpirun in an allocation
        ({"NUM_PROCESSES": "2"}, True),
    ],
    ids=str,
)
def test_who_was_started_as_one_of_several(variables, several, monkeypatch, caplog):
    for name in ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "NUM_PROCESSES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert several_started() == several
    assert ("without srun: it runs alone" in caplog.text) == (variables == {"SLURM_NTASKS": "4"})


def test_variables_of_a_queue_that_are_no_numbers_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2(x3)")
    with pytest.raises(UserError, match=r"a number of processes in SLURM_NTASKS; found '2\(x3\)'; start the processes"):
        join("auto", None, None, None, None)


def test_who_waits_for_others_ends_at_a_signal(root, tmp_path):
    """There is nothing to save yet."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = "import sys; from pdjax import main; sys.exit(main.main(sys.argv))"
    flags = ["--config=tests/minimal.py:few", f"--workdir={tmp_path / 'work'}", f"--coordinator=localhost:{port}"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *flags, "--processes=2", "--process=0"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + DEADLINE
    while True:  # until it listens, and waits
        with socket.socket() as other:
            if other.connect_ex(("localhost", port)) == 0:
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert not (tmp_path / "work").exists()


def batches(root, corpus, out, processes):
    """Returns the batches that so many processes make of a corpus together, by name."""
    out.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    script = root / "tests/io/batches.py"
    command = [sys.executable, str(script), str(corpus), str(out), coordinator, str(processes)]
    environment = os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": ""}
    started = [subprocess.Popen([*command, str(process)], env=environment) for process in range(processes)]
    assert [process.wait(DEADLINE) for process in started] == [0] * processes
    parts = {}
    for file in sorted(out.iterdir()):
        with np.load(file) as content:
            parts |= content
    order = sorted(parts, key=lambda part: int(part.partition("/")[2]))
    names = {part.partition("/")[0] for part in parts}
    return {name: np.concatenate([parts[part] for part in order if part.startswith(name)], axis=1) for name in names}


def test_one_two_and_three_processes_make_the_same_batches(root, tmp_path):
    """Of text: which rows are read, and what of them is masked."""
    words = [f"word{number}" for number in range(50)]
    random = np.random.default_rng(0)
    (tmp_path / "texts").mkdir()
    for number in range(60):
        (tmp_path / f"texts/{number}.txt").write_text(" ".join(random.choice(words, 40)))
    sources = (Source("words", str(tmp_path / "texts")),)
    prepare(tmp_path / "corpus", Preparation(sources, vocabulary=200, length=12, held_out=0.2))
    one = batches(root, tmp_path / "corpus", tmp_path / "one", 1)
    assert one["tokens"].shape == (2, 12, 12)
    for processes in (2, 3):
        several = batches(root, tmp_path / "corpus", tmp_path / str(processes), processes)
        for name in one:
            np.testing.assert_array_equal(several[name], one[name], err_msg=name)
