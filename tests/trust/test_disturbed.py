"""A process that is killed before any event of the file system, or that finds the disk full there, loses nothing."""

import shutil
from pathlib import Path

import pytest

from tests.fingerprint import read

CONFIGS = ("tests/minimal.py:few",)
MORE = ("configs/parity_mlp.py:smoke", "configs/hierarchical.py:smoke", "configs/pcfg.py:smoke")
"""Of the long form: adaptive curricula, probes, sizes and ablations too."""


@pytest.fixture(scope="module")
def undisturbed(run_in_process, events, tmp_path_factory):
    """Returns what a configuration leaves undisturbed, and how many events there are."""
    known = {}

    def of(config):
        if config not in known:
            place = tmp_path_factory.mktemp("undisturbed")
            variables = {"EVENTS_BELOW": f"{place}/work", "EVENTS_COUNT": f"{place}/count"}
            ended = run_in_process(f"--config={config}", f"--workdir={place}/work", LD_PRELOAD=str(events), **variables)
            assert ended.code == 0, ended.said
            known[config] = read(place / "work"), int((place / "count").read_text())
        return known[config]

    return of


def points(count, wanted):
    """Returns so many numbers of events, spread over all, in the middle of equal parts."""
    wanted = min(count, wanted)
    return [1 + int((place + 0.5) * count / wanted) for place in range(wanted)]


@pytest.mark.parametrize(("kind", "short"), [("KILL", 2), ("FULL", 2)])
@pytest.mark.parametrize("config", [*CONFIGS, *MORE])
def test_the_same_command_goes_on_with_equal_results(
    config, kind, short, request, undisturbed, events, run_in_process, trials, outcomes, tmp_path
):
    if config in MORE and not request.config.getoption("--trust"):
        pytest.skip("of the long form (--trust)")
    expected, count = undisturbed(config)
    for point in points(count, trials(short)):
        workdir = tmp_path / f"{point}" / "work"
        workdir.parent.mkdir()
        flags = (f"--config={config}", f"--workdir={workdir}")
        variables = {"EVENTS_BELOW": str(workdir), f"EVENTS_{kind}": str(point)}
        ended = run_in_process(*flags, LD_PRELOAD=str(events), **variables)
        outcomes(_outcome(ended, kind, lambda flags=flags: run_in_process(*flags), workdir, expected), point)
        shutil.rmtree(workdir.parent)


def _outcome(ended, kind, again, workdir: Path, expected):
    if kind == "KILL" and ended.code == -9:
        outcome = "killed, and gone on with"
    elif kind == "FULL" and ended.code == 1 and "No space left on device" in ended.said:
        outcome = "refused in a line, and gone on with"
    elif ended.code == 0:  # what is lost is worth a warning: the report's cache of fonts, a lock's holder
        outcome = "not disturbed"
    else:
        return ended.fault or "not gone on"
    if ended.fault:
        return ended.fault
    second = again()
    if second.code != 0:
        return second.fault or "not gone on"
    if {path.name for path in workdir.parent.iterdir()} != {workdir.name}:
        return "outside"
    return outcome if read(workdir) == expected else "changed"
