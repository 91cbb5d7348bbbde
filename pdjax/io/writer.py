"""Metrics of a run on disk, and on their way to further sinks."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from pdjax.io.processes import is_first
from pdjax.io.records import RunDescription, read_costs
from pdjax.io.sealed import Journal, read_lines
from pdjax.io.sinks import Sink, open_sinks
from pdjax.types import StepMetrics

PARTS = ("loss", "accuracy")


class Writer(Protocol):
    """What records the metrics of a run."""

    @property
    def seal(self) -> str:
        """The digest of all metrics so far."""
        ...

    def write(self, split: str, step: int, metrics: StepMetrics) -> None:
        """Takes the metrics of all replicas at a step; the arrays have shape [R]."""
        ...

    def write_measured(self, step: int, values: Float[np.ndarray, "R K"]) -> None:
        """Takes how far each replica of an adaptive run is with each of its teachers."""
        ...

    def write_cost(self, step: int, seconds: float, peak_memory: int) -> None:
        """Takes what a chunk has cost: wall-clock seconds, and the most bytes of memory so far."""
        ...

    def flush(self) -> None:
        """Makes all records durable."""
        ...

    def close(self) -> None:
        """Flushes and releases everything."""
        ...


class NoWriter:
    """The writer of all processes but the first: what they measure is the same."""

    seal = ""

    def write(self, split: str, step: int, metrics: StepMetrics) -> None:
        """Drops the metrics."""

    def write_measured(self, step: int, values: Float[np.ndarray, "R K"]) -> None:
        """Drops them too."""

    def write_cost(self, step: int, seconds: float, peak_memory: int) -> None:
        """Drops what differs from process to process."""

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """There is nothing to close."""


def open_writer(
    directory: Path,
    resume_step: int | None,
    seal: str | None,
    sinks: Iterable[str],
    description: RunDescription,
    configuration: Mapping[str, Any],
) -> Writer:
    """Opens the writer of a run in this process; ``sinks`` are those that ``loop.writers`` names."""
    if not is_first():
        return NoWriter()
    # Once the records are known to be right, as TensorBoard's files are written anew from them.
    opened = functools.partial(open_sinks, sinks, directory, description.name, description.replicas, configuration)
    return MetricsWriter(directory, resume_step, seal, opened)


class MetricsWriter:
    """Appends a run's metrics to ``metrics.jsonl`` and hands them to further sinks.

    Every mean is written as ``[sum, count]``. Opening the writer to continue from a step drops the records
    behind that step, which a process that was killed may have left: the file's bits do not depend on how
    often a run was resumed.

    Args:
      directory: of the run.
      resume_step: the step of the restored training state; None starts afresh.
      seal: of the records up to that step, as the state says; None if it says none.
      sinks: opens those besides JSONL.

    Raises:
      UserError: the records are not those that the state was saved behind.
    """

    def __init__(
        self,
        directory: Path,
        resume_step: int | None,
        seal: str | None = None,
        sinks: Callable[[], Sequence[Sink]] = tuple,
    ):
        path = directory / "metrics.jsonl"
        kept = [] if resume_step is None else _until(read_lines(path, directory).records, resume_step)
        self._metrics = Journal(path, kept, seal, directory)
        self._costs = Journal(directory / "progress.jsonl", read_costs(directory))
        self._sinks = sinks()
        for record in kept:
            self._tell(record)

    @property
    def seal(self) -> str:
        """The digest of all metrics so far."""
        return self._metrics.seal

    def write(self, split: str, step: int, metrics: StepMetrics) -> None:
        """Writes the metrics of all replicas at a step; the arrays have shape [R]."""
        parts = {name: getattr(metrics, name) for name in PARTS}
        for replica in range(len(np.asarray(metrics.loss.sum))):
            # Records hold every bit of a float64: what is decided from them is what was decided live.
            pairs = {n: [float(part.sum[replica]), float(part.count[replica])] for n, part in parts.items()}
            record = {"split": split, "step": step, "replica": replica, **pairs}
            self._metrics.add(record)
            self._tell(record)

    def write_measured(self, step: int, values: Float[np.ndarray, "R K"]) -> None:
        """Writes how far each replica of an adaptive run is with each of its teachers; to JSONL alone."""
        for replica, row in enumerate(values.tolist()):
            self._metrics.add({"split": "measured", "step": step, "replica": replica, "values": row})

    def write_cost(self, step: int, seconds: float, peak_memory: int) -> None:
        """Writes what a chunk has cost to a file of its own, as it differs from run to run."""
        self._costs.add({"step": step, "seconds": round(seconds, 4), "peak_memory_bytes": peak_memory})

    def flush(self) -> None:
        """Makes all records durable; called before the training state of their step is saved."""
        self._metrics.flush()
        self._costs.flush()

    def close(self) -> None:
        """Closes the files and the sinks."""
        self._metrics.close()
        self._costs.close()
        for sink in self._sinks:
            sink.close()

    def _tell(self, record: Mapping[str, Any]) -> None:
        """Hands a record's means to the sinks."""
        if record["split"] == "measured":
            return
        parts = {name: record[name] for name in PARTS}
        means = {name: total / count if count else float("nan") for name, (total, count) in parts.items()}
        for sink in self._sinks:
            sink.write(record["split"], record["step"], record["replica"], means)


def _until(records: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    return [record for record in records if record["step"] <= step]
