"""A working directory belongs to the one process, or group of processes, that writes to it."""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import filelock

from pdjax.errors import UserError

logger = logging.getLogger("pdjax")

LOCK, HOLDER = ".lock", ".lock-holder"
"""The operating system lets go of the one when its process ends, however it ends; the other says whose it is."""


@contextlib.contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Keeps all others from writing to a directory, which is made if it is not there.

    Raises:
      UserError: another process writes to it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    lock, holder = filelock.FileLock(workdir / LOCK), workdir / HOLDER
    try:
        lock.acquire(blocking=False)
    except NotImplementedError:  # some network file systems
        logger.warning("%s cannot be locked: see to it that nothing else writes to it", workdir)
    except filelock.Timeout:
        raise UserError(
            f"a directory that nobody writes to ({workdir})",
            f"{_read(holder)} at work",
            "wait for it, stop it, or choose another",
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


def _read(holder: Path) -> str:
    try:
        return holder.read_text()
    except FileNotFoundError:  # it has the lock for a moment only
        return "another process"
