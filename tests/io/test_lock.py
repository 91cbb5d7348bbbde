"""One writer: a second one is refused at once, and nobody waits for a dead one."""

import multiprocessing
import os
import signal

import filelock
import pytest

from pdjax.errors import UserError
from pdjax.io.lock import writing


def hold(directory, ready):
    with writing(directory):
        ready.set()
        signal.pause()


@pytest.fixture
def other(tmp_path):
    """A process that writes to the directory."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_second_writer_is_refused_until_the_first_is_dead(other, tmp_path):
    found = f"found process {other.pid} on .* at work; wait for it, stop it, or"
    with pytest.raises(UserError, match=found), writing(tmp_path):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with writing(tmp_path):
        pass


def test_the_same_process_may_write_again_and_not_twice_at_once(tmp_path):
    for _ in range(2):
        found = pytest.raises(UserError, match=f"process {os.getpid()} on")
        with writing(tmp_path / "new"), found, writing(tmp_path / "new"):
            pass


def test_what_is_no_directory_that_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), writing(tmp_path / "file" / "below"):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def acquire(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with writing(tmp_path):
        pass
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path} cannot be locked: see to it that nothing else writes to it"
