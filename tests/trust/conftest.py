"""What trials of trust share: how many there are, what came out of them, and how a process that is disturbed ends."""

import collections
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

SECONDS = 300
"""Of a process before it is said to hang."""

FAULTS = frozenset({"traceback", "hang", "changed", "outside", "not gone on"})
"""Outcomes that must not be."""


class Ended(NamedTuple):
    """How a process has ended."""

    code: int | None  # None: it hung
    said: str

    @property
    def fault(self) -> str | None:
        """What must not be, if anything."""
        if self.code is None:
            return "hang"
        # Of ours: a thread of TensorStore's may print one of its own beside the line that we say.
        return "traceback" if re.search(r'File ".*/pdjax/', self.said) or self.code in (-6, -11) else None


@pytest.fixture(scope="session")
def trials(request):
    """Returns how many trials of a kind there are: so many in short, or what --trust says."""
    return lambda short: request.config.getoption("--trust") or short


@pytest.fixture
def outcomes(request, capsys):
    """Counts outcomes, with what was tried; prints the counts, and fails for those that must not be."""
    tried = collections.defaultdict(list)
    yield lambda outcome, what: tried[outcome].append(what)
    if not tried:  # it was skipped
        return
    with capsys.disabled():
        counts = ", ".join(f"{outcome} {len(of)}" for outcome, of in sorted(tried.items()))
        print(f"\n{request.node.name}: {counts}")
    bad = {outcome: of[:5] for outcome, of in tried.items() if outcome in FAULTS}
    assert not bad, bad


@pytest.fixture(scope="session")
def run_in_process(root):
    """Runs pdjax in a process of its own with variables of the environment; returns how it ended."""
    return lambda *flags, **environment: ended(start_process(root, *flags, **environment))


def start_process(root, *flags, command=("-m", "pdjax.main"), **environment):
    """Starts pdjax, or another command of Python, with variables of the environment."""
    variables = os.environ | {"PYTHONPATH": str(root)} | environment
    # Both: what launchers start speaks through their output.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command, *flags], cwd=root, env=variables, **pipes)


def ended(process):
    """Waits for a process; returns how it ended."""
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return Ended(None, said)
    return Ended(process.returncode, said)


@pytest.fixture(scope="session")
def events(root, tmp_path_factory):
    """The library that counts and disturbs what a process asks of the file system (``events.c``)."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    library = tmp_path_factory.mktemp("events") / "events.so"
    source = root / "tests/trust/events.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library
