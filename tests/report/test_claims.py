"""Verdicts on claim F1: what makes it hold, fail, stay undecided or go untested."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.report.claims import ClaimResult, evaluate_claims
from pdjax.report.reading import read_results

LABELS = (0.40, 0.42, 0.44)

ADAPTIVE = Strategy("adaptive", schedule=UntilSaturated(window=1, max_steps=100), selection=Equal(4))


def decide(workdir: Any, **finals: Sequence[float]) -> ClaimResult:
    """Returns the verdict at the only budget, 100 steps, given final accuracies by strategy and seed."""
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    for key, final in finals.items():
        workdir.student(key, 100, {50: final, 100: final}, [(seed, 1e-3) for seed in range(len(final))])
    (result,) = evaluate_claims(read_results(workdir.path))
    return result


def test_holds_when_every_interval_lies_above_zero(workdir: Any):
    result = decide(workdir, labels=LABELS, one_shot=(0.43, 0.41, 0.42), two=(0.50, 0.51, 0.55))
    assert result.verdict == "holds"
    assert result.case == "progressive (2, 50), 100 steps"
    over_labels, over_one_shot = result.measurements
    # Differences 0.10, 0.09, 0.11: mean 0.10, standard deviation 0.01.
    assert over_labels.interval == pytest.approx((0.10, 0.10 - 0.02484, 0.10 + 0.02484, 3), abs=1e-5)
    # Differences 0.07, 0.10, 0.13: mean 0.10, standard deviation 0.03.
    assert over_one_shot.interval == pytest.approx((0.10, 0.10 - 0.07452, 0.10 + 0.07452, 3), abs=1e-5)


def test_pairing_by_seed_sees_what_the_spread_between_seeds_would_hide(workdir: Any):
    result = decide(workdir, labels=(0.2, 0.4, 0.6), one_shot=(0.2, 0.4, 0.6), two=(0.21, 0.42, 0.615))
    assert result.verdict == "holds"


def test_fails_when_one_interval_lies_below_zero_although_the_other_lies_above(workdir: Any):
    result = decide(workdir, labels=(0.60, 0.61, 0.62), one_shot=(0.40, 0.41, 0.42), two=(0.50, 0.51, 0.53))
    assert result.verdict == "fails"


def test_undecided_when_an_interval_contains_zero(workdir: Any):
    result = decide(workdir, labels=(0.50, 0.51, 0.52), one_shot=(0.40, 0.41, 0.42), two=(0.52, 0.50, 0.53))
    assert result.verdict == "undecided"


def test_equal_accuracies_do_not_hold(workdir: Any):
    assert decide(workdir, labels=LABELS, one_shot=LABELS, two=LABELS).verdict == "undecided"


def test_one_seed_tests_nothing(workdir: Any):
    result = decide(workdir, labels=(0.4,), one_shot=(0.4,), two=(0.9,))
    assert (result.verdict, result.note) == ("not tested", "needs 2 seeds")


def test_only_common_seeds_count(workdir: Any):
    result = decide(workdir, labels=(0.4,), one_shot=LABELS, two=(0.50, 0.51, 0.55))
    assert (result.verdict, result.note) == ("not tested", "needs 2 seeds")
    assert [m.interval.size for m in result.measurements if m.interval is not None] == [1, 3]


def test_no_common_seed_tests_nothing(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    for key, seeds in (("labels", (0, 1)), ("one_shot", (0, 1)), ("two", (2,))):
        workdir.student(key, 100, {100: [0.5] * len(seeds)}, [(seed, 1e-3) for seed in seeds])
    (result,) = evaluate_claims(read_results(workdir.path))
    assert (result.verdict, result.note) == ("not tested", "needs 2 seeds")


def test_seeds_are_paired_whatever_their_order(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: LABELS})
    workdir.student("one_shot", 100, {100: LABELS})
    workdir.student("two", 100, {100: [a + 0.01 for a in LABELS[::-1]]}, [(2, 1e-3), (1, 1e-3), (0, 1e-3)])
    (result,) = evaluate_claims(read_results(workdir.path))
    assert all(m.interval == pytest.approx((0.01, 0.01, 0.01, 3)) for m in result.measurements)


def test_an_unfinished_baseline_leaves_the_claim_untested(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: LABELS})
    workdir.student("one_shot", 100, {50: LABELS}, complete=False)
    workdir.student("two", 100, {100: (0.50, 0.51, 0.55)})
    (result,) = evaluate_claims(read_results(workdir.path))
    assert (result.verdict, result.note) == ("not tested", "one-shot unfinished")


def test_a_lost_comparison_fails_even_if_another_is_unfinished(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: (0.60, 0.61, 0.62)})
    workdir.student("two", 100, {100: (0.50, 0.51, 0.53)})
    (result,) = evaluate_claims(read_results(workdir.path))
    assert result.verdict == "fails"


def test_a_missing_kind_of_baseline_leaves_the_claim_untested(workdir: Any):
    workdir.change(strategies=workdir.experiment.strategies[::2], comparisons=())
    result = decide(workdir, labels=LABELS, two=(0.50, 0.51, 0.55))
    assert (result.verdict, result.note) == ("not tested", "no one-shot strategy in the configuration")


def test_without_a_progressive_strategy_there_is_nothing_to_test(workdir: Any):
    workdir.change(strategies=workdir.experiment.strategies[:2], comparisons=())
    result = decide(workdir, labels=LABELS, one_shot=LABELS)
    assert (result.verdict, result.measurements) == ("not tested", ())


def test_every_one_shot_strategy_is_a_baseline(workdir: Any):
    workdir.add(Strategy("soft", Distillation(2.0)))
    result = decide(workdir, labels=LABELS, one_shot=LABELS, soft=(0.70, 0.71, 0.72), two=(0.50, 0.51, 0.53))
    assert [m.quantity.removeprefix("margin over ") for m in result.measurements] == [
        "labels only",
        "one-shot",
        "one-shot, temperature 2",
    ]
    assert result.verdict == "fails"


def test_learning_rates_are_never_mixed(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "seeds": (0, 1), "budgets": (100,)})
    workdir.start()
    replicas = [(0, 0.001), (0, 0.01), (1, 0.001), (1, 0.01)]
    workdir.student("labels", 100, {100: (0.4, 0.6, 0.4, 0.6)}, replicas)
    workdir.student("one_shot", 100, {100: (0.4, 0.6, 0.4, 0.6)}, replicas)
    workdir.student("two", 100, {100: (0.5, 0.5, 0.5, 0.5)}, replicas)
    slow, fast = evaluate_claims(read_results(workdir.path))
    assert (slow.case, slow.verdict) == ("progressive (2, 50), learning rate 0.001, 100 steps", "holds")
    assert (fast.case, fast.verdict) == ("progressive (2, 50), learning rate 0.01, 100 steps", "fails")
    assert all(m.interval is not None and m.interval.size == 2 for m in slow.measurements)


def test_sizes_are_compared_in_their_order_and_not_in_that_of_their_names(workdir: Any):
    """As text "1000" comes before "300"; wider is better here throughout."""
    widths = (100, 300, 1000, 2000)
    workdir.widths(sorted(map(str, widths)), [1e-3])
    workdir.change(sizes={"seeds": (0, 1, 2)})
    workdir.start()
    for index, width in enumerate(widths):
        records = [(100, seed, 1.0, 0.6 + 0.1 * index + 0.001 * seed * index) for seed in range(3)]
        description = {"role": "size", "name": f"width/{width}", "strategies": [], "budget": 100}
        workdir.run(f"sizes/width/{width}", description, [(seed, 1e-3) for seed in range(3)], records, True)
    (result,) = [claim for claim in evaluate_claims(read_results(workdir.path)) if claim.statement.name == "R6"]
    assert result.verdict == "holds"
    assert [m.quantity for m in result.measurements] == [
        "2000 minus 100",
        "300 minus 100",
        "1000 minus 300",
        "2000 minus 1000",
    ]


def test_strategies_of_a_search_are_no_cases(workdir: Any):
    workdir.search((100, 200), (25, 50))
    result = decide(workdir, labels=LABELS, one_shot=LABELS, two=(0.50, 0.51, 0.55))
    assert result.case == "progressive (2, 50), 100 steps"


def test_strategies_are_cases_at_their_own_budgets(finished: Any):
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), budgets=(200,)))
    finished.start()
    assert [claim.case for claim in evaluate_claims(read_results(finished.path))] == ["progressive (2, 50), 200 steps"]


def test_the_same_students_as_a_baseline_test_nothing(workdir: Any):
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: LABELS})
    workdir.shared(["one_shot", "two"], 100, {"one_shot": (0.50, 0.51, 0.55)})
    (result,) = evaluate_claims(read_results(workdir.path))
    assert (result.verdict, result.note) == ("not tested", "the same students")
    assert result.measurements[1].interval == (0.0, 0.0, 0.0, 3)


def test_strategies_with_the_same_students_are_one_case(workdir: Any):
    workdir.add(dataclasses.replace(workdir.experiment.strategy("two"), name="again"))
    workdir.draw("labels", "one_shot", "two", "again")
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("labels", 100, {100: LABELS})
    workdir.student("one_shot", 100, {100: LABELS}, table=((0, 400),))
    workdir.shared(["two", "again"], 100, {"two": (0.50, 0.51, 0.55)})
    (result,) = evaluate_claims(read_results(workdir.path))
    assert (result.case, result.verdict) == (
        "progressive (2, 50) (two) = progressive (2, 50) (again), 100 steps",
        "holds",
    )


def test_one_run_holds_students_of_several_losses(workdir: Any):
    workdir.add(Strategy("soft", Distillation(2.0)))
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.shared(["one_shot", "soft"], 100, {"one_shot": (0.1, 0.2, 0.3), "soft": (0.4, 0.5, 0.6)})
    groups = read_results(workdir.path).groups
    assert groups["one_shot", 1e-3, 100].final_accuracy.tolist() == [0.1, 0.2, 0.3]
    assert groups["soft", 1e-3, 100].final_accuracy.tolist() == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("final", "verdict"),
    [((0.60, 0.62, 0.64), "holds"), ((0.40, 0.42, 0.44), "fails"), ((0.50, 0.53, 0.53), "undecided")],
)
def test_adaptive_students_are_compared_with_fixed_schedules(workdir: Any, final: Sequence[float], verdict: str):
    workdir.add(ADAPTIVE)
    workdir.draw("one_shot", "two", "adaptive")
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("one_shot", 100, {100: (0.7, 0.7, 0.7)})
    workdir.student("two", 100, {100: (0.51, 0.52, 0.53)})
    workdir.student("adaptive", 100, {100: final})
    (result,) = [claim for claim in evaluate_claims(read_results(workdir.path)) if claim.statement.name == "adaptive"]
    assert (result.case, result.verdict) == ("till accuracy saturates (4 checkpoints), 100 steps", verdict)
    assert [m.quantity for m in result.measurements] == ["margin over progressive (2, 50)"]  # one-shot has no schedule


def test_nothing_is_compared_with_what_no_comparison_draws_beside_it(workdir: Any):
    workdir.add(ADAPTIVE)
    workdir.start()
    names = {claim.statement.name for claim in evaluate_claims(read_results(workdir.path))}
    assert names == {"F1"}
