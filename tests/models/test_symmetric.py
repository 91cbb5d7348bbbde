"""The network of the theory: which biases let it fit a parity."""

import numpy as np
import pytest


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_biases_one_kth_apart_fit_a_parity_with_one_pattern_of_signs(degree):
    """After the first stage a neuron sees ``s . x / 2k``; least squares over its values say what neurons can fit."""
    assert residual(degree, np.arange(1 - degree, degree) / degree) < 1e-12


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_biases_two_kths_apart_do_not(degree):
    assert residual(degree, np.arange(1 - degree, degree, 2) / degree) > 1


def residual(degree, biases):
    values = np.arange(-degree, degree + 1, 2)  # of s . x
    neurons = [np.maximum(sign * values / (2 * degree) + bias, 0) for sign in (1, -1) for bias in biases]
    parity = (-1.0) ** np.arange(degree + 1)
    fit = np.linalg.lstsq(np.array(neurons).T, parity, rcond=None)[0]
    return np.abs(np.array(neurons).T @ fit - parity).max()
