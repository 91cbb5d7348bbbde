"""Confidence intervals against textbook quantiles of Student's t distribution."""

import math

import numpy as np
import pytest

from pdjax.report.stats import half_width, mean_interval

QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 11: 2.228}
"""t(0.975; n - 1) by n, from a printed table."""


@pytest.mark.parametrize("count", QUANTILES)
def test_half_width_is_the_printed_quantile_times_the_standard_error(count: int):
    values = np.zeros(count)
    values[:2] = -1.0, 1.0  # variance 2 / (count - 1)
    expected = QUANTILES[count] * math.sqrt(2 / (count - 1)) / math.sqrt(count)
    assert half_width(values) == pytest.approx(expected, rel=2e-4)


def test_interval_by_hand():
    interval = mean_interval(np.array([0.08, 0.09, 0.13]))  # mean 0.10, squared deviations 4 + 1 + 9 (1e-4)
    half = 4.303 * math.sqrt(14e-4 / 2) / math.sqrt(3)
    assert interval == pytest.approx((0.10, 0.10 - half, 0.10 + half, 3), rel=1e-3)


def test_one_value_has_a_mean_and_no_interval():
    interval = mean_interval(np.array([0.5]))
    assert (interval.mean, interval.size) == (0.5, 1)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_every_row_of_a_curve_has_its_own_width():
    widths = half_width(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert widths == pytest.approx([4.303 / math.sqrt(3), 0.0], rel=1e-3)


def test_intervals_cover_the_mean_as_often_as_they_say():
    samples = np.random.default_rng(0).normal(size=(4000, 3))
    covered = np.abs(samples.mean(axis=1)) < half_width(samples)
    assert covered.mean() == pytest.approx(0.95, abs=0.015)
