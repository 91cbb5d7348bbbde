"""Files of users that define what an experiment uses: loaded once, told apart by their content, kept with the results.

A configuration is a Python file anywhere, which may define tasks, models, losses and all else that ``class`` can name,
and import files beside it. Each is a module under its own name, ``mine`` for ``mine.py``, so that its classes are
``mine:Name`` wherever it lies. The content of the files that define what determines results, and of those that they
import, is part of what an experiment is: nobody can tell what of an import matters. A figure may change at any time in
a file that none of these imports. All that it uses are copied into the working directory, from which a report loads
them again, and a run that is to go on may.
"""

import ast
import hashlib
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from pdjax.errors import require
from pdjax.experiment import Experiment
from pdjax.io.processes import is_first
from pdjax.io.sealed import read_json, write_json
from pdjax.settings import PACKAGE, SOURCE, check_written, choices

DIRECTORY = "source"
"""Of the copies, in a working directory."""

FILES = "files.json"
"""There: the SHA-256 of the files that each module is made of, its own first, and of those of the configuration."""


class _Source(NamedTuple):
    """The files that a module is made of: its own first, then those under ``root`` that it imports."""

    root: Path
    files: tuple[Path, ...]

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by its path from the root."""
        return {str(file.relative_to(self.root)): _sha256(file.read_bytes()) for file in self.files}

    @property
    def digest(self) -> str:
        """Of all files together."""
        # Digests of one length: no two lists of files run together to the same bytes.
        return _sha256("".join(self.digests.values()).encode())


_loaded: dict[str, tuple[_Source, str]] = {}
"""The files of the modules that are loaded, with their digest then."""


def load(path: Path) -> ModuleType:
    """Loads a user's file and those beside it that it imports; what is loaded with the same content is not again.

    Raises:
      UserError: there is no such file, or the name of one is that of another module.
    """
    path = path.resolve()
    require(path.is_file(), "a Python file", path, "correct the path")
    require(path.stem.isidentifier(), "a file name that is an identifier", path.name, "rename the file")
    return _load(path.parent, path.stem, path)


def _load(root: Path, name: str, path: Path) -> ModuleType:
    sources = {_module_name(root, file): _Source(root, _with_imports(root, file)) for file in _with_imports(root, path)}
    for module, source in sources.items():
        if module not in _loaded:
            _check_free(module, source.files[0])
        elif module not in sys.modules or _loaded[module][1] != source.digest:
            # A module that was imported stays what it was then; the file may have changed, or be another directory's.
            sys.modules.pop(module, None)
            del _loaded[module]
    if name in _loaded:
        return sys.modules[name]
    digests = {module: source.digest for module, source in sources.items()}
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nobody asked for files beside theirs
    # For imports of files beside it, and no longer: these are to hide no other module.
    sys.path.insert(0, str(root))
    try:
        importlib.invalidate_caches()
        # All of them now, those too that a function would import when it runs: the path is not there any more then.
        for module in (name, *sources):
            importlib.import_module(module)
    except BaseException:
        # The next import of these names is not to find half a module.
        for module in set(sources) - set(_loaded):
            sys.modules.pop(module, None)
        raise
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = bytecode
    for module, source in sources.items():
        setattr(sys.modules[module], SOURCE, digests[module])
        _loaded[module] = source, digests[module]
    return sys.modules[name]


def _check_free(module: str, file: Path) -> None:
    top = module.partition(".")[0]
    other = importlib.util.find_spec(top)
    if other is None or other.origin is None:  # a directory without __init__.py gives way
        return
    own = (file, *(parent / "__init__.py" for parent in file.parents))
    found = f"{file}, but {top} is {other.origin}"
    require(Path(other.origin).resolve() in own, "the name of a file that is no other module's", found, "rename it")


class Sources(NamedTuple):
    """The users' files that an experiment is made of; those of installed packages stay where they are."""

    classes: Mapping[str, _Source]
    """by the module that defines a class that it uses"""
    determining: frozenset[str]
    """the modules among them whose classes determine results"""
    configuration: Mapping[str, _Source]
    """the file of its configuration, by its module"""


def sources(experiment: Experiment, configuration: Path | None = None) -> Sources:
    """Returns the files that define what an experiment uses, and those of its configuration.

    Raises:
      UserError: a class or value of the experiment could not be found again in them.
    """
    check_written(experiment)
    classes = {name: _loaded[name][0] for name in sorted(_modules_of(experiment) & set(_loaded))}
    of_configuration = {}
    if configuration is not None:
        path = configuration.resolve()
        of_configuration = {path.stem: _Source(path.parent, _with_imports(path.parent, path))}
    return Sources(classes, frozenset(_modules_of(experiment, determining=True)), of_configuration)


def _modules_of(experiment: Experiment, determining: bool = False) -> set[str]:
    return {cls.__module__ for cls in choices(experiment, determining)}


def keep(files: Sources, workdir: Path) -> None:
    """Copies the files of an experiment into its working directory, where they changed."""
    record = {
        "classes": {name: source.digests for name, source in files.classes.items()},
        "configuration": {name: source.digests for name, source in files.configuration.items()},
    }
    if not is_first() or record == _kept(workdir):
        return
    for root, paths in (*files.classes.values(), *files.configuration.values()):
        for path in paths:
            target = workdir / DIRECTORY / path.relative_to(root)
            if path != target.resolve():  # a run may go on with the copies themselves
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    write_json(workdir / DIRECTORY / FILES, record)


def check_kept(files: Sources, workdir: Path) -> None:
    """Raises a ``UserError`` where files that define what determines results have changed since it began."""
    kept = _kept(workdir)
    configuration = workdir / DIRECTORY / f"{next(iter(kept['configuration']), 'none')}.py"
    for name in sorted(files.determining & set(files.classes) & set(kept["classes"])):
        before, now = kept["classes"][name], files.classes[name].digests
        changed = sorted(file for file in {*before, *now} if before.get(file) != now.get(file))
        require(
            not changed,
            f"the source of {name}, and of what it imports, that {workdir} began with",
            f"changes in {', '.join(changed)}",
            f"go on with --config={configuration}, or choose another --workdir",
        )


def load_kept(workdir: Path) -> None:
    """Loads the copies in a working directory that define classes.

    Raises:
      UserError: a copy is damaged.
    """
    root = (workdir / DIRECTORY).resolve()
    for name, files in _kept(workdir)["classes"].items():
        for file, digest in files.items():
            # A damaged copy would be another definition of the same names.
            right = (root / file).exists() and _sha256((root / file).read_bytes()) == digest
            require(right, f"the copy of {file} that the experiment began with", root / file, "restore it")
        _load(root, name, root / next(iter(files)))


def _kept(workdir: Path) -> Mapping[str, dict[str, dict[str, str]]]:
    path = workdir / DIRECTORY / FILES
    return read_json(path) if path.exists() else {"classes": {}, "configuration": {}}


def _with_imports(root: Path, path: Path) -> tuple[Path, ...]:
    """Returns a file and those under the root that it imports, and that those import."""
    # The file itself comes first: a module's own is found by that.
    files = [path]
    for file in files:
        files += [imported for imported in _imported(root, file) if imported not in files]
    return tuple(files)


def _imported(root: Path, path: Path) -> Iterator[Path]:
    names: dict[str, None] = {}  # in order, without repetition
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative imports have a level: a file without a package cannot have them.
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            names |= dict.fromkeys((module, *(f"{module}.{alias.name}" for alias in node.names)))  # modules in packages
    for name in names:
        parts = [part for part in name.split(".") if part]
        # A module runs the __init__.py of every package that it is in.
        inits = [root.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts) + 1)]
        for candidate in (*inits, root.joinpath(*parts).with_suffix(".py")):
            # This package may lie beside the file as well; its versions are recorded, not its files.
            if parts and parts[0] != PACKAGE and candidate.is_file():
                yield candidate


def _module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
