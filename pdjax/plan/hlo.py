"""What a compiled program does in its loops: kernels and communication, counted from XLA's text.

A ``while`` counts as often as it runs, of a ``conditional`` the branch with most kernels.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
KERNELS = ("fusion", "dot", "convolution", "custom-call", "sort", "scatter", "gather", "reduce", "copy", *COLLECTIVES)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of a program: how many kernels start, and which collectives with how many bytes."""

    kernels: float = 0.0
    collectives: float = 0.0
    collective_bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def times(self, count: float) -> "Work":
        """Returns the work of so many repetitions."""
        return Work(*(count * value for value in dataclasses.astuple(self)))


def count_work(text: str) -> Work:
    """Returns the work of a compiled module, from the text of ``compiled.as_text()``, on each of its devices."""
    bodies, entry = _computations(text)
    return _work(entry, bodies)


def _work(name: str, bodies: dict[str, list[str]]) -> Work:
    total = Work()
    for line in bodies.get(name, ()):
        kind, opcode = _instruction(line)
        base = opcode.removesuffix("-start")
        if opcode == "while":
            body = re.search(r"body=%?([\w.\-]+)", line)
            if body is not None:
                total += _work(body[1], bodies).times(_trips(line, bodies))
        elif opcode == "conditional":
            branches = [_work(branch, bodies) for branch in _branches(line)]
            total += max(branches, key=lambda work: work.kernels, default=Work())
        elif opcode == "call":
            called = re.search(r"to_apply=%?([\w.\-]+)", line)
            total += _work(called[1], bodies) if called is not None else Work()
        elif base in COLLECTIVES:
            sizes = _bytes_of(kind)
            # What an asynchronous one starts with is in its type as well; its result is the largest.
            total += Work(1, 1, max(sizes) if opcode != base else sum(sizes))
        elif opcode in KERNELS:
            total += Work(kernels=1)
    return total


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """Returns how often a loop runs: what XLA notes, or the bound that its condition compares the counter with."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    if noted is not None:
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition[1], []) if condition is not None else []
    return max((int(n) for n in re.findall(r"\bconstant\((\d+)\)", "\n".join(lines))), default=1)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Splits a module into the instructions of each computation, and names the one it starts with."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head is not None and not line.startswith(" "):
            current = head[2]
            bodies[current] = []
            entry = current if head[1] else entry
        elif " = " in line and current:
            bodies[current].append(line)
    return bodies, entry


def _instruction(line: str) -> tuple[str, str]:
    """Returns the type and the name of an instruction's operation."""
    value = line.split(" = ", 1)[1]
    if value.startswith("("):
        depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in value)
        end = next(i for i, depth in enumerate(depths) if depth == 0) + 1
        kind, rest = value[:end], value[end:]
    else:
        kind, _, rest = value.partition(" ")
    return kind, rest.strip().partition("(")[0]


def _branches(line: str) -> Sequence[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", line)
    if listed is not None:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)


def _bytes_of(kind: str) -> list[int]:
    shapes = re.findall(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]", kind)
    return [_BYTES.get(name, 4) * math.prod(int(n) for n in shape.split(",") if n) for name, shape in shapes]
