"""The losses that a source recorded of its own training."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from pdjax.errors import UserError, require
from pdjax.weights.series import TRAINER_STATE, SourceCheckpoint, read_trainer_state
from pdjax.weights.stored import AGAIN

_NAMES = ("eval_loss", "loss")
"""Held-out losses before those of training, which are means since the entry before."""

logger = logging.getLogger("pdjax")


class History(NamedTuple):
    """Losses by step, E of them."""

    steps: Float[np.ndarray, "E"]  # increasing
    losses: Float[np.ndarray, "E"]  # as the source measured them: in nats, of whatever its data was
    name: str  # "eval_loss" or "loss", training's own


def history_of(series: Sequence[SourceCheckpoint]) -> History | None:
    """Returns the losses in the trainer_state.json of the last checkpoint that has one.

    Held-out losses (``eval_loss``) where there are two or more of them and they reach from the first checkpoint to the
    last or beyond, else training's (``loss``) where these do; where neither does, None, and the log says so. Where a
    training was resumed and repeats steps, what it said before of them and of later ones does not count.

    Raises:
      UserError: the file is damaged, or a loss that is needed is not finite.
    """
    states = ((of.folder / TRAINER_STATE, read_trainer_state(of.folder)) for of in reversed(series))
    file, state = next(((file, state) for file, state in states if state is not None), (None, None))
    if file is None or state is None:
        return None
    first, last = series[0].step, series[-1].step
    entries = _entries(state, file)
    for name in _NAMES:
        history = _history(entries, name, file)
        if len(history.steps) > 1 and history.steps[0] <= first and last <= history.steps[-1]:
            _check_finite(history, file)
            return history
    logger.info("Not using the losses in %s: none reach from step %d to %d", file, first, last)
    return None


def _entries(state: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    entries = state.get("log_history")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"a log_history of JSON objects in {file}", type(entries).__name__, AGAIN)
    return entries


def _history(entries: list[dict[str, Any]], name: str, file: Path) -> History:
    """Returns what entries say of one loss."""
    steps: list[int] = []
    losses: list[float] = []
    for entry in entries:
        if name not in entry:
            continue
        step, loss = entry.get("step"), entry[name]
        if type(step) is not int or step < 0 or type(loss) not in (int, float):
            raise UserError(f"a step and a number with each {name} in {file}", f"step {step!r}, {name} {loss!r}", AGAIN)
        while steps and steps[-1] >= step:
            steps.pop()
            losses.pop()
        steps.append(step)
        losses.append(loss)
    return History(np.array(steps, np.float64), np.array(losses, np.float64), name)


def _check_finite(history: History, file: Path) -> None:
    for step, loss in zip(history.steps, history.losses, strict=True):
        require(
            bool(np.isfinite(loss)),
            f"a finite {history.name} at every step in {file}",
            f"{loss} at step {step:.0f}",
            "leave out the checkpoints from there on, or remove the file, and losses are measured",
        )
