"""What a compiled program does in its loops: kernels, memory traffic and communication, counted from XLA's text.

A ``while`` counts as often as it runs, of a ``conditional`` the branch with most kernels, or with fewest if it is said
to run the other one seldom. Every kernel reads its operands from the device's memory and writes its results there,
unless XLA put them on the chip (memory space 1 of TPUs); of what a kernel only slices, gathers from or updates in
place, the slice counts.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pdjax.types import SELDOM

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SLICES = ("slice", "dynamic-slice", "gather")
KERNELS = ("fusion", "dot", "convolution", "custom-call", "sort", "reduce", "reduce-window", "copy", "transpose",
           "concatenate", "pad", "broadcast", "convert", "iota", "dynamic-update-slice", "scatter",
           *SLICES, *COLLECTIVES)  # fmt: skip
FREE = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "GatherScatterIndicesBitpacked")
"""Custom calls by which XLA talks to itself."""

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of a program: how many kernels start, which collectives with how many bytes, and memory traffic."""

    kernels: float = 0.0
    collectives: float = 0.0
    collective_bytes: float = 0.0
    traffic: float = 0.0  # bytes to and from the device's memory

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def times(self, count: float) -> "Work":
        """Returns the work of so many repetitions."""
        return Work(*(count * value for value in dataclasses.astuple(self)))


class Instruction(NamedTuple):
    """A line of a computation."""

    kind: str  # its type, with the layout
    opcode: str
    operands: tuple[str, ...]
    line: str
    root: bool


class Module(NamedTuple):
    """The computations of a compiled module, by name, and the one it starts with; instructions are by name too."""

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str


def count_work(text: str) -> Work:
    """Returns the work of a compiled module, from the text of ``compiled.as_text()``, on each of its devices."""
    module = _parse(text)
    return _work(module, module.entry)


def _work(module: Module, name: str) -> Work:
    total = Work()
    computation = module.computations.get(name, {})
    for one in computation.values():
        base = one.opcode.removesuffix("-start")
        if one.opcode == "while":
            total += _work(module, _called(one, "body")).times(_trips(module, one))
        elif one.opcode == "conditional":
            branches = [_work(module, branch) for branch in _branches(one.line)]
            chosen = min if f'{SELDOM}/cond"' in one.line else max
            total += chosen(branches, key=lambda work: (work.kernels, work.traffic), default=Work())
        elif one.opcode == "call":
            total += _work(module, _called(one, "to_apply"))
        elif base in COLLECTIVES:
            sizes = _bytes_of(one.kind)
            # What an asynchronous one starts with is in its type as well; its result is the largest.
            size = max(sizes) if one.opcode != base else sum(sizes)
            # As much is taken to be read as is written.
            total += Work(1, 1, size, 2 * size)
        elif one.opcode.endswith("-start"):  # a copy or slice in the background: one of its ends is on the chip
            total += Work(traffic=max(_bytes_of(one.kind, in_memory=True)[:2], default=0))
        # The second half of an asynchronous operation, its ``-done``, is no kernel: the first half has been counted.
        elif base in KERNELS and not any(target in one.line for target in FREE):
            total += Work(kernels=1, traffic=_traffic(module, computation, one))
    return total


def _traffic(module: Module, computation: Mapping[str, Instruction], one: Instruction) -> int:
    """Returns the bytes that a kernel reads and writes."""
    result = sum(_bytes_of(one.kind, in_memory=True))
    operands = [computation[name].kind if name in computation else "" for name in one.operands]
    reads = [sum(_bytes_of(kind, in_memory=True)) for kind in operands]
    if one.opcode == "fusion":
        inner = module.computations.get(_called(one, "calls"), {})
        # Outside, types say what is on the chip; inside, how much of an operand is touched: both are upper bounds.
        limits = [_read_of(module, inner, index) for index in range(len(reads))]
        written = min(result, sum(_written(inner, root) for root in _roots(inner)))
        return written + sum(min(pair) for pair in zip(reads, limits, strict=True))
    if one.opcode in SLICES:
        return 2 * result
    if one.opcode in ("dynamic-update-slice", "scatter"):
        # In place: what is new is read and written, the rest of the array stays where it is.
        return 2 * sum(reads[1:])
    return result + sum(reads)


def _read_of(module: Module, inner: Mapping[str, Instruction], index: int) -> int:
    """Returns at most how many bytes a fused computation reads of a parameter."""
    name = next(
        (n for n, one in inner.items() if one.opcode == "parameter" and f"parameter({index})" in one.line), None
    )
    if name is None:
        return 0
    total = 0
    for one in inner.values():
        for position, operand in enumerate(one.operands):
            if operand != name:
                continue
            # Of what is sliced the slices are read; an index is read whole.
            if one.opcode in SLICES and position == 0:
                total += sum(_bytes_of(one.kind))
            elif one.opcode == "fusion":
                total += _read_of(module, module.computations.get(_called(one, "calls"), {}), position)
            elif one.opcode != "dynamic-update-slice" or position != 0:
                # Any other use reads all of it.
                return sum(_bytes_of(inner[name].kind))
    return total


def _roots(inner: Mapping[str, Instruction]) -> Iterator[Instruction]:
    """Yields what a fused computation returns, one by one."""
    for one in inner.values():
        if one.root and one.opcode == "tuple":
            yield from (inner[name] for name in one.operands if name in inner)
        elif one.root:
            yield one


def _written(inner: Mapping[str, Instruction], root: Instruction) -> int:
    """Returns the bytes of what a result writes: of one updated in place, those of the update."""
    last = root
    while last.opcode in ("bitcast", "copy") and last.operands[0] in inner:
        last = inner[last.operands[0]]
    if last.opcode == "dynamic-update-slice":
        return sum(_bytes_of(inner[last.operands[1]].kind))
    return sum(_bytes_of(root.kind))


def _trips(module: Module, loop: Instruction) -> int:
    """Returns how often a loop runs: what XLA notes, or the bound that its condition compares the counter with."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.line)
    if noted is not None:
        return int(noted[1])
    condition = module.computations.get(_called(loop, "condition"), {})
    # A scan counts from 0 by 1: the bound is the number of trips.
    matches = (re.search(r"\bconstant\((\d+)\)", one.line) for one in condition.values())
    return max((int(match[1]) for match in matches if match is not None), default=1)


def _parse(text: str) -> Module:
    """Splits a module into the instructions of each computation."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head is not None and not line.startswith(" "):
            current = head[2]
            computations[current] = {}
            entry = current if head[1] else entry
        elif " = " in line and current:
            name, instruction = _instruction(line)
            computations[current][name] = instruction
    return Module(computations, entry)


def _instruction(line: str) -> tuple[str, Instruction]:
    name, value = line.strip().split(" = ", 1)
    # A type of several arrays stands in brackets and has spaces inside.
    end = _closing(value) if value.startswith("(") else value.index(" ")
    kind, rest = value[:end], value[end:].strip()
    opcode, _, _ = rest.partition("(")
    arguments = rest[len(opcode) :]
    operands = re.findall(r"%([\w.\-]+)", arguments[: _closing(arguments)])
    root = name.startswith("ROOT ")
    return name.removeprefix("ROOT ").lstrip("%"), Instruction(kind, opcode, tuple(operands), line, root)


def _closing(text: str) -> int:
    """Returns the place after the bracket that closes the one that a text starts with."""
    depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in text)
    return next((i for i, depth in enumerate(depths) if depth == 0), len(text) - 1) + 1


def _called(one: Instruction, role: str) -> str:
    """Returns the name of the computation that an instruction calls in a role, or ''."""
    match = re.search(rf"\b{role}=%?([\w.\-]+)", one.line)
    return "" if match is None else match[1]


def _branches(line: str) -> Sequence[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", line)
    if listed is not None:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)


def _bytes_of(kind: str, in_memory: bool = False) -> list[int]:
    """Returns the bytes of the arrays of a type; of those ``in_memory``, what is kept on the chip counts nothing."""
    arrays = re.findall(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\](\{[^}]*\})?", kind)
    return [
        0 if in_memory and "S(" in layout else _BYTES.get(name, 4) * math.prod(int(n) for n in shape.split(",") if n)
        for name, shape, layout in arrays
    ]
