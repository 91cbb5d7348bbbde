"""benchmarks/verdicts.py: studies of a study's own shape, in which nothing that a claim says is true."""

import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pdjax.report.claims import AUTO, F1, Case
from pdjax.report.claims.judging import judged
from pdjax.report.reading import read_results
from pdjax.report.results import Results
from pdjax.report.searches import chosen_steps
from tests.report.test_searches import FIRSTS, searched_by_teachers

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


def test_strategies_lose_what_they_differ_in_on_average_alone(script: Any, study: Results):
    def finals(results: Results):
        tables = [one.table for one in results.by_teacher.values()]
        rows = pd.concat(table[(table.role == "student") & (table.measure == "accuracy")] for table in tables)
        return rows.groupby(["strategy", "teacher_seed", "seed"]).value.mean().unstack("strategy")

    before, after = finals(study), finals(script.leveled(script.slim(study)))
    assert np.ptp(before.mean()) == pytest.approx(0.31)
    np.testing.assert_allclose(after.mean(), before.to_numpy().mean())
    # What strategies differ in with a teacher scatters as it did: an average of five was taken from each of five.
    by_teacher = [table.sub(table.mean(axis=1), axis=0).groupby("teacher_seed").mean() for table in (before, after)]
    spread = [np.asarray(table.var(ddof=ddof)) for table, ddof in zip(by_teacher, (1, 0), strict=True)]
    np.testing.assert_allclose(spread[1], spread[0], atol=1e-15)


def test_f1_beside_one_equal_rival_is_counted(script: Any, study: Results):
    wrong = script.wrong_verdicts(script.leveled(script.slim(study)), 5, np.random.default_rng(0))
    assert wrong["F1 with one equal rival"] <= 0.4  # always, were the rival not as far above the others


def test_students_that_strategies_shared_are_told_apart(script: Any, study: Results):
    shared = {seed: script._with(one, table=one.table.assign(model="same")) for seed, one in study.by_teacher.items()}
    one = script.shuffled(script._with(study, by_teacher=shared), np.random.default_rng(0)).by_teacher[0].table
    assert one[one.role == "student"].groupby("model").strategy.nunique().max() == 1


def test_another_checkpoint_than_the_chosen_one_is_made_better_with_each_teacher(script: Any, workdir: Any):
    searched_by_teachers(workdir, dict(zip(SEEDS, (200, 300, 300, 300, 400), strict=True)), spread=0.0)
    results, rng = read_results(workdir.path), np.random.default_rng(0)
    for one in results.by_teacher.values():
        better = {key for _ in range(40) for key in script.unchosen(one, rng)}
        (chosen,) = {chosen_steps(one, "auto")[0]}
        assert better == {f"c{first}_25" for first in FIRSTS} - {f"c{chosen}_25"}

    unmoved = SimpleNamespace(permutation=lambda one: one)  # baselines have no students here to exchange

    def verdict(margin: float) -> str:
        wrong = script.shuffled(results, unmoved, margin, lambda one: script.unchosen(one, rng))
        (case,) = judged(AUTO.measure(wrong))
        return case.verdict

    # A checkpoint is 0.05 worse with each place from the best: 0.3 more makes any other the best.
    assert [verdict(margin) for margin in (0.0, 0.3)] == ["holds", "fails"]
