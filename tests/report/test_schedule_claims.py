"""Claims of section D.2: shares of the teacher's length, and gaps that shrink with the budget."""

from typing import Any

import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import TeacherSplit
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.report.claims.schedules import GAP, KAPPA

LOW, HIGH = (0.40, 0.42, 0.41), (0.60, 0.61, 0.62)


def split(workdir: Any, *more: Strategy) -> None:
    """Asks for two shares of the teacher's 400 steps, and students shorter and longer than that."""
    shares = {"kappa_1": 0.5, "kappa_2": 1.0, "less": 0.25}  # the last is none that the claim is about
    kappas = [Strategy(key, schedule=TeacherSplit(kappa), selection=Equal(2)) for key, kappa in shares.items()]
    workdir.add(*kappas, *more)
    workdir.change(student_training={"budgets": (100, 400)})
    workdir.start()


@pytest.mark.parametrize(("first", "second", "verdicts"), [(HIGH, LOW, ["holds", "fails"]), (LOW, LOW, ["undecided"])])
def test_half_of_the_length_is_for_short_students(workdir: Any, first: Any, second: Any, verdicts: list[str]):
    split(workdir, Strategy("other", Distillation(0.5), TeacherSplit(1.0), Equal(2)))  # in its temperature too
    for key, accuracies in (("kappa_1", first), ("kappa_2", tuple(a + 1e-4 * i for i, a in enumerate(second)))):
        for budget in (100, 400):
            workdir.student(key, budget, {budget: accuracies})
    short, long = workdir.cases(KAPPA)
    assert short.name.startswith("100 steps, fewer than the teacher’s: ")
    assert long.name.startswith("400 steps, no fewer than the teacher’s: ")
    assert [short.verdict, long.verdict][: len(verdicts)] == verdicts
    assert [case.measurements[0].interval.mean > 0 for case in (short, long)] == [first is HIGH, first is LOW]


def test_variants_have_cases_of_their_own(workdir: Any):
    kappas = [Strategy(f"kappa_{k}", schedule=TeacherSplit(k / 2), selection=Equal(2), budgets=(400,)) for k in (1, 2)]
    workdir.add(*kappas)
    workdir.change(student_training={"budgets": (100, 400)})
    workdir.ablation("size", {"more": {"student": {"num_heads": 4}}}, [400], strategies=("kappa_1", "kappa_2"))
    workdir.start()
    variant = workdir.variant("size", "more")
    variant.student("kappa_1", 400, {400: LOW})
    variant.student("kappa_2", 400, {400: HIGH})
    own, of_variant = workdir.cases(KAPPA)
    assert (own.verdict, of_variant.verdict) == ("not tested", "holds")
    assert of_variant.name.startswith("Size: more, 400 steps, no fewer than the teacher’s")


def test_without_two_of_them_there_is_nothing_to_compare(finished: Any):
    assert finished.absence(KAPPA) == "no two strategies differ in κ alone, the one having 1/2 and the other 1"
    at_own_rates = [
        Strategy(f"kappa_{k}", schedule=TeacherSplit(k / 2), selection=Equal(2), learning_rate=k * 1e-3) for k in (1, 2)
    ]
    finished.add(*at_own_rates)
    finished.configure()
    assert finished.absence(KAPPA).startswith("no two strategies")
    finished.parity()
    finished.configure()
    assert "learned or not" in finished.absence(KAPPA)


@pytest.mark.parametrize(("longest", "verdict"), [((0.60, 0.61, 0.63), "fails"), ((0.42, 0.43, 0.41), "holds")])
def test_a_gap_that_shrinks_and_one_that_grows(workdir: Any, longest: Any, verdict: str):
    workdir.start()
    for budget, accuracies in ((100, (0.50, 0.52, 0.51)), (200, longest)):
        workdir.student("two", budget, {budget: accuracies})
        workdir.student("one_shot", budget, {budget: LOW})
    (case,) = workdir.cases(GAP)
    assert case.verdict == verdict
    assert [m.quantity for m in case.measurements] == [
        "gap to one-shot after 100 steps",
        "gap to one-shot after 100 steps minus that after 200",
    ]


def test_where_nothing_is_gained_no_gain_diminishes(workdir: Any):
    workdir.start()
    for budget, lost in ((100, 0.05), (200, 0.25)):
        workdir.student("two", budget, {budget: tuple(a - lost + 0.001 * i for i, a in enumerate(LOW))})
        workdir.student("one_shot", budget, {budget: LOW})
    assert [case.verdict for case in workdir.cases(GAP)] == ["fails"]


def test_a_gap_is_not_known_before_both_are_done(workdir: Any):
    workdir.start()
    workdir.student("two", 100, {100: LOW})
    (case,) = workdir.cases(GAP)
    assert (case.verdict, case.note) == ("not tested", "unfinished")


def test_gaps_of_other_tasks_are_not_this_claims(workdir: Any):
    workdir.language()
    workdir.start()
    assert workdir.absence(GAP) == "R7 says it of next tokens"
    workdir.parity()
    workdir.start()
    assert "positions of a string" in workdir.absence(GAP)
