"""What is read of others' checkpoints, and what is refused: every spelling and damage that is tried, each in one line.

    python benchmarks/spellings.py > docs/weights.md

Tiny models are written in every way that is met in the wild and damaged in every way that is feared, and read as an
import does. Printed is a document in Markdown. Exit code 1 and a line for each on stderr: something was neither read as
the same numbers nor refused in one line. Cases that torch makes are left out where it is not installed.
"""

import sys
from collections.abc import Sequence

from wild import configured, damaged, formats, pickled, series, spelled, tokenized
from wild.case import Group, Tried, rows, try_out

GROUPS = (
    formats.group,
    spelled.group,
    configured.group,
    damaged.tensors,
    damaged.files,
    pickled.group,
    tokenized.group,
    series.steps,
    series.audits,
)

_INTRODUCTION = """# What is read of others' checkpoints, and what is refused

Below is every spelling and every damage of checkpoints that was tried, and what `pdjax.weights` says of each: the same
parameters bit for bit, or a refusal in one line of what was expected, what was found and what to do. It is made by
`python benchmarks/spellings.py > docs/weights.md`, which fails where anything else comes of one (`FOLDER` stands for
the folder that was read; models are tiny).
"""


def try_all() -> list[tuple[Group, list[Tried]]]:
    """Returns each group with what came of its cases."""
    return [(group, [try_out(case) for case in group.cases]) for group in (make() for make in GROUPS)]


def document(results: Sequence[tuple[Group, list[Tried]]]) -> str:
    """Returns everything as Markdown."""
    parts = [_INTRODUCTION]
    for group, tried in results:
        head = [f"## {group.title}", "", group.about, "", "| what was tried | what it says |", "| --- | --- |"]
        parts.append("\n".join([*head, *rows(tried), ""]))
    return "\n".join(parts)


def main() -> int:
    """Tries everything, prints, and returns the exit code."""
    results = try_all()
    print(document(results), end="")
    wrong = [tried for _, group in results for tried in group if tried.wrong]
    for tried in wrong:
        print(f"WRONG: {tried.case.what} ({tried.case.of}): {tried.says}", file=sys.stderr)
    count = sum(len(group) for _, group in results)
    print(f"{count} cases, {len(wrong)} of them wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
