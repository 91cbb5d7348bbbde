"""Checkpoints on disk: teacher trajectories and the training states from which runs resume.

The only module that talks to Orbax. A store is a directory with an identity (model, task, training: all
that determines its contents), one Orbax checkpoint per step, and beside every checkpoint a record: the
SHA-256 of each array, because a flipped bit in an array file comes back as a wrong number without an
error, and the step and the store that it was written for, because directories are moved, copied and
renamed. A checkpoint that was only partly written, by a process that was killed, does not exist for
readers.
"""

import contextlib
import functools
import hashlib
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from pdjax.errors import UserError, require
from pdjax.experiment import digest_of
from pdjax.io.processes import fetch, is_first, meet
from pdjax.io.sealed import read_json, write_json
from pdjax.types import Params

_PACKED, _OF_ARRAY, _OF_FILES = 0.96, 850, 74_000
"""What a checkpoint takes on disk: bytes for each byte of its arrays, which are compressed, of what describes each
array, and of its 20 files and directories in blocks of 4 KiB. Right within 4 % for models of 5 to 209 arrays."""

IDENTITY = "store.json"
"""The file of a store's identity."""

_UNREADABLE = (ValueError, KeyError, FileNotFoundError)
"""What damaged files raise: bytes that do not decode, a key that changed, a file that is gone."""

Tree = Any
"""A pytree of arrays."""

logger = logging.getLogger("pdjax")


class DamageError(UserError):
    """A checkpoint is not what was saved."""


class CheckpointStore:
    """A directory of checkpoints by step, all of the same tree.

    Args:
      directory: created if it does not exist.
      identity: plain JSON data; an existing store with another one is an error.
      keep: how many of the latest checkpoints stay; None keeps all.
      again: what a user does to have a checkpoint computed again, as an imperative.
      remedy: what a user does about a damaged one where that is not enough.

    Raises:
      UserError: the directory holds a store with another identity.
    """

    def __init__(
        self,
        directory: Path,
        identity: Mapping[str, Any],
        keep: int | None = None,
        again: str = "run again",
        remedy: str | None = None,
    ):
        self.directory = directory.absolute()
        self._again = again
        self._remedy = remedy or f"remove this checkpoint's directory and {again} to recompute it"
        self._identity = digest_of(self._checked(identity))
        # Orbax logs a dozen lines for each checkpoint; its warnings and errors still come through.
        logging.getLogger("absl").setLevel(logging.WARNING)
        # What a save fails with is raised; asyncio would say it again at length, for every array.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        _hush_tensorstore()
        self._manager = ocp.CheckpointManager(
            self.directory / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=None if keep is None else ocp.checkpoint_managers.LatestN(keep),
                # What is written behind a save, such as result.json, says that it is complete.
                enable_async_checkpointing=False,
            ),
        )

    def _checked(self, identity: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the identity on disk, which is this one, and is written if there is none."""
        if not (self.directory / IDENTITY).exists():
            self._check_owner(digest_of(identity))
            write_json(self.directory / IDENTITY, identity)
            return identity
        stored_identity = read_identity(self.directory)
        differing = sorted(k for k in {*stored_identity, *identity} if stored_identity.get(k) != identity.get(k))
        if differing:
            raise UserError(
                f"a store of { ({k: identity.get(k) for k in differing}) }",
                f"{ ({k: stored_identity.get(k) for k in differing}) } in {self.directory}",
                "use another directory, or the configuration that wrote it",
            )
        return stored_identity

    def _check_owner(self, identity: str) -> None:
        """Requires that checkpoints, if there are any without a file that says whose they are, are of an identity."""
        for path in (self.directory / "checkpoints").glob("[0-9]*/record/metadata"):
            try:
                owner = read_json(path).get("store", identity)
            except UserError:  # found again, and said, when the checkpoint is read
                continue
            require(
                owner == identity,
                f"the checkpoints in {self.directory} to be of this experiment, as {IDENTITY} is gone",
                f"those of another (identity {owner[:8]}, here {identity[:8]})",
                "put the file back, or use another directory",
            )

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Returns the step of the last complete checkpoint."""
        steps = self.steps()
        return steps[-1] if steps else None

    def path(self, step: int) -> Path:
        """Returns the directory of a checkpoint."""
        return self.directory / "checkpoints" / str(step)

    def save(
        self, step: int, tree: Tree, metrics: Mapping[str, float] | None = None, behind: str | None = None
    ) -> None:
        """Saves a checkpoint with its digests and metrics; returns when it is complete on disk.

        A step that exists already is compared instead: a run that resumes from before it must reproduce it.

        Args:
          step: of the training.
          tree: of arrays.
          metrics: of them.
          behind: the digest of the records that were written before; None if it says nothing of any.

        Raises:
          UserError: the step exists with other arrays.
        """
        # By all processes together: each has parts of arrays that span several of them.
        host = fetch(tree)
        digests = tree_digests(host)
        if step in self.steps():
            if self._record(step)["digests"] != digests:
                raise UserError(
                    f"step {step} in {self.directory} to repeat with the same bits",
                    "other values than those stored",
                    "the machine or the software changed: remove the directory and train again",
                )
            return
        record = {"step": step, "store": self._identity, "digests": digests, "metrics": dict(metrics or {})}
        record |= {} if behind is None else {"behind": behind}
        # The record is a file like the others: a flipped bit in a metric or a digest is found as well.
        record |= {"sha256": digest_of(record)}
        # Orbax could do this when it opens, but in a thread that outlives short processes; and who only reads
        # must not remove what another process is writing.
        if is_first():
            for leftover in (self.directory / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover)
        meet(f"checkpoint {step} begins")
        # Each process writes its own part of arrays that span several of them.
        content = host if jax.process_count() == 1 else tree
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(content), record=ocp.args.JsonSave(record))
        with _quiet():
            # Without force Orbax skips a step before the latest, silently: one that is gone could not be recomputed.
            self._manager.save(step, args=arguments, force=True)
            self._manager.wait_until_finished()

    def remove(self, step: int) -> None:
        """Removes a checkpoint."""
        self._manager.delete(step)

    def restore(self, step: int, like: Tree) -> Tree:
        """Returns the arrays of a checkpoint as numpy arrays, after comparing their digests.

        Args:
          step: a step of the store.
          like: a tree of arrays or ShapeDtypeStructs with the structure, shapes and dtypes to expect.

        Raises:
          UserError: there is no such step, the tree is another one, the arrays on disk are damaged, or the directory
            was written for another step or store.
        """
        if step not in self.steps():
            raise UserError(f"checkpoint {step} in {self.directory}", f"steps {self.steps()}", "choose one of these")
        record = self._record(step)
        # Compared here, as Orbax casts another dtype silently.
        expected = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in _named_leaves(like)}
        stored = {name: [digest["dtype"], digest["shape"]] for name, digest in record["digests"].items()}
        if expected != stored:
            differing = sorted(k for k in {*expected, *stored} if expected.get(k) != stored.get(k))
            raise UserError(
                f"arrays { ({k: expected.get(k) for k in differing}) }",
                f"{ ({k: stored.get(k) for k in differing}) } in {self.path(step)}",
                "the store belongs to another model",
            )
        # Numpy arrays for numpy arrays: whoever restores them says where they go.
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        try:
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(blank))
            tree = self._manager.restore(step, args=arguments)["state"]
            damaged = [name for name, digest in tree_digests(tree).items() if digest != record["digests"][name]]
        except _UNREADABLE as error:  # a file of arrays or listings that tensorstore or Orbax cannot decode
            raise self._damage(step, _first_line(error)) from error
        if damaged:
            raise self._damage(step, f"another SHA-256 for {damaged}")
        return tree

    def digest(self, step: int) -> str:
        """Returns one digest of all arrays of a checkpoint."""
        return digest_of(self._record(step)["digests"])

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the metrics saved with a checkpoint."""
        return self._record(step)["metrics"]

    def behind(self, step: int) -> str | None:
        """Returns the digest of the records that a checkpoint was saved behind, if it says one."""
        return self._record(step).get("behind")

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()

    def _record(self, step: int) -> dict[str, Any]:
        try:
            # An item of its own: digests and metrics are read without the arrays, as the JSON that Orbax wrote. Through
            # its restore each takes a hundred times as long, and a trajectory has hundreds.
            content = read_json(self.path(step) / "record" / "metadata")
        except UserError as error:
            raise self._damage(step, f"a damaged record ({error.found})") from error
        self._check_place(step, content)
        return content

    def _check_place(self, step: int, record: Mapping[str, Any]) -> None:
        """Requires that a checkpoint was written for this step of this store."""
        if "step" not in record:
            _warn_of_unplaced(self.directory)
        elif (record["step"], record["store"]) != (step, self._identity):
            raise UserError(
                f"step {step} of {self.directory}",
                f"step {record['step']} of {self._owner(record['store'])} in {self.path(step)}",
                "the directory was moved, copied or renamed: give it back the name and place that it was written for, "
                f"or remove it and {self._again} to recompute step {step}",
            )

    def _owner(self, identity: str) -> str:
        """Names the store of an identity: this one, another run's beside it, or one that is not here."""
        if identity == self._identity:
            return "the same store"
        # The other seeds' trajectories of a teacher, and the stores of an experiment's other runs.
        for path in sorted(self.directory.parent.parent.glob(f"*/*/{IDENTITY}")):
            try:
                if digest_of(read_identity(path.parent)) == identity:
                    return str(path.parent)
            except UserError:  # a damaged file of another store says nothing about this one
                continue
        return f"a store that is not here (identity {identity[:8]}, here {self._identity[:8]})"

    def _damage(self, step: int, damage: str) -> DamageError:
        return DamageError(
            f"checkpoint {step} as it was saved",
            f"{damage} in {self.path(step)}",
            f"the files are damaged: {self._remedy}",
        )


def read_identity(directory: Path) -> dict[str, Any]:
    """Reads the identity of a store.

    Raises:
      UserError: its file is damaged.
    """
    return read_json(directory / IDENTITY)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's threads from printing, with their stacks, what a save raises as well."""
    orbax = logging.getLogger("absl")
    level = orbax.level
    orbax.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        orbax.setLevel(level)


@functools.cache
def _hush_tensorstore() -> None:
    """Keeps TensorStore's threads from printing that nobody waits any more for what they read beside a damaged file."""
    others = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        error, of_python = unraisable.exc_value, unraisable.object is not None
        if of_python or not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            others(unraisable)

    sys.unraisablehook = hook


@functools.cache
def _warn_of_unplaced(directory: Path) -> None:
    """Says once that a store is older than what tells its checkpoints apart."""
    if is_first():
        logger.warning(
            "%s was written by a version whose checkpoints do not say their step and store: "
            "whether one was moved or renamed is not checked", directory,
        )  # fmt: skip


def stack(store: CheckpointStore, steps: Sequence[int], like: Params) -> Params:
    """Returns several checkpoints, as numpy arrays with a new leading axis, in the order of ``steps``."""
    trees = [store.restore(step, like) for step in steps]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def tree_digests(tree: Tree) -> dict[str, dict[str, Any]]:
    """Returns dtype, shape and SHA-256 of every array, by its path in the tree."""
    return {name: _array_digest(np.asarray(leaf)) for name, leaf in _named_leaves(tree)}


def tree_bytes(tree: Tree) -> int:
    """Returns the size of all arrays (or ShapeDtypeStructs) of a tree in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def disk_bytes(tree: Tree, models: float = 1) -> int:
    """Returns the bytes of disk that a checkpoint of a tree takes; ``models`` of that size may be stacked in it."""
    return disk_of(models * tree_bytes(tree), len(jax.tree.leaves(tree)))


def disk_of(nbytes: float, arrays: int, checkpoints: int = 1) -> int:
    """Returns the bytes of disk of checkpoints whose arrays have so many bytes together, and are so many in each."""
    return int(_PACKED * nbytes) + checkpoints * (_OF_ARRAY * arrays + _OF_FILES)


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Raises a ``UserError`` unless the disk under a directory has room for that many bytes."""
    # It may not be there yet, and what is refused makes nothing.
    there = next(place for place in (directory.absolute(), *directory.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{needed / 1e6:.1f} MB of free disk for {purpose}",
            f"{free / 1e6:.1f} MB free under {directory}",
            "free some, choose another --workdir, or keep fewer checkpoints",
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _array_digest(array: np.ndarray) -> dict[str, Any]:
    # Of the values in their order: how an array lies in memory changes nothing.
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": content}
