"""Users' files: loaded under their names, told apart by content, copied and read again."""

import dataclasses
import sys
import textwrap

import pytest

from pdjax.errors import UserError
from pdjax.experiment import Ablation, Variant
from pdjax.io.source import load
from pdjax.io.workdir import open_workdir, read_experiment
from pdjax.settings import class_name, opened, plain
from pdjax.tasks.base import Task

SELECTION = """
from typing import ClassVar
from pdjax.distill.selection import Chosen, Selection
from pdjax.settings import settings

@settings
class Second(Selection):
    is_given: ClassVar[bool] = True

    def select(self, available, phases):
        return Chosen((available[PLACE], available[-1]), "as I like it")
"""

TASK = """
from pdjax.settings import settings
from pdjax.tasks.pcfg import PcfgTask

@settings
class Mine(PcfgTask):
    pass

"""


@pytest.fixture
def write(tmp_path):
    """Writes files of a user's directory; forgets their modules after the test."""
    before = set(sys.modules)

    def write(directory="mine", **files):
        for name, text in files.items():
            path = (tmp_path / directory).joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path / directory

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def using(tiny, selection):
    first, *others = tiny.strategies
    return dataclasses.replace(tiny, strategies=(dataclasses.replace(first, selection=selection), *others))


def test_a_file_is_loaded_once_and_anew_when_it_or_what_it_imports_changes(write):
    directory = write(
        choosing="from places import PLACE\n" + SELECTION, places="from depth.inner import PLACE",
        depth____init__="", depth__inner="PLACE = 1",
    )  # fmt: skip
    first = load(directory / "choosing.py")
    assert load(directory / "choosing.py") is first
    assert class_name(first.Second) == "choosing:Second"
    assert first.Second().select((8, 16, 24), None).teacher_steps == (16, 24)
    write(depth__inner="PLACE = 0")
    second = load(directory / "choosing.py")
    assert second is not first
    assert second.Second().select((8, 16, 24), None).teacher_steps == (8, 24)
    assert not list(directory.rglob("__pycache__"))


def test_an_import_within_a_function_works_when_it_runs(write):
    directory = write(later="def place():\n    from places import PLACE\n    return PLACE", places="PLACE = 3")
    assert load(directory / "later.py").place() == 3


def test_files_of_the_same_name_elsewhere_are_those_of_their_directory(write):
    one = write("one", choosing="from places import PLACE\n" + SELECTION, places="PLACE = 0")
    other = write("other", choosing="from places import PLACE\n" + SELECTION, places="PLACE = 1")
    steps = [
        load(directory / "choosing.py").Second().select((8, 16, 24), None).teacher_steps
        for directory in (one, other, one)
    ]
    assert steps == [(8, 24), (16, 24), (8, 24)]


def test_what_an_imported_file_defines_is_kept_with_it_and_read_from_the_copy(write, tiny, tmp_path):
    """The configuration's own file defines nothing: its import does."""
    directory = write(asking="from choosing import Second", choosing="PLACE = 1\n" + SELECTION)
    experiment = using(tiny, load(directory / "asking.py").Second())
    workdir = tmp_path / "run"
    open_workdir(experiment, workdir, directory / "asking.py")
    for name in ("asking.py", "choosing.py"):
        assert (workdir / "source" / name).read_bytes() == (directory / name).read_bytes()
        (directory / name).unlink()
    del sys.modules["choosing"], sys.modules["asking"]
    again = read_experiment(workdir)
    assert again.digest == experiment.digest
    assert again.strategies[0].selection.select((8, 16, 24), None).teacher_steps == (16, 24)


def test_changed_source_is_another_experiment_and_the_configurations_file_is_none(write, tiny, tmp_path):
    files = dict(asking="from choosing import Second", choosing="PLACE = 1\n" + SELECTION)
    directory, workdir = write(**files), tmp_path / "run"
    open_workdir(using(tiny, load(directory / "asking.py").Second()), workdir, directory / "asking.py")
    write(asking=files["asking"] + "  # a remark")
    open_workdir(using(tiny, load(directory / "asking.py").Second()), workdir, directory / "asking.py")
    assert "a remark" in (workdir / "source" / "asking.py").read_text()
    write(choosing=files["choosing"] + "# a remark")
    changed = using(tiny, load(directory / "asking.py").Second())
    with pytest.raises(
        UserError,
        match=r"changes in choosing.py; go on with --config=.*source.asking.py, or",
    ):
        open_workdir(changed, workdir, directory / "asking.py")
    assert "a remark" not in (workdir / "source" / "choosing.py").read_text()


def test_a_class_that_no_name_finds_is_refused_before_anything_is_written(write, tiny, tmp_path):
    imports, _, definition = SELECTION.partition("@settings")
    inner = "\nclass Outer:\n" + textwrap.indent(f"@settings{definition}", "    ")
    directory = write(choosing=imports + inner)
    experiment = using(tiny, load(directory / "choosing.py").Outer.Second())
    with pytest.raises(UserError, match=r"found choosing:Outer\.Second; define it outside"):
        open_workdir(experiment, tmp_path / "run", directory / "choosing.py")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("as_data", [True, False])
def test_what_an_ablation_alone_uses_is_kept_and_part_of_what_the_experiment_is(write, tiny, tmp_path, as_data):
    directory, workdir = write(mine=TASK + "LENGTH = 1"), tmp_path / "run"

    def experiment():
        load(directory / "mine.py")
        task = {**plain(tiny.task), "class": "mine:Mine"}
        variant = Variant("mine", {"task": task if as_data else opened(Task, task)})
        return dataclasses.replace(
            tiny, ablations=(Ablation("tasks", "Tasks", (variant,), ("labels",), tiny.student_training.budgets),)
        )

    open_workdir(experiment(), workdir, directory / "mine.py")
    assert (workdir / "source" / "mine.py").read_bytes() == (directory / "mine.py").read_bytes()
    before = experiment().digest
    write(mine=TASK + "LENGTH = 2")
    assert experiment().digest != before
    del sys.modules["mine"]
    assert read_experiment(workdir).digest == before


def test_a_change_of_an_import_is_said_with_the_module_that_imports_it(write, tiny, tmp_path):
    directory, workdir = write(choosing="import shown\nPLACE = 1\n" + SELECTION, shown=""), tmp_path / "run"
    open_workdir(using(tiny, load(directory / "choosing.py").Second()), workdir, directory / "choosing.py")
    write(shown="TITLE = 'another'")
    changed = using(tiny, load(directory / "choosing.py").Second())
    with pytest.raises(
        UserError, match=r"the source of choosing, and of what it imports, .*; found changes in shown\.py; go"
    ):
        open_workdir(changed, workdir, directory / "choosing.py")


def test_a_damaged_copy_is_refused(write, tiny, tmp_path):
    directory, workdir = write(choosing="PLACE = 1\n" + SELECTION), tmp_path / "run"
    open_workdir(using(tiny, load(directory / "choosing.py").Second()), workdir, directory / "choosing.py")
    (workdir / "source" / "choosing.py").write_text(SELECTION)
    with pytest.raises(UserError, match=r"the copy of choosing.py that the experiment began with"):
        read_experiment(workdir)


@pytest.mark.parametrize("name", ["json", "numpy", "pdjax"])
def test_the_name_of_another_module_is_refused(write, name):
    directory = write(**{name: "X = 1"})
    with pytest.raises(UserError, match="the name of a file that is no other module's"):
        load(directory / f"{name}.py")
    assert not hasattr(sys.modules.get(name), "X")


def test_a_file_that_fails_is_not_half_loaded(write):
    directory = write(failing="VALUE = 1\nraise RuntimeError('mine')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"):
            load(directory / "failing.py")
    assert "failing" not in sys.modules
