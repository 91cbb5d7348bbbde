"""A plan as text."""

import math
from collections.abc import Sequence

from pdjax.plan.experiment import ExperimentPlan, StagePlan
from pdjax.plan.program import ProgramPlan
from pdjax.plan.roofline import EFFICIENCY

ADVICE = {
    "temporaries": "take the batch in pieces (placement.micro_batches), compute layers again on the way back "
    "(rematerialize), share the batch among more devices (placement.mesh.data), or train fewer at once (loop.together, "
    "seeds)",
    "teachers": "stream the checkpoints (placement.residency 'streamed'), or split the teacher (placement.teacher "
    "'sharded')",
    "state": "split the model (placement.teacher or placement.student 'sharded', with placement.mesh.data or .model), "
    "or train fewer seeds at once",
}
"""What to change, by what takes most of the memory."""


def as_text(plan: ExperimentPlan) -> str:
    """Returns tables for a terminal: memory, work, time."""
    lines = [
        f"{plan.config} on {plan.topology}, {plan.devices} devices; checkpoints {plan.residency}",
        "",
        *_table(
            (
                "program",
                "mesh (replica, data, model)",
                "replicas",
                "state",
                "teachers",
                "temporaries",
                "peak",
                "of",
                "",
            ),
            [_memory_row(program) for program in plan.programs],
        ),
        "",
        *_table(
            (
                "program",
                "teacher GFLOP",
                "student GFLOP",
                "kernels",
                "memory GB",
                "collectives",
                "their MB",
                "µs a step",
                "bound by",
            ),
            [_work_row(program) for program in plan.programs],
        ),
        "",
        *_table(
            ("stage", "runs", "replicas", "steps", "hours", "disk"),
            [*(_stage_row(stage) for stage in plan.stages), _sum_row(plan.stages)],
        ),
        "",
    ]
    return "\n".join([*lines, *_remarks(plan)])


def _remarks(plan: ExperimentPlan) -> list[str]:
    """Says what times are, what is not exact or not counted, and what does not fit."""
    if plan.assumed is None:
        lines = ["A step's time was measured. Memory is per device; products are of all devices together."]
    else:
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in plan.assumed.items() if name in EFFICIENCY)
        kernel = f"{1e6 * plan.assumed['seconds_a_kernel']:g} µs a kernel"
        lines = [f"A step's time is a roofline, not measured: {shares}, and at least {kernel}."]
    if plan.found_later:
        lines.append(
            f"Runs, replicas and checkpoints are at most so many: the teacher's training decides about those of "
            f"{', '.join(plan.found_later)}, and strategies that come to the same curriculum are one run."
        )
    if plan.kept_at_most is not None:
        lines.append(
            f"The trajectory has at most {plan.kept_at_most} checkpoints: the teacher's training decides which."
        )
    if plan.left_out:
        lines.append(f"Not counted: {'; '.join(plan.left_out)}.")
    return lines + [_complaint(program) for program in plan.programs if not program.memory.fits]


def _complaint(program: ProgramPlan) -> str:
    """Says what does not fit, and what to change."""
    memory = program.memory
    # Where the compiler refused, it is for temporaries, unless what stays on the device is most of it already.
    parts = {"state": memory.state, "teachers": memory.teachers, "temporaries": memory.temporaries or memory.limit / 2}
    largest = max(parts, key=lambda part: parts[part])
    words = "" if program.refusal is None else f" ({program.refusal})"
    return f"{program.name.upper()} DOES NOT FIT: mostly its {largest}{words}. To change it, {ADVICE[largest]}."


def _memory_row(program: ProgramPlan) -> tuple[str, ...]:
    mesh = " x ".join(str(size) for size in program.mesh.values())
    start = (program.name, mesh, str(program.replicas))
    memory = program.memory
    sizes = (memory.state, memory.teachers, memory.temporaries, memory.peak, memory.limit)
    return (*start, *(_size(value) for value in sizes), "" if memory.fits else "does not fit")


def _work_row(program: ProgramPlan) -> tuple[str, ...]:
    products = (f"{program.teacher_products / 1e9:.4g}", f"{program.student_products / 1e9:.4g}")
    if program.refusal is not None:
        return (program.name, *products, *["?"] * 5, "")
    work = program.work
    counted = (f"{work.kernels:.0f}", f"{work.traffic / 1e9:.3g}")
    sent = (f"{work.collectives:.3g}", f"{work.collective_bytes / 1e6:.3g}")
    return (program.name, *products, *counted, *sent, _number(1e6 * program.seconds, ",.0f"), program.bound)


def _stage_row(stage: StagePlan) -> tuple[str, ...]:
    counts = (str(len(stage.runs)), str(stage.replicas), f"{stage.steps:,}")
    return (stage.name, *counts, _number(stage.hours, ".2f"), _size(stage.disk))


def _sum_row(stages: Sequence[StagePlan]) -> tuple[str, ...]:
    runs, hours, disk = (sum(values) for values in zip(*((len(s.runs), s.hours, s.disk) for s in stages), strict=True))
    return ("all", str(runs), "", "", _number(hours, ".2f"), _size(disk))


def _number(value: float, form: str) -> str:
    return "?" if math.isnan(value) else format(value, form)


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)]
