"""Files of users that define what an experiment uses: loaded once, told apart by their content, kept with the results.

A configuration is a Python file anywhere, which may define tasks, models, losses and all else that ``class`` can name,
and import files beside it. It is loaded under the name of the file, ``mine`` for ``mine.py``, so that its classes are
``mine:Name`` wherever it lies. The content of files that define what an experiment uses determines its results; they
are copied into the working directory, from which a report loads them again, and a run that is to go on may.
"""

import ast
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pdjax.errors import require
from pdjax.experiment import Experiment
from pdjax.io.processes import is_first
from pdjax.io.records import read_json, write_json
from pdjax.settings import SOURCE, choices

DIRECTORY = "source"
"""Of the copies, in a working directory; ``files.json`` there says which file each class comes from."""

_files: dict[str, tuple[Path, ...]] = {}
"""By the names of loaded modules: their file, and those beside it that it imports."""


def load(path: Path) -> ModuleType:
    """Loads a user's file under its name; a file of the same name and content is the module that is there.

    Raises:
      UserError: there is no such file, or its name is that of another module.
    """
    path, name = path.resolve(), path.stem
    require(path.is_file(), "a Python file", path, "correct the path")
    files = (path, *_imported(path, {path}))
    source = _digest(files)
    if name in _files:
        if getattr(sys.modules[name], SOURCE) == source:
            return sys.modules[name]
    else:
        other = importlib.util.find_spec(name) if name.isidentifier() else None
        same = other is not None and other.origin is not None and Path(other.origin).resolve() == path
        free = name.isidentifier() and (other is None or same)
        require(free, "a file name that is an identifier and no other module's", path.name, "rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCE, source)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    _files[name] = files
    return module


def keep(experiment: Experiment, workdir: Path) -> None:
    """Copies the files that define what an experiment uses; nothing where it uses this package alone."""
    if not is_first():
        return
    digests = _used(experiment)
    for name, files in digests.items():
        for file in files:
            target = workdir / DIRECTORY / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_files[name][0].parent / file, target)
    if digests:
        write_json(workdir / DIRECTORY / "files.json", digests)


def check_kept(experiment: Experiment, workdir: Path) -> None:
    """Raises a ``UserError`` where the files that define what an experiment uses have changed since it began."""
    path = workdir / DIRECTORY / "files.json"
    kept, used = read_json(path) if path.exists() else {}, _used(experiment)
    for name in sorted(set(kept) & set(used)):
        changed = sorted(file for file in {*kept[name], *used[name]} if kept[name].get(file) != used[name].get(file))
        require(
            not changed,
            f"the source that {workdir} began with",
            f"changes in {', '.join(changed)}",
            f"go on with --config={workdir / DIRECTORY / f'{name}.py'}, or choose another --workdir",
        )


def _used(experiment: Experiment) -> dict[str, dict[str, str]]:
    """Returns the digests of the files of the users' modules that define what an experiment uses, by module."""
    names = sorted({cls.__module__ for cls in choices(experiment)} & set(_files))
    return {
        name: {str(file.relative_to(_files[name][0].parent)): _digest([file]) for file in _files[name]}
        for name in names
    }


def load_kept(workdir: Path) -> None:
    """Loads the copies in a working directory, for those modules that are not loaded.

    Raises:
      UserError: a copy is damaged.
    """
    path = workdir / DIRECTORY / "files.json"
    if not path.exists():
        return
    for name, files in read_json(path).items():
        for file, digest in files.items():
            copy = workdir / DIRECTORY / file
            right = copy.exists() and _digest([copy]) == digest
            require(right, f"the copy of {file} that the experiment began with", copy, "restore it")
        if name not in _files:
            load(workdir / DIRECTORY / f"{name}.py")


def _imported(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Yields the files beside a file that it imports, and those that they import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names.add(node.module)
    for name in sorted(names):
        parts = name.split(".")
        for candidate in (path.parent.joinpath(*parts).with_suffix(".py"), path.parent.joinpath(*parts, "__init__.py")):
            if candidate.is_file() and candidate not in seen and parts[0] != "pdjax":
                seen.add(candidate)
                yield candidate
                yield from _imported(candidate, seen)


def _digest(files: list[Path] | tuple[Path, ...]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
