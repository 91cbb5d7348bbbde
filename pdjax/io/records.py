"""What a finished or running experiment leaves in its working directory, and how to read it back.

::

    config.json                    the whole configuration
    environment.json               versions, device, command, date of the first start; ``later``: other versions since
    source/                        users' files that define what it uses, and their digests (``pdjax.io.source``)
    selection.json                 phases of the teacher's training and the checkpoints chosen, with reasons
    probes/                        what was measured on the teachers' checkpoints (``pdjax.stages.probes``)
    ablations/<key>/<variant>/     the same again for a variant of the experiment; its teacher/ may be a link
    teacher/, students/<name>/, sizes/<panel>/<label>/   one directory per run:
        run.json                   what the run is (``RunDescription``)
        metrics.jsonl              one record per split, step and replica; the same bits however often resumed
        progress.jsonl             wall-clock seconds, which are not
        curriculum.json            of an adaptive curriculum: the starts of every replica so far
        part.json                  where students see a part of checkpoints: its terms, as measured and as shown
        result.json                where it ended and what it kept; its presence means the run is complete
        state/                     training states, from which it goes on
        trajectory/                checkpoints of all replicas, where they are kept; of a teacher those of its seed
        trajectory-seed<n>/        of teachers with other seeds
        recovery/                  while kept checkpoints that are gone are computed again (``pdjax.stages.recovery``)
        probes/                    what was measured on them
    report/                        written from the files above and nothing else
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pdjax.distill.losses import Loss
from pdjax.io.processes import is_first
from pdjax.settings import opened
from pdjax.train.replicas import Replica
from pdjax.types import exact_ratio


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """What a run is: a teacher, or the students of one budget and curriculum.

    Strategies that have the same curriculum and differ in the loss alone are one run: its students share the teacher's
    forward pass. Strategies that differ in nothing are the same students.
    """

    role: str  # "teacher", "student" or "size"
    name: str  # the directory's name
    strategies: tuple[str, ...]  # keys of the strategies in the config; none for a teacher
    budget: int  # training steps
    replicas: tuple[Replica, ...]
    starts: tuple[int, ...]  # student steps from which the curriculum uses ...; of an adaptive one the first alone
    teacher_steps: tuple[int, ...]  # ... these checkpoints; empty without a teacher
    identity: str  # digest of everything that determines the result
    together: tuple[str, ...] = ()  # the runs with which it is trained, itself among them; none if alone


@dataclasses.dataclass(frozen=True)
class Curves:
    """A split's metrics over training: E recorded steps, R replicas."""

    steps: Int[np.ndarray, "E"]
    loss: Float[np.ndarray, "E R"]
    accuracy: Float[np.ndarray, "E R"]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as read back from its directory."""

    description: RunDescription
    train: Curves  # means over the batches of a chunk, before each update; steps are chunk ends
    evaluation: Curves  # on the held-out examples
    source: Curves  # what the source of an imported trajectory says of its training; nothing else has any
    starts: tuple[tuple[int, ...], ...]  # of every replica's curriculum, which reaches as many checkpoints
    seconds: float  # wall-clock time of all its processes together; of runs trained together an equal share
    complete: bool


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file so that a reader never sees half of it; of several processes, the first writes."""
    text = json.dumps(value, indent=2) + "\n"  # before anything is touched: not every value has a JSON form
    if is_first():
        _write(path, text)


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of one JSON record a line, of which a reader never sees half."""
    # Called by the first process alone.
    _write(path, "".join(json.dumps(record) + "\n" for record in records))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The new file takes the old one's name in one step. It is on disk before: a crash could leave the name without
    # the content else.
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    with open(path) as file:
        return json.load(file)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON record a line; a missing file has no records.

    A last line without its end, which a process that is writing or was killed may leave, is no record yet.
    """
    if not path.exists():
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def read_description(directory: Path) -> RunDescription:
    """Reads what the run in a directory is."""
    value = read_json(directory / "run.json")
    replicas = tuple(Replica(r["seed"], r["learning_rate"], opened(Loss, r["loss"])) for r in value["replicas"])
    lists = {
        name: tuple(value[name]) for name in ("strategies", "starts", "teacher_steps", "together") if name in value
    }
    return RunDescription(**{**value, **lists, "replicas": replicas})


def read_run(directory: Path) -> RunRecord:
    """Reads a run's description and curves."""
    description = read_description(directory)
    records = read_jsonl(directory / "metrics.jsonl")
    replicas = len(description.replicas)
    adapted = directory / "curriculum.json"
    # Of an adaptive run that was stopped before its first decision, the first row is all there is.
    starts = read_json(adapted)["starts"] if adapted.exists() else [description.starts] * replicas
    return RunRecord(
        description=description,
        train=_curves(records, "train", replicas),
        evaluation=_curves(records, "evaluation", replicas),
        source=_curves(records, "source", replicas),
        starts=tuple(tuple(row) for row in starts),
        # Every chunk adds its own, whichever process ran it.
        seconds=sum(r["seconds"] for r in read_jsonl(directory / "progress.jsonl")),
        complete=(directory / "result.json").exists(),
    )


def read_measured(directory: Path) -> tuple[list[int], list[Float[np.ndarray, "R K"]]]:
    """Reads how far each student of an adaptive run was with each of its teachers: steps, and values by step."""
    rows = [record for record in read_jsonl(directory / "metrics.jsonl") if record["split"] == "measured"]
    # Rows of one step stand in the order of the replicas, as they are written.
    by_step: dict[int, list[list[float]]] = {}
    for record in rows:
        by_step.setdefault(record["step"], []).append(record["values"])
    return list(by_step), [np.array(values) for values in by_step.values()]


def read_students(workdir: Path) -> list[RunRecord]:
    """Reads all student runs of an experiment, ordered by name."""
    return [read_run(path.parent) for path in sorted((workdir / "students").glob("*/run.json"))]


def read_sizes(workdir: Path) -> list[RunRecord]:
    """Reads the runs of models of other sizes, ordered by name."""
    return [read_run(path.parent) for path in sorted((workdir / "sizes").glob("*/*/run.json"))]


def _curves(records: Sequence[Mapping[str, Any]], split: str, replicas: int) -> Curves:
    chosen = [r for r in records if r["split"] == split]
    steps = sorted({r["step"] for r in chosen})
    row = {step: i for i, step in enumerate(steps)}
    # Where there is no record the count stays 0, and the mean is NaN.
    sums = {name: np.zeros((2, len(steps), replicas)) for name in ("loss", "accuracy")}  # and what was counted
    for record in chosen:
        for name, values in sums.items():
            values[:, row[record["step"]], record["replica"]] = record[name]
    return Curves(np.array(steps, dtype=np.int64), exact_ratio(*sums["loss"]), exact_ratio(*sums["accuracy"]))
