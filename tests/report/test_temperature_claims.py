"""Claims about the teacher's temperature."""

from typing import Any

import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.report.claims import Case
from pdjax.report.claims.temperatures import ARGMAX, SOFT

BASE = (0.500, 0.510, 0.505)


def at_temperatures(workdir: Any, difference: tuple[float, ...]) -> Case:
    """Writes students of temperatures 0, 0.01 and 0.1, the second ones different from the first."""
    cold, warm, hot = (
        Strategy(name, Distillation(t), FixedDuration(50), Equal(2))
        for name, t in (("cold", 0.0), ("warm", 0.01), ("hot", 0.1))
    )
    workdir.add(cold, warm, hot)
    workdir.change(student_training={"budgets": (100,)})
    workdir.start()
    workdir.student("cold", 100, {100: BASE})
    workdir.student("warm", 100, {100: tuple(a + d for a, d in zip(BASE, difference, strict=True))})
    cases = {case.name: case for case in workdir.cases(ARGMAX)}
    (name,) = [name for name in cases if "0.01" in name]
    return cases[name]


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ((0.001, -0.001, 0.002), "holds"),
        ((0.10, 0.11, 0.12), "fails"),
        ((-0.10, -0.11, -0.12), "fails"),
        ((0.03, -0.04, 0.01), "undecided"),
        ((0.018, 0.022, 0.020), "undecided"),
    ],
)
def test_a_low_temperature_is_like_none_within_the_smallest_effect(workdir: Any, difference: Any, verdict: str):
    case = at_temperatures(workdir, difference)
    assert case.verdict == verdict
    mean = sum(difference) / 3
    assert [m.interval.mean for m in case.measurements] == pytest.approx([0.02 - mean, 0.02 + mean])
    assert all(m.interval.low < m.interval.mean < m.interval.high for m in case.measurements)


def test_what_is_learned_or_not_is_alike_if_it_is_learned_as_soon(workdir: Any):
    workdir.parity()
    seeds = tuple(range(7))
    workdir.change(student_training={"seeds": seeds})
    at_temperatures(workdir, (0.0, 0.0, 0.0))
    replicas = [(seed, 1e-3) for seed in seeds]
    for sooner, verdict in (
        ((100,) * 7, "holds"),
        ((50,) * 7, "fails"),
        ((50, 50, 50, 100, 100, 100, 100), "undecided"),
    ):
        workdir.student("cold", 100, {50: [0.5] * 7, 100: [1.0] * 7}, replicas)
        workdir.student("warm", 100, {50: [1.0 if at == 50 else 0.5 for at in sooner], 100: [1.0] * 7}, replicas)
        (case,) = [case for case in workdir.cases(ARGMAX) if "0.01" in case.name]
        assert case.verdict == verdict
        assert (case.p <= 0.025) == (verdict != "undecided")


def test_students_of_one_teacher_that_differ_both_ways_are_not_alike(workdir: Any):
    """As many sooner as later is no reason to call a teacher's students alike."""
    workdir.parity()
    teachers = tuple(range(10, 17))
    cold, warm = (
        Strategy(name, Distillation(t), FixedDuration(50), Equal(2)) for name, t in (("cold", 0.0), ("warm", 0.01))
    )
    workdir.add(cold, warm)
    workdir.change(student_training={"seeds": (0, 1), "budgets": (100,)})
    workdir.change(teacher_training={"seed": teachers[0]}, seed=teachers[0], further_teachers=teachers[1:])
    workdir.start()
    for seed in teachers:
        of = workdir if seed == teachers[0] else workdir.further(seed)
        replicas = [(student, 1e-3) for student in of.experiment.student_training.seeds]
        of.student("cold", 100, {50: [1.0, 0.5], 100: [1.0, 1.0]}, replicas)
        of.student("warm", 100, {50: [0.5, 1.0], 100: [1.0, 1.0]}, replicas)
    (case,) = [case for case in workdir.cases(ARGMAX) if "0.01" in case.name]
    assert case.verdict == "undecided"
    assert "alike 0, neither 0, mixed 7" in case.measurements[0].quantity


def test_without_a_temperature_of_0_there_is_nothing_to_compare(finished: Any):
    finished.add(
        Strategy("cold", Distillation(0.0), FixedDuration(40), Equal(2)),  # another schedule too
        Strategy("mixed", Distillation(0.0, 0.5), FixedDuration(50), Equal(2)),  # and labels
    )
    finished.start()
    assert finished.absence(ARGMAX) == "no strategy of a temperature up to 0.01 stands beside one of 0"


@pytest.mark.parametrize(("soft", "verdict"), [((0.40, 0.41, 0.42), "holds"), ((0.70, 0.71, 0.73), "fails")])
def test_a_high_temperature_against_one_shot_of_stronger_students(finished: Any, soft: Any, verdict: str):
    finished.add(Strategy("soft", Distillation(1.0), FixedDuration(50), Equal(2)))
    finished.ablation("size", {"more": {"student": {"num_heads": 4}}, "fewer": {"student": {"num_heads": 1}}}, [100])
    finished.start()
    for name in ("more", "fewer"):
        variant = finished.variant("size", name)
        variant.student("one_shot", 100, {100: (0.50, 0.51, 0.52)})
        variant.student("soft", 100, {100: soft})
    (case,) = finished.cases(SOFT)
    assert case.name.startswith("more, ")
    assert case.verdict == verdict


def test_variants_that_say_nothing_of_heads_are_none_of_stronger_students(finished: Any):
    finished.ablation("depth", {"deep": {"student": {"num_layers": 4}}}, [100])
    finished.start()
    assert finished.absence(SOFT).startswith("no ablation has stronger students")


def test_without_stronger_students_there_is_nothing_to_compare(finished: Any):
    assert finished.absence(SOFT).startswith("no ablation has stronger students")
