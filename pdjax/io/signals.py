"""SIGTERM and Ctrl-C: the loop saves after the current chunk and the process ends cleanly."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (no error: the user asked for it)
    """Training stopped on a signal after saving; says where."""

    def __init__(self, signal_number: int, where: str):
        self.signal_number = signal_number
        super().__init__(f"{signal.Signals(signal_number).name}: {where}")


class Interrupt:
    """Remembers the first signal that asks the process to end; a second one ends it at once."""

    def __init__(self):
        self.signal_number: int | None = None

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Nothing else here: a signal comes at any moment, amid a file too; it is looked at between chunks and probes.
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Lets signals end the process as they do elsewhere, while it waits for others and there is nothing to save."""
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
