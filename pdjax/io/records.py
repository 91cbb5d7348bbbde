"""What a finished or running experiment leaves in its working directory, and how to read it back.

::

    config.json                    the whole configuration
    environment.json               versions, device, command, date, rules of the first start; ``later``: others since
    source/                        users' files that define what it uses, and their digests (``pdjax.io.source``)
    selection.json                 phases of the teacher's training and the checkpoints chosen, with reasons
    tuned.json                     the learning rate, T and κ chosen for each strategy (``pdjax.stages.tuning``)
    teachers/<seed>/               the same again for a further teacher; with ``left_out.json`` it has no students
    probes/                        what was measured on the teachers' checkpoints (``pdjax.stages.probes``)
    ablations/<key>/<variant>/     the same again for a variant of the experiment; its teacher/ may be a link
    teacher/, students/<name>/, sizes/<panel>/<label>/   one directory per run; of one that has grown more, <name>+2:
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
    .lock                          held by the process that writes (``pdjax.io.lock``)

JSON and its lines carry digests, and ``result.json`` the last one of its run's metrics (``pdjax.io.sealed``).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pdjax.distill.losses import Loss
from pdjax.errors import require
from pdjax.io.sealed import read_json, read_lines
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
    strategies: tuple[str, ...]  # names of those in the configuration; of a size its <panel>/<label>; none of a teacher
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


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as read back from its directory."""

    description: RunDescription
    train: Curves  # means over the batches of a chunk, before each update; steps are chunk ends
    evaluation: Curves  # on the held-out examples
    source: Curves  # what the source of an imported trajectory says of its training; nothing else has any
    starts: tuple[tuple[int, ...], ...]  # of every replica's curriculum, which reaches as many checkpoints
    seconds: float  # wall-clock time of all its processes together; of runs trained together an equal share
    complete: bool


def read_description(directory: Path) -> RunDescription:
    """Reads what the run in a directory is."""
    value = read_json(directory / "run.json", made_again=directory)
    replicas = tuple(Replica(r["seed"], r["learning_rate"], opened(Loss, r["loss"])) for r in value["replicas"])
    lists = {
        name: tuple(value[name]) for name in ("strategies", "starts", "teacher_steps", "together") if name in value
    }
    return RunDescription(**{**value, **lists, "replicas": replicas})


def read_run(directory: Path) -> RunRecord:
    """Reads a run's description and curves.

    Raises:
      UserError: a file is damaged, or of a complete run missing.
    """
    description, result = read_description(directory), read_result(directory)
    records = read_lines(directory / "metrics.jsonl", directory, None if result is None else result["records"]).records
    replicas = len(description.replicas)
    adapted = directory / "curriculum.json"
    # Of an adaptive run that was stopped before its first decision, the first row is all there is.
    starts = [description.starts] * replicas
    adaptive = len(description.teacher_steps) > len(description.starts)
    if adapted.exists() or (adaptive and result is not None):
        starts = read_json(adapted, made_again=directory)["starts"]
    return RunRecord(
        description=description,
        train=_curves(records, "train", replicas),
        evaluation=_curves(records, "evaluation", replicas),
        source=_curves(records, "source", replicas),
        starts=tuple(tuple(row) for row in starts),
        # Every chunk adds its own, whichever process ran it.
        seconds=sum(r["seconds"] for r in read_costs(directory)),
        complete=result is not None,
    )


def read_result(directory: Path) -> dict[str, Any] | None:
    """Reads where a run has ended; None of a run that has not."""
    path = directory / "result.json"
    return read_json(path, made_again=directory) if path.exists() else None


def read_costs(directory: Path) -> list[dict[str, Any]]:
    """Reads what a run's chunks have cost, by whichever process ran them."""
    return read_lines(directory / "progress.jsonl").records


def read_measured(directory: Path) -> tuple[list[int], list[Float[np.ndarray, "R K"]]]:
    """Reads how far each student of an adaptive run was with each of its teachers: steps, and values by step."""
    records = read_lines(directory / "metrics.jsonl", directory).records
    rows = [record for record in records if record["split"] == "measured"]
    # Rows of one step stand in the order of the replicas, as they are written.
    by_step: dict[int, list[list[float]]] = {}
    for record in rows:
        by_step.setdefault(record["step"], []).append(record["values"])
    return list(by_step), [np.array(values) for values in by_step.values()]


def joined(runs: Sequence[RunRecord]) -> dict[RunRecord, tuple[RunRecord, ...]]:
    """Returns runs of which those that share strategies and the budget are one, each with those that it is made of.

    An experiment that has grown has trained replicas of one curriculum and budget in several runs. The one has their
    replicas in this order, and the name of the first.
    """
    groups: list[list[RunRecord]] = []
    for run in runs:
        description = run.description
        mine = [
            group
            for group in groups
            if any(
                other.description.budget == description.budget
                and {*other.description.strategies} & {*description.strategies}
                for other in group
            )
        ]
        groups = [group for group in groups if group not in mine]
        groups.append([*(other for group in mine for other in group), run])
    return {_join(group): tuple(group) for group in groups}


def _join(runs: Sequence[RunRecord]) -> RunRecord:
    if len(runs) == 1:
        return runs[0]
    parts = [run.description for run in runs]
    description = dataclasses.replace(
        parts[0],
        strategies=tuple(dict.fromkeys(name for part in parts for name in part.strategies)),
        replicas=tuple(replica for part in parts for replica in part.replicas),
    )
    return RunRecord(
        description=description,
        train=_beside([run.train for run in runs]),
        evaluation=_beside([run.evaluation for run in runs]),
        source=runs[0].source,
        starts=tuple(starts for run in runs for starts in run.starts),
        seconds=sum(run.seconds for run in runs),
        complete=all(run.complete for run in runs),
    )


def _beside(curves: Sequence[Curves]) -> Curves:
    """Returns the curves of several runs' replicas as those of one; NaN where one of them has no step of another."""
    steps = np.unique(np.concatenate([one.steps for one in curves]))

    def wide(values: Float[np.ndarray, "E R"], of: Curves) -> Float[np.ndarray, "E R"]:
        table = np.full((len(steps), values.shape[1]), np.nan)
        table[np.searchsorted(steps, of.steps)] = values
        return table

    loss, accuracy = ([wide(getattr(one, name), one) for one in curves] for name in ("loss", "accuracy"))
    return Curves(steps, np.concatenate(loss, axis=1), np.concatenate(accuracy, axis=1))


def read_students(workdir: Path) -> list[RunRecord]:
    """Reads all student runs of an experiment, ordered by name."""
    return _read_runs(workdir / "students", "*")


def read_sizes(workdir: Path) -> list[RunRecord]:
    """Reads the runs of models of other sizes, ordered by name."""
    return _read_runs(workdir / "sizes", "*/*")


def read_begun(root: Path, pattern: str) -> dict[str, RunDescription]:
    """Reads what the runs below a directory are, by their names.

    Raises:
      UserError: a description is damaged, or of a run that had another name.
    """
    begun = {}
    for path in sorted(root.glob(f"{pattern}/run.json")):
        directory = path.parent
        description, name = read_description(directory), directory.relative_to(root).as_posix()
        require(
            description.name == name,
            f"the run {description.name} in {root / description.name}",
            f"it in {directory}",
            "move it back, or out of the working directory",
        )
        begun[name] = description
    return begun


def _read_runs(root: Path, pattern: str) -> list[RunRecord]:
    read_begun(root, pattern)  # a copy of a run would count twice
    # A run has the one from its start on, and the other at its end: one without the first has lost it.
    names = ("run.json", "result.json")
    return [read_run(path) for path in sorted(root.glob(pattern)) if any((path / name).exists() for name in names)]


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
