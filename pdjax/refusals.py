"""What the system refuses, in a line that says what to do: no room, no right, no memory, no other process any more."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from pdjax.errors import UserError

_AGAIN = "and run the same command again, which goes on from what is there"
_ELSEWHERE = "choose another directory"

_REMEDIES = {
    errno.ENOSPC: f"free some disk, {_AGAIN}",
    errno.EDQUOT: f"free some of your quota, {_AGAIN}",
    errno.EFBIG: f"allow larger files (ulimit -f, or another file system), {_AGAIN}",
    errno.EIO: f"the disk fails: move the directory to another one, {_AGAIN}",
    errno.EROFS: f"{_ELSEWHERE}, or mount the file system for writing",
    errno.EACCES: f"{_ELSEWHERE}, or get the right to it",
    errno.EPERM: f"{_ELSEWHERE}, or get the right to it",
    errno.ENOTDIR: f"{_ELSEWHERE}, or remove the file that stands where a directory is needed",
    errno.EEXIST: f"{_ELSEWHERE}, or remove the file that stands where a directory is needed",
    errno.EISDIR: f"{_ELSEWHERE}, or remove the directory that stands where a file is needed",
    errno.ELOOP: f"{_ELSEWHERE}: symbolic links lead back to themselves",
    errno.ENAMETOOLONG: "choose shorter names",
    errno.ENOENT: f"see to it that nothing else removes it, {_AGAIN}",
    errno.ESTALE: f"mount the file system again, {_AGAIN}",
    errno.EMFILE: f"allow more open files (ulimit -n), {_AGAIN}",
    errno.ENFILE: f"close other programs, {_AGAIN}",
    errno.ENOMEM: f"close other programs, or use a machine with more memory, {_AGAIN}",
}

_LOST = "Gloo|NCCL.*remote|Barrier timed out|coordination service|[Hh]eartbeat|Connection (reset|closed)|Socket closed"
"""How the libraries between processes say that one of them answers no more."""


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns what the system refuses into the ``UserError`` that says so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error


def refusal(error: BaseException) -> UserError | None:
    """Returns what the system refused, and what to do; None of an error that comes from something else."""
    for one in _causes(error):
        if isinstance(one, OSError) and one.errno is not None:
            names = " to ".join(str(name) for name in (one.filename, one.filename2) if name is not None)
            return _refused(one.errno, names or "a file")
        # TensorStore, which reads and writes arrays, says it in words, of one version or another.
        code = re.search(r"(?:OS error |os_error_code=')(\d+)", str(one))
        if code:
            path = re.search(r'"(/[^"]*)"', str(one))
            return _refused(int(code[1]), path[1] if path else "a file")
        if isinstance(one, MemoryError) or _is_of_memory(one):
            return UserError(
                "memory for what is to be computed",
                f"too little ({str(one).splitlines()[0][:200] if str(one) else 'the system gives no more'})",
                "make batches or models smaller, train fewer replicas at once, or set placement.micro_batches",
            )
        if _is_of_devices(one) and re.search(_LOST, str(one)):
            return UserError(
                "all processes of this run to answer",
                f"one is lost ({str(one).splitlines()[0][:200]})",
                f"see what it said last, {_AGAIN}",
            )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _refused(number: int, names: str) -> UserError:
    return UserError(
        f"{names} to be read or written", os.strerror(number), _REMEDIES.get(number, f"mend that, {_AGAIN}")
    )


def _is_of_memory(error: BaseException) -> bool:
    return _is_of_devices(error) and "RESOURCE_EXHAUSTED" in str(error)


def _is_of_devices(error: BaseException) -> bool:
    # By its name: who reads files alone need not import jax.
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
