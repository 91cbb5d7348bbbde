"""Where the slowest step spends its time: jax's own profile, summed by kernel."""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

from .records import Records
from .speed import slowest
from .training import SIZES, TINY, chunk_runner, prepare_case, values

PART = "profile"
SHOWN = 25


def run(records: Records) -> None:
    """Profiles a chunk of the slowest training step that was measured."""
    case = slowest(records)
    for name in records.timely(PART, [f"{case}, all kernels"]):
        prepared = prepare_case(case, (TINY if records.tiny else SIZES)[case.size])
        chunk = chunk_runner(prepared, values(prepared))
        chunk()
        with tempfile.TemporaryDirectory() as directory:
            with jax.profiler.trace(directory):
                chunk()
            (path,) = Path(directory).rglob("*.xplane.pb")
            times = kernel_times(jax.profiler.ProfileData.from_file(str(path)))
        if not times:
            records.write(PART, name, refused="the profile holds no kernels")
            return
        total = sum(sum(each) for each in times.values())
        largest = sorted(times.items(), key=lambda item: -sum(item[1]))
        for kernel, each in largest[:SHOWN]:
            per_step = sum(each) / prepared.steps
            records.write(
                PART,
                kernel[:90],
                **{"a step": len(each) / prepared.steps, "µs": per_step / 1e3, "share": sum(each) / total},
            )
        rest = len(largest) - min(SHOWN, len(largest))
        records.write(
            PART, name, **{"kernels": len(largest), "not shown": rest, "ms a step": total / prepared.steps / 1e6}
        )


def kernel_times(profile: Any) -> dict[str, list[float]]:
    """Returns the nanoseconds of every run of every kernel of a profile (``ProfileData``), by its name.

    Kernels lie on the streams of a GPU, or on the threads of XLA's CPU backend; loops and calls, which hold others, are
    left out.
    """
    times: dict[str, list[float]] = defaultdict(list)
    planes = list(profile.planes)
    on_card = [plane for plane in planes if plane.name.startswith("/device:")]
    if jax.default_backend() != "cpu" and not on_card:
        return {}  # what the host did meanwhile would look like kernels
    for plane in on_card or planes:
        for line in plane.lines:
            named = line.name or ""
            if not (named.startswith("Stream") if on_card else "XLA" in named):
                continue
            for event in line.events:
                if not event.name.startswith(("while", "call", "conditional", "ThunkExecutor", "end:")):
                    times[event.name].append(event.duration_ns)
    return times
