"""What is wrong with a series of checkpoints, before anything is trained from it.

Names of folders promise more than they keep: revisions with the same weights, swapped and partial downloads,
checkpoints of another seed. An audit reads every checkpoint and says what it finds, with steps and what to do about it.
"""

import bisect
import csv
import io
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from pdjax.errors import UserError
from pdjax.weights.loss_jumps import jumps
from pdjax.weights.measures import Audited, Measured, measure
from pdjax.weights.places import BETTER, Geometry, Move, Stray, detour, geometry_of, strays_and_moves
from pdjax.weights.spacing import missing_steps
from pdjax.weights.stored import DTYPES, listed, shown

__all__ = ["Audit", "Audited", "Finding", "Row", "as_csv", "audit", "table", "with_losses"]

Kind = Literal[
    "unreadable",
    "shapes",
    "dtypes",
    "vocabularies",
    "duplicates",
    "stale tensors",
    "order",
    "other run",
    "loss",
    "missing steps",
]

CERTAIN: tuple[Kind, ...] = ("unreadable", "shapes", "dtypes", "vocabularies", "duplicates", "stale tensors")
"""What is so; of the other kinds an audit says what is likely."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Of all tensors by name."""

_CHANGE = 1e-5  # of a matrix, relative: training changes it
_PART = 0.1  # of all matrices' parameters: less is no file of a checkpoint, if it is a single matrix
_AGAIN = "download or copy these again, or leave them out"


class Finding(NamedTuple):
    """Something that is wrong with a series."""

    kind: Kind
    steps: tuple[int, ...]  # of the checkpoints, or of those that are missing
    what: str
    remedy: str

    @property
    def certain(self) -> bool:
        """Whether it is so, or only likely."""
        return self.kind in CERTAIN

    def __str__(self) -> str:
        return f"{self.kind}{'' if self.certain else ' (likely)'}: {self.what}; {self.remedy}"


class Row(NamedTuple):
    """A checkpoint; what could not be read is None."""

    step: int
    name: str
    loss: float | None
    parameters: int | None
    bytes: int | None
    dtype: str | None  # several with commas
    distance: float | None
    """To the checkpoint before that could be read, of all weights, relative to their norm there."""

    digest: str | None  # of the values as float32 and their names


class Audit(NamedTuple):
    """What a series holds, and what is wrong with it."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def kinds_of(self, step: int) -> tuple[Kind, ...]:
        """Returns the kinds of findings that name a step."""
        return tuple(dict.fromkeys(finding.kind for finding in self.findings if step in finding.steps))


def audit(checkpoints: Sequence[Audited]) -> Audit:
    """Reads a series of checkpoints, in the order of increasing steps, and says what is wrong with it.

    No more than two tensors and a sample of each checkpoint's values are in memory at a time. Checkpoints of a run that
    has the same initial values, and what is wrong with the first few, may remain unnoticed.
    """
    found = measure(checkpoints)
    steps = [checkpoint.step for checkpoint in checkpoints]
    whole = {index: measured for index, measured in enumerate(found) if not isinstance(measured, UserError)}
    findings = [
        Finding("unreadable", (step,), f"step {step:,} ({checkpoint.name}): {error}", "or leave it out")
        for step, checkpoint, error in zip(steps, checkpoints, found, strict=True)
        if isinstance(error, UserError)
    ]
    shapes = {index: tuple(measured.shapes.items()) for index, measured in whole.items()}
    findings += _unlike(steps, shapes, "shapes", _shapes_text, f"{_AGAIN}: they are of another model, or incomplete")
    dtypes = {index: measured.dtypes for index, measured in whole.items()}
    findings += _unlike(steps, dtypes, "dtypes", _dtypes_text, "take all of them in one precision")
    tokens = {index: c.vocabulary for index, c in enumerate(checkpoints) if c.vocabulary is not None}
    findings += _unlike(steps, tokens, "vocabularies", _tokens_text, "leave them out: ids are other tokens there")
    alike = _alike(whole)
    geometry = geometry_of([steps[index] for index in alike], [whole[index].sample for index in alike])
    duplicates, unique = _duplicates(geometry, [whole[index] for index in alike])
    findings += duplicates
    findings += _stale(geometry.of(unique), [whole[alike[index]] for index in unique])
    findings += _misplaced(geometry.of(unique))
    findings += _jumps(checkpoints)
    if missing := missing_steps(steps):
        what = f"no checkpoint of {_steps(missing)}, where the others leave no doubt about the spacing"
        findings.append(Finding("missing steps", tuple(missing), what, "download or copy them too, if there are any"))
    return Audit(tuple(itertools.starmap(_row, zip(checkpoints, found, strict=True))), tuple(findings))


def with_losses(audit: Audit, losses: Mapping[int, float]) -> Audit:
    """Returns an audit with losses by step that were measured after it, and with what these show."""
    rows = tuple(row._replace(loss=losses.get(row.step, row.loss)) for row in audit.rows)
    return Audit(rows, (*(finding for finding in audit.findings if finding.kind != "loss"), *_jumps(rows)))


def _row(checkpoint: Audited, found: Measured | UserError) -> Row:
    if isinstance(found, UserError):
        return Row(checkpoint.step, checkpoint.name, checkpoint.loss, None, None, None, None, None)
    facts = found.parameters, found.size, ", ".join(found.dtypes), found.distance, found.digest
    return Row(checkpoint.step, checkpoint.name, checkpoint.loss, *facts)


def _steps(steps: Iterable[int]) -> str:
    steps = [int(step) for step in steps]
    return f"step{'s' if len(steps) > 1 else ''} {listed(f'{step:,}' for step in steps)}"


def _alike(whole: Mapping[int, Measured]) -> list[int]:
    """Returns the checkpoints that have the shapes of most: those whose weights can be compared."""
    counts = Counter(tuple(measured.shapes.items()) for measured in whole.values())
    common = counts.most_common(1)[0][0] if counts else ()
    return [index for index, measured in whole.items() if tuple(measured.shapes.items()) == common]


_Fact = TypeVar("_Fact")


def _unlike(
    steps: Sequence[int],
    facts: Mapping[int, _Fact],
    kind: Kind,
    describe: Callable[[_Fact, _Fact], str],
    remedy: str,
) -> list[Finding]:
    """Returns findings of checkpoints that differ from most in something; those that differ alike in one."""
    if not facts:
        return []
    common = Counter(facts.values()).most_common(1)[0][0]
    differing: dict[str, list[int]] = defaultdict(list)
    for index, fact in facts.items():
        if fact != common:
            differing[describe(fact, common)].append(steps[index])
    return [
        Finding(kind, tuple(members), f"{_steps(members)}, unlike most: {how}", remedy)
        for how, members in differing.items()
    ]


def _shapes_text(shapes: Shapes, common: Shapes) -> str:
    found, expected = dict(shapes), dict(common)
    parts = []
    if missing := [name for name in expected if name not in found]:
        parts.append(f"without {listed(missing)}")
    if surplus := [name for name in found if name not in expected]:
        parts.append(f"with also {listed(surplus)}")
    if other := [name for name, shape in found.items() if expected.get(name, shape) != shape]:
        name = other[0]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        parts.append(f"{shown(name)} is {list(found[name])}, not {list(expected[name])}{more}")
    return "; ".join(parts)


def _dtypes_text(dtypes: tuple[str, ...], common: tuple[str, ...]) -> str:
    return f"{', '.join(dtypes)}, not {', '.join(common)}"


def _tokens_text(tokens: tuple[str, ...], common: tuple[str, ...]) -> str:
    if len(tokens) != len(common):
        return f"{len(tokens):,} tokens, not {len(common):,}"
    first = next(index for index, pair in enumerate(zip(tokens, common, strict=True)) if pair[0] != pair[1])
    return f"token {first} is {tokens[first]!r}, not {common[first]!r}"


def _duplicates(geometry: Geometry, found: Sequence[Measured]) -> tuple[list[Finding], list[int]]:
    """Returns findings of checkpoints with the same weights, and the indices of those that are what they are called.

    Which step the weights are most plausibly of is where they make the least detour between checkpoints of their own.
    """
    groups = _same(found)
    repeated = {index for group, _ in groups for index in group}
    single = [index for index in range(len(found)) if index not in repeated]
    findings, unique = [], list(single)
    for group, how in groups:
        if [geometry.steps[index] for index in group] == [0, 1]:  # a warm-up's first step often has a rate of 0
            unique.append(group[0])
            continue
        costs = {}
        for index in group:
            place = bisect.bisect(single, index)
            before = single[place - 1] if place > 0 else None
            after = single[place] if place < len(single) else None
            costs[index] = detour(geometry, index, before, after)
        likely = [index for index in group if BETTER * costs[index] <= min(costs.values())]
        steps = [int(geometry.steps[index]) for index in group]
        what, remedy = f"{_steps(steps)} hold the same weights{how}", "leave out all but one, or download them again"
        if len(likely) < len(group):
            names = " or ".join(f"{geometry.steps[index]:,}" for index in likely)
            what += f", most plausibly of step {names}"
            remedy = "leave out the others, or download them again"
        if len(likely) == 1:
            unique.append(likely[0])
        findings.append(Finding("duplicates", tuple(steps), what, remedy))
    return findings, sorted(unique)


def _same(found: Sequence[Measured]) -> list[tuple[list[int], str]]:
    """Returns groups of the same contents, and of those that differ by rounding to another precision alone."""
    equal: dict[str, list[int]] = defaultdict(list)
    for index, measured in enumerate(found):
        equal[measured.digest].append(index)
    groups = [(group, "") for group in equal.values() if len(group) > 1]
    grouped = {index for group, _ in groups for index in group}
    precisions = sorted({measured.dtypes for measured in found}, key=lambda names: DTYPES[names[0]].itemsize)
    if len(precisions) != 2 or any(len(names) > 1 for names in precisions):
        return groups
    rounded: dict[bytes, list[int]] = defaultdict(list)
    with np.errstate(over="ignore"):
        for index, measured in enumerate(found):
            values = [sample.astype(DTYPES[precisions[0][0]]).tobytes() for sample in measured.sample.values()]
            rounded[b"".join(values)].append(index)
    for group in rounded.values():
        if len({found[index].dtypes for index in group}) > 1 and not grouped & set(group):
            groups.append((group, f" but for rounding to {precisions[0][0]}"))
    return groups


def _stale(geometry: Geometry, found: Sequence[Measured]) -> list[Finding]:
    """Returns findings of checkpoints that share matrices, which change before and after, while others change."""
    shared: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in found[0].sample if found else ():
        for first, second in itertools.combinations(range(len(found)), 2):
            if found[first].digests[name] == found[second].digests[name] and _goes_on(found, first, second, name):
                shared[first, second].append(name)
    findings = []
    for (first, second), names in shared.items():
        sizes = {name: math.prod(found[0].shapes[name]) for name in found[0].sample}
        if len(names) < 2 and sum(sizes[name] for name in names) < _PART * sum(sizes.values()):
            continue  # a single small one may be without gradients for a while
        steps = (int(geometry.steps[first]), int(geometry.steps[second]))
        count = f"{len(names)} of {len(found[0].sample)} matrices"
        what = f"{_steps(steps)} share {count} ({listed(names, 3)}) while the others differ"
        remedy = "download or copy both again: the files of one are a mixture"
        findings.append(Finding("stale tensors", steps, what, remedy))
    return findings


def _goes_on(found: Sequence[Measured], first: int, second: int, name: str) -> bool:
    """Returns whether a matrix changes right before and right after two checkpoints, or between them."""
    pairs = [(second, second - 1)] if second - first > 1 else [(first - 1, first), (second, second + 1)]
    inside = [pair for pair in pairs if min(pair) >= 0 and max(pair) < len(found)]
    values = [tuple(found[index].sample[name].astype(np.float64) for index in pair) for pair in inside]
    return bool(inside) and all(np.linalg.norm(a - b) > _CHANGE * np.linalg.norm(b) for a, b in values)


def _misplaced(geometry: Geometry) -> list[Finding]:
    """Returns findings of checkpoints out of order and of other runs."""
    strays, moves = strays_and_moves(geometry)
    return [_stray(geometry, stray) for stray in strays] + [_move(geometry, move) for move in moves]


def _stray(geometry: Geometry, stray: Stray) -> Finding:
    steps = tuple(int(geometry.steps[index]) for index in stray.members)
    match stray.pattern:
        case "alone":
            what = f"{_steps(steps)} is unlike all others, those before and after it closer to each other than to it"
            remedy = "leave it out: it is of another run, or damaged"
        case "mixed":
            what = f"{_steps(steps)} resemble each other and none of those between them"
            remedy = "leave them out: they are of another run (audit each run alone)"
        case "after":
            what = f"from {_steps(steps[:1])} on no weights resemble those before"
            remedy = "take either part alone: it is of another run"
    return Finding("other run", steps, what, remedy)


def _move(geometry: Geometry, move: Move) -> Finding:
    steps = tuple(int(geometry.steps[index]) for index in move.moved)
    if len(steps) == 2:
        what = f"{_steps(steps)} fit much better each at the other's place"
        return Finding("order", steps, what, "swap them back, or download both again")
    before, after = (None if index is None else f"{geometry.steps[index]:,}" for index in move.between)
    where = (
        f"before {after}" if before is None else f"after {before}" if after is None else f"between {before} and {after}"
    )
    return Finding("order", steps, f"{_steps(steps)} fits much better {where}", "download it again, or leave it out")


def _jumps(checkpoints: Iterable[Audited | Row]) -> list[Finding]:
    measured = [(c.step, c.loss) for c in checkpoints if c.loss is not None and math.isfinite(c.loss)]
    findings = []
    for index in jumps([loss for _, loss in measured]):
        (_, before), (step, loss), (_, after) = measured[index - 1 : index + 2]
        what = f"the loss at {_steps([step])} is {loss:.4g}, with {before:.4g} before and {after:.4g} after it"
        findings.append(Finding("loss", (step,), what, "evaluate it again; leave it out if that is no accident"))
    return findings


def table(audit: Audit) -> str:
    """Returns what an audit found as text for a terminal."""
    heads = ("step", "name", "loss", "parameters", "MB", "dtype", "distance", "findings")
    lines = [heads, *(_cells(row, audit) for row in audit.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    left = {1, 5, 7}
    text = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    ends = [str(finding) for finding in audit.findings] or ["Nothing was found."]
    return "\n".join([*text, "", *ends])


def _cells(row: Row, audit: Audit) -> tuple[str, ...]:
    numbers = (
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.parameters is None else f"{row.parameters:,}",
        "" if row.bytes is None else f"{row.bytes / 1e6:,.2f}",
        row.dtype or "",
        "" if row.distance is None else f"{row.distance:.4f}",
    )
    return (f"{row.step:,}", shown(row.name), *numbers, ", ".join(audit.kinds_of(row.step)))


def as_csv(audit: Audit) -> str:
    """Returns the rows of an audit as CSV, each with the kinds of findings that name its step."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*Row._fields, "findings"])
    writer.writerows([*row, ", ".join(audit.kinds_of(row.step))] for row in audit.rows)
    return file.getvalue()
