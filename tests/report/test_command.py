"""The report by a command of its own."""

import logging

import pytest

from pdjax.report.__main__ import main


@pytest.fixture
def call(capsys):
    """Calls the command; returns its exit code and what it logged."""
    logger, root = logging.getLogger("pdjax"), logging.getLogger()
    before = logger.propagate, root.handlers[:], root.level

    def call(*arguments):
        logger.propagate = True
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err.splitlines()

    yield call
    logger.propagate, root.handlers[:], root.level = before


def test_it_writes_reports_and_says_verdicts(finished, call):
    code, said = call(finished.path)
    assert code == 0
    assert said[0] == f"report: {finished.path}/report/index.html"
    assert (finished.path / "report" / "index.html").exists()
    assert [line.split()[0] for line in said[1:]] == ["F1", "gap"]
    assert "holds in 1 of 2, undecided in 1  +0.100 [+0.075, +0.125] margin over" in said[1]


def test_what_an_experiment_has_recorded_so_far_is_a_report(workdir, call):
    workdir.start()
    assert call(workdir.path)[0] == 0
    assert "No results of the teacher are recorded here." in (workdir.path / "report" / "index.html").read_text()


def test_a_directory_that_is_no_experiments_is_left_alone(tmp_path, call):
    code, said = call(tmp_path)
    assert code == 2
    assert "error: expected an experiment's working directory, with config.json in it" in said[-1]
    assert list(tmp_path.iterdir()) == []
