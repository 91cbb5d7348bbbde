"""Where metrics go besides JSONL: TensorBoard, and Weights & Biases.

Each gets every point once, however often a run was resumed, and the configuration. None of them is needed: one that
fails gets no more, and nothing stops.
"""

import importlib.util
import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pdjax.errors import require
from pdjax.io.sealed import read_json, write_json
from pdjax.train.replicas import Replica

logger = logging.getLogger("pdjax")

_LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Sink(Protocol):
    """Somewhere else that metrics go, as plain means."""

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Takes the metrics of one replica at one step; of a resumed run from the beginning again."""
        ...

    def close(self) -> None:
        """Flushes and releases everything."""
        ...


class TensorBoardSink:
    """TensorBoard event files, one sub-directory for each replica, written anew where a run is resumed."""

    def __init__(self, directory: Path, replicas: tuple[Replica, ...], configuration: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        # Event files can only grow, and points of steps that a killed process had reached come again.
        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
        names = (f"{number}-seed{replica.seed}" for number, replica in enumerate(replicas))
        self._writers = [SummaryWriter(str(directory / "tensorboard" / name)) for name in names]
        for writer in self._writers:
            writer.add_text("configuration", f"```\n{json.dumps(configuration, indent=2)}\n```")

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Adds scalars named ``<split>/<metric>``."""
        for name, value in values.items():
            self._writers[replica].add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes the event files."""
        for writer in self._writers:
            writer.close()


class WandbSink:
    """One Weights & Biases run for each run of a directory; replicas are separate series."""

    def __init__(self, directory: Path, name: str, configuration: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports] (an extra)

        # A resumed process continues it; the same run in another directory is another one.
        path = directory / "wandb.json"
        if not path.exists():
            write_json(path, {"id": uuid.uuid4().hex})
        identifier = read_json(path)["id"]
        self._run = wandb.init(
            project="pdjax", name=name, id=identifier, resume="allow", dir=str(directory), config=dict(configuration)
        )

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Logs series named ``<split>/<metric>/<replica>``, of steps that are not there yet."""
        # It drops steps that go back, with a warning for each.
        if step >= self._run.starting_step:
            self._run.log({f"{split}/{name}/{replica}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


class Spared:
    """A sink without which a run goes on where it fails."""

    def __init__(self, name: str, sink: Sink):
        self._name, self._sink = name, sink
        self._failed = False

    def write(self, split: str, step: int, replica: int, values: dict[str, float]) -> None:
        """Hands the metrics on."""
        self._try("write", split, step, replica, values)

    def close(self) -> None:
        """Closes the sink."""
        self._try("close")

    def _try(self, method: str, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._sink, method)(*arguments)
        except Exception as error:  # whatever a library, a disk or a network does
            self._failed = True
            _warn(self._name, error)


def require_installed(names: Iterable[str]) -> None:
    """Raises a ``UserError`` where the library of a sink that ``loop.writers`` names is not installed."""
    for name in names:
        library = _LIBRARIES[name]
        found = importlib.util.find_spec(library)
        require(
            # A directory of the name, such as that in which wandb keeps runs, has no origin.
            found is not None and found.origin is not None,
            f"{library} for loop.writers {name!r}",
            "it is not installed",
            f"pip install {library}, or pdjax with its extra: pip install -e '.[{name}]'",
        )


def open_sinks(
    names: Iterable[str], directory: Path, run: str, replicas: tuple[Replica, ...], configuration: Mapping[str, Any]
) -> list[Sink]:
    """Opens the sinks that ``loop.writers`` names.

    Args:
      names: ``tensorboard``, ``wandb``.
      directory: of the run.
      run: its name.
      replicas: of the run.
      configuration: of the experiment, as plain data.
    """
    sinks: list[Sink] = []
    for name in names:
        try:
            if name == "tensorboard":
                sink = TensorBoardSink(directory, replicas, configuration)
            else:
                sink = WandbSink(directory, run, configuration)
        except Exception as error:  # whatever a library, a disk or a network does
            _warn(name, error)
        else:
            sinks.append(Spared(name, sink))
    return sinks


def _warn(name: str, error: Exception) -> None:
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    logger.warning("%s fails and gets no more of this run (%s); metrics.jsonl has all of it", name, what)
