"""Several processes as one program: joining them, and what only one of them may do.

Every process runs the same code on the same configuration. Arrays on the mesh span all processes; files lie on a
file system that all of them see, records are written by the first process, and checkpoints by all together.
"""

import atexit
import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from typing import Any

import jax
import numpy as np
from jax._src import clusters, distributed  # neither the queues nor the store of the processes have a public name
from jax.experimental import multihost_utils

from pdjax.errors import TrainingError, UserError, require
from pdjax.io.signals import ending_at_once

logger = logging.getLogger("pdjax")

HEARTBEAT_SECONDS = 30
"""A process that is silent for so long is lost, and the others end."""

_FAILED = "pdjax/failed"
"""The key under which a process that fails says so."""

_GRACE_SECONDS = 5
"""The first process keeps the store: so long it stays for the others to read."""

_ending = threading.Event()
"""Whether this process is about to end, and looks no more at whether others failed."""

_MARKS = {  # environment variables that say how many processes there are
    "SLURM": "SLURM_NTASKS",
    "OpenMPI": "OMPI_COMM_WORLD_SIZE",
    "GKE": "NUM_PROCESSES",
}


_STEP = "SLURM_STEP_NODELIST"
"""Which nodes the processes of a step are on: srun says it, an allocation alone does not."""


def join(mode: str, coordinator: str | None, count: int | None, index: int | None, devices: int | None) -> None:
    """Joins the processes of a run, before any device is used.

    Args:
      mode: ``auto`` joins where SLURM or OpenMPI started several processes; ``on`` asks the environment (these, GKE,
        Cloud TPU) in any case; ``off`` runs alone.
      coordinator: ``host:port`` of the first process, given with ``count`` and ``index`` instead of an environment.
      count: processes.
      index: of this one.
      devices: virtual devices of this process on a CPU; None leaves it as it is.

    Raises:
      UserError: the flags contradict each other, or the processes do not find each other.
    """
    given = [value is not None for value in (coordinator, count, index)]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --processes and --process together", f"{coordinator}, {count}, {index}", "give all or none"
        )
    if coordinator is not None and count is not None and index is not None:
        _check_given(coordinator, count, index)
    # The number is read once, when the first device is asked for.
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", devices)
    if mode == "off" or not (all(given) or mode == "on" or several_started()):
        return
    # It would take SIGTERM for itself, and nobody would save: pdjax.io.signals is who listens.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if not all(given):
            _check_found()
        with ending_at_once():  # it waits for minutes
            jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except UserError:
        raise
    except (RuntimeError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0][:300]
        remedy = "start all processes with the same --coordinator, or run alone with --distributed=off"
        raise UserError("processes that find each other", f"{type(error).__name__}: {first}", remedy) from error
    _watch()


def _check_given(coordinator: str, count: int, index: int) -> None:
    """Requires numbers that fit each other, and of the first process a port that nobody has."""
    host, _, port = coordinator.rpartition(":")
    right = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    require(right, "--coordinator=host:port with a port from 1 to 65535", coordinator, "correct it")
    require(count >= 1, "--processes of at least 1", count, "correct it")
    require(0 <= index < count, f"--process from 0 to {count - 1}, as there are {count}", index, "correct it")
    if index == 0:
        _require_free(port, "in --coordinator", "choose another one")


def _check_found() -> None:
    """Requires the same of the port that SLURM's or OpenMPI's job number gives."""
    queues = (kind for kind in clusters.ClusterEnv._cluster_types if kind.name in ("ompi", "slurm"))
    found = next((kind for kind in queues if kind.is_env_present()), None)  # as JAX takes it
    if found is not None and found.get_process_id() == 0:
        asked = os.environ.get("JAX_COORDINATOR_PORT")
        address = found.get_coordinator_address(timeout_secs=None, override_coordinator_port=asked)
        remedy = "set JAX_COORDINATOR_PORT to another one in all processes"
        _require_free(address.rpartition(":")[2], "for the job", remedy)


def _require_free(port: str, what: str, remedy: str) -> None:
    with socket.socket() as listener:  # XLA crashes where another has the port
        # As servers do: a connection that has ended a moment ago is in nobody's way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", int(port)))
        except OSError as error:
            raise UserError(f"a free port of this machine {what}", f"{error.strerror} ({port})", remedy) from None


def _watch() -> None:
    """Ends this process when another one fails: it would wait for that one for ever."""

    def watch() -> None:
        while not _ending.is_set():
            try:
                code, _, words = _store().blocking_key_value_get(_FAILED, 1000).partition(" ")
            except jax.errors.JaxRuntimeError:  # nobody has failed in this second, or the store has gone
                _ending.wait(0.1)
                continue
            if not _ending.is_set():
                logger.error("another process failed: %s", words)
                os._exit(int(code))  # it cannot meet the others once more, as leaving otherwise would

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def end() -> None:
        _ending.set()
        thread.join()

    # Before JAX takes leave of the store, at which the thread looks.
    atexit.register(end)


def fail(code: int, error: Exception) -> None:
    """Tells the other processes why this one fails, and ends it; returns where there are none.

    Args:
      code: with which all of them exit.
      error: what they say of it; of one that is no message to a user, the traceback is printed.
    """
    if _store() is None or distributed.global_state.num_processes == 1:
        return
    _ending.set()
    if not isinstance(error, UserError | TrainingError):
        traceback.print_exception(error)
    # The store has gone with the first process, or another one, for which this one fails, has said more.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _store().key_value_set(_FAILED, f"{code} {type(error).__name__}: {error}")
    if distributed.global_state.process_id == 0:
        time.sleep(_GRACE_SECONDS)
    os._exit(code)


def _store() -> Any:
    return distributed.global_state.client


def several_started() -> bool:
    """Whether SLURM, OpenMPI or GKE started this process as one of several.

    Raises:
      UserError: what the environment says of them is no number.
    """
    # Started alone by one of them, a process has nobody to wait for.
    several = [name for name, variable in _MARKS.items() if _number(variable) > 1]
    if several == ["SLURM"] and not os.environ.get(_STEP):
        # Of an allocation without a step: nobody else was started.
        logger.warning("SLURM allocates %s tasks, and this process was started without srun: it runs alone",
                       os.environ[_MARKS["SLURM"]])  # fmt: skip
        return False
    return bool(several)


def _number(variable: str) -> int:
    """Returns how many processes a variable of the environment says there are; 1 where it is empty or not there."""
    value = os.environ.get(variable) or "1"
    remedy = "start the processes with srun or mpirun, or run alone with --distributed=off"
    require(value.isdecimal(), f"a number of processes in {variable}", repr(value), remedy)
    return int(value)


def is_first() -> bool:
    """Whether this process writes the records."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until all processes are here: what one wrote before, others may read after."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def require_same(what: str, digest: str) -> None:
    """Requires that something is the same in all processes.

    Raises:
      UserError: it is not; in all of them.
    """
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(bytes.fromhex(digest[:16]), np.int32)
    if not (np.asarray(multihost_utils.process_allgather(mine)) == mine).all():
        raise UserError(f"the same {what} in all processes", "others", "start all of them with the same command")


def fetch(tree: Any) -> Any:
    """Returns a tree's arrays as numpy arrays, whole, in every process."""
    return jax.tree.map(_fetch, tree)


def agree(value: int) -> int:
    """Returns the largest of all processes' values."""
    if jax.process_count() == 1:
        return value
    # Zero stands for nothing to say (no signal, no records): whoever has something decides for all.
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def _fetch(leaf: Any) -> np.ndarray:
    # Parts that lie elsewhere are gathered, put together along the axes that they were split on. A replicated array is
    # here whole, although some of its copies are not.
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)
