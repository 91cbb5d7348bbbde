"""What is tried with a folder of weights, and what has to come of it: the same numbers, or one line."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdjax.errors import UserError

FOLDER = "FOLDER"
"""Stands for the folder of a case in what is said of it, so that this is the same everywhere."""


class AbsentError(Exception):
    """What makes a case is not installed."""


class Case(NamedTuple):
    """Something that is met in the wild, or a damage."""

    what: str
    act: Callable[[Path], str]
    """Makes it in an empty folder, reads it, compares, and returns what came of it. An ``AssertionError`` says that
    what came of it is wrong; a ``UserError`` refuses it."""

    refused: bool = False  # whether it has to be
    of: str = ""  # which model it is tried with


class Tried(NamedTuple):
    """A case, and what came of it."""

    case: Case
    says: str
    wrong: bool  # neither what has to be, nor a refusal in one line where that has to be
    absent: bool = False


class Group(NamedTuple):
    """Cases of one kind."""

    title: str
    about: str
    cases: Sequence[Case]


class _Messages(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def try_out(case: Case) -> Tried:
    """Tries a case in a folder of its own, which is gone afterwards."""
    logger, messages = logging.getLogger("pdjax"), _Messages()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(messages)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would be a second line
        folder = Path(name).resolve() / "case"
        folder.mkdir()
        try:
            tried = _outcome(case, folder)
        finally:
            logger.removeHandler(messages)
            logger.setLevel(level)
            logger.propagate = propagate
    said = "".join(f"; it says: {text}" for text in messages.texts)
    return tried._replace(says=(tried.says + said).replace(str(folder), FOLDER))


def _outcome(case: Case, folder: Path) -> Tried:
    try:
        says, wrong = case.act(folder), case.refused
    except AbsentError as error:
        return Tried(case, f"left out: {error} is not installed", False, absent=True)
    except UserError as error:
        says = str(error)
        wrong = not case.refused or len(says.splitlines()) != 1 or not says.isprintable()
    except Exception as error:
        says, wrong = f"{type(error).__name__}: {error}", True
    return Tried(case, says, wrong)


def rows(tried: Iterable[Tried]) -> list[str]:
    """Returns rows of a Markdown table; cases that differ in their model alone share one."""
    models: dict[tuple[str, str], list[str]] = {}
    for case, says, wrong, _ in tried:
        key = case.what, f"**WRONG**: {says}" if wrong else says
        models.setdefault(key, []).append(case.of)
    return [
        f"| {_cell(what)}{f' ({of})' if (of := ', '.join(filter(None, names))) else ''} | {_cell(says)} |"
        for (what, says), names in models.items()
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("\\*\\*", "**")
