"""benchmarks/verdicts.py: studies of a study's own shape, in which nothing that a claim says is true."""

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pdjax.report.claims import F1, Case
from pdjax.report.claims.judging import judged
from pdjax.report.reading import read_results
from pdjax.report.results import Results

SEEDS = (0, 4, 6, 8, 9)


@pytest.fixture
def script(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    __import__("verdicts")
    return sys.modules["verdicts"]


@pytest.fixture
def study(workdir: Any) -> Results:
    """Five teachers, with each of which progressive students are 0.3 more accurate than all others."""
    workdir.change(student_training={"seeds": (0, 1), "budgets": (100,)}, further_teachers=SEEDS[1:])
    workdir.start()
    for seed in SEEDS:
        of = workdir if seed == 0 else workdir.further(seed)
        for key, accuracy in (("labels", 0.40), ("one_shot", 0.41), ("two", 0.71)):
            finals = [accuracy + 0.001 * seed, accuracy + 0.002 * seed]
            of.student(key, 100, {100: finals}, [(student, 1e-3) for student in of.experiment.student_training.seeds])
    return read_results(workdir.path)


def verdicts(results: Results) -> list[Case]:
    found = F1.measure(results)
    assert isinstance(found, list)
    return judged(found)


def test_students_are_exchanged_within_their_teacher_and_are_no_others(script: Any, study: Results):
    assert [case.verdict for case in verdicts(study)] == ["holds"]
    slim = script.slim(study)
    one = script.shuffled(slim, np.random.default_rng(1))
    seen = {key: set() for key in study.strategies}
    for seed, before in study.by_teacher.items():
        tables = [results.table[results.table.measure == "accuracy"] for results in (before, one.by_teacher[seed])]
        assert Counter(tables[0].value) == Counter(tables[1].value)
        for key, rows in tables[1].groupby("strategy"):
            assert len(rows) == 2
            seen[str(key)].add(round(float(rows.value.mean()), 1))
    assert {len(means) for means in seen.values()} == {2}  # 0.4 and 0.7: with some teachers it is another's


def test_what_is_true_of_a_study_is_not_of_shuffled_ones_unless_it_is_added(script: Any, study: Results):
    slim, rng = script.slim(study), np.random.default_rng(0)
    wrong = script.wrong_verdicts(slim, 20, rng)
    assert wrong["F1"] <= 0.05
    (_, found), *_ = script.powers(slim, [5.0], 5, rng)  # far more than the scatter of what is exchanged
    assert found == 1
