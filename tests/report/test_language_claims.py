"""Claim R7 from hand-made numbers: gaps on the next token, by budget and by how many tokens count."""

from collections.abc import Mapping
from typing import Any

import pytest

from pdjax.report.claims import Case
from pdjax.report.claims.language import R7

ONE_SHOT = (0.50, 0.51, 0.52)

Gaps = Mapping[int, float]
"""By budget."""


def write(workdir: Any, gaps: Gaps, spread: float = 0.01) -> None:
    """Writes students with these gaps; those of the seeds lie ``spread`` around them."""
    for budget, gap in gaps.items():
        workdir.student("one_shot", budget, {budget: ONE_SHOT})
        off = (-spread, 0.0, spread) if budget == 100 else (spread, -spread, 0.0)
        two = [accuracy + gap + o for accuracy, o in zip(ONE_SHOT, off, strict=True)]
        workdir.student("two", budget, {budget: two})


def cases(workdir: Any) -> dict[str, Case]:
    """Returns the results of the claim by case."""
    return {case.name: case for case in workdir.cases(R7)}


def means(case: Case) -> dict[str, float]:
    """Returns the means of what a case is decided by."""
    return {m.quantity: m.interval.mean for m in case.measurements if m.interval is not None}


def test_gaps_at_one_level_and_their_shrinking(workdir: Any):
    workdir.language()
    workdir.start()
    write(workdir, {100: 0.3, 200: 0.1})
    results = cases(workdir)
    assert {name: case.verdict for name, case in results.items()} == {
        "l = 3, progressive (2, 50): all gaps": "holds",
        "l = 3, progressive (2, 50): gap by budget": "holds",
    }
    gaps, shrink = results.values()
    assert [m.quantity for m in gaps.measurements] == ["gap to one-shot, 100 steps", "gap to one-shot, 200 steps"]
    assert means(shrink) == {
        "gap to one-shot, 100 steps": pytest.approx(0.3),
        "gap to one-shot, 100 minus 200 steps": pytest.approx(0.2),
    }


def test_a_growing_gap_fails_and_equal_ones_are_undecided(workdir: Any):
    workdir.language()
    workdir.start()
    write(workdir, {100: 0.1, 200: 0.3})
    assert cases(workdir)["l = 3, progressive (2, 50): gap by budget"].verdict == "fails"
    write(workdir, {100: 0.1, 200: 0.1})
    assert cases(workdir)["l = 3, progressive (2, 50): gap by budget"].verdict == "undecided"


def test_a_loss_that_grows_is_no_gap_that_shrinks(workdir: Any):
    workdir.language()
    workdir.start()
    write(workdir, {100: -0.1, 200: -0.3})  # the difference, +0.2, lies above 0
    case = cases(workdir)["l = 3, progressive (2, 50): gap by budget"]
    assert case.verdict == "fails"
    assert list(means(case).values()) == pytest.approx([-0.1, 0.2])


def test_a_lost_gap_fails(workdir: Any):
    workdir.language()
    workdir.start()
    write(workdir, {100: 0.1, 200: -0.1})
    assert cases(workdir)["l = 3, progressive (2, 50): all gaps"].verdict == "fails"


def leveled(workdir: Any, low: float, high: float, **fields: Any) -> None:
    """Writes an ablation over l = 2 and l = 4 with these gaps at 100 steps; at l = 3 it is 0.2."""
    workdir.language()
    levels = {f"C^({level})": {"task": {"level": level}, **fields} for level in (4, 2)}
    base = None if fields else "C^(3)"
    workdir.ablation("level", levels, [100], strategies=("one_shot", "two"), base=base)
    workdir.start()
    write(workdir, {100: 0.2, 200: 0.1})
    write(workdir.variant("level", "C^(2)"), {100: low})
    write(workdir.variant("level", "C^(4)"), {100: high})


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.1, 0.3, "holds"), (0.3, 0.1, "fails"), (-0.3, -0.1, "fails")])
def test_gaps_between_levels(workdir: Any, low: float, high: float, verdict: str):
    leveled(workdir, low, high)
    results = cases(workdir)
    assert list(results) == [
        "l = 3, progressive (2, 50): all gaps",
        "l = 3, progressive (2, 50): gap by budget",
        "l = 2 (C^(2)), progressive (2, 50): all gaps",  # one budget: nothing to shrink
        "l = 4 (C^(4)), progressive (2, 50): all gaps",
        "Level, progressive (2, 50), 100 steps: gap by l",
    ]
    last = results["Level, progressive (2, 50), 100 steps: gap by l"]
    assert last.verdict == verdict
    there, smaller = last.measurements
    assert (there.quantity, smaller.quantity) == ("gap to one-shot, l = 4", "gap to one-shot, l = 4 minus l = 2")
    assert there.interval is not None
    assert there.interval.mean == pytest.approx(high)
    assert smaller.interval == pytest.approx((high - low, high - low, high - low, 3))


def test_the_experiment_itself_may_have_the_highest_level(workdir: Any):
    workdir.language()
    workdir.ablation("level", {"C^(2)": {"task": {"level": 2}}}, [100], strategies=("one_shot", "two"), base="C^(3)")
    workdir.start()
    write(workdir, {100: 0.2, 200: 0.1})
    write(workdir.variant("level", "C^(2)"), {100: 0.05})
    assert means(cases(workdir)["Level, progressive (2, 50), 100 steps: gap by l"]) == {
        "gap to one-shot, l = 3": pytest.approx(0.2),
        "gap to one-shot, l = 3 minus l = 2": pytest.approx(0.15),
    }


def test_variants_with_another_student_too_are_compared_among_themselves(workdir: Any):
    leveled(workdir, 0.1, 0.3, student={"num_heads": 2})
    quantities = list(means(cases(workdir)["Level, progressive (2, 50), 100 steps: gap by l"]))
    assert quantities == ["gap to one-shot, l = 4", "gap to one-shot, l = 4 minus l = 2"]


def test_an_unfinished_level_is_not_tested(workdir: Any):
    leveled(workdir, 0.1, 0.3)
    (workdir.path / "ablations" / "level" / "C^(4)" / "students" / "two-100" / "result.json").unlink()
    last = cases(workdir)["Level, progressive (2, 50), 100 steps: gap by l"]
    assert (last.verdict, last.note) == ("not tested", "unfinished")


def test_other_tasks_have_no_such_claim(finished: Any):
    assert finished.absence(R7) == "the task does not predict next tokens"
