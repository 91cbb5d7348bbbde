"""What a person watching sees: a tqdm bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger("pdjax")


class Progress:
    """Shows a run's progress: steps done, loss, accuracy and the time left.

    Args:
      name: of the run.
      start: steps done before this process.
      total: steps of the whole run.
    """

    def __init__(self, name: str, start: int, total: int):
        self._name, self._start, self._total = name, start, total
        self._began = time.monotonic()
        self._bar = tqdm(total=total, initial=start, desc=name, unit="step") if sys.stderr.isatty() else None

    def advance(self, step: int) -> None:
        """Takes note of the number of steps done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def report(self, step: int, loss: float, accuracy: float) -> None:
        """Shows the means over replicas of an evaluation."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")
            return
        done = step - self._start
        elapsed = time.monotonic() - self._began
        left = f"{elapsed / done * (self._total - step):.0f} s left" if done else "starting"
        logger.info("%s %d/%d: loss %.3f, accuracy %.3f, %s", self._name, step, self._total, loss, accuracy, left)

    def close(self) -> None:
        """Ends the display."""
        if self._bar is not None:
            self._bar.close()
