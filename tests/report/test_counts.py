"""Students that learn or do not: who is sooner is counted, and tested exactly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pdjax.report.claims.acceleration import F1
from pdjax.report.claims.counts import Contest, case_of_counts, compared, contest
from pdjax.report.groups import Group
from pdjax.report.reading import read_results
from pdjax.tasks.parity import HierarchicalTask

NEVER = 10**9
BUDGET = 1000


def written(workdir: Any, steps: dict[str, Sequence[int]]) -> dict[str, Group]:
    """Writes students of strategies, each of which has learned at a step of its own; returns them by strategy."""
    workdir.parity()
    count = len(next(iter(steps.values())))
    workdir.change(student_training={"seeds": tuple(range(count)), "budgets": (BUDGET,)})
    workdir.start()
    for key, learned in steps.items():
        curves = {step: [0.95 if step >= at else 0.55 for at in learned] for step in range(100, BUDGET + 1, 100)}
        workdir.student(key, BUDGET, curves, [(seed, 1e-3) for seed in range(count)])
    results = read_results(workdir.path)
    return {key: group for (key, _, _), group in results.groups.items()}


def test_of_each_pair_the_one_that_needs_a_tenth_less_is_sooner(workdir: Any):
    first, second = (200, 900, 1000, 500, NEVER, 300, NEVER), (300, 1000, 900, NEVER, 500, 300, NEVER)
    groups = written(workdir, {"two": first, "labels": second})
    # 900 of 1000 is a tenth less; of two that never learn none is sooner.
    assert contest(groups["two"], groups["labels"], 0.9) == Contest(sooner=3, later=2, alike=1, neither=1)
    assert contest(groups["labels"], groups["two"], 0.9) == Contest(sooner=2, later=3, alike=1, neither=1)
    # At an accuracy that all have from the beginning they are alike.
    assert contest(groups["two"], groups["labels"], 0.5) == Contest(0, 0, 7)


def test_tests_are_exact():
    assert Contest(8, 0, 0).p_sooner == pytest.approx(2**-8)
    assert Contest(7, 1, 5).p_sooner == pytest.approx((8 + 1) * 2**-8)
    assert Contest(0, 5, 0).p_later == pytest.approx(2**-5)
    assert Contest(0, 0, 6).p_alike == pytest.approx(2**-6)
    assert Contest(1, 0, 7).p_alike == pytest.approx((8 + 1) * 2**-8)
    assert Contest(2, 0, 20).p_alike == 1  # two of them differ
    assert Contest(0, 0, 2, neither=9).p_alike > 0.9  # nothing is known of those that never learn
    assert Contest(0, 0, 6).p_sooner == 1
    balance = Contest(8, 0, 1).balance
    assert balance is not None
    # Where all of n differ in one way the lower end is at the share p with p^n = 0.025.
    assert (balance.mean, balance.high, balance.size) == (1, 1, 9)
    assert balance.low == pytest.approx(2 * 0.025 ** (1 / 8) - 1)
    assert Contest(0, 0, 3).balance is None


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([200] * 6, [NEVER] * 6, "holds"),
        ([200] * 5, [NEVER] * 5, "undecided"),  # 0.031: five pairs never decide
        ([NEVER] * 6, [800] * 6, "fails"),
        ([800] * 6, [800] * 6, "too small to matter"),
        ([NEVER] * 6, [NEVER] * 6, "undecided"),
        ([200, 200, 200, 800, 800, 800], [800, 800, 800, 200, 200, 200], "undecided"),
    ],
)
def test_verdicts(workdir: Any, first: Sequence[int], second: Sequence[int], verdict: str):
    groups = written(workdir, {"two": first, "labels": second})
    case = case_of_counts("a case", groups["two"], {"labels": groups["labels"]}, 0.9)
    assert case.verdict == verdict
    assert case.p is not None
    assert (case.p <= 0.025) == (verdict != "undecided")
    assert ("would decide it" in case.note) == (verdict == "undecided")


def test_all_baselines_have_to_be_later(workdir: Any):
    groups = written(workdir, {"two": [200] * 6, "one_shot": [NEVER] * 6, "labels": [200] * 6})
    others = {key: groups[key] for key in ("labels", "one_shot")}
    case = case_of_counts("a case", groups["two"], others, 0.9)
    assert (case.verdict, case.p) == ("too small to matter", pytest.approx(2 * 2**-6))
    assert [m.quantity for m in case.measurements] == [
        "learned sooner than labels (sooner 0, later 0, alike 6, neither 0)",
        "learned sooner than one_shot (sooner 6, later 0, alike 0, neither 0)",
    ]


def test_what_is_unfinished_or_the_same_is_not_tested(workdir: Any):
    groups = written(workdir, {"two": [200] * 6, "labels": [NEVER] * 6})
    unfinished = case_of_counts("a case", groups["two"], {"labels": groups["labels"], "one-shot": None}, 0.9)
    assert (unfinished.verdict, unfinished.note) == ("not tested", "unfinished")
    same = case_of_counts("a case", groups["two"], {"itself": groups["two"]}, 0.9)
    assert (same.verdict, same.note) == ("not tested", "the same students")


def test_tasks_that_are_learned_by_degrees_are_compared_by_accuracy(workdir: Any):
    groups = written(workdir, {"two": [200] * 6, "labels": [NEVER] * 6})
    results = read_results(workdir.path)
    counted = compared(results, "a case", groups["two"], {"labels": groups["labels"]})
    assert [m.quantity for m in counted.shown] == ["margin over labels"]
    workdir.parity(HierarchicalTask(dimension=6, degree=2, depth=2))
    workdir.start()
    by_degrees = compared(read_results(workdir.path), "a case", groups["two"], {"labels": groups["labels"]})
    assert [m.quantity for m in by_degrees.measurements] == ["margin over labels"]


def test_f1_of_parities_counts(workdir: Any):
    written(workdir, {"two": [200] * 8, "one_shot": [NEVER] * 8, "labels": [NEVER] * 8})
    (case,) = workdir.cases(F1)
    assert (case.verdict, case.p) == ("holds", pytest.approx(2**-8))


def test_students_of_one_teacher_count_as_one(workdir: Any):
    workdir.parity()
    workdir.change(student_training={"seeds": (0, 1, 2), "budgets": (BUDGET,)}, further_teachers=(4, 6))
    workdir.start()
    steps = {"two": [(200, 200, NEVER), (200, NEVER, NEVER), (200, 200, 200)], "labels": [(NEVER, NEVER, 300)] * 3}
    for place, of in enumerate((workdir, workdir.further(4), workdir.further(6))):
        seeds = of.experiment.student_training.seeds
        for key, learned in steps.items():
            curves = {step: [0.95 if step >= at else 0.5 for at in learned[place]] for step in range(100, 1001, 100)}
            of.student(key, BUDGET, curves, [(seed, 1e-3) for seed in seeds])
    results = read_results(workdir.path)
    first, second = (results.finished(key, None, BUDGET) for key in ("two", "labels"))
    assert first is not None
    assert second is not None
    # Of the first teacher's students two are sooner and one is later, of the second's one and one, which makes them no
    # alike ones; of the third's all are sooner.
    assert contest(first, second, 0.9) == Contest(sooner=2, later=0, alike=0, mixed=1)


def test_verdicts_are_wrong_as_rarely_as_they_say():
    """Of 8 pairs either of which may be sooner: a one-sided test at 0.025 is right in at least 97.5 of 100."""
    rng = np.random.default_rng(0)
    sooner = rng.binomial(8, 0.5, size=4000)
    wrong = np.mean([Contest(int(k), 8 - int(k), 0).p_sooner <= 0.025 for k in sooner])
    assert wrong <= 0.025
    # With the truth on its side it finds that: 8 of 8 where all that differ are sooner in 19 of 20 pairs.
    found = np.mean([Contest(int(k), 8 - int(k), 0).p_sooner <= 0.025 for k in rng.binomial(8, 0.95, size=4000)])
    assert found > 0.6
