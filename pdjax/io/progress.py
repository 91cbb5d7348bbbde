"""What a person watching sees: one tqdm bar for a stage on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

from pdjax.io.processes import is_first

logger = logging.getLogger("pdjax")

SECONDS_BETWEEN_LINES = 10.0
"""Evaluations come many times a second where models are small: a log of them all is read by nobody."""


class Progress:
    """Shows how far a stage is, with the loss, the accuracy and the time left.

    Args:
      stage: its name.
      total: training steps of all its runs together, or what else ``unit`` says.
      unit: what is counted.
    """

    def __init__(self, stage: str, total: int, unit: str = "step"):
        self._total = total
        self._done = 0
        self._since: float | None = None  # when the last steps were done, if nothing was compiled since
        self._timed, self._seconds = 0, 0.0  # steps, and how long they took
        self._began = time.monotonic()
        self._said = -SECONDS_BETWEEN_LINES
        self._bar = tqdm(total=total, desc=stage, unit=unit) if sys.stderr.isatty() and is_first() else None

    def skip(self, steps: int) -> None:
        """Counts steps that an earlier process has done, which say nothing about this one's speed.

        Called before each run: the first steps that come then compile, which says nothing either.
        """
        self._since = None
        if self._bar is not None:
            # tqdm counts its rate from there: skipped steps took no time.
            self._bar.initial += steps
        self._count(steps)

    def advance(self, steps: int) -> None:
        """Counts steps done."""
        now = time.monotonic()
        if self._since is not None:
            self._timed, self._seconds = self._timed + steps, self._seconds + now - self._since
        self._since = now
        self._count(steps)

    def _count(self, steps: int) -> None:
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)

    def report(self, run: str, step: int, budget: int, loss: float, accuracy: float) -> None:
        """Shows the means over replicas of an evaluation: in a log the last one of a run, and others now and then."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{run} loss={loss:.3f} accuracy={accuracy:.3f}")
            return
        seconds = time.monotonic() - self._began
        if step < budget and seconds - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = seconds
        left = (self._total - self._done) * self._seconds / max(self._timed, 1)
        remaining = f", {left:.0f} s left in this stage" if self._timed else ""
        logger.info("%s %d/%d: loss %.3f, accuracy %.3f%s", run, step, budget, loss, accuracy, remaining)

    def close(self) -> None:
        """Ends the display."""
        if self._bar is not None:
            self._bar.close()
