"""Verdicts on claim R3."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pdjax.report.claims.samples import R3
from pdjax.settings import plain
from pdjax.train.two_stage import TwoStage

DIMENSIONS = (7, 15, 31)
UNITS = (0.8, 1.0, 1.25)
"""What single teachers or students need, beside their median."""

INFINITE = math.inf


def ask(workdir: Any, degree: int = 4, dimensions: Sequence[int] = DIMENSIONS) -> None:
    """Asks for the teachers of several dimensions, the first of which is the experiment itself."""
    workdir.theory(dimensions[0], degree)
    workdir.problems("dimension", {str(d): {"task": {"dimension": d}} for d in dimensions[1:]})
    workdir.start()


def every(workdir: Any, dimensions: Sequence[int] = DIMENSIONS) -> Iterator[tuple[int, Any]]:
    """Yields each dimension with its working directory."""
    yield dimensions[0], workdir
    yield from ((d, workdir.variant("dimension", str(d))) for d in dimensions[1:])


def power(dimension: int, exponent: float) -> list[float]:
    """Returns samples that grow with the dimension, of three units."""
    return [100 * (dimension / DIMENSIONS[0]) ** exponent * unit for unit in UNITS]


def write(
    one: Any, taught: Sequence[float], labels: Sequence[float] = (), separated: Sequence[bool] = (True, True, True)
) -> None:
    """Writes what three teachers with a student each, and labels, needed in one dimension.

    Their last checkpoints, and those between, need a thousand times as many.
    """
    one.teacher()
    later = [[1000 * samples] for samples in taught]
    one.searched({100: [[samples] for samples in taught], 200: later, 400: later}, labels)
    one.lemmas({step: [(0.5, 0.4 if apart else 0.6, 0.9) for apart in separated] for step in (100, 200, 400)})


def cases(workdir: Any) -> dict[str, Any]:
    """Returns the verdicts by what they are on."""
    return {case.name: case for case in workdir.cases(R3)}


@pytest.mark.parametrize(
    ("exponent", "verdict"),
    [(3.0, "holds"), (1.5, "fails"), (4.5, "fails"), (2.1, "undecided"), (3.9, "undecided")],
)
def test_from_labels_the_exponent_is_within_1_of_k_minus_1(workdir: Any, exponent: float, verdict: str):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, 0), power(d, exponent))
    case = cases(workdir)["labels, k = 4"]
    assert (case.verdict, case.note) == (verdict, "")
    quantities = {m.quantity: m.interval.mean for m in case.measurements}
    assert quantities == pytest.approx({"exponent minus 2": exponent - 2, "4 minus the exponent": 4 - exponent})
    for measurement in case.listed:
        assert measurement.interval.low < measurement.interval.mean < measurement.interval.high
        assert measurement.interval.size == 3
    (shown,) = case.shown
    assert (shown.quantity, shown.interval.mean) == ("exponent in d", pytest.approx(exponent))


@pytest.mark.parametrize(("exponent", "verdict"), [(0.0, "holds"), (-0.5, "holds"), (2.0, "fails"), (0.9, "undecided")])
def test_from_the_first_stage_the_exponent_is_below_1(workdir: Any, exponent: float, verdict: str):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, exponent), power(d, 3))
    found = cases(workdir)
    assert list(found) == ["labels, k = 4", "progressive, k = 4"]  # no other checkpoints
    case = found["progressive, k = 4"]
    assert case.verdict == verdict
    (measurement,) = case.measurements
    assert (measurement.quantity, measurement.interval.mean) == ("1 minus the exponent", pytest.approx(1 - exponent))
    assert case.shown[0].interval.mean == pytest.approx(exponent)


def test_of_several_students_of_a_teacher_the_median_counts(workdir: Any):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, 0))
        # Of two the larger, of three that in the middle.
        students = [[s, s / 50] if d == 7 else [INFINITE, s, s / 50] for s in power(d, 0)]
        one.searched({100: students})
    case = cases(workdir)["progressive, k = 4"]
    assert case.verdict == "holds"
    assert case.shown[0].interval.mean == pytest.approx(0, abs=1e-9)


def test_teachers_that_are_not_separated_do_not_count(workdir: Any):
    ask(workdir)
    for d, one in every(workdir):
        flat = power(d, 0)
        write(one, [flat[0], 100 * (d / 7) ** 3, flat[2]], power(d, 3), (True, False, True))
    case = cases(workdir)["progressive, k = 4"]
    assert case.verdict == "holds"
    assert case.shown[0].interval.size == 2


def test_separated_is_whose_smallest_coefficient_in_the_support_is_above_the_largest_off_it(workdir: Any):
    ask(workdir)
    mixed = [0.9, 0.8, -0.3, 0.9], [0.1, -0.4]  # means are apart
    for d, one in every(workdir):
        write(one, power(d, 0), power(d, 3))
        coefficients = [*mixed[0], *mixed[1], *[0.0] * (d - 6)]
        one.probe("lemmas", [{"seed": seed, "step": 100, "coefficient": coefficients} for seed in range(3)])
    assert list(cases(workdir)) == ["labels, k = 4"]


def test_one_teacher_decides_nothing(workdir: Any):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, 0), separated=(True, False, False))
    case = cases(workdir)["progressive, k = 4"]
    assert (case.verdict, case.note) == ("not tested", "needs 2 seeds")
    assert case.shown[0].interval.mean == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("students", [(100.0, INFINITE, INFINITE), (100.0, 100.0, INFINITE)])
def test_where_too_few_found_it_nothing_is_tested(workdir: Any, students: Sequence[float]):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, 0), students if d == 31 else power(d, 3))
    found = cases(workdir)
    case = found["labels, k = 4"]
    assert (case.verdict, case.note) == ("not tested", "too few found it")
    assert [m.interval for m in case.listed] == [None, None, None]
    assert found["progressive, k = 4"].verdict == "holds"


def test_aligned_teachers_are_a_case_of_their_own(workdir: Any):
    ask(workdir)
    changes = {str(d): {"task": {"dimension": d}, "teacher": {"aligned": True}} for d in DIMENSIONS}
    workdir.problems("aligned", changes)
    workdir.start()
    for d, one in every(workdir):
        write(one, power(d, 2), power(d, 3))
    for d in DIMENSIONS:
        write(workdir.variant("aligned", str(d)), power(d, 0))
    assert {name: case.verdict for name, case in cases(workdir).items()} == {
        "labels, k = 4": "holds",
        "progressive, k = 4": "fails",
        "progressive, aligned teachers, k = 4": "holds",
    }


def test_every_degree_of_several_dimensions_is_a_case(workdir: Any):
    ask(workdir, dimensions=(7, 15))
    degrees = {(7, 2): 1, (15, 2): 1, (15, 6): 5}  # with exponents of labels that hold
    changes = {
        f"k{k} d{d}": {
            "task": {"dimension": d, "degree": k},
            "teacher_training": {"optimizer": plain(TwoStage(100, support=tuple(range(k))))},
        }
        for d, k in degrees
    }
    workdir.problems("degree", changes)
    workdir.start()
    for d, one in every(workdir, (7, 15)):
        write(one, power(d, 0), power(d, 3))
    for (d, k), exponent in degrees.items():
        write(workdir.variant("degree", f"k{k} d{d}"), power(d, 0), power(d, exponent))
    assert {name: case.verdict for name, case in cases(workdir).items() if name.startswith("labels")} == {
        "labels, k = 2": "holds",
        "labels, k = 4": "holds",
    }


def test_it_is_about_searches_at_several_dimensions(workdir: Any, finished: Any):
    reason = "no samples of the first stage were counted at several dimensions"
    assert finished.absence(R3) == reason
    ask(workdir)
    assert workdir.absence(R3) == reason
    write(workdir, power(7, 0), power(7, 3))
    assert workdir.absence(R3) == reason


def test_without_coefficients_no_teacher_is_known_to_be_separated(workdir: Any):
    ask(workdir)
    for d, one in every(workdir):
        write(one, power(d, 0), power(d, 3))
        one.forget("lemmas")
    assert list(cases(workdir)) == ["labels, k = 4"]


def test_teachers_of_mean_gradients_do_not_count(workdir: Any):
    ask(workdir)
    by_mean = {"teacher_training": {"optimizer": plain(TwoStage(100))}}
    workdir.problems("mean", {str(d): {"task": {"dimension": d}, **by_mean} for d in DIMENSIONS})
    workdir.start()
    for d in DIMENSIONS:
        write(workdir.variant("mean", str(d)), power(d, 2), power(d, 0))
    assert "several dimensions" in workdir.absence(R3)
