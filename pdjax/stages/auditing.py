"""Audits of checkpoints before anything learns from them: series of others, and trajectories of our own."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from pdjax.errors import UserError, require
from pdjax.io.source import load_kept
from pdjax.io.store import CheckpointStore, read_identity
from pdjax.models.base import Architecture, parameter_shapes
from pdjax.settings import opened
from pdjax.tasks.base import Task
from pdjax.types import Params
from pdjax.weights.audit import Audit, Audited, as_csv, audit
from pdjax.weights.checkpoint import is_series, read_config
from pdjax.weights.describe import architecture_of
from pdjax.weights.files import open_weights
from pdjax.weights.history import history_of
from pdjax.weights.layouts import check_weights
from pdjax.weights.names import canonical
from pdjax.weights.series import SourceCheckpoint, series_of
from pdjax.weights.stored import StoredTensor
from pdjax.weights.tokens import tokens_of


def audit_source(source: Path | str, losses: Mapping[int, float] | None = None) -> Audit:
    """Audits a trajectory store, or what ``series_of`` finds.

    Args:
      source: where the checkpoints are.
      losses: of a series, by step; None are those that it recorded itself, where it did.

    Raises:
      UserError: there are no checkpoints, or the records around them are damaged.
    """
    if not is_series(source):
        return audit_trajectory(Path(source))
    series = series_of(source)
    if losses is None:
        history = history_of(series)
        losses = {} if history is None else dict(zip(history.steps.astype(int).tolist(), history.losses, strict=True))
    return audit_series(series, losses)


def audit_series(series: Sequence[SourceCheckpoint], losses: Mapping[int, float]) -> Audit:
    """Audits checkpoints in Hugging Face's format; ``losses`` are those that are known, by step."""
    return audit([_of_folder(one, losses.get(one.step)) for one in series])


def audit_trajectory(directory: Path) -> Audit:
    """Audits a trajectory store, with the held-out losses that were recorded when its checkpoints were saved.

    Raises:
      UserError: its identity is damaged, or of a task or model that this version does not know.
    """
    workdir = directory.absolute().parent.parent
    if (workdir / "config.json").exists():
        load_kept(workdir)  # the task or the model may be of a user's own file
    identity = read_identity(directory)
    require(
        {"task", "model"} <= identity.keys(),
        f"a teacher's trajectory in {directory}",
        f"a store of {', '.join(identity)}",
        "audit <workdir>/teacher/trajectory: others hold several models side by side",
    )
    like = parameter_shapes(opened(Architecture, identity["model"]), opened(Task, identity["task"]))
    with closing(CheckpointStore(directory, identity)) as store:
        # A checkpoint is compared with the one before it, array by array: no more than two are in memory.
        restore = functools.lru_cache(maxsize=2)(functools.partial(store.restore, like=like))
        return audit([_of_store(store, step, like, restore) for step in store.steps()])


def write_audit(found: Audit, directory: Path) -> None:
    """Writes an audit's table and plot into a directory, which may not exist yet: audit.csv and audit.png."""
    from pdjax.weights.audit_figure import save_figure  # with matplotlib, which whoever trains need not wait for

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "audit.csv").write_text(as_csv(found))
    save_figure(found, directory / "audit.png")


def _of_folder(checkpoint: SourceCheckpoint, loss: float | None) -> Audited:
    def open_canonical() -> Mapping[str, StoredTensor]:
        tokens = tokens_of(checkpoint.folder)  # a damaged tokenizer is a finding as well
        config = read_config(checkpoint.folder)
        described = architecture_of(config, None if tokens is None else len(tokens))
        weights, _ = canonical(open_weights(checkpoint.folder), config["model_type"])
        check_weights(weights, described.architecture, described.vocabulary, described.positions)
        return weights

    try:
        vocabulary = tokens_of(checkpoint.folder)
    except UserError:  # raised again where it is opened
        vocabulary = None
    return Audited(checkpoint.step, checkpoint.name, open_canonical, loss, vocabulary)


def _of_store(store: CheckpointStore, step: int, like: Params, restore: Callable[[int], Params]) -> Audited:
    def open_leaves() -> Mapping[str, StoredTensor]:
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
        return {
            name: StoredTensor(
                name, leaf.shape, leaf.dtype.name, store.path(step), functools.partial(_leaf, restore, step, index)
            )
            for index, (name, leaf) in enumerate(leaves.items())
        }

    try:
        loss = store.metrics(step).get("loss")
    except UserError:  # raised again where it is read
        loss = None
    return Audited(step, store.path(step).name, open_leaves, loss)


def _leaf(restore: Callable[[int], Params], step: int, index: int) -> np.ndarray:
    return np.array(jax.tree.leaves(restore(step))[index], np.float32)
