"""Verdicts on claim C, and that no other claim takes a part of a checkpoint for the checkpoint."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.part import LowDegree, Part, WithoutLowDegree
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Steps, Transition
from pdjax.distill.strategy import Strategy
from pdjax.report.claims import Case
from pdjax.report.claims.acceleration import F1
from pdjax.report.claims.causal import C
from pdjax.report.claims.transition import R2
from pdjax.report.reading import read_results
from pdjax.report.searches import searches
from pdjax.report.summary import names

LOW, ELSEWHERE, WITHOUT = LowDegree(), LowDegree(1, "elsewhere"), WithoutLowDegree()
WHOLE = Strategy("whole", schedule=FixedDuration(25), selection=Steps((200,)))
NAME = "progressive (2, 25), step 200, degree ≤ 1 alone, 100 steps"
BASE = (0.50, 0.52, 0.54)
"""What one-shot students have, by seed."""


def partial(name: str, part: Part, **changes: Any) -> Strategy:
    return dataclasses.replace(WHOLE, name=name, part=part, **changes)


def gains(*by_seed: float) -> Sequence[float]:
    """Returns accuracies that are so much higher than those of one-shot."""
    return [base + gain for base, gain in zip(BASE, by_seed, strict=True)]


def ask(workdir: Any, *strategies: Strategy) -> None:
    """Asks for one-shot and for these."""
    workdir.parity()
    workdir.change(strategies=(Strategy("one_shot"),), comparisons=(), student_training={"budgets": (100,)})
    workdir.add(*strategies)
    workdir.start()


def write(workdir: Any, **by_strategy: Sequence[float]) -> None:
    """Writes students whose accuracy is the given one all over their training, but for its end: there all are alike."""
    for key, mean in {"one_shot": BASE, **by_strategy}.items():
        # Of 0, 50 and 100 steps; in the end 0.9, so that what decides is no final accuracy.
        curves = {step: [(3 * m - 0.9) / 2 for m in mean] for step in (0, 50)} | {100: [0.9] * 3}
        workdir.student(key, 100, curves)


def cases(workdir: Any) -> dict[str, Case]:
    """Returns the verdicts by what they are on."""
    found = {case.name.removeprefix(f"{NAME}: "): case for case in workdir.cases(C)}
    assert not any("progressive" in name for name in found)
    return found


@pytest.mark.parametrize(
    ("part", "verdict"),
    [
        (gains(0.10, 0.11, 0.12), "holds"),
        (gains(0.01, 0.05, 0.12), "undecided"),  # at least 0.05 in the mean, but not clearly above 0
        (gains(0.035, 0.045, 0.055), "undecided"),  # clearly above 0, and perhaps 0.05
        (gains(0.02, 0.021, 0.022), "fails"),  # clearly above 0, and clearly less than 0.05
        (gains(-0.10, -0.11, -0.12), "fails"),
    ],
)
def test_a_part_is_enough_if_it_gives_at_least_the_smallest_effect(workdir: Any, part: Sequence[float], verdict: str):
    ask(workdir, WHOLE, partial("low", LOW))
    write(workdir, whole=gains(0.20, 0.20, 0.20), low=part)
    found = cases(workdir)
    assert [*found] == ["enough"]
    assert found["enough"].verdict == verdict
    (margin,), (of_whole, share) = found["enough"].measurements, found["enough"].shown
    mean = sum(part) / 3 - sum(BASE) / 3
    assert margin.quantity == "progressive (2, 25), step 200, degree ≤ 1 alone minus one-shot"
    assert [m.interval.mean for m in (margin, of_whole, share)] == pytest.approx([mean, 0.2, mean / 0.2])


def test_where_the_whole_checkpoint_gives_nothing_there_is_no_share_of_it(workdir: Any):
    ask(workdir, WHOLE, partial("low", LOW))
    write(workdir, whole=gains(-0.01, 0.0, 0.0), low=gains(0.10, 0.11, 0.12))
    case = cases(workdir)["enough"]
    assert case.verdict == "holds"
    assert case.shown[1].note == "the whole checkpoint gains nothing"


@pytest.mark.parametrize(
    ("without", "verdict"),
    [
        (gains(0.00, 0.01, 0.02), "holds"),
        (gains(0.30, 0.31, 0.33), "fails"),
        (gains(0.15, 0.20, 0.26), "undecided"),
    ],
)
def test_a_part_is_needed_if_the_checkpoint_is_better_than_without_it(
    workdir: Any, without: Sequence[float], verdict: str
):
    ask(workdir, WHOLE, partial("low", LOW), partial("without", WITHOUT), partial("more", WithoutLowDegree(2)))
    write(
        workdir, whole=gains(0.20, 0.20, 0.20), low=gains(0.10, 0.11, 0.12), without=without, more=gains(0.5, 0.5, 0.5)
    )
    case = cases(workdir)["needed"]
    assert case.verdict == verdict
    (margin,) = case.measurements  # nothing without other degrees
    assert margin.interval is not None
    assert margin.interval.mean == pytest.approx(0.2 + sum(BASE) / 3 - sum(without) / 3)


@pytest.mark.parametrize(
    ("elsewhere", "verdict"),
    [
        (gains(0.00, 0.001, -0.001), "holds"),
        (gains(-0.2, -0.21, -0.19), "holds"),  # no control helps by being worse than one-shot
        (gains(0.20, 0.21, 0.22), "fails"),  # better than that of the support
        (gains(0.08, 0.081, 0.082), "fails"),  # not as good, and good nevertheless
        (gains(0.00, 0.05, 0.07), "undecided"),
    ],
)
def test_a_part_elsewhere_gives_less(workdir: Any, elsewhere: Sequence[float], verdict: str):
    controls = {"permuted": LowDegree(signs="permuted"), "equal": LowDegree(1, "elsewhere", "equal")}
    others = [partial(name, part) for name, part in controls.items()]
    ask(workdir, WHOLE, partial("low", LOW), partial("elsewhere", ELSEWHERE), *others)
    finals = {"whole": gains(0.20, 0.20, 0.20), "low": gains(0.13, 0.135, 0.14), "elsewhere": elsewhere}
    write(workdir, **finals, **dict.fromkeys(controls, gains(0.3, 0.3, 0.3)))
    case = cases(workdir)["in the support"]
    assert case.verdict == verdict
    mean = sum(elsewhere) / 3 - sum(BASE) / 3
    assert [m.interval.mean for m in case.measurements if m.interval is not None] == pytest.approx(
        [0.135 - mean, 0.05 - mean]
    )


def test_every_low_degree_part_in_the_support_as_measured_is_a_case(workdir: Any):
    """Others are controls, or nobody's: of another schedule or loss there is no whole checkpoint to compare with."""
    parts = {"low": LOW, "second": LowDegree(2), "permuted": LowDegree(signs="permuted"), "elsewhere": ELSEWHERE}
    alone = partial("later", LOW, schedule=FixedDuration(50)), partial("soft", LOW, loss=Distillation(1.0))
    ask(workdir, WHOLE, *(partial(name, part) for name, part in parts.items()), *alone)
    write(workdir, **dict.fromkeys(("whole", *parts, "later", "soft"), BASE))
    assert [case.name for case in workdir.cases(C)] == [
        f"{NAME}: enough",
        f"{NAME}: in the support",
        "progressive (2, 25), step 200, degree ≤ 2 alone, 100 steps: enough",
    ]


def test_what_is_unfinished_leaves_its_cases_untested(workdir: Any):
    ask(workdir, WHOLE, partial("low", LOW), partial("without", WITHOUT))
    write(workdir, whole=gains(0.20, 0.20, 0.20), low=gains(0.10, 0.11, 0.12))
    found = cases(workdir)
    assert found["enough"].verdict == "holds"
    note = "progressive (2, 25), step 200, without degree ≤ 1 unfinished"
    assert (found["needed"].verdict, found["needed"].note) == ("not tested", note)


def test_it_is_about_parts_beside_the_whole_and_one_shot(workdir: Any, finished: Any):
    assert finished.absence(C) == "no strategy shows its students parts of checkpoints"
    ask(workdir, partial("low", LOW))
    write(workdir, low=BASE)
    assert workdir.absence(C) == "no low-degree part in the support stands beside the whole checkpoint and one-shot"


def test_other_claims_are_about_whole_checkpoints(workdir: Any):
    selections = {point: Transition((point,)) for point in ("start", "middle", "end")}
    points = [dataclasses.replace(WHOLE, name=point, selection=it) for point, it in selections.items()]
    # Behind those whose places they could take.
    parts = [partial("low", LOW), partial("low_middle", LOW, selection=selections["middle"])]
    ask(workdir, *points, *parts)
    write(workdir, **dict.fromkeys((*selections, "low", "low_middle"), BASE))
    assert [case.name for case in workdir.cases(F1)] == [
        f"progressive (2, 25), {point}, 100 steps" for point in selections
    ]
    assert [case.name for case in workdir.cases(R2)] == ["progressive (2, 25), middle, 100 steps"]


def test_a_search_is_among_whole_checkpoints(workdir: Any):
    ask(workdir)
    workdir.search((200,), (25,), partial("low", LOW, selection=Steps((300,))))
    workdir.start()
    workdir.select({"c200_25": (200, 400), "low": (300, 400)})
    write(workdir, c200_25=BASE, low=gains(0.1, 0.1, 0.1))
    (search,) = searches(read_results(workdir.path))
    assert search.firsts == (200,)


def test_the_report_says_what_a_part_is(workdir: Any):
    ask(workdir, WHOLE, partial("low", LOW))
    assert any(name.startswith("degree ≤ n alone") for name, _ in names(read_results(workdir.path)))
    workdir.change(strategies=(Strategy("one_shot"), WHOLE))
    workdir.start()
    assert not any(name.startswith("degree ≤ n alone") for name, _ in names(read_results(workdir.path)))
