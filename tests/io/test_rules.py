"""Rules are known by what they are written in, and an experiment knows those it began under."""

import shutil
from pathlib import Path

import pytest

from pdjax.io import rules
from pdjax.io.sealed import read_json, write_json
from pdjax.io.workdir import open_workdir

PACKAGE = Path(rules.__file__).parents[1]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of what rules are written in, and the module's place in it."""
    root = tmp_path / "pdjax"
    for patterns in rules.SOURCES.values():
        for file in [file for pattern in patterns for file in PACKAGE.glob(pattern)]:
            place = root / file.relative_to(PACKAGE)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    monkeypatch.setattr(rules, "__file__", str(root / "io" / "rules.py"))
    return root


def test_every_source_of_a_rule_is_there():
    assert all(list(PACKAGE.glob(pattern)) for patterns in rules.SOURCES.values() for pattern in patterns)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("distill/phases.py", "selection"),
        ("stages/tuning.py", "tuning"),
        ("report/claims/judging.py", "decisions"),
        ("report/stats.py", "decisions"),
        ("report/variants.py", "decisions"),
        ("tasks/parity.py", "decisions"),
        ("stages/run.py", "selection"),
    ],
)
def test_an_edited_rule_is_another_one(copied, file, part):
    before = rules.digests()
    assert rules.changed(before) == [] == rules.changed({})
    (copied / file).write_text((copied / file).read_text() + "CHANGED = True\n")
    assert rules.changed(before) == [part]


def test_a_new_claim_is_another_rule(copied):
    before = rules.digests()
    (copied / "report/claims/new.py").write_text("")
    assert rules.changed(before) == ["decisions"]


def test_an_experiment_that_goes_on_under_other_rules_says_so(tiny, copied, tmp_path, caplog):
    workdir = tmp_path / "run"
    open_workdir(tiny, workdir)
    began = read_json(workdir / "environment.json")
    assert began["rules"] == rules.digests()
    (copied / "distill/selection.py").write_text("# others")
    for _ in range(2):  # once is enough
        open_workdir(tiny, workdir)
    (record,) = caplog.records
    assert "goes on under other rules" in record.getMessage()
    environment = read_json(workdir / "environment.json")
    assert environment["rules"] == began["rules"]
    assert [later["rules"] for later in environment["later"]] == [rules.digests()]


def test_a_directory_from_before_rules_were_recorded_goes_on_in_silence(tiny, tmp_path, caplog):
    open_workdir(tiny, tmp_path)
    began = {name: value for name, value in read_json(tmp_path / "environment.json").items() if name != "rules"}
    write_json(tmp_path / "environment.json", began)
    open_workdir(tiny, tmp_path)
    assert not caplog.records
    assert read_json(tmp_path / "environment.json") == began
