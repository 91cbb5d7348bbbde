"""Metrics of a run on disk: JSONL always, TensorBoard and Weights & Biases when asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from pdjax.errors import UserError
from pdjax.io.processes import is_first
from pdjax.io.records import Replica, RunDescription, read_costs
from pdjax.io.sealed import Journal, read_lines
from pdjax.types import StepMetrics

PARTS = ("loss", "accuracy")


class Sink(Protocol):
    """Somewhere else that metrics go, as plain means."""

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Takes the metrics of one replica at one step."""
        ...

    def close(self) -> None:
        """Flushes and releases everything."""
        ...


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
    directory: Path, resume_step: int | None, seal: str | None, sinks: Iterable[str], description: RunDescription
) -> Writer:
    """Opens the writer of a run in this process; ``sinks`` are those that ``loop.writers`` names."""
    if not is_first():
        return NoWriter()
    return MetricsWriter(directory, resume_step, seal, build_sinks(sinks, directory, description))


class MetricsWriter:
    """Appends a run's metrics to ``metrics.jsonl`` and hands them to further sinks.

    Every mean is written as ``[sum, count]``. Opening the writer to continue from a step drops the records
    behind that step, which a process that was killed may have left: the file's bits do not depend on how
    often a run was resumed.

    Args:
      directory: of the run.
      resume_step: the step of the restored training state; None starts afresh.
      seal: of the records up to that step, as the state says; None if it says none.
      sinks: besides JSONL.

    Raises:
      UserError: the records are not those that the state was saved behind.
    """

    def __init__(self, directory: Path, resume_step: int | None, seal: str | None = None, sinks: Iterable[Sink] = ()):
        path = directory / "metrics.jsonl"
        kept = [] if resume_step is None else _until(read_lines(path, directory).records, resume_step)
        self._metrics = Journal(path, kept, seal, directory)
        self._costs = Journal(directory / "progress.jsonl", read_costs(directory))
        self._sinks = tuple(sinks)

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
            self._metrics.add({"split": split, "step": step, "replica": replica, **pairs})
            for sink in self._sinks:
                sink.write(split, step, replica, {n: s / c if c else float("nan") for n, (s, c) in pairs.items()})

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


def _until(records: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    return [record for record in records if record["step"] <= step]


class TensorBoardSink:
    """TensorBoard event files, one sub-directory for each replica."""

    def __init__(self, directory: Path, replicas: tuple[Replica, ...]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboardX for loop.writers 'tensorboard'",
                "it is not installed",
                "pip install tensorboardX, or pdjax with its extra: pip install -e '.[tensorboard]'",
            ) from None
        self._writers = [
            SummaryWriter(str(directory / "tensorboard" / f"{i}-seed{r.seed}")) for i, r in enumerate(replicas)
        ]

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Adds scalars named ``<split>/<metric>``."""
        for name, value in values.items():
            self._writers[replica].add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes the event files."""
        for writer in self._writers:
            writer.close()


class WandbSink:
    """One Weights & Biases run for each run of pdjax; replicas are separate series."""

    def __init__(self, directory: Path, description: RunDescription):
        try:
            import wandb  # pyright: ignore[reportMissingImports] (an extra)
        except ImportError:
            raise UserError(
                "wandb for loop.writers 'wandb'",
                "it is not installed",
                "pip install wandb, or pdjax with its extra: pip install -e '.[wandb]'",
            ) from None
        # The identity names the run, so that a resumed process continues it instead of opening another.
        identifier = description.identity[:16]
        self._run = wandb.init(
            project="pdjax", name=description.name, id=identifier, resume="allow", dir=str(directory)
        )

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Logs series named ``<split>/<metric>/<replica>``."""
        self._run.log({f"{split}/{name}/{replica}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


def build_sinks(names: Iterable[str], directory: Path, description: RunDescription) -> list[Sink]:
    """Builds the sinks that ``loop.writers`` names."""
    sinks: list[Sink] = []
    for name in names:
        if name == "tensorboard":
            sinks.append(TensorBoardSink(directory, description.replicas))
        else:
            sinks.append(WandbSink(directory, description))
    return sinks
