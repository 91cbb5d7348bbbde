"""Kept checkpoints that are gone, as a damaged one was removed, are computed again.

A part of the training is repeated beside the run, in ``recovery/``: from the last training state before the first lost
checkpoint, or from the start, up to the last lost one. The run's own records and states stay what they are; checkpoints
that are passed on the way are compared with those on disk. What is interrupted goes on like any other run.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pdjax.experiment import Loop
from pdjax.io.processes import is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_result, read_run
from pdjax.io.signals import Interrupt
from pdjax.io.store import IDENTITY, CheckpointStore
from pdjax.train.loop import Job, Kept, train_together

logger = logging.getLogger("pdjax")


def lost_checkpoints(
    directory: Path, description: RunDescription, kept: Kept, stores: Sequence[CheckpointStore]
) -> tuple[int, ...]:
    """Returns the steps of checkpoints that a run has kept by now and that one of its stores lacks, increasing."""
    done = _latest_state(directory, description) if read_result(directory) is None else description.budget
    steps: Sequence[int] = [step for step in kept.candidates if step <= (done or 0)]
    if steps and kept.decide is not None:
        curves = read_run(directory).evaluation
        # Records behind the last state belong to steps that are yet to be done again.
        until = curves.steps <= done
        chosen = kept.decide(curves.steps[until].tolist(), list(curves.loss[until]))
        steps = [step for step in steps if step in chosen]
    there = set.intersection(*(set(store.steps()) for store in stores))
    return tuple(step for step in steps if step not in there)


def recover(
    job: Job,
    directory: Path,
    lost: Sequence[int],
    loop: Loop,
    interrupt: Interrupt,
    others: Sequence[Job] = (),
) -> None:
    """Computes the lost checkpoints of a run again, beside the ``others`` with which it was trained.

    Together they begin at the start, as no state but each one's last is there.

    Raises:
      Interrupted: a signal asked to stop; the same command goes on.
      UserError: the machine does not repeat the bits that are there, or a state to go on from is damaged.
    """
    place, description = directory / "recovery", job.description
    earlier = None if others else _latest_state(directory, description, before=lost[0])
    begun = _latest_state(place, description)
    meet("what is there has been seen")
    if is_first():
        # One that was interrupted is past what has been lost since.
        if begun is not None and begun >= lost[0]:
            shutil.rmtree(place)
        if not place.exists():
            _begin(directory, place, earlier)
    meet("the recovery has begun")
    logger.info("%s: checkpoints %s are gone; computed again, up to step %d", description.name, list(lost), lost[-1])
    # Sinks of metrics have seen these steps.
    loop = dataclasses.replace(loop, writers=())
    with contextlib.closing(Progress(f"{description.name} again", lost[-1])) as progress:
        beside = [
            (dataclasses.replace(other, kept=None, keep=None), place / other.description.name) for other in others
        ]
        train_together([(job, place), *beside], loop, interrupt, progress, until=lost[-1])
    if is_first():
        shutil.rmtree(place)


def _latest_state(directory: Path, description: RunDescription, before: int | None = None) -> int | None:
    """Returns the step of a run's last training state, or of the last one before a step; None if there is none."""
    if not (directory / "state" / IDENTITY).exists():
        return None
    with contextlib.closing(CheckpointStore(directory / "state", {"run": description.identity})) as store:
        return max((step for step in store.steps() if before is None or step < before), default=None)


def _begin(directory: Path, place: Path, state: int | None) -> None:
    """Makes the directory of a recovery, which begins with one of the run's states and the records so far."""
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if state is not None:
        checkpoint = f"state/checkpoints/{state}"
        shutil.copytree(directory / checkpoint, partial / checkpoint)
        for name in (f"state/{IDENTITY}", "metrics.jsonl"):
            shutil.copyfile(directory / name, partial / name)
    # Killed before, there is nothing yet; from here on it goes on from its own states.
    os.replace(partial, place)
