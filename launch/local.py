"""Starts several processes of pdjax on this machine, as one run.

    python launch/local.py --processes=2 --cpu_devices=2 -- --config=configs/pcfg.py:smoke --workdir=runs/two

What stands behind ``--`` goes to ``python -m pdjax.main`` in every process. Their output carries the process's number.
When one process ends, the run is over: the others are stopped, and its exit status is returned. The same command
continues an interrupted run.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 20
"""For the others to end by themselves once one has."""


def main() -> int:
    """Runs all processes; returns the status of the first one that failed, or 0."""
    arguments = _arguments()
    with socket.socket() as listener:  # a free port, which the first process takes in a moment
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    processes = [_start(index, arguments, coordinator) for index in range(arguments.processes)]
    readers = [threading.Thread(target=_forward, args=(i, p), daemon=True) for i, p in enumerate(processes)]
    for reader in readers:
        reader.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: [p.send_signal(number) for p in processes if p.poll() is None])
    while all(process.poll() is None for process in processes):
        time.sleep(0.1)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        if process.poll() is None:
            process.kill()
    for index, process in enumerate(processes):
        if process.wait():
            print(f"process {index} ended with status {process.returncode}", file=sys.stderr)
    for reader in readers:
        reader.join()
    return next((128 - p.returncode if p.returncode < 0 else p.returncode for p in processes if p.returncode), 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("--cpu_devices", type=int, default=1, help="virtual CPU devices of each")
    parser.add_argument("rest", nargs="*", help="flags of pdjax.main, behind --")
    return parser.parse_args()


def _start(index: int, arguments: argparse.Namespace, coordinator: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pdjax.main", *arguments.rest]
    command += [f"--coordinator={coordinator}", f"--processes={arguments.processes}", f"--process={index}"]
    command += [f"--cpu_devices={arguments.cpu_devices}"]
    environment = os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def _forward(index: int, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(f"[{index}] {line}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
