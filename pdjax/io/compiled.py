"""Compiled programs on disk: what one process has compiled, the next ones on the same machine read.

JAX's persistent cache does the work. What is added is where it lies, and that nothing in it is trusted: an entry
counts only beside its SHA-256, which is written when a process ends. JAX itself notices entries that are cut off, but
not every changed byte, and these are machine code.
"""

import contextlib
import hashlib
import logging
import platform
from collections.abc import Iterator
from pathlib import Path

import jax
import platformdirs

logger = logging.getLogger("pdjax")

LIMIT = 2**30
"""Bytes, beyond which JAX drops what has not been used for longest."""

SHORTEST = 0.2
"""Seconds of compiling: what takes less is not kept."""

_ENTRY, _USED, _DIGEST = "-cache", "-atime", "-sha256"  # JAX writes the first two


def default_directory() -> Path:
    """Returns where compiled programs lie unless a user says otherwise."""
    return platformdirs.user_cache_path("pdjax") / "compiled"


@contextlib.contextmanager
def keeping_compiled(directory: Path) -> Iterator[None]:
    """Has JAX read compiled programs from a directory and keep new ones there; to be entered before any is compiled.

    Machines that share the directory have a part of it each, as their CPUs may differ in what they can run.

    Raises:
      OSError: it cannot be written.
    """
    part = directory / _machine()
    part.mkdir(parents=True, exist_ok=True)
    sealed = {entry for entry in part.glob(f"*{_ENTRY}") if _is_sealed(entry)}
    # Damaged, or of a process that was killed or still runs, which then only loses what it would have kept.
    for path in (path for suffix in (_ENTRY, _USED, _DIGEST) for path in part.glob(f"*{suffix}")):
        if path.with_name(path.name.rpartition("-")[0] + _ENTRY) not in sealed:
            path.unlink(missing_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(part))
    jax.config.update("jax_compilation_cache_max_size", LIMIT)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    try:
        yield
    finally:
        try:
            for entry in {*part.glob(f"*{_ENTRY}")} - sealed:
                with contextlib.suppress(FileNotFoundError):  # another process may have made room
                    _digest_of(entry).write_bytes(_sha256(entry))
        except OSError as error:  # what the run has done is none the worse
            logger.warning("compiled programs are not kept: %s", error)


def _machine() -> str:
    """Returns a name for machines that can run the same programs."""
    parts = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(FileNotFoundError), open("/proc/cpuinfo") as file:  # Linux alone has it
        parts += sorted({line.strip() for line in file if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _digest_of(entry: Path) -> Path:
    return entry.with_name(entry.name.removesuffix(_ENTRY) + _DIGEST)


def _sha256(entry: Path) -> bytes:
    return hashlib.sha256(entry.read_bytes()).hexdigest().encode()


def _is_sealed(entry: Path) -> bool:
    try:
        return _digest_of(entry).read_bytes() == _sha256(entry)
    except FileNotFoundError:
        return False
