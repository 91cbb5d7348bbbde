"""The closed forms of Algorithm 1's numbers, against brute force."""

import itertools
import math

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.theory.algorithm import (
    check_pair,
    expected_coefficients,
    first_batch,
    first_batch_for_students,
    first_batch_of_student,
    first_rate,
    majority_coefficient,
    off_support_ratio,
    second_rate,
    second_steps,
    width,
)


@pytest.mark.parametrize("dimension", [1, 3, 5, 9, 15])
def test_coefficients_are_those_of_all_inputs(dimension):
    """By a fast Walsh-Hadamard transform of the majority over all 2^d inputs: every set, not one of each size."""
    bits = (np.arange(2**dimension)[:, None] >> np.arange(dimension)[None]) & 1
    transform = np.sign(np.sum(1 - 2 * bits, axis=1)).astype(np.int64)
    for axis in range(dimension):
        pairs = transform.reshape(-1, 2, 2**axis)
        transform = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
    expected = np.array([majority_coefficient(dimension, size) for size in range(dimension + 1)])
    np.testing.assert_allclose(transform / 2**dimension, expected[bits.sum(axis=1)], rtol=1e-14, atol=0)


@pytest.mark.parametrize(("dimension", "degree"), [(15, 2), (15, 4), (31, 6), (301, 4)])
def test_ratio_off_the_support_is_that_of_coefficients(dimension, degree):
    above, below = (majority_coefficient(dimension, degree + by) for by in (1, -1))
    assert off_support_ratio(dimension, degree) == pytest.approx(abs(above / below), rel=1e-13)
    assert above * below < 0  # signs alternate


def test_squares_of_coefficients_sum_to_one():
    """Parseval, at a dimension beyond brute force."""
    total = sum(math.comb(101, size) * majority_coefficient(101, size) ** 2 for size in range(102))
    assert total == pytest.approx(1, rel=1e-12)


def test_numbers_are_the_printed_expressions():
    zeta = -math.comb(14, 7) * 7 / (2**14 * math.comb(14, 2))  # of degree 3 in 15 bits, by hand
    assert first_rate(15, 4, 100) == pytest.approx(100 / (4 * -zeta))
    assert first_batch(15, 4, 0.1) == pytest.approx(16 * math.log(600) / zeta**2)
    assert first_batch_for_students(15, 4, 0.1) == pytest.approx(15 ** (10 / 3) * first_batch(15, 4, 0.1))
    assert first_batch_of_student(15, 4, 64, 0.1) == pytest.approx(16 * math.log(9600))
    assert width(4, 0.1) == 2 * math.ceil(64 * math.log(40) / 2)
    steps = second_steps(15, 4, 236, 0.1)
    assert steps == pytest.approx(236 * 225 * 64 / 0.01)
    assert second_rate(15, 4, 236, 1e6) == pytest.approx(4 * 8 / (15 * math.sqrt(236 * 999_999)))


def test_other_pairs_are_refused_with_the_reason():
    for dimension, degree in itertools.product((3, 9, 31), (2,)):
        check_pair(dimension, degree)
    with pytest.raises(UserError, match=r"odd dimension d; found 10; w \. x can be 0"):
        check_pair(10, 4)
    with pytest.raises(UserError, match="even degree k from 2 to 8; found 3; the majority's Fourier coefficient"):
        check_pair(9, 3)
    with pytest.raises(UserError, match="even degree k from 2 to 4; found 6"):
        check_pair(5, 6)


@pytest.mark.parametrize(("dimension", "degree"), [(7, 2), (9, 4)])
def test_expected_coefficients_are_those_of_all_neurons_and_inputs(dimension, degree):
    """A neuron for every pattern of signs and bias, all inputs: by Claim B.3's weights, squared and averaged."""
    x = 1.0 - 2 * ((np.arange(2**dimension)[:, None] >> np.arange(dimension)[None]) & 1)
    slopes = np.where(np.arange(dimension) < degree, 1.0, off_support_ratio(dimension, degree)) / (2 * degree)
    w, squares = x * slopes, []
    for bias in np.arange(1 - degree, degree) / degree:
        pair = np.maximum(x @ w.T + bias, 0) - np.maximum(-x @ w.T + bias, 0)  # [inputs, neurons]
        squares.append(np.mean((pair.T @ x / len(x)) ** 2, axis=0))
    m = 50  # so many neurons, signs of each independent: variances of m / 2 pairs of height 1 / m add up
    expected = np.sqrt(np.mean(squares, axis=0) * (m / 2) / m**2)
    off, inside = expected_coefficients(dimension, degree, m)
    np.testing.assert_allclose(expected, [inside] * degree + [off] * (dimension - degree), rtol=1e-10)
    assert inside > off
    # Aligned, the terms of one coordinate have one sign: that of a neuron whose weights there are positive.
    means = []
    for bias in np.arange(1 - degree, degree) / degree:
        pair = np.maximum(x @ w.T + bias, 0) - np.maximum(-x @ w.T + bias, 0)
        means.append(np.mean(np.abs(pair.T @ x[:, 0] / len(x))))
    assert expected_coefficients(dimension, degree, m, aligned=True) == pytest.approx((off, np.mean(means) / 2))
