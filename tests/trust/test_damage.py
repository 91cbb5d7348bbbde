"""Whatever happens to a file of a finished experiment, no number changes without a word, and the remedy works."""

import itertools
import random
import re
import shutil
from pathlib import Path

import pytest

from pdjax.configuration import experiment_of
from pdjax.errors import TrainingError, UserError
from pdjax.io.signals import Interrupt
from pdjax.refusals import refusal
from pdjax.report import results
from pdjax.stages import STAGES
from pdjax.stages.exporting import candidates, restore
from pdjax.stages.run import run_experiment
from tests.fingerprint import read
from tests.minimal import get_config

STAGES = tuple(stage for stage in STAGES if stage != "report")


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _without_line(content, place):
    lines = content.splitlines(keepends=True)
    del lines[place]
    return b"".join(lines)


KINDS = {
    "emptied": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "cut at its end": lambda content: content[:-1],
    "a bit flipped": _flipped,
    "another object": lambda content: b"{}\n",
    "no text": lambda content: b"\xff\x00" * 8,
    "a line less": lambda content: _without_line(content, -1),
    "the first line less": lambda content: _without_line(content, 0),
    "a digit changed": lambda content: content.replace(b"1", b"2", 1),
    "grown": lambda content: content + content[-20:],
    "removed": None,
}


@pytest.fixture(scope="module")
def experiment():
    """Four strategies and a probe of a small MLP."""
    return experiment_of(get_config())


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "work"
    run_experiment(experiment, workdir, STAGES, Interrupt())
    return workdir


@pytest.fixture(scope="module")
def whole(finished):
    """All lines of its fingerprint, and the table of everything that was measured."""
    return read(finished), table_of(finished)


def test_damages_are_noticed_or_change_nothing(experiment, finished, whole, trials, outcomes, tmp_path):
    files = [path for path in finished.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    # Files of arrays have random names: by their sizes they are the same ones each time.
    files.sort(key=lambda path: (path.parent, path.stat().st_size if path.parent.name == "d" else 0, path.name))
    files = [path.relative_to(finished) for path in files]
    every = list(itertools.product(files, KINDS))
    short = random.Random(1).sample([point for point in every if "checkpoints" not in point[0].parts], 14)
    short += random.Random(2).sample([point for point in every if "checkpoints" in point[0].parts], 6)
    count = trials(len(short))
    points = short if count == len(short) else random.Random(0).sample(every, min(count, len(every)))
    for number, (path, kind) in enumerate(points):
        workdir = tmp_path / str(number)
        shutil.copytree(finished, workdir, symlinks=True)
        outcomes(_outcome(experiment, workdir, path, kind, *whole), f"{path} {kind}")
        shutil.rmtree(workdir)


def test_the_last_state_of_finished_students_which_an_export_reads(experiment, finished, whole, tmp_path):
    state = Path("students/labels-160/state")
    files = (finished / state / "checkpoints" / "160" / "state" / "d").iterdir()
    largest = max(files, key=lambda path: path.stat().st_size).relative_to(finished)
    for number, (path, kind) in enumerate([(state / "store.json", "removed"), (largest, "a bit flipped")]):
        workdir = shutil.copytree(finished, tmp_path / str(number), symlinks=True)
        assert _outcome(experiment, workdir, path, kind, *whole) == "noticed, and made again"


def table_of(workdir):
    """Returns everything that was measured, wherever it lies."""
    return results(workdir).drop(columns="workdir", errors="ignore")


def is_part(part, table):
    """Whether all rows are rows of another table, but for whether their runs have ended."""
    columns = [name for name in table if name != "complete"]
    # A probe that counts as unmeasured has no columns either.
    rows, known = (set(one.reindex(columns=columns).astype(str).itertuples(index=False)) for one in (part, table))
    return rows <= known


def restore_all(experiment, workdir):
    """Reads all checkpoints of all models, as their export does."""
    of_teacher = experiment.teacher_training.checkpoints
    for model in candidates(experiment, workdir):
        for step in of_teacher if model.description.role == "teacher" else (model.description.budget,):
            restore(experiment, workdir, model, step)


def removed(said):
    """Returns what a complaint says is to be removed."""
    match = re.search(r"remove (/\S+?)(?= and |,|;|$)", said)
    # Of a checkpoint it says first where it is.
    match = match or re.search(r"in (/\S+); .*remove this checkpoint's directory", said)
    return None if match is None else Path(match[1])


def _outcome(experiment, workdir, path, kind, expected, table):
    place, damage = workdir / path, KINDS[kind]
    content = place.read_bytes()
    if damage is None:
        place.unlink()
    else:
        try:
            damaged = damage(content)
        except IndexError:  # an empty file has no line and no bit
            return "nothing to damage"
        if damaged == content:
            return "nothing to damage"
        place.write_bytes(damaged)
    noticed = False
    try:  # who reads before anything is made again
        now = table_of(workdir)
        # Without it a run has not ended, and says so; what is there is what was there.
        ended = path.name != "result.json" or damage is not None
        if not (now.equals(table) if ended else is_part(now, table)):
            return "changed"
        restore_all(experiment, workdir)
    except UserError:
        noticed = True
    # The same command makes it again, or says what to remove; then it does. A second damage may be behind the first.
    for _ in range(4):
        try:
            run_experiment(experiment, workdir, STAGES, Interrupt())
            table_of(workdir)
            restore_all(experiment, workdir)
            break
        except (UserError, TrainingError) as error:
            noticed = True
            what = removed(str(error))
            if "\n" in str(error):
                return "traceback"
            if what is None:
                return "refused without what to remove"
            shutil.rmtree(what) if what.is_dir() else what.unlink()
        except Exception as error:
            return "traceback" if refusal(error) is None else "refused without what to remove"
    else:
        return "not gone on"
    try:
        if read(workdir) != expected:
            return "changed"
    except ValueError:
        # A finished teacher's training state: its parameters are those of its trajectory.
        if path.parts[:2] != ("teacher", "state"):
            raise
        return "read by nobody"
    return "noticed, and made again" if noticed else "of no effect, or made again"
