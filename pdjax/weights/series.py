"""The checkpoints of one training as others leave them: which folders they are in, in the order of their steps.

A source is one of::

    run/step_20k, run/step-100k, ...           folders beside each other: branches of a repository, say
    run/checkpoint-500, ..., run               what transformers' Trainer writes, with the final model around
    hub/models--owner--name                    a model in the hub's cache with a revision for each step: refs/step3000
    hub/models--owner--name-step_*             models in the hub's cache, one for each step
    runs/seed_0-step_*, runs/*/model           any pattern of folders, or of a cache's refs/stage1-step*

The step is the number behind ``step``, ``global_step``, ``iter`` or ``checkpoint`` in a name, 20k and 1.5M being 20000
and 1500000; other numbers, such as that of a seed, are none. Names without such a number are never guessed at. Each
checkpoint is a folder: several files of weights in one, step_500.safetensors and so on, are refused.
"""

import decimal
import glob
import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pdjax.errors import UserError, require
from pdjax.weights.files import SUFFIXES, holds_weights, unique_json
from pdjax.weights.stored import AGAIN, listed, shown

TRAINER_STATE = "trainer_state.json"
"""Where transformers' Trainer keeps how far it is, and what it measured."""

_KEYWORDS = ("global[-_]?step", "steps?", "iter(?:ation)?s?", "checkpoint|ckpt")
"""What a step stands behind; the first that a name has counts: ``epoch_2-checkpoint_3-step_500`` is step 500."""

_STEP = (
    r"(?<![a-z])(?:{})[-_=.]*"
    r"(?P<number>[0-9]++(?:\.[0-9]++)?+)(?P<unit>[km]?+)"
    r"(?:(?P<further>[-_.,][0-9])|(?![a-z0-9]))"
)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}

_UNFINISHED = re.compile(r"(?<![a-z])te?mp(?![a-z])")
"""How tools name a folder that they are still writing: ``tmp-checkpoint-500``."""

_UNSTEPPED = ("main", "master")
"""Branches that repeat one of the others, commonly the last."""

_MAGIC = re.compile(r"[*?[]")

logger = logging.getLogger("pdjax")


class SourceCheckpoint(NamedTuple):
    """A checkpoint of somebody's training."""

    step: int
    folder: Path  # what ``open_weights`` takes
    name: str  # as the source calls it


class _Candidate(NamedTuple):
    path: Path  # what the source has: a folder, or a reference of the hub's cache
    folder: Path  # where its weights are to be; need not exist
    name: str  # what is to have a step in it


def series_of(source: Path | str) -> tuple[SourceCheckpoint, ...]:
    """Returns the checkpoints of a source in increasing step; no file of weights is opened.

    Args:
      source: a folder, or a path whose last components have the characters ``*?[`` of a pattern.

    Raises:
      UserError: there is none, two have one step, one has a name without a step, or weights are not there.
    """
    source = Path(source)
    if not source.exists() and _MAGIC.search(str(source)):
        return _in_order(_matches(source), source)
    require(source.is_dir(), "a folder of checkpoints, or a pattern", f"{source}, which is none", "name another")
    candidates = _inside(source)
    if not holds_weights(source):
        return _in_order(candidates, source)
    if not any(holds_weights(of.folder) and _step_in(of.name) is not None for of in candidates):
        return (_alone(source),)
    series = _in_order(candidates, source)
    return tuple(sorted((*series, *_final(source, series))))


def read_trainer_state(folder: Path) -> dict[str, Any] | None:
    """Returns the contents of a folder's trainer_state.json, where there is one.

    Raises:
      UserError: it is damaged.
    """
    file = folder / TRAINER_STATE
    if not file.is_file():
        return None
    state = unique_json(file.read_bytes(), str(file))
    step = state.get("global_step")
    require(type(step) is int and step >= 0, f"a global_step in {file}", repr(step), AGAIN)
    return state


def _matches(pattern: Path) -> list[_Candidate]:
    """Returns what a pattern matches; names begin with its first component that is one."""
    fixed = next(i for i, part in enumerate(pattern.parts) if _MAGIC.search(part))
    root = Path(*pattern.parts[:fixed])
    paths = [Path(path) for path in sorted(glob.glob(str(pattern)))]
    _check_no_single_files(paths, root)
    candidates = []
    for path in paths:
        if path.is_dir() or not path.exists():
            candidates.append(_Candidate(path, _weights_of(path), _named(path, root)))
        elif (cache := _cache_around(path)) is not None:
            candidates.append(_referred(path, cache))
    return candidates


def _inside(source: Path) -> list[_Candidate]:
    """Returns what may be a checkpoint in a folder, or in a cache."""
    if _is_cache(source):
        return _references(source) or [_Candidate(source, _weights_of(source), _named(source, source.parent))]
    children = [path for path in sorted(source.iterdir()) if not path.name.startswith(".")]
    _check_no_single_files(children, source)
    folders = [path for path in children if path.is_dir() or not path.exists()]  # a link that leads nowhere is missed
    # Snapshots have the names of commits, unless somebody links them by their steps.
    if _is_cache(source.parent) and not any(_step_in(path.name) is not None for path in folders):
        return _references(source.parent)
    return [_Candidate(path, _weights_of(path), _named(path, source)) for path in folders]


def _is_cache(folder: Path) -> bool:
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


def _cache_around(path: Path) -> Path | None:
    """Returns the cache that a path is a reference in."""
    return next((at.parent for at in path.parents if at.name == "refs" and _is_cache(at.parent)), None)


def _references(cache: Path) -> list[_Candidate]:
    """Returns the references of a cache; none unless one has a step."""
    paths = [path for path in sorted((cache / "refs").rglob("*")) if path.is_file()]
    candidates = [_referred(path, cache) for path in paths]
    if not any(_step_in(of.name) is not None for of in candidates):
        return []
    snapshots = {path.name for path in (cache / "snapshots").iterdir() if path.is_dir()}
    for commit in sorted(snapshots - {of.folder.name for of in candidates}):
        logger.info("Leaving out the snapshot %s of %s: no reference leads there", commit, cache)
    return candidates


def _referred(reference: Path, cache: Path) -> _Candidate:
    name = reference.relative_to(cache / "refs").as_posix()
    return _Candidate(reference, _snapshot(reference, cache), name)


def _snapshot(reference: Path, cache: Path) -> Path:
    commit = reference.read_text().strip()
    require(
        re.fullmatch("[0-9a-zA-Z]+", commit) is not None,
        f"the commit of a snapshot in {reference}",
        repr(commit[:60]),
        "download this revision again",
    )
    return cache / "snapshots" / commit


def _weights_of(folder: Path) -> Path:
    """Returns where the weights of a folder are: in it, or in the snapshot of its main revision."""
    if not _is_cache(folder):
        return folder
    main = folder / "refs" / "main"
    if main.is_file():
        return _snapshot(main, folder)
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    require(
        len(snapshots) < 2,
        f"one revision in {folder / 'snapshots'}, or {main} to say which",
        listed(path.name for path in snapshots),
        "remove the others, or download the model again",
    )
    return snapshots[0] if snapshots else folder / "snapshots"


def _named(path: Path, root: Path) -> str:
    """Returns a path's name within its source, and of a cache the model's name on the hub."""
    parts = path.relative_to(root).parts
    return "/".join(part.removeprefix("models--").replace("--", "/") for part in parts)


def _step_in(name: str) -> int | None:
    """Returns the step that a name has; that of its last component which has one."""
    for part in reversed(name.split("/")):
        if (found := _number_in(part)) is not None:
            return _value(found, name)
    return None


def _number_in(part: str) -> re.Match[str] | None:
    """Returns where the step is in a component of a name."""
    for keyword in _KEYWORDS:
        matches = list(re.finditer(_STEP.format(keyword), part.lower()))
        require(
            len({found.group("number", "unit") for found in matches}) < 2
            and not any(found["further"] for found in matches),
            "one number as a checkpoint's step in its name",
            shown(part),
            "name it with step_NUMBER alone, by a link, say, or leave it out by a pattern",
        )
        if matches:
            return matches[0]
    return None


def _value(found: re.Match[str], name: str) -> int:
    """Returns a step as a number; in decimals, as 1.1k is 1100.0000000000002 in floats."""
    step = decimal.Decimal(found["number"]) * _UNITS[found["unit"]]
    require(step == int(step), "a whole number of steps in a checkpoint's name", shown(name), "rename it")
    return int(step)


def _check_no_single_files(paths: Iterable[Path], source: Path) -> None:
    files = [path.name for path in paths if path.suffix in SUFFIXES and path.is_file()]
    files = [name for name in files if _step_in(Path(name).stem) is not None]
    require(
        not files,
        f"a folder for each checkpoint in {source}",
        f"files of weights: {listed(files)}",
        "move each into a folder of its own, such as step_500/model.safetensors or step_500/pytorch_model.bin, with a "
        "config.json beside it",
    )


def _in_order(candidates: list[_Candidate], source: Path) -> tuple[SourceCheckpoint, ...]:
    """Returns the checkpoints among candidates by step; says what is left out, and refuses what is not clear."""
    steps = [_step_in(of.name) for of in candidates]
    stepped = [(step, of) for step, of in zip(steps, candidates, strict=True) if step is not None]
    _check_names([of for step, of in zip(steps, candidates, strict=True) if step is None], stepped, source)
    _check_weights([of for _, of in stepped], source)
    require(
        len(stepped) > 0,
        f"checkpoints in {source}: folders or revisions named by their steps, such as step_20k or checkpoint-500",
        listed(of.name for of in candidates) if candidates else "no folder",
        "name the folder that they are in, or a pattern of theirs such as runs/seed_0-step_*",
    )
    by_step: dict[int, list[_Candidate]] = defaultdict(list)
    for step, of in stepped:
        by_step[step].append(of)
    for step, (first, *others) in by_step.items():
        require(
            not others,
            f"one checkpoint of step {step} in {source}",
            listed(of.name for of in (first, *others)),
            f"name those of one training by a pattern, such as {_pattern(first.path)}",
        )
    return tuple(sorted(SourceCheckpoint(step, of.folder, of.name) for step, of in stepped))


def _check_names(others: list[_Candidate], stepped: list[tuple[int, _Candidate]], source: Path) -> None:
    """Refuses weights under names without a step; says which branches and references are left out."""
    named = {of.folder.resolve() for _, of in stepped}
    unnamed = []
    for path, folder, name in others:
        if name.split("/")[-1] in _UNSTEPPED or path.is_file():
            logger.info("Leaving out %s of %s: it has no step", name, source)
        elif holds_weights(folder) and folder.resolve() not in named:
            unnamed.append(name)
    pattern = _pattern(stepped[0][1].path) if stepped else "runs/seed_0-step_*"
    require(
        not unnamed,
        f"a step in the name of each checkpoint in {source}, such as step_20k or checkpoint-500",
        listed(unnamed),
        f"rename or link them, or name the others by a pattern, such as {pattern}",
    )


def _check_weights(stepped: list[_Candidate], source: Path) -> None:
    """Refuses what is named as a checkpoint and holds none, or is still being written."""
    unfinished = [of.name for of in stepped if _UNFINISHED.search(of.name.lower())]
    require(not unfinished, f"finished checkpoints in {source}", listed(unfinished), "finish or remove them")
    empty = [of.name for of in stepped if not holds_weights(of.folder)]
    require(
        not empty,
        f"weights in every checkpoint of {source}",
        f"none in {listed(empty)}",
        "complete the download, remove what is no checkpoint, or name the others by a pattern",
    )


def _pattern(path: Path) -> str:
    """Returns a pattern of one checkpoint and those that differ from it in the step alone."""
    parts = list(path.parts)
    for i in reversed(range(len(parts))):
        if (found := _number_in(parts[i])) is not None:
            begin, end = found.start("number"), found.end("unit")
            parts[i] = f"{parts[i][:begin]}*{parts[i][end:]}"
            break
    return str(Path(*parts))


def _alone(folder: Path) -> SourceCheckpoint:
    """Returns a folder that is itself the only checkpoint."""
    step, state = _step_in(folder.resolve().name), read_trainer_state(folder)
    if step is None and state is not None:
        step = _final_step(state)
    if step is None:
        raise UserError(
            f"checkpoints in {folder}, or its own step, in its name or {TRAINER_STATE}",
            "the weights of one model alone",
            "name the folder that the training's checkpoints are in, or name this one by its step",
        )
    return SourceCheckpoint(step, folder, folder.resolve().name)


def _final(folder: Path, series: tuple[SourceCheckpoint, ...]) -> list[SourceCheckpoint]:
    """Returns the model around checkpoints where it is one of the series, else says why it is left out."""
    state = read_trainer_state(folder)
    step = None if state is None else _final_step(state)
    if step is None:
        reason = f"no {TRAINER_STATE} says its step" if state is None else "it may be the best, not the last"
    elif step in {checkpoint.step for checkpoint in series}:
        reason = f"a checkpoint beside it has its step {step}"
    else:
        return [SourceCheckpoint(step, folder, folder.resolve().name)]
    logger.info("Leaving out the model in %s itself: %s", folder, reason)
    return []


def _final_step(state: dict[str, Any]) -> int | None:
    """Returns the step of the model that a Trainer saved at the end; None where that may have been an earlier one."""
    best, last = state.get("best_model_checkpoint"), state["global_step"]
    # Trainer may load its best checkpoint at the end, and does not say whether it did.
    return last if best is None or _step_in(Path(best).name) == last else None
