"""The teacher stage for checkpoints that others have trained: a series of them becomes a trajectory.

Each is read once, converted, evaluated on the held-out examples of this experiment, and saved in a store like one of
our own; from there students read it when it is needed. What is done already stays: the same command goes on.
"""

import glob
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pdjax.errors import UserError, require
from pdjax.experiment import Experiment, digest_of
from pdjax.io.feed import evaluation_examples
from pdjax.io.lock import LOCK, writing
from pdjax.io.processes import agree, fetch, is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription
from pdjax.io.sealed import read_json, read_lines, write_json, write_lines
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.store import IDENTITY, CheckpointStore, disk_bytes, require_space
from pdjax.io.workdir import is_done
from pdjax.models.transformer import Transformer
from pdjax.settings import plain
from pdjax.stages.auditing import audit_series, write_audit
from pdjax.stages.programs import compiled, teacher_program, teacher_shape
from pdjax.train import sharding
from pdjax.train.replicas import Sweep, product_of_replicas
from pdjax.types import Params, exact_ratio
from pdjax.weights.audit import Audit, Finding, Kind, with_losses
from pdjax.weights.checkpoint import check_is, read_params
from pdjax.weights.history import history_of
from pdjax.weights.series import TRAINER_STATE, SourceCheckpoint, series_of
from pdjax.weights.tokens import copy_tokenizer

logger = logging.getLogger("pdjax")

REFUSED: tuple[Kind, ...] = ("unreadable", "shapes", "vocabularies", "duplicates", "stale tensors")
"""Findings with which nothing is imported."""

BEGUN = "import.json"
"""The file that says what an import began with."""

TOKENIZER = "tokenizer"
"""The directory, beside a trajectory, of the tokenizer's files."""


def checked_series(experiment: Experiment) -> tuple[SourceCheckpoint, ...]:
    """Returns the checkpoints that ``teacher_training.trajectory`` names, after a look at what models they are.

    Raises:
      UserError: there are none, or one holds another model than the teacher, or has other tokens than the task.
    """
    teacher = experiment.teacher
    if not isinstance(teacher, Transformer):
        raise UserError("a Transformer for teachers from elsewhere", type(teacher).__name__, "no others can be read")
    series = series_of(str(experiment.teacher_training.trajectory))
    for checkpoint in series:
        check_is(teacher, checkpoint.folder, experiment.task)
    return series


def series_steps(experiment: Experiment, directory: Path) -> Sequence[int]:
    """Returns the steps of a series; of one that is imported and gone, those in the directory.

    Raises:
      UserError: as ``checked_series``.
    """
    recorded = _recorded(experiment, directory)
    return [one.step for one in checked_series(experiment)] if recorded is None else recorded


def _recorded(experiment: Experiment, directory: Path) -> Sequence[int] | None:
    """Returns the steps that have been imported, if all have been and their source is gone."""
    result = directory / "result.json"
    if glob.glob(str(experiment.teacher_training.trajectory)) or not result.exists():
        return None
    return read_json(result, made_again=directory)["checkpoints"]


def imported_identity(experiment: Experiment) -> dict[str, Any]:
    """What the trajectory store of an imported series says about itself."""
    fields = experiment.determining("task", "teacher", "teacher_training")
    imported = {"imported": str(experiment.teacher_training.trajectory)}
    return {"task": fields["task"], "model": fields["teacher"], "training": imported}


def import_series(experiment: Experiment, directory: Path, interrupt: Interrupt) -> None:
    """Converts the series that ``teacher_training.trajectory`` names into a trajectory in a directory, unless it is.

    Raises:
      Interrupted: a signal asked to stop; the same command continues.
      UserError: a checkpoint is damaged, or is another model; the series or what it is measured on is not what an
        import into this directory began with; the disk is full.
    """
    if _recorded(experiment, directory) is not None:
        logger.info("teacher: %s is gone, what was imported from it is here", experiment.teacher_training.trajectory)
        return
    _require_room(directory)
    series = checked_series(experiment)
    description = _describe(experiment, series)
    done = is_done(directory, description)
    records = _evaluated(directory)
    pending = _pending(experiment, directory, series, records)
    meet("what has been imported has been seen")
    if done and not pending:
        return
    found = _require_sound(experiment, series)
    begun = {"identity": description.identity, "checkpoints": [row._asdict() for row in _facts(found)]}
    _require_same(directory, begun)
    history = _history(series)
    _announce(experiment, directory, series, pending)
    with ExitStack() as held:
        ignored = _convert_all(experiment, directory, description, begun, pending, records, interrupt, held)
        _log_ignored(ignored)
        found = with_losses(found, {step: _means(record)["loss"] for step, record in records.items()})
        _warn(finding for finding in found.findings if finding.kind == "loss")
        if is_first():
            copy_tokenizer(series[-1].folder, directory / TOKENIZER)
            write_audit(found, directory)
        seal = _write_records(directory, records, history)
        # Last, as it is what makes the trajectory count as done.
        steps = [one.step for one in series]
        write_json(
            directory / "result.json",
            {
                "step": steps[-1],
                "identity": description.identity,
                "records": seal,
                "checkpoints": steps,
                "ignored": ignored,
            },
        )
        meet("the series is imported")


def _evaluated(directory: Path) -> dict[int, dict[str, Any]]:
    """Reads what was measured on the checkpoints that have been imported, by step."""
    lines = read_lines(directory / "metrics.jsonl", directory).records
    return {record["step"]: record for record in lines if record["split"] == "evaluation"}


def _convert_all(
    experiment: Experiment,
    directory: Path,
    description: RunDescription,
    begun: Mapping[str, Any],
    pending: Sequence[SourceCheckpoint],
    records: dict[int, dict[str, Any]],
    interrupt: Interrupt,
    held: ExitStack,
) -> dict[str, str]:
    """Saves the pending checkpoints, and adds their records; returns what of them is ignored, with the reasons.

    From its first file on the directory is ``held``: nobody else writes to it.
    """
    sweep = compiled(experiment, teacher_program(experiment))
    converted = (_convert(experiment, sweep, one) for one in pending)
    # Before anything is written: what is wrong with one is mostly wrong with all.
    ready = list(itertools.islice(converted, 1))
    if is_first():
        held.enter_context(writing(directory))
        _require_same(directory, begun)
        there = _evaluated(directory).keys()
        require(there <= {*records}, f"nobody else to import into {directory}", "more there than before", "run again")
        write_json(directory / BEGUN, begun)
        write_json(directory / "run.json", plain(description))
    ignored: dict[str, str] = {}
    with (
        closing(CheckpointStore(directory / "trajectory", imported_identity(experiment))) as store,
        closing(Progress("importing", len(pending))) as progress,
    ):
        for one, (placed, record, of_this) in zip(pending, itertools.chain(ready, converted), strict=True):
            ignored |= of_this
            records[one.step] = record
            # In this order: a checkpoint without its record is converted again, a record without it is replaced.
            _write_records(directory, records)
            store.save(one.step, jax.tree.map(lambda leaf: leaf[0], placed), _means(record))
            progress.advance(1)
            stopping = agree(interrupt.signal_number or 0) or None
            if stopping is not None and one is not pending[-1]:
                raise Interrupted(stopping, f"checkpoints up to {one.name} are imported")
    return ignored


class _Fact(NamedTuple):
    """What tells whether a checkpoint is the one that it was."""

    step: int
    name: str
    digest: str | None


def _facts(found: Audit) -> list[_Fact]:
    return [_Fact(row.step, row.name, row.digest) for row in found.rows]


def _require_room(directory: Path) -> None:
    """Raises a ``UserError`` where a directory holds something that is no import."""
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    there = sorted(name for name in names if not name.startswith(LOCK))
    is_file = directory.exists() and not directory.is_dir()
    require(
        not is_file and (not there or BEGUN in there),
        f"a new or empty directory, or one that an import has begun, in {directory}",
        "a file" if is_file else ", ".join(there[:4]),
        "choose another",
    )


def _require_same(directory: Path, begun: Mapping[str, Any]) -> None:
    """Raises a ``UserError`` unless an import goes on with what it began with."""
    if not (directory / BEGUN).exists():
        return
    before, again = read_json(directory / BEGUN), f"remove {directory} to import everything anew"
    require(
        before["identity"] == begun["identity"] or before["checkpoints"] != begun["checkpoints"],
        f"the teacher, task, seed and evaluation that the import into {directory} began with",
        "others",
        f"give them again, or {again}",
    )
    old, new = ({_Fact(**row) for row in rows["checkpoints"]} for rows in (before, begun))
    changed = sorted({fact.step for fact in old ^ new})
    require(
        not changed,
        f"the checkpoints that the import into {directory} began with",
        f"others, or none, of the steps {changed}",
        f"put them back, or {again}",
    )


def measured_losses(experiment: Experiment) -> dict[int, float]:
    """Returns the losses of a series on the held-out examples by step, but for checkpoints that cannot be read."""
    sweep = compiled(experiment, teacher_program(experiment))
    losses = {}
    for one in series_of(str(experiment.teacher_training.trajectory)):
        try:
            _, record, _ = _convert(experiment, sweep, one)
        except UserError:  # an audit says which, and why
            continue
        losses[one.step] = _means(record)["loss"]
    return losses


def _describe(experiment: Experiment, series: Sequence[SourceCheckpoint]) -> RunDescription:
    determining = experiment.determining("seed", "evaluation", "task", "teacher")
    return RunDescription(
        role="teacher",
        name="teacher",
        strategies=(),
        budget=series[-1].step,
        # The rate, and whether there was one, is not known here.
        replicas=product_of_replicas(experiment.teacher_training.seeds, (0.0,)),
        starts=(),
        teacher_steps=(),
        identity=digest_of(determining | {"imported": [[one.step, one.name] for one in series]}),
    )


def _pending(
    experiment: Experiment, directory: Path, series: Sequence[SourceCheckpoint], records: Mapping[int, Any]
) -> list[SourceCheckpoint]:
    """Returns the checkpoints that are not in the trajectory, without writing anything where there is none."""
    if not (directory / "trajectory" / IDENTITY).exists():
        return list(series)
    with closing(CheckpointStore(directory / "trajectory", imported_identity(experiment))) as store:
        return [one for one in series if one.step not in store.steps() or one.step not in records]


def _require_sound(experiment: Experiment, series: Sequence[SourceCheckpoint]) -> Audit:
    """Audits a series before anything is converted; says what is likely, and raises for what is certain."""
    found = audit_series(series, {})
    _warn(found.findings)
    certain = [finding for finding in found.findings if finding.kind in REFUSED]
    source = experiment.teacher_training.trajectory
    require(
        not certain,
        f"sound checkpoints in {source}",
        "; ".join(f"{finding.kind}: {finding.what}" for finding in certain),
        f"{'; '.join(dict.fromkeys(finding.remedy for finding in certain))} (python -m pdjax.weights audit {source})",
    )
    return found


def _warn(findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.kind not in REFUSED:
            logger.warning("teacher: %s", finding)


def _convert(
    experiment: Experiment, sweep: Sweep, one: SourceCheckpoint
) -> tuple[Params, dict[str, Any], dict[str, str]]:
    """Returns a checkpoint's parameters as those of the only replica, its record, and what of it is ignored."""
    params, ignored = _read(experiment, one)
    placed = _placed(params, sweep)
    return placed, _evaluate(experiment, sweep, one, placed), ignored


def _read(experiment: Experiment, checkpoint: SourceCheckpoint) -> tuple[Params, dict[str, str]]:
    assert isinstance(experiment.teacher, Transformer)
    try:
        return read_params(checkpoint.folder, experiment.teacher, experiment.task)
    except UserError as error:
        raise error.within(f"step {checkpoint.step}, {checkpoint.name}") from None


def _placed(params: Params, sweep: Sweep) -> Params:
    """Returns a teacher's parameters as those of the only replica."""
    return sharding.put(jax.tree.map(lambda leaf: leaf[None], params), sweep.state.params)


def _evaluate(experiment: Experiment, sweep: Sweep, one: SourceCheckpoint, params: Params) -> dict[str, Any]:
    """Returns the record of a checkpoint's loss and accuracy on the held-out examples."""
    metrics = fetch(sweep.evaluate(params, np.int32(experiment.seed), evaluation_examples(sweep, experiment.seed)))
    sums = {name: [float(part.sum[0]), float(part.count[0])] for name, part in metrics._asdict().items()}
    require(
        bool(np.isfinite(sums["loss"][0])),
        f"a finite held-out loss of step {one.step}, {one.name}",
        f"{sums['loss'][0]}",
        "leave this checkpoint out: its training diverged",
    )
    return {"split": "evaluation", "step": one.step, "replica": 0, **sums}


def _means(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(exact_ratio(*record[name])) for name in ("loss", "accuracy")}


def _write_records(directory: Path, records: Mapping[int, Mapping[str, Any]], history: Sequence[Any] = ()) -> str:
    """Writes the records in order, in the first process, and returns the digest of all of them."""
    if not is_first():
        return ""
    return write_lines(directory / "metrics.jsonl", [*(records[step] for step in sorted(records)), *history])


def _history(series: Sequence[SourceCheckpoint]) -> list[dict[str, Any]]:
    """Returns records of the losses that the source says it had; of each its value alone is known."""
    history = history_of(series)
    if history is None:
        logger.info("teacher: phases are found by the losses measured here, as there are none in a %s", TRAINER_STATE)
        return []
    count, name = len(history.steps), history.name
    logger.info("teacher: phases are found by %d values of %s in %s", count, name, TRAINER_STATE)
    pairs = zip(history.steps.astype(int).tolist(), history.losses.tolist(), strict=True)
    return [
        {"split": "source", "step": step, "replica": 0, "loss": [loss, 1.0], "accuracy": [0.0, 0.0]}
        for step, loss in pairs
    ]


def _announce(
    experiment: Experiment, directory: Path, series: Sequence[SourceCheckpoint], pending: Sequence[SourceCheckpoint]
) -> None:
    """Says what will be done, and refuses where the disk is too small for it."""
    size = disk_bytes(teacher_shape(experiment))
    logger.info(
        "teacher: %d checkpoints of %s, steps %d to %d; %d to convert, which take %.1f MB on disk",
        len(series), experiment.teacher_training.trajectory, series[0].step, series[-1].step, len(pending),
        len(pending) * size / 1e6,
    )  # fmt: skip
    require_space(directory, len(pending) * size, "the imported trajectory")


def _log_ignored(ignored: Mapping[str, str]) -> None:
    """Says which tensors the models do not use, by the reason."""
    for reason, count in Counter(ignored.values()).items():
        first = next(name for name, of_this in ignored.items() if of_this == reason)
        others = f" and {count - 1} more" if count > 1 else ""
        logger.info("teacher: %s%s not used: %s", first, others, reason)
