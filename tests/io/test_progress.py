import io
import logging

import pytest

from pdjax.io.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_for_the_stage(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress("students", 30)
    progress.skip(10)
    progress.advance(5)
    progress.report("labels-20", 5, 20, 1.25, 0.5)
    progress.close()
    last = terminal.getvalue().split("\r")[-1]
    assert "students" in last
    assert "15/30" in last
    assert "labels-20 loss=1.250 accuracy=0.500" in last


def test_elsewhere_there_are_log_lines_with_the_time_left(monkeypatch, caplog):
    clock = iter([0.0, 60.0, 68.0, 69.0, 130.0, 134.0, 140.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress("students", 70)
    progress.skip(10)
    progress.advance(5)  # after a minute, in which it was compiled
    progress.advance(5)
    with caplog.at_level(logging.INFO, "pdjax"):
        progress.report("labels-20", 20, 20, 1.25, 0.5)
    # 5 steps took 8 s, 50 are left; neither the 10 skipped ones nor the first 5 say anything about the speed.
    assert caplog.messages == ["labels-20 20/20: loss 1.250, accuracy 0.500, 80 s left in this stage"]
    progress.skip(0)  # another run, which compiles again
    progress.advance(5)
    progress.advance(5)
    with caplog.at_level(logging.INFO, "pdjax"):
        progress.report("mixed-20", 20, 20, 1.25, 0.5)
    assert caplog.messages[-1].endswith(", 48 s left in this stage")  # 10 timed ones took 12 s, 40 are left


def test_a_log_has_a_line_in_ten_seconds_and_the_last_of_every_run(monkeypatch, caplog):
    clock = iter([0.0, 1.0, 2.0, 10.5, 11.5, 12.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress("students", 40)
    with caplog.at_level(logging.INFO, "pdjax"):
        for run, step in (("a", 5), ("a", 10), ("a", 15), ("a", 20), ("b", 5)):
            progress.report(run, step, 20, 1.25, 0.5)
    assert [message.split(":")[0] for message in caplog.messages] == ["a 5/20", "a 20/20"]
    with caplog.at_level(logging.INFO, "pdjax"):
        monkeypatch.setattr("time.monotonic", lambda: 21.5)
        progress.report("b", 10, 20, 1.25, 0.5)
    assert caplog.messages[-1].startswith("b 10/20: ")


def test_nothing_is_promised_before_the_first_step(caplog):
    with caplog.at_level(logging.INFO, "pdjax"):
        Progress("teacher", 30).report("teacher", 0, 30, 2.0, 0.1)
    assert caplog.messages == ["teacher 0/30: loss 2.000, accuracy 0.100"]


@pytest.fixture(autouse=True)
def propagate():
    logging.getLogger("pdjax").propagate = True
