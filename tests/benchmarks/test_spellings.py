"""What is tried of others' checkpoints: all is read or refused, and the document says so."""

import sys

import pytest

from pdjax.errors import UserError


@pytest.fixture
def wild(root, monkeypatch):
    """The modules of the script, by name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))

    def load(name):
        __import__(name)
        return sys.modules[name]

    return load


def test_the_document_is_what_is_said_now(root, wild, monkeypatch):
    """All but what torch makes, which takes seconds to import, and what takes long to try."""
    case, formats, pickled, script = map(wild, ("wild.case", "wild.formats", "wild.pickled", "spellings"))

    def absent():
        raise case.AbsentError("torch")

    for module in (formats, pickled):
        monkeypatch.setattr(module, "torch_module", absent)
    damaged, series = map(wild, ("wild.damaged", "wild.series"))
    slow = (damaged.files, series.audits)
    monkeypatch.setattr(script, "GROUPS", [make for make in script.GROUPS if make not in slow])
    results = script.try_all()
    everything = [tried for _, group in results for tried in group]
    assert [tried for tried in everything if tried.wrong] == []
    assert 0 < sum(tried.absent for tried in everything) < 20
    said = {group.title: case.rows(tried for tried in tries if not tried.absent) for group, tries in results}
    sections = (root / "docs" / "weights.md").read_text().split("\n## ")[1:]
    written = {
        section.splitlines()[0]: [line for line in section.splitlines() if line.startswith("| ")][2:]
        for section in sections
    }
    for title, rows in said.items():
        assert [row for row in written[title] if "by torch" not in row] == rows


@pytest.mark.parametrize(
    ("refused", "comes", "wrong"),
    [
        (False, "the same", False),
        (True, "the same", True),
        (True, "one line", False),
        (True, "two\nlines", True),
        (False, "one line", True),
        (True, KeyError("x"), True),
        (False, AssertionError("other numbers"), True),
    ],
)
def test_what_counts_as_wrong(wild, refused, comes, wrong):
    case = wild("wild.case")

    def act(folder):
        if isinstance(comes, Exception):
            raise comes
        if "line" in comes:
            raise UserError(f"{comes} of {folder}", "none", "none")
        return comes

    tried = case.try_out(case.Case("it", act, refused))
    assert tried.wrong == wrong
    assert ("FOLDER" in tried.says) == ("line" in str(comes))
    assert ("**WRONG**" in case.rows([tried])[0]) == wrong
