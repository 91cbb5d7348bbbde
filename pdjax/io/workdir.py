"""The working directory of an experiment: one configuration, and where and with what it began."""

import dataclasses
import datetime
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pdjax.errors import UserError
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription, read_result
from pdjax.io.rules import digests
from pdjax.io.sealed import read_json, write_json
from pdjax.io.source import check_kept, keep, load_kept, sources
from pdjax.io.surroundings import changes, surroundings
from pdjax.settings import Aside, ByName, Grows, determining, is_settings, make, marked, named, plain

logger = logging.getLogger("pdjax")


def open_workdir(experiment: Experiment, workdir: Path, configuration: Path | None = None) -> None:
    """Begins a working directory, or checks that it holds this experiment, and renews what determines no result.

    An experiment may grow: what it has more than the recorded one changes nothing that is there.

    Whatever else is in the directory stays there. Where the configuration is gone, it is written again: all that has
    been computed says itself what it belongs to.

    Args:
      experiment: what it is or will be of.
      workdir: may not exist yet.
      configuration: the file that the experiment comes from, of which a copy is kept.

    Raises:
      UserError: the directory holds another configuration, which is no part of this one.
    """
    path, files = workdir / "config.json", sources(experiment, configuration)
    if path.exists():
        check_kept(files, workdir)
        recorded = read_experiment(workdir)
        if recorded.digest != experiment.digest:
            if changed := list(_changes(recorded, experiment)):
                raise UserError(
                    f"the configuration of {workdir}, or one that has more",
                    f"another one ({'; '.join(changed)})",
                    "nothing was changed: choose another --workdir, or remove this one",
                )
            logger.info("%s: the experiment has grown; what is there stays, and what it lacks is trained", workdir)
        renewed = dataclasses.replace(experiment, placement=recorded.placement)
        if json.dumps(plain(recorded)) != json.dumps(plain(renewed)):
            write_json(path, plain(renewed))
        keep(files, workdir)
        _note_surroundings(workdir)
        return
    keep(files, workdir)
    _note_surroundings(workdir)
    # Last: where it is, the others are.
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


def _note_surroundings(workdir: Path) -> None:
    """Records where and with what an experiment begins; says and records that it goes on elsewhere or with others."""
    path, now = workdir / "environment.json", {**surroundings(), "rules": digests()}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if not path.exists():
        write_json(path, {"command": ["python", "-m", "pdjax.main", *sys.argv[1:]], "date": date, **now})
        return
    environment = read_json(path)
    before = [environment, *environment.get("later", [])][-1]
    changed, other_rules = changes(before, now), before.get("rules", now["rules"]) != now["rules"]
    if other_rules:
        logger.warning(
            "%s goes on under other rules of choosing or deciding: what was chosen stays, and its page says so",
            workdir,
        )
    if changed:
        logger.warning(
            "%s goes on elsewhere (%s): sums may round otherwise, and what is computed again may have other bits",
            workdir,
            ", ".join(changed),
        )
    if changed or other_rules:
        write_json(path, {**environment, "later": [*environment.get("later", []), {"date": date, **now}]})


def _changes(old: Any, new: Any, path: str = "config") -> Iterator[str]:
    """Yields where settings differ from recorded ones by more than what these may grow by: ``path: old, new``."""
    if not (is_settings(old) and type(old) is type(new)):
        yield from _differences(determining(old, defaults=True), determining(new, defaults=True), path)
        return
    for name, marks in marked(type(old)):
        place, before, now = f"{path}.{name}", getattr(old, name), getattr(new, name)
        if Aside in marks or (Grows in marks and before is None and is_settings(now)):
            continue
        if ByName in marks:
            there, here = (named(one or ()) for one in (before, now))
            for key in there if Grows in marks else {**there, **here}:
                yield from _changes(there.get(key), here.get(key), f"{place}.{key}")
        elif not (Grows in marks and isinstance(before, tuple) and isinstance(now, tuple) and {*before} <= {*now}):
            yield from _changes(before, now, place)


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """Yields where plain data differ, as ``path: old there, new here``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield f"{path}: {old} there, {new} here"


def is_done(directory: Path, description: RunDescription) -> bool:
    """Whether this very run is complete in its directory.

    Raises:
      UserError: the directory holds a complete run of something else.
    """
    result = read_result(directory)
    # Without the one it is not complete, without the other not readable; both are written where it ends.
    if result is None or not (directory / "run.json").exists():
        return False
    if result["identity"] != description.identity:
        raise another_run(description.name, directory)
    return True


def another_run(name: str, directory: Path) -> UserError:
    """Returns what says that a directory holds another run than the one of that name."""
    return UserError(
        f"the run {name} of this experiment",
        f"another one in {directory}",
        "its teacher or configuration changed: remove the directory to train it again",
    )
