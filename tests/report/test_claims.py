"""Verdicts on claims about students: what makes them hold, fail, stay undecided or go untested."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Transition
from pdjax.distill.strategy import Strategy
from pdjax.report.claims import CLAIMS, Case, evaluate_claims
from pdjax.report.claims.acceleration import F1
from pdjax.report.claims.adaptive import ADAPTIVE
from pdjax.report.claims.hierarchy import H
from pdjax.report.claims.sizes import R6
from pdjax.report.claims.transition import R2
from pdjax.report.reading import read_results
from pdjax.tasks.parity import HierarchicalTask

LABELS = (0.40, 0.42, 0.44)
BETTER = (0.50, 0.51, 0.55)

UNTIL_SATURATED = Strategy("adaptive", schedule=UntilSaturated(window=1, max_steps=100), selection=Equal(4))


def write(workdir: Any, **finals: Sequence[float]) -> None:
    """Writes the students of the only budget, 100 steps, given final accuracies by strategy and seed."""
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    for key, final in finals.items():
        workdir.student(
            key, 100, {50: [a / 2 for a in final], 100: final}, [(seed, 1e-3) for seed in range(len(final))]
        )


def decide(workdir: Any, **finals: Sequence[float]) -> Case:
    """Returns the only verdict on claim F1, of what ``write`` writes."""
    write(workdir, **finals)
    (case,) = workdir.cases(F1)
    return case


def test_f1_compares_with_every_baseline(workdir: Any):
    case = decide(workdir, labels=LABELS, one_shot=(0.43, 0.41, 0.42), two=BETTER)
    assert (case.name, case.verdict, case.note) == ("progressive (2, 50), 100 steps", "holds", "")
    over_labels, over_one_shot = case.measurements
    # Differences 0.10, 0.09, 0.11: mean 0.10, standard deviation 0.01.
    assert over_labels.interval == pytest.approx((0.10, 0.10 - 0.02484, 0.10 + 0.02484, 3), abs=1e-5)
    # Differences 0.07, 0.10, 0.13: mean 0.10, standard deviation 0.03.
    assert over_one_shot.interval == pytest.approx((0.10, 0.10 - 0.07452, 0.10 + 0.07452, 3), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "one_shot", "two", "verdict"),
    [
        ((0.2, 0.4, 0.6), (0.2, 0.4, 0.6), (0.21, 0.42, 0.615), "holds"),  # paired: the spread between seeds hides it
        ((0.60, 0.61, 0.62), (0.40, 0.41, 0.42), (0.50, 0.51, 0.53), "fails"),  # one is enough
        ((0.50, 0.51, 0.52), (0.40, 0.41, 0.42), (0.52, 0.50, 0.53), "undecided"),
        (LABELS, LABELS, LABELS, "undecided"),
    ],
)
def test_f1_is_decided_by_intervals(
    workdir: Any, labels: Sequence[float], one_shot: Sequence[float], two: Sequence[float], verdict: str
):
    assert decide(workdir, labels=labels, one_shot=one_shot, two=two).verdict == verdict


@pytest.mark.parametrize("labels", [(0.4,), LABELS])
def test_only_common_seeds_count(workdir: Any, labels: Sequence[float]):
    case = decide(workdir, labels=labels, one_shot=(0.4,), two=BETTER)
    assert (case.verdict, case.note) == ("not tested", "needs 2 seeds")
    assert [m.interval.size for m in case.measurements if m.interval is not None] == [len(labels), 1]


def test_no_common_seed_tests_nothing(workdir: Any):
    write(workdir, labels=LABELS, one_shot=LABELS)
    workdir.student("two", 100, {100: [0.5]}, [(3, 1e-3)])
    workdir.change(student_training={"seeds": (0, 1, 2, 3)})
    workdir.configure()
    (case,) = workdir.cases(F1)
    assert (case.verdict, case.note) == ("not tested", "needs 2 seeds")
    assert [m.interval for m in case.measurements] == [None, None]


def test_seeds_are_paired_whatever_their_order(workdir: Any):
    write(workdir, labels=LABELS, one_shot=LABELS)
    workdir.student("two", 100, {100: [a + 0.01 for a in LABELS[::-1]]}, [(2, 1e-3), (1, 1e-3), (0, 1e-3)])
    (case,) = workdir.cases(F1)
    assert all(m.interval == pytest.approx((0.01, 0.01, 0.01, 3)) for m in case.measurements)


def test_an_unfinished_baseline_leaves_the_claim_untested(workdir: Any):
    write(workdir, labels=LABELS, two=BETTER)
    workdir.student("one_shot", 100, {50: LABELS}, complete=False)
    (case,) = workdir.cases(F1)
    assert (case.verdict, case.note) == ("not tested", "one-shot unfinished")


def test_a_lost_comparison_fails_even_if_another_is_unfinished(workdir: Any):
    assert decide(workdir, labels=(0.60, 0.61, 0.62), two=BETTER).verdict == "fails"


def test_a_missing_kind_of_baseline_leaves_the_claim_untested(workdir: Any):
    workdir.change(strategies=workdir.experiment.strategies[::2], comparisons=())
    case = decide(workdir, labels=LABELS, two=BETTER)
    assert (case.verdict, case.note) == ("not tested", "no one-shot strategy in the configuration")


@pytest.mark.parametrize("where", ["configuration", "comparisons over training"])
def test_without_a_progressive_strategy_there_is_nothing_to_test(workdir: Any, where: str):
    workdir.draw("labels", "one_shot")
    if where == "configuration":
        workdir.change(strategies=workdir.experiment.strategies[:2], comparisons=())
    write(workdir, labels=LABELS, one_shot=LABELS)
    assert workdir.absence(F1) == f"there is no progressive strategy in the {where}"


def test_every_one_shot_strategy_is_a_baseline(workdir: Any):
    workdir.add(Strategy("soft", Distillation(2.0)))
    case = decide(workdir, labels=LABELS, one_shot=LABELS, soft=(0.70, 0.71, 0.72), two=BETTER)
    names = ["labels only", "one-shot", "one-shot, temperature 2"]
    assert [m.quantity for m in case.measurements] == [f"margin over {name}" for name in names]
    assert case.verdict == "fails"


def test_learning_rates_are_never_mixed(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "seeds": (0, 1), "budgets": (100,)})
    workdir.start()
    replicas = [(0, 0.001), (0, 0.01), (1, 0.001), (1, 0.01)]
    for key, final in {"labels": (0.4, 0.6), "one_shot": (0.4, 0.6), "two": (0.5, 0.5)}.items():
        workdir.student(key, 100, {100: final * 2}, replicas)
    slow, fast = workdir.cases(F1)
    assert (slow.name, slow.verdict) == ("progressive (2, 50), learning rate 0.001, 100 steps", "holds")
    assert (fast.name, fast.verdict) == ("progressive (2, 50), learning rate 0.01, 100 steps", "fails")
    assert all(m.interval is not None and m.interval.size == 2 for m in slow.measurements)


def test_strategies_of_a_search_are_no_cases(workdir: Any):
    workdir.search((100, 200), (25, 50))
    assert decide(workdir, labels=LABELS, one_shot=LABELS, two=BETTER).name == "progressive (2, 50), 100 steps"


def test_strategies_are_cases_at_their_own_budgets(finished: Any):
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), budgets=(200,)))
    finished.start()
    assert [case.name for case in finished.cases(F1)] == ["progressive (2, 50), 200 steps"]


def test_the_same_students_as_a_baseline_test_nothing(workdir: Any):
    write(workdir, labels=LABELS)
    workdir.shared(["one_shot", "two"], 100, {"one_shot": BETTER})
    (case,) = workdir.cases(F1)
    assert (case.verdict, case.note) == ("not tested", "the same students")
    assert case.measurements[1].interval == (0.0, 0.0, 0.0, 3)


def test_strategies_with_the_same_students_are_one_case(workdir: Any):
    workdir.add(dataclasses.replace(workdir.experiment.strategy("two"), name="again"))
    workdir.draw("labels", "one_shot", "two", "again")
    write(workdir, labels=LABELS, one_shot=LABELS)
    workdir.shared(["two", "again"], 100, {"two": BETTER})
    (case,) = workdir.cases(F1)
    assert case.name == "progressive (2, 50) (two) = progressive (2, 50) (again), 100 steps"
    assert case.verdict == "holds"


def test_one_run_holds_students_of_several_losses(workdir: Any):
    workdir.add(Strategy("soft", Distillation(2.0)))
    write(workdir)
    workdir.shared(["one_shot", "soft"], 100, {"one_shot": (0.1, 0.2, 0.3), "soft": (0.4, 0.5, 0.6)})
    groups = read_results(workdir.path).groups
    assert groups["one_shot", 1e-3, 100].final().tolist() == [0.1, 0.2, 0.3]
    assert groups["soft", 1e-3, 100].final().tolist() == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("final", "verdict"),
    [((0.60, 0.62, 0.64), "holds"), ((0.40, 0.42, 0.44), "fails"), ((0.50, 0.53, 0.53), "undecided")],
)
def test_adaptive_students_are_compared_with_fixed_schedules(workdir: Any, final: Sequence[float], verdict: str):
    workdir.add(UNTIL_SATURATED)
    workdir.draw("one_shot", "two", "adaptive")
    write(workdir, one_shot=(0.7, 0.7, 0.7), two=(0.51, 0.52, 0.53), adaptive=final)
    (case,) = workdir.cases(ADAPTIVE)
    assert (case.name, case.verdict) == ("till accuracy saturates (4 checkpoints), 100 steps", verdict)
    assert [m.quantity for m in case.measurements] == ["margin over progressive (2, 50)"]  # one-shot has no schedule


def test_nothing_is_compared_with_what_no_comparison_draws_beside_it(workdir: Any):
    workdir.add(UNTIL_SATURATED)
    workdir.start()
    assert workdir.absence(ADAPTIVE) == "no comparison has a fixed progressive strategy beside an adaptive one"


@pytest.mark.parametrize(
    ("middle", "verdict"), [((0.60, 0.62, 0.61), "holds"), ((0.49, 0.50, 0.51), "fails"), (BETTER, "undecided")]
)
def test_r2_is_about_the_middle_of_the_transition(workdir: Any, middle: Sequence[float], verdict: str):
    workdir.parity(HierarchicalTask(dimension=6, degree=2, depth=2))  # learned by degrees
    selections = {point: Transition((point,)) for point in ("start", "middle", "end")}
    workdir.add(*(Strategy(point, schedule=FixedDuration(50), selection=it) for point, it in selections.items()))
    write(workdir, one_shot=LABELS, start=LABELS, middle=middle, end=(0.52, 0.53, 0.54))
    (case,) = workdir.cases(R2)
    assert case.verdict == verdict
    final, speed = case.measurements, case.shown
    assert [m.quantity.removeprefix("margin over ") for m in final] == ["the start", "the end", "one-shot"]
    # At step 50 all are half as accurate: the mean over training differs by 3/4 of the difference in the end.
    expected = [0.75 * m.interval.mean for m in final]
    assert [m.interval.mean for m in speed] == pytest.approx(expected)


def test_r2_needs_all_three_points(workdir: Any):
    workdir.parity()
    workdir.add(Strategy("middle", schedule=FixedDuration(50), selection=Transition(("middle",))))
    write(workdir, one_shot=LABELS, middle=BETTER)
    assert "the transition’s start, middle and end" in workdir.absence(R2)


def hierarchy(workdir: Any, one: Sequence[float], two: Sequence[float]) -> None:
    """Writes students of a hierarchy whose teacher's accuracy is 0.7, taught by one and two intermediate checkpoints.

    There are two strategies with two; the other is at 0.1.
    """
    workdir.parity(HierarchicalTask(dimension=6, degree=2, depth=2))
    steps = {"one": (200, 400), "two": (100, 200, 400), "worse": (100, 300, 400)}
    workdir.change(strategies=(Strategy("labels"),), comparisons=())
    workdir.add(*(Strategy(key, schedule=FixedDuration(25), selection=Equal(len(s))) for key, s in steps.items()))
    workdir.teacher()
    write(workdir, one=one, two=two, worse=(0.1, 0.1, 0.1))
    workdir.select(steps)


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        ((0.50, 0.51, 0.52), (0.69, 0.70, 0.695), "holds"),
        ((0.69, 0.70, 0.695), (0.69, 0.70, 0.695), "fails"),  # one suffices
        ((0.50, 0.51, 0.52), (0.65, 0.655, 0.66), "fails"),  # two do not
        ((0.50, 0.51, 0.52), (0.66, 0.67, 0.68), "undecided"),  # by their mean they do not
        ((0.50, 0.51, 0.52), (0.67, 0.68, 0.72), "undecided"),
    ],
)
def test_h_compares_one_and_two_checkpoints_with_the_teacher(
    workdir: Any, one: Sequence[float], two: Sequence[float], verdict: str
):
    hierarchy(workdir, one, two)
    (case,) = workdir.cases(H)
    assert (case.name, case.verdict) == ("100 steps", verdict)
    means = [sum(two) / 3 - 0.68, 0.68 - sum(one) / 3, sum(two) / 3 - sum(one) / 3]
    assert [m.interval.mean for m in case.listed] == pytest.approx(means)


def test_of_h_a_checkpoint_outside_the_transition_is_none(workdir: Any):
    """A pair with one outside that suffices is one checkpoint that suffices."""
    hierarchy(workdir, (0.50, 0.51, 0.52), (0.69, 0.70, 0.695))
    outside = Strategy("outside", schedule=FixedDuration(25), selection=Transition(("start", "middle")))
    steps = {"one": (200, 400), "two": (100, 200, 400), "worse": (100, 300, 400), "outside": (100, 200, 400)}
    workdir.add(outside)
    write(workdir, outside=(0.50, 0.51, 0.52))
    workdir.select(steps)
    assert [case.verdict for case in workdir.cases(H)] == ["holds"]
    write(workdir, outside=(0.69, 0.70, 0.695))
    workdir.select(steps)
    (case,) = workdir.cases(H)
    assert case.verdict == "fails"
    assert ["start, middle" in m.quantity for m in case.listed if "what it lacks" in m.quantity] == [False, True]


def test_h_waits_for_all_students(workdir: Any):
    hierarchy(workdir, LABELS, LABELS)
    (workdir.path / "students" / "worse-100" / "result.json").unlink()
    (case,) = workdir.cases(H)
    assert case.verdict == "not tested"


def test_h_waits_for_the_teacher(workdir: Any):
    hierarchy(workdir, LABELS, LABELS)
    workdir.teacher({100: (2.0, 0.3)}, complete=False)
    assert workdir.absence(H) == "the teacher’s final accuracy is not known yet"


@pytest.mark.parametrize(("more", "verdict"), [(0.1, "holds"), (-0.1, "fails"), (0.0, "undecided")])
def test_r6_compares_sizes_in_their_order_and_not_in_that_of_their_names(workdir: Any, more: float, verdict: str):
    """As text "1000" comes before "300"."""
    widths = (100, 300, 1000, 2000)
    workdir.widths(sorted(map(str, widths)), [1e-3])
    workdir.start()
    for index, width in enumerate(widths):
        workdir.size(f"width/{width}", {100: [0.5 + more * index, 0.51 + more * index]}, [(0, 1e-3), (1, 1e-3)])
    (case,) = workdir.cases(R6)
    assert case.verdict == verdict
    pairs = ["2000 minus 100", "300 minus 100", "1000 minus 300", "2000 minus 1000"]
    assert [m.quantity for m in case.listed] == pairs


def test_r6_fails_where_one_of_the_steps_is_downwards(workdir: Any):
    workdir.widths(["1", "2", "3"], [1e-3])
    workdir.start()
    for width, accuracy in (("1", 0.4), ("2", 0.8), ("3", 0.6)):
        workdir.size(f"width/{width}", {100: [accuracy, accuracy + 0.01]}, [(0, 1e-3), (1, 1e-3)])
    assert [case.verdict for case in workdir.cases(R6)] == ["fails"]


def test_r6_takes_the_learning_rate_of_the_highest_final_accuracy_and_of_equal_ones_the_faster(workdir: Any):
    workdir.widths(["1", "2"], [1e-3, 1e-2, 1e-1])
    workdir.start()
    replicas = [(seed, rate) for seed in (0, 1) for rate in (1e-3, 1e-2, 1e-1)]
    # The first rises above the others in the end, but by less than 3 decimals tell; the last is the fastest, and lost.
    workdir.size("width/2", {50: (0.1, 0.4, 0.9) * 2, 100: (0.6002, 0.6, 0.5) * 2}, replicas)
    workdir.size("width/1", {50: (0.1, 0.1, 0.1) * 2, 100: (0.3, 0.3, 0.3) * 2}, replicas)
    (case,) = workdir.cases(R6)
    assert case.measurements[0].interval == pytest.approx((0.3, 0.3, 0.3, 2))
    best = read_results(workdir.path).best_size("width", "2")
    assert best is not None
    assert best.learning_rate == 1e-2


def test_r6_waits_for_every_size(workdir: Any):
    workdir.widths(["1", "2"], [1e-3])
    workdir.start()
    workdir.size("width/1", {100: (0.3, 0.3)}, [(0, 1e-3), (1, 1e-3)], complete=False)
    (case,) = workdir.cases(R6)
    assert (case.verdict, case.note) == ("not tested", "unfinished: 1, 2")


def test_a_claim_has_cases_or_a_reason_why_not(finished: Any):
    findings = evaluate_claims(read_results(finished.path))
    assert [finding.claim.name for finding in findings] == [claim.name for claim in CLAIMS]
    assert [finding.claim.name for finding in findings if finding.cases] == ["F1", "gap"]
    assert all(bool(finding.cases) != bool(finding.absent) for finding in findings)
