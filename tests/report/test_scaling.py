"""Exponents against power laws, and how many of their units may be without an end."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pdjax.report.scaling import Line, exponent, lines, median

SIZES = (7.0, 15.0, 31.0, 63.0)
INFINITE = math.inf


def noisy(power: float, units: int, seed: int) -> Mapping[float, list[float]]:
    """Returns units by size whose true median is ``3 size^power``."""
    generator = np.random.default_rng(seed)
    return {size: (3 * size**power * generator.lognormal(0, 0.3, units)).tolist() for size in SIZES}


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 3.0])
def test_exponent_of_a_power_law_is_its_power(power: float):
    assert exponent({size: [5 * size**power] * 2 for size in SIZES}) == pytest.approx((power, power, power, 2))


def test_exponent_is_the_slope_of_medians_by_least_squares():
    """Of log medians 0, 1 and 5 at log sizes 0, 1 and 2 the slope is (5 - 0) / 2."""
    values = {10.0**size: [10.0 ** (height - 1), 10.0**height, 10.0**9] for size, height in enumerate((0, 1, 5))}
    fitted = exponent(values)
    assert fitted is not None
    assert fitted.mean == pytest.approx(2.5)


def test_intervals_cover_the_true_exponent_about_as_often_as_they_say():
    found = [exponent(noisy(2.5, 12, seed)) for seed in range(100)]
    covered = [interval.low < 2.5 < interval.high for interval in found if interval is not None]
    assert len(covered) == 100
    assert 0.9 <= np.mean(covered) < 1


def test_intervals_are_always_the_same_and_narrower_with_more_units():
    few, many = (exponent(noisy(2.5, units, 0)) for units in (6, 96))
    assert exponent(noisy(2.5, 6, 0)) == few
    assert few is not None
    assert many is not None
    assert 0 < many.high - many.low < (few.high - few.low) / 2


def test_size_is_that_of_the_fewest_units_and_one_has_no_interval():
    fitted = exponent({10.0: [1.0, 2.0, 3.0], 100.0: [20.0]})
    assert fitted == pytest.approx((1.0, math.nan, math.nan, 1), nan_ok=True)
    assert exponent({10.0: [1.0, 2.0, 3.0], 100.0: [20.0, 20.0]})[-1] == 2  # pyright: ignore


def test_of_an_even_number_of_units_the_larger_in_the_middle_counts():
    fitted = exponent({10.0: [4.0, 1.0, 3.0, 2.0], 100.0: [30.0, 30.0]})
    assert fitted is not None
    assert fitted.mean == pytest.approx(1.0)
    assert exponent({10.0: [1.0, 2.0, INFINITE, INFINITE], 100.0: [30.0, 30.0]}) is None
    np.testing.assert_array_equal(median(np.array([[4, 1, 3, 2], [INFINITE, 7, INFINITE, 5]])), [3, INFINITE])


def test_a_median_that_is_infinite_has_no_exponent():
    assert exponent({10.0: [1.0, 2.0, 3.0], 100.0: [1.0, INFINITE, INFINITE]}) is None


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 4])
def test_more_than_a_twentieth_of_the_resamples_lost_are_too_many(lost: int):
    """Of 9 units so many infinite ones, drawn with replacement: a median is infinite with 5 or more of them."""
    fitted = exponent({10.0: [1.0] * 9, 100.0: [10.0] * (9 - lost) + [INFINITE] * lost})
    too_many = scipy.stats.binom.sf(4, 9, lost / 9) > 0.05
    assert too_many == (lost > 2)
    assert fitted == (None if too_many else pytest.approx((1.0, 1.0, 1.0, 9)))


def rows() -> pd.DataFrame:
    """Returns units of two sources; of ``b`` only one degree has two dimensions."""
    table = [
        ("b", 15, 2, 100, 4.0),
        ("b", 7, 2, 100, 1.0),
        ("b", 7, 2, 100, 3.0),
        ("b", 7, 4, 100, 9.0),
        ("a", 7, 2, 100, 5.0),
        ("a", 15, 2, 200, 6.0),  # another width
        ("a", 15, 2, 100, 7.0),
        ("a", 15, 4, 100, 8.0),
        ("a", 31, 4, 100, INFINITE),
    ]
    return pd.DataFrame(table, columns=["source", "dimension", "degree", "width", "samples"])


def test_lines_are_units_that_differ_in_one_size_alone_at_two_of_them():
    assert list(lines(rows(), "dimension", ["degree", "width"])) == [
        Line("b", {"degree": 2, "width": 100}, {7: [1.0, 3.0], 15: [4.0]}),
        Line("a", {"degree": 2, "width": 100}, {7: [5.0], 15: [7.0]}),
        Line("a", {"degree": 4, "width": 100}, {15: [8.0], 31: [INFINITE]}),
    ]
    assert list(lines(rows(), "width", ["dimension", "degree"])) == [
        Line("a", {"dimension": 15, "degree": 2}, {100: [7.0], 200: [6.0]})
    ]
    assert not list(lines(rows().iloc[:0], "dimension", ["degree"]))


def test_lines_have_the_medians_that_are_finite_and_their_exponent():
    line = Line("a", {}, {7.0: [1.0, 3.0, 2.0], 15.0: [1.0, INFINITE], 31.0: [5.0, INFINITE, 6.0]})
    assert line.medians == {7.0: 2.0, 31.0: 6.0}
    assert line.exponent is None
    values = noisy(1.0, 3, 0)
    assert Line("a", {}, values).exponent == exponent(values)
