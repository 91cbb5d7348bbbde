"""What the system refuses is one line, whoever meets it."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from pdjax.errors import UserError
from pdjax.io.surroundings import peak_memory
from pdjax.refusals import _REMEDIES, refusal, told

MINIMAL = "--config=tests/minimal.py:few"


@pytest.mark.parametrize("number", sorted(_REMEDIES), ids=errno.errorcode.get)
def test_every_kind_says_the_file_and_what_to_do(number):
    refused = refusal(OSError(number, os.strerror(number), "/data/a", None, "/data/b"))
    assert isinstance(refused, UserError)
    assert str(refused).startswith(f"expected /data/a to /data/b to be read or written; found {os.strerror(number)}; ")
    assert "\n" not in str(refused)


@pytest.mark.parametrize("code", ["[OS error 28: ENOSPC No space left on device]", "[os_error_code='28']"])
def test_what_is_said_in_words_by_tensorstore(code):
    error = ValueError(
        'RESOURCE_EXHAUSTED: Error writing "d/0" in OCDBT database at local file "/data/x/": Failed to write '
        f'"/data/x/d/0" {code}'
    )
    outer = RuntimeError("saving failed")
    outer.__cause__ = error
    assert "expected /data/x/ to be read or written; found No space left on device; free" in str(refusal(outer))


def test_a_kind_without_a_remedy_of_its_own_is_a_line_too():
    assert "expected /a to be read or written; found Broken pipe; mend that, and" in str(
        refusal(OSError(errno.EPIPE, "Broken pipe", "/a"))
    )


def test_refusals_are_told_and_all_else_goes_on_as_it_is():
    with pytest.raises(UserError, match="expected /a to be read or written; found No space left on device"), told():
        raise OSError(errno.ENOSPC, "No space left on device", "/a")
    for error in (UserError("a", "b", "c"), KeyError("a")):
        with pytest.raises(type(error)) as caught, told():
            raise error
        assert caught.value is error


def test_memory():
    assert "expected memory for what is to be computed" in str(refusal(MemoryError()))
    JaxRuntimeError = type("JaxRuntimeError", (RuntimeError,), {})
    error = JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.\n more")
    assert "found too little (RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.)" in str(refusal(error))


@pytest.mark.parametrize(
    "words",
    [
        "UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:10665",
        "DEADLINE_EXCEEDED: Barrier timed out. Id: wait_0\nmore",
        "UNAVAILABLE: Failed to send RPC to coordination service.",
    ],
)
def test_a_lost_process(words):
    JaxRuntimeError = type("JaxRuntimeError", (RuntimeError,), {})
    line = str(refusal(JaxRuntimeError(words)))
    assert line.startswith(f"expected all processes of this run to answer; found one is lost ({words.splitlines()[0]})")
    assert "run the same command again" in line
    assert "\n" not in line
    assert refusal(RuntimeError(words)) is None
    assert refusal(JaxRuntimeError("INTERNAL: a shape")) is None
    assert refusal(JaxRuntimeError("INTERNAL: failed to compile %opt-barrier.1")) is None


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("No space"), OSError("no number"), RuntimeError("8")])
def test_errors_of_ours_stay_errors(error):
    """Also when they come up while a refusal is dealt with."""
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert refusal(error) is None


def workdirs(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "a file": (tmp_path / "file", "remove the file that stands where a directory is needed"),
        "below a file": (tmp_path / "file" / "work", "Not a directory"),
        "a loop": (tmp_path / "loop" / "work", "Too many levels of symbolic links"),
        "a long name": (tmp_path / ("x" * 300), "File name too long; choose shorter names"),
        "no file system for files": ("/proc/work", "/proc/work"),
    }


@pytest.mark.parametrize("kind", ["a file", "below a file", "a loop", "a long name", "no file system for files"])
def test_a_place_that_cannot_be_written_is_one_line(call, tmp_path, kind):
    workdir, words = workdirs(tmp_path)[kind]
    before = sorted(tmp_path.rglob("*"))
    code, log = call(MINIMAL, f"--workdir={workdir}")
    assert code in (1, 2)
    (line,) = [line for line in log.splitlines() if "expected" in line]
    assert words in line
    assert "Traceback" not in log
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["a file", "a long name"])
def test_other_commands_say_it_too(root, tmp_path, kind):
    workdir, _ = workdirs(tmp_path)[kind]
    command = [sys.executable, "-m", "pdjax.report", str(workdir)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    assert "expected" in ended.stderr


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_wherever_it_is_measured(monkeypatch, platform, unit):
    monkeypatch.setattr(sys, "platform", platform)
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert counted * unit <= peak_memory() <= 1.5 * counted * unit


def test_peak_memory_is_unknown_where_nothing_measures_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() == 0
