"""Does the whole of it work? Every configuration's smoke to its report, killed and resumed, and once more.

Several run at once on one card, each with its share of the memory. The first runs fill a cache of compiled programs,
which the killed ones read; the last are compiled anew, as on another day.
"""

import concurrent.futures
import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .records import LEFT_OUT, Records

PART = "runs"
KILLS = ("teacher/state/checkpoints/[0-9]*", "students/*/state/checkpoints/[0-9]*")
"""What is there when a process is killed: states of the teacher, then of students."""

Launch = Callable[[], subprocess.Popen[bytes]]
"""Starts one process of a run."""


def run(records: Records, configs: Sequence[str]) -> None:
    """Runs each configuration three times and compares what the runs left."""
    workers = max(1, min(len(configs), (os.cpu_count() or 1) // 3))
    ways: tuple[tuple[str, Callable[..., None]], ...] = (
        ("to its report", _finish),
        ("killed twice and resumed", _killed),
        ("compiled anew", _finish),
    )
    directory = records.path.parent.absolute() / "runs"
    for way, start in ways:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(functools.partial(_measure, records, directory, workers, way, start), configs))
    names = [f"{config}, {way}" for way, _ in ways for config in configs]
    missing = [name for name in names if not records.has(PART, name)]
    if missing:
        records.write(PART, LEFT_OUT, count=len(missing), first=missing[0])


def _measure(
    records: Records, directory: Path, workers: int, way: str, start: Callable[..., None], config: str
) -> None:
    name = f"{config}, {way}"
    if records.has(PART, name) or records.seconds_left == 0:
        return
    first = directory / _slug(config) / _slug("to its report")
    workdir = directory / _slug(config) / _slug(way)
    environment = os.environ | {"XLA_CLIENT_MEM_FRACTION": f"{0.9 / workers:.2f}"}
    cache = "off" if way == "compiled anew" else str(directory / "compiled")
    began = time.time()
    try:
        if way != "to its report" and not (first / "report" / "index.html").exists():
            raise RuntimeError("there is no first run to compare it with")
        start(functools.partial(_start, config, workdir, environment, cache), workdir, records)
        digests = results(workdir)
        same = len(digests) > 0 if way == "to its report" else digests == results(first)
        records.write(PART, name, ok=same, files=len(digests), seconds=time.time() - began)
    except RuntimeError as error:
        records.write(PART, name, ok=False, error=str(error)[:300])
    except (TimeoutError, subprocess.TimeoutExpired):
        return  # the same command goes on with this run


def results(workdir: Path) -> dict[str, str]:
    """Returns digests of all that must not depend on interruptions: metrics, selections, probes and checkpoints."""
    patterns = ("**/metrics.jsonl", "**/selection.json", "**/probes/*.jsonl", "**/checkpoints/*/record/metadata")
    paths = sorted(path for pattern in patterns for path in workdir.glob(pattern))
    return {str(p.relative_to(workdir)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _start(config: str, workdir: Path, environment: dict[str, str], cache: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pdjax.main", f"--config={config}", f"--workdir={workdir}"]
    command += [f"--compilation_cache={cache}"]
    root = Path(__file__).parents[2]
    environment = environment | {"PYTHONPATH": os.pathsep.join([str(root), environment.get("PYTHONPATH", "")])}
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(_log(workdir), "ab") as log:
        return subprocess.Popen(command, cwd=root, env=environment, stderr=log)


def _log(workdir: Path) -> Path:
    return workdir.with_name(workdir.name + ".log")


def _finish(launch: Launch, workdir: Path, records: Records) -> None:
    process = launch()
    try:
        process.wait(timeout=records.seconds_left)
    finally:
        process.kill()
    if process.returncode != 0:
        last = _log(workdir).read_text(errors="replace").splitlines()[-1:] if _log(workdir).exists() else []
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(last)}")


def _killed(launch: Launch, workdir: Path, records: Records) -> None:
    for pattern in KILLS:
        process = launch()
        try:
            while not any(workdir.glob(pattern)):
                if process.poll() is not None:
                    raise RuntimeError(f"it ended before {pattern} was there, with code {process.returncode}")
                if records.seconds_left == 0:
                    raise TimeoutError("the time is up")
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    _finish(launch, workdir, records)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
