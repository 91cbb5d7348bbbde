"""The configured probes of an experiment, compiled, and how they are run over many checkpoints."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pdjax.errors import require
from pdjax.io.processes import agree, is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.sealed import Journal, read_json, read_lines, write_json, write_lines
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.probes.base import Probe, Subject, rows
from pdjax.types import Params

MOST_AT_ONCE = 8
"""Models of a few megabytes that are measured together."""

KEPT = "measured.jsonl"
"""The file of what is measured so far; it goes when all of it is."""


Measure = Callable[[Params], list[dict[str, Any]]]
"""From the stacked parameters of several models to what is recorded of each."""


def prepared(probes: Sequence[Probe], subject: Subject) -> dict[str, Measure]:
    """Returns what measures models, by the names of the probes."""

    def measure(probe: Probe) -> Measure:
        look = probe.prepare(subject)
        return lambda params: rows(look(params))

    return {probe.name: measure(probe) for probe in probes}


def measure_checkpoints(
    directory: Path,
    identity: str,
    probes: Mapping[str, Measure],
    steps: Sequence[int],
    load: Callable[[int], Params],
    names: Sequence[Mapping[str, int]],
    at_once: int,
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Runs probes on checkpoints and writes a file of lines for each, one line for each checkpoint and model.

    What each probe measures on each group of checkpoints is kept as soon as it is there: who is stopped goes on from
    there, with the same groups and hence the same numbers.

    Args:
      directory: of the files.
      identity: digest of what is measured and of the probes.
      probes: by name.
      steps: of the checkpoints.
      load: reads one: the stacked parameters of R models.
      names: what tells the R models apart in the records.
      at_once: models that are measured together, if their number permits.
      interrupt: stops between probes.
      progress: advances by checkpoints.

    Raises:
      Interrupted: a signal asked one of the processes to stop.
    """
    # Every group has the same shape: a probe is compiled once for all of them.
    group = _group_size(len(steps), max(1, at_once // len(names)))
    groups = [tuple(steps[first : first + group]) for first in range(0, len(steps), group)]
    with closing(_Kept(directory, identity, list(itertools.product(groups, probes)))) as kept:
        for number, together in enumerate(groups):
            # Points are ordered by group, then by probe: of the group that was begun, some probes are left.
            asked = list(probes)[max(kept.count - number * len(probes), 0) :]
            if not asked:
                progress.skip(len(together))
                continue
            trees = [load(step) for step in together]
            trees += trees[-1:] * (group - len(trees))  # of the last group, to have the shape of the others
            params = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
            keys = [{**name, "step": step} for step in together for name in names]
            for name in asked:
                # What was measured on the repeated checkpoint is dropped.
                records = zip(keys, probes[name](params)[: len(keys)], strict=True)
                kept.add([{**key, **record} for key, record in records])
                # All of them stop here or none: who went on alone would wait for the others for ever.
                stopping = agree(interrupt.signal_number or 0)
                if stopping:
                    raise Interrupted(stopping, f"{kept.count} of {kept.total} measurements are kept in {directory}")
            progress.advance(len(together))
        for name in probes:
            kept.write(name)


class _Kept:
    """What was measured so far, point by point: a probe on a group of checkpoints. The first process holds it.

    Args:
      directory: of the probes' files.
      identity: what was kept of other models or probes is dropped.
      points: all that are to be measured, in their order.
    """

    def __init__(self, directory: Path, identity: str, points: Sequence[tuple[tuple[int, ...], str]]):
        self._directory, self._points = directory, points
        self._measurements: list[Any] = []
        if is_first():
            rows, named = read_lines(directory / KEPT).records, [[list(steps), name] for steps, name in points]
            # The order of points has to be the same as well: what is left is told by their count alone.
            same = rows[:1] == [{"identity": identity}] and [row["point"] for row in rows[1:]] == named[: len(rows) - 1]
            self._measurements = rows[1:] if same else []
            # Again, without the half of a line that a process that was killed may have left.
            self._journal = Journal(directory / KEPT, [{"identity": identity}, *self._measurements])
        # Nobody writes before all have seen whether anything was to do; and files may be seen later elsewhere.
        self.count = agree(len(self._measurements))

    @property
    def total(self) -> int:
        """How many points there are."""
        return len(self._points)

    def add(self, records: list[dict[str, Any]]) -> None:
        """Keeps what was measured at the next point."""
        steps, name = self._points[self.count]
        self.count += 1
        if is_first():
            self._measurements.append({"point": [list(steps), name], "records": records})
            self._journal.add(self._measurements[-1])
            self._journal.flush()

    def close(self) -> None:
        """Releases the file."""
        if is_first():
            self._journal.close()

    def write(self, name: str) -> None:
        """Writes the records of a probe to its own file."""
        if is_first():
            records = [record for row in self._measurements if row["point"][1] == name for record in row["records"]]
            write_lines(self._directory / f"{name}.jsonl", records)


def unmeasured(directory: Path, identities: Mapping[str, str]) -> list[str]:
    """Returns the names of the probes that are yet to be done, each with the digest of itself and of its models.

    Raises:
      UserError: the directory holds what they measured on other models.
    """
    measured = _result(directory)["identity"]
    other = [name for name, identity in identities.items() if measured.get(name, identity) != identity]
    require(
        not other,
        "probes of this experiment's models",
        f"those of others in {directory} ({', '.join(other)})",
        "what they were measured on changed: remove the directory to evaluate them again",
    )
    return [name for name in identities if name not in measured]


def finish(directory: Path, identities: Mapping[str, str], listed: Mapping[str, Any]) -> None:
    """Says what these probes are and that they are done; ``listed`` says by probe what its numbers belong to."""
    # In this order: whoever is killed in between leaves a file too many, not probes that look undone.
    if is_first():
        seals = {name: read_lines(directory / f"{name}.jsonl", directory).seal for name in identities}
        new = {"identity": identities, "listed": listed, "records": seals}
        # Probes that were done before stay what they are.
        write_json(directory / "result.json", {key: old | new[key] for key, old in _result(directory).items()})
        (directory / KEPT).unlink()
    # The selection of checkpoints reads these files in every process.
    meet(f"the probes in {directory} are done")


def _result(directory: Path) -> dict[str, dict[str, Any]]:
    """Returns what the probes that are done have left."""
    path, keys = directory / "result.json", ("identity", "listed", "records")
    if not path.exists():
        return {key: {} for key in keys}
    found = read_json(path, made_again=directory)
    remedy = "an earlier version wrote it: remove the directory to evaluate them again"
    require(isinstance(found["identity"], dict), f"digests of each probe in {path}", "one of all of them", remedy)
    return {key: found[key] for key in keys}


def _group_size(count: int, most: int) -> int:
    """Returns the largest size, at most ``most``, of groups of one shape that measure at most one checkpoint twice."""
    return max(size for size in range(1, most + 1) if -count % size <= 1)
