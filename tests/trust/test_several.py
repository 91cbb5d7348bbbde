"""The same command started twice, and several processes of which one is lost: nothing is."""

import shutil
import time

import pytest

from tests.fingerprint import read
from tests.trust.conftest import ended, start_process

CONFIG = "--config=tests/minimal.py:few"
TOGETHER = ("launch/local.py", "--processes=2", "--cpu_devices=2", "--")


def test_the_same_command_started_twice(root, run_in_process, trials, outcomes, tmp_path):
    began = time.monotonic()
    assert run_in_process(CONFIG, f"--workdir={tmp_path / 'alone'}").code == 0
    expected, seconds = read(tmp_path / "alone"), time.monotonic() - began
    count = trials(1)
    for number in range(count):
        workdir = tmp_path / str(number)
        flags = (CONFIG, f"--workdir={workdir}")
        first = start_process(root, *flags)
        # From both at once to when the first has ended.
        time.sleep(seconds * number / count)
        both = [ended(process) for process in (start_process(root, *flags), first)]
        outcomes(_outcome_of_two(both, lambda flags=flags: run_in_process(*flags), workdir, expected), number)
        shutil.rmtree(workdir)


def _outcome_of_two(both, again, workdir, expected):
    for one in both:
        if one.fault:
            return one.fault
    codes = sorted(one.code for one in both)
    if codes not in ([0, 0], [0, 2]):
        return "not gone on"
    if codes == [0, 2] and not any("at work; wait for it, stop it, or choose another" in one.said for one in both):
        return "not gone on"
    if again().code != 0:
        return "not gone on"
    outcome = "one works, the other is refused" if codes == [0, 2] else "one behind the other"
    return outcome if read(workdir) == expected else "changed"


def test_one_of_two_processes_is_lost(root, request, events, trials, outcomes, tmp_path):
    if not request.config.getoption("--trust"):
        pytest.skip("of the long form (--trust); tests/io/test_processes.py loses one too")

    def run(workdir, **variables):
        flags = (CONFIG, "--config.placement.mesh.data=-1", f"--workdir={workdir}")
        command = (*TOGETHER, *flags)
        return ended(start_process(root, command=command, **variables))

    whole = tmp_path / "whole"
    counted = {"LD_PRELOAD": str(events), "EVENTS_BELOW": f"{whole}", "EVENTS_COUNT": f"{tmp_path / 'count'}"}
    assert run(whole, **counted).code == 0
    # Of the process that ended last: each has counted its own.
    expected, count = read(whole), int((tmp_path / "count").read_text())
    wanted = trials(1)
    for place in range(wanted):
        point, workdir = 1 + int((place + 0.5) * count / wanted), tmp_path / str(place)
        killed = {"LD_PRELOAD": str(events), "EVENTS_BELOW": str(workdir), "EVENTS_KILL": str(point)}
        outcomes(
            _outcome_of_lost(run(workdir, **killed), lambda workdir=workdir: run(workdir), workdir, expected), point
        )
        shutil.rmtree(workdir)


def _outcome_of_lost(first, again, workdir, expected):
    if first.fault:
        return first.fault
    if again().code != 0:
        return "not gone on"
    outcome = "not disturbed" if first.code == 0 else "all end, and are gone on with"
    return outcome if read(workdir) == expected else "changed"
