"""The tables of docs/scale.md: plans of the paper's experiments for accelerators that are not here.

    JAX_PLATFORMS=cpu python benchmarks/scale.py > tables.md

Needs the aot extra. Each plan compiles in a process of its own, minutes for all of them.
"""

import functools
import json
import subprocess
import sys
from typing import Any

CONFIGS = ("pcfg", "parity_mlp", "parity_transformer", "hierarchical")
TOPOLOGIES = ("v5e:1x1", "v5e:2x4", "v4:2x2x2", "v5p:2x2x1", "h100x1", "h100x8")
GROWTH = {  # of the PCFG experiment on one v5e chip
    "as it is": (),
    "twice the seeds": ("--config.student_training.seeds=(0, 1, 2, 3, 4, 5)",),
    "twice the width": ("--config.teacher.num_heads=64", "--config.student.num_heads=16"),
    "twice the batch": ("--config.teacher_training.batch_size=1024", "--config.student_training.batch_size=1024"),
    "ten times the checkpoints": ("--config.teacher_training.checkpoint_every=100",),
}


def main() -> None:
    """Prints all tables as Markdown."""
    print("| experiment | on | mesh of students | peak a device | fits | teacher | students | sizes | all | disk |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for config in CONFIGS:
        for topology in TOPOLOGIES:
            print(_experiment_row(config, topology), flush=True)
    print("\n| program | on | state | teachers | temporaries | GFLOP a step | collectives, MB | µs a step | bound by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for config in CONFIGS:
        for topology in ("v5e:2x4", "h100x8"):
            for row in _program_rows(config, topology):
                print(row, flush=True)
    print("\n| PCFG on one v5e | peak a device | GFLOP a step | µs a step | hours | disk |")
    print("|---|---|---|---|---|---|")
    for name, flags in GROWTH.items():
        print(_growth_row(name, flags), flush=True)


@functools.cache
def plan(config: str, topology: str, *flags: str) -> dict[str, Any]:
    """Returns a plan of the paper's size."""
    command = [sys.executable, "-m", "pdjax.plan", f"--config=configs/{config}.py:paper", f"--topology={topology}"]
    result = subprocess.run([*command, "--format=json", *flags], capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):  # 1: it does not fit
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout)


def _experiment_row(config: str, topology: str) -> str:
    found = plan(config, topology)
    peaks = [p["memory"]["peak"] for p in found["programs"] if p["memory"] is not None]
    hours = {"teacher": 0.0, "students": 0.0, "size": 0.0}
    for stage in found["stages"]:
        hours[stage["name"].split()[0]] += stage["hours"]
    mesh = " x ".join(str(size) for size in found["programs"][1]["mesh"].values())
    disk = sum(stage["disk"] for stage in found["stages"])
    fits = "yes" if found["fits"] else "no"
    cells = [config, topology, mesh, _bytes(max(peaks, default=0)), fits, *(f"{h:.2f} h" for h in hours.values())]
    return "| " + " | ".join([*cells, f"{sum(hours.values()):.2f} h", _bytes(disk)]) + " |"


def _program_rows(config: str, topology: str) -> list[str]:
    rows = []
    for program in plan(config, topology)["programs"]:
        if program["name"].startswith("size") or program["memory"] is None:
            continue
        memory, work = program["memory"], program["work"]
        products = (program["teacher_products"] + program["student_products"]) / 1e9
        cells = [f"{config}, {program['name']}", topology]
        cells += [_bytes(memory[name]) for name in ("state", "teachers", "temporaries")]
        cells += [f"{products:.3g}", f"{work['collectives']:.3g}, {work['collective_bytes'] / 1e6:.3g}"]
        rows.append("| " + " | ".join([*cells, f"{1e6 * program['seconds']:.4g}", program["bound"]]) + " |")
    return rows


def _growth_row(name: str, flags: tuple[str, ...]) -> str:
    found = plan("pcfg", "v5e:1x1", *flags)
    program = found["programs"][1]
    memory = program["memory"]
    peak = "does not fit" if memory is None else _bytes(memory["peak"])
    products = (program["teacher_products"] + program["student_products"]) / 1e9
    hours, disk = (sum(stage[key] for stage in found["stages"]) for key in ("hours", "disk"))
    cells = [name, peak, f"{products:.4g}", f"{1e6 * program['seconds']:.4g}", f"{hours:.2f}", _bytes(disk)]
    return "| " + " | ".join(cells) + " |"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
