"""The tables of docs/scale.md: plans of the paper's experiments for accelerators that are not here.

    python benchmarks/scale.py plans > tables.md

Needs the aot extra. Each plan compiles in a process of its own and is kept in the directory ``plans``, so that who was
stopped goes on from there. Plans of another commit are removed by hand.
"""

import functools
import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIGS = ("pcfg", "parity_mlp", "parity_transformer", "hierarchical", "text")
PRICES = {"v5e": 1.20, "h100": 3.00}
"""Dollars a chip and hour, on demand: Google Cloud's list of 2025 for the United States; for H100 what smaller clouds
asked early in 2026, rounded."""
IN_PIECES = (
    "--config.placement.micro_batches=8",
    "--config.teacher.rematerialize=True",
    "--config.student.rematerialize=True",
)
CHANGED = {("pcfg", "v5e:1x1"): IN_PIECES}
"""What does not fit as it is."""
FIGURES = (  # of the paper: what is drawn beside its teachers, as a comparison of a configuration or its sizes
    ("1 (right), 4 (left)", "pcfg", "all"),
    ("1 (left)", "parity_mlp", "strategies"),
    ("2, 8, 9", "parity_mlp", "two_shot"),
    ("7 (left)", "parity_mlp", "sizes"),
    ("1 (middle)", "parity_transformer", "strategies"),
    ("7 (right), 10", "parity_transformer", "sizes"),
    ("11, 12", "parity_transformer", None),
    ("13", "parity_transformer", "two_shot"),
    ("14", "parity_transformer", "temperatures"),
    ("15, 17", "hierarchical", "strategies"),
    ("18 (b), 19", "hierarchical", "few_shot"),
    ("18 (c)", "hierarchical", "temperatures"),
)
TOPOLOGIES = ("v5e:1x1", "v5e:2x4", "h100x8")
LARGE = ("v5e:4x8", "h100x8")  # for text
MANY = ("--config.teacher_training.checkpoint_every=100", "--config.strategies.progressive.selection.count=80")
GROWTH = {  # of the PCFG experiment on 8 H100
    "as it is, 12 checkpoints": (),
    "twice the seeds": ("--config.student_training.seeds=(0, 1, 2, 3, 4, 5)",),
    "twice the width": ("--config.teacher.num_heads=64", "--config.student.num_heads=16"),
    "twice the batch": ("--config.teacher_training.batch_size=1024", "--config.student_training.batch_size=1024"),
    "twice the length": ("--config.task.length=866",),
    "80 checkpoints, stacked": (*MANY, "--config.placement.residency=stacked"),
    "80 checkpoints, streamed": (*MANY, "--config.placement.residency=streamed"),
}


def main() -> None:
    """Prints all tables as Markdown."""
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    heads = ("mesh of students", "peak a device", "fits", "teacher", "students", "sizes", "all", "list price", "disk")
    print(f"| experiment | on | {' | '.join(heads)} |")
    print("|---|---|" + "---|" * len(heads))
    for config in CONFIGS:
        for topology in TOPOLOGIES if config != "text" else LARGE:
            print(_experiment_row(config, topology), flush=True)
    print(f"\n| figure | experiment | {' | '.join(TOPOLOGIES)} |")
    print("|---|---|" + "---|" * len(TOPOLOGIES))
    for figure, config, part in FIGURES:
        hours = (_hours(_figure_hours(config, topology, part)) for topology in TOPOLOGIES)
        print(f"| {figure} | {config} | {' | '.join(hours)} |", flush=True)
    print("\n| program | on | state | teachers | temporaries | GFLOP a step | collectives, MB | µs a step | bound by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for config in CONFIGS:
        for topology in ("v5e:2x4", "h100x8") if config != "text" else LARGE:
            for row in _program_rows(config, topology):
                print(row, flush=True)
    print("\n| PCFG on h100x8 | students’ state | teachers | peak | GFLOP a step | µs a step | all | disk |")
    print("|---|---|---|---|---|---|---|---|")
    for name, flags in GROWTH.items():
        print(_growth_row(name, flags), flush=True)


@functools.cache
def plan(config: str, topology: str, *flags: str) -> dict[str, Any]:
    """Returns a plan of the paper's size."""
    kept = Path(sys.argv[1]) / (re.sub(r"[^\w.=]+", "_", " ".join((config, topology, *flags))) + ".json")
    if kept.exists():
        return json.loads(kept.read_text())
    command = [sys.executable, "-m", "pdjax.plan", f"--config=configs/{config}.py:paper", f"--topology={topology}"]
    # Each curriculum alone, or the share of a figure in a run of several would not be known.
    changes = ("--config.loop.together=1", *CHANGED.get((config, topology), ()), *flags)
    result = subprocess.run([*command, "--format=json", *changes], capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):  # 1: it does not fit
        raise RuntimeError(result.stderr)
    estimate = json.loads(result.stdout)
    kept.write_text(result.stdout)
    return estimate


def _experiment_row(config: str, topology: str) -> str:
    estimate = plan(config, topology)
    hours = {"teacher": 0.0, "students": 0.0, "size": 0.0}
    for stage in estimate["stages"]:
        hours[stage["name"].split()[0]] += stage["hours"]
    students = [program for program in estimate["programs"] if program["name"].startswith("students ")]
    meshes = dict.fromkeys(" x ".join(map(str, program["mesh"].values())) for program in students)
    disk = sum(stage["disk"] for stage in estimate["stages"])
    fits = "yes" if estimate["fits"] else "no"
    cells = [
        config + (" in 8 pieces" if (config, topology) in CHANGED else ""),
        topology,
        ", ".join(meshes),
        _peak(estimate["programs"]),
        fits,
        *(_hours(h) for h in hours.values()),
    ]
    total = sum(hours.values())
    return "| " + " | ".join([*cells, _hours(total), _price(total, topology, estimate["devices"]), _bytes(disk)]) + " |"


def _peak(programs: list[dict[str, Any]]) -> str:
    """Returns the largest peak on a device, where the compiler gave one for all."""
    if any(program["memory"]["peak"] is None for program in programs):
        return "more than it has"
    return _bytes(max(program["memory"]["peak"] for program in programs))


def _hours(hours: float) -> str:
    if hours == 0:  # nothing of the kind is trained
        return ""
    return "does not fit" if math.isnan(hours) else f"{hours:.2f} h"


def _price(hours: float, topology: str, chips: int) -> str:
    kind = re.split(r":|x\d", topology)[0]
    return "" if math.isnan(hours) else f"${hours * chips * PRICES[kind]:,.2f}"


def _figure_hours(config: str, topology: str, part: str | None) -> float:
    """Returns the hours of a figure alone: its teachers, and the runs of the students or the sizes that it draws."""
    stages = plan(config, topology)["stages"]
    if part == "sizes":
        return sum(stage["hours"] for stage in stages if stage["name"].startswith("size "))
    experiment = runpy.run_path(f"configs/{config}.py")["get_config"]("paper")
    drawn = set() if part is None else set(experiment.comparisons[part].strategies)
    total = sum(stage["hours"] for stage in stages if stage["name"] == "teacher")
    for stage in stages:
        steps = sum(run["budget"] for run in stage["runs"] if drawn & set(run["strategies"]))
        if steps:
            total += stage["hours"] * steps / stage["steps"]
    return total


def _program_rows(config: str, topology: str) -> list[str]:
    rows = []
    for program in plan(config, topology)["programs"]:
        if program["name"].startswith("size") or program["memory"]["peak"] is None:
            continue
        memory, work = program["memory"], program["work"]
        products = (program["teacher_products"] + program["student_products"]) / 1e9
        cells = [f"{config}, {program['name']}", topology]
        cells += [_bytes(memory[name]) for name in ("state", "teachers", "temporaries")]
        cells += [f"{products:.3g}", f"{work['collectives']:.3g}, {work['collective_bytes'] / 1e6:.3g}"]
        rows.append("| " + " | ".join([*cells, f"{1e6 * program['seconds']:,.0f}", program["bound"]]) + " |")
    return rows


def _growth_row(name: str, flags: tuple[str, ...]) -> str:
    estimate = plan("pcfg", "h100x8", *flags)
    program = estimate["programs"][1]
    products = (program["teacher_products"] + program["student_products"]) / 1e9
    hours, disk = (sum(stage[key] for stage in estimate["stages"]) for key in ("hours", "disk"))
    state, teachers = (_bytes(program["memory"][of]) for of in ("state", "teachers"))
    step = f"{1e6 * program['seconds']:,.0f}"
    cells = [name, state, teachers, _peak(estimate["programs"]), f"{products:.4g}", step, _hours(hours), _bytes(disk)]
    return "| " + " | ".join(cells) + " |"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
