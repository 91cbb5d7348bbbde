"""The working directory of an experiment: one configuration, and where and with what it began."""

import dataclasses
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from pdjax.errors import UserError
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription, read_description, read_json, write_json
from pdjax.io.source import check_kept, keep, load_kept, sources
from pdjax.settings import determining, make, plain

logger = logging.getLogger("pdjax")

PACKAGES = ("pdjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")


def open_workdir(experiment: Experiment, workdir: Path, configuration: Path | None = None) -> None:
    """Creates a working directory, or checks that it holds this very experiment, and renews what determines no result.

    Args:
      experiment: what it is or will be of.
      workdir: may not exist yet.
      configuration: the file that the experiment comes from, of which a copy is kept.

    Raises:
      UserError: the directory holds another configuration, or files that are no experiment's.
    """
    path, files = workdir / "config.json", sources(experiment, configuration)
    if path.exists():
        check_kept(files, workdir)
        recorded = read_experiment(workdir)
        if recorded.digest != experiment.digest:
            both = [determining(one, defaults=True) for one in (recorded, experiment)]
            raise UserError(
                f"the configuration of {workdir}",
                f"another one ({'; '.join(_differences(*both))})",
                "nothing was changed: choose another --workdir, or remove this one",
            )
        renewed = dataclasses.replace(experiment, placement=recorded.placement)
        if json.dumps(plain(recorded)) != json.dumps(plain(renewed)):
            write_json(path, plain(renewed))
        keep(files, workdir)
        _note_versions(workdir)
        return
    if workdir.exists() and any(workdir.iterdir()):
        raise UserError(
            "an empty or new working directory", f"{workdir} with files but no config.json", "choose another --workdir"
        )
    device = jax.devices()[0]
    environment = {
        "command": ["python", "-m", "pdjax.main", *sys.argv[1:]],
        "date": _now(),
        "versions": _versions(),
        "device": f"{len(jax.devices())} x {device.platform} ({device.device_kind})",
        "cores": os.cpu_count(),
    }
    keep(files, workdir)
    write_json(workdir / "environment.json", environment)
    write_json(path, plain(experiment))


def read_experiment(workdir: Path) -> Experiment:
    """Reads the experiment of a working directory.

    Raises:
      UserError: it was written by another version, in words that this one does not know.
    """
    load_kept(workdir)
    try:
        return make(Experiment, read_json(workdir / "config.json"))
    except UserError as error:
        raise UserError(
            f"a configuration of this version in {workdir}", f"another one ({error})", "go on with the version of it"
        ) from None


def _note_versions(workdir: Path) -> None:
    """Says and records that an experiment goes on under other versions than it was last run with."""
    path = workdir / "environment.json"
    if not path.exists():
        return
    environment, now = read_json(path), _versions()
    later = environment.get("later", [])
    last = later[-1]["versions"] if later else environment["versions"]
    changed = [f"{name} {last.get(name)} -> {now[name]}" for name in now if now[name] != last.get(name)]
    if changed:
        logger.warning("%s goes on under other versions: %s", workdir, ", ".join(changed))
        write_json(path, environment | {"later": [*later, {"date": _now(), "versions": now}]})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    """Returns what bits hang on beside the configuration and the device."""
    packages = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | packages | {"XLA_FLAGS": os.environ.get("XLA_FLAGS")}


def _version(package: str) -> str | None:
    """Returns an installed package's version; None where it runs from its source tree."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _differences(old: Any, new: Any, path: str = "config") -> list[str]:
    """Lists where two nested configurations differ, as ``path: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}")]
    return [] if old == new else [f"{path}: {old} there, {new} here"]


def is_done(directory: Path, description: RunDescription) -> bool:
    """Whether this very run is complete in its directory.

    Raises:
      UserError: the directory holds a complete run of something else.
    """
    if not (directory / "result.json").exists():
        return False
    recorded_run = read_description(directory)
    if recorded_run.identity != description.identity:
        raise UserError(
            f"the run {description.name} of this experiment",
            f"another one in {directory}",
            "its teacher or configuration changed: remove the directory to train it again",
        )
    return True
