"""Confidence intervals against textbook quantiles of Student's t distribution, and by resampling."""

import math

import numpy as np
import pytest

from pdjax.report.stats import Method, band, interval

QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 11: 2.228}
"""t(0.975; n - 1) by n, from a printed table."""


@pytest.mark.parametrize("count", QUANTILES)
def test_half_of_it_is_the_printed_quantile_times_the_standard_error(count: int):
    values = np.zeros(count)
    values[:2] = -1.0, 1.0  # variance 2 / (count - 1)
    half = QUANTILES[count] * math.sqrt(2 / (count - 1)) / math.sqrt(count)
    assert interval(values) == pytest.approx((0.0, -half, half, count), rel=2e-4)


def test_interval_by_hand():
    half = 4.303 * math.sqrt(14e-4 / 2) / math.sqrt(3)  # mean 0.10, squared deviations 4 + 1 + 9 (1e-4)
    assert interval(np.array([0.08, 0.09, 0.13])) == pytest.approx((0.10, 0.10 - half, 0.10 + half, 3), rel=1e-3)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_one_value_has_a_mean_and_no_interval(method: Method):
    assert interval(np.array([0.5]), method) == pytest.approx((0.5, math.nan, math.nan, 1), nan_ok=True)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_equal_values_leave_no_doubt(method: Method):
    assert interval(np.full(3, 0.5), method) == (0.5, 0.5, 0.5, 3)


def test_intervals_cover_the_mean_as_often_as_they_say():
    samples = np.random.default_rng(0).normal(size=(4000, 3))
    covered = np.mean([found.low < 0 < found.high for found in map(interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_of_many_values_the_bootstrap_says_the_same_as_student_t_and_always_the_same():
    values = np.random.default_rng(0).normal(size=200)
    resampled = interval(values, "bootstrap")
    assert resampled == pytest.approx(interval(values), abs=0.03)
    assert resampled == interval(values, "bootstrap")


def test_bands_stay_within_the_range_of_what_is_measured():
    values = np.array([0.9, 1.0])  # 0.95 -+ 0.64
    assert band(low=0.0, high=1.0)(values) == (pytest.approx(0.95 - 12.706 * 0.05, rel=1e-3), 1.0)
    assert band()(values)[1] > 1
