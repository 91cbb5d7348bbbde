"""Results as they come: one line of JSON for each, and the tables made of them."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "transformers")
LEFT_OUT = "left out for lack of time"


class Records:
    """A file of results, to which every result is added at once; what it holds already is not measured again.

    Args:
      path: of the file.
      until: the time (of ``time.time``) after which no case begins.
      tiny: whether this is a dry run.
      only: words, of which a case's name holds at least one; none stands for all cases.
    """

    def __init__(self, path: Path, until: float, tiny: bool, only: Sequence[str] = ()):
        self.path, self.tiny = path, tiny
        self._until, self._only = until, only

    def lines(self) -> list[dict[str, Any]]:
        """Returns all results so far, in the order in which they came."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def has(self, part: str, case: str) -> bool:
        """Whether a case was measured before."""
        return any((line["part"], line["case"]) == (part, case) for line in self.lines())

    def write(self, part: str, case: str, **values: Any) -> None:
        """Adds a result, and prints it."""
        line = json.dumps({"part": part, "case": case, **values})
        with open(self.path, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{part:10} {case:48} " + ", ".join(f"{key} {_cell(value)}" for key, value in values.items()), flush=True)

    def waiting(self, part: str, cases: list[str]) -> list[str]:
        """Returns the cases that are asked for and not measured yet."""
        asked = [case for case in cases if not self._only or any(word in case for word in self._only)]
        return [case for case in asked if not self.has(part, case)]

    def timely(self, part: str, cases: list[str]) -> Iterator[str]:
        """Yields the cases that are not measured yet, until the time is up; what is left out is written down.

        A case begins only if one as long as they have been on average would end in time.
        """
        waiting = self.waiting(part, cases)
        began = time.time()
        for done, case in enumerate(waiting):
            average = (time.time() - began) / max(1, done)
            if time.time() + average > self._until:
                self.write(part, LEFT_OUT, count=len(waiting) - done, first=case)
                break
            self.current.write_text(json.dumps({"part": part, "case": case}))
            yield case
        self.current.unlink(missing_ok=True)

    @property
    def current(self) -> Path:
        """The file that names the case at work: if its process dies, that case is to blame."""
        return self.path.with_name("current.json")

    @property
    def seconds_left(self) -> float:
        """The seconds that are left, 0 when there are none."""
        return max(0.0, self._until - time.time())


def essence(error: BaseException) -> str:
    """Returns an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def machine(tiny: bool) -> dict[str, Any]:
    """Returns what the results are of: the card, or the processor where there is none, and versions."""
    environment: dict[str, Any] = {"card": card() or _processor(), "python": platform.python_version(), "tiny": tiny}
    environment["XLA_FLAGS"] = os.environ.get("XLA_FLAGS")
    for name in PACKAGES:
        try:
            environment[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            environment[name] = None
    return environment


def card() -> str | None:
    """Returns the name, memory and driver of the first NVIDIA card; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()[0] if result.returncode == 0 and result.stdout else None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def as_tables(lines: list[dict[str, Any]]) -> str:
    """Returns all results as Markdown: a table for each part and each set of columns, in the order of the results."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    measured = {(line["part"], line["case"]) for line in lines}
    for line in lines:
        if line["case"] == LEFT_OUT and (line["part"], line["first"]) in measured:
            continue  # a later call went on from there
        values = {key: value for key, value in line.items() if key != "part"}
        groups.setdefault((line["part"], *values), []).append(values)
    parts = []
    for (part, *columns), rows in groups.items():
        head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
        body = "\n".join(f"| {' | '.join(_cell(row[column]) for column in columns)} |" for row in rows)
        parts.append(f"**{part}**\n\n{head}\n{body}\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
