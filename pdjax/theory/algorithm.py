"""The numbers of Algorithm 1 and of what appendix B says about it, as functions of (d, k, epsilon, delta).

The first layer of ``f(x) = sum_i a_i relu(w_i . x + b_i)`` takes one step at the gradient over a large batch, then the
output weights follow one example at a time. What makes the one step find the support of a parity are the Fourier
coefficients of the majority function: for signs w and |b| < 1 the gate ``w . x + b > 0`` is ``1/2 + 1/2 Maj(w * x)``.
That holds for odd d alone, as for even d the product w . x can be 0. And k has to be even: of odd k the coefficient of
degree k - 1, on which everything rests, is 0.

Orders of magnitude (``Omega``, ``Theta``) have the constant 1 here: these are the printed expressions, not bounds.
"""

import itertools
import math

from pdjax.errors import require


def check_pair(dimension: int, degree: int) -> None:
    """Requires an odd d and an even k of at most d - 1.

    Raises:
      UserError: the analysis says nothing about them.
    """
    require(
        dimension % 2 == 1,
        "an odd dimension d",
        dimension,
        "w . x can be 0 for even d, and the gate is not 1/2 + 1/2 Maj: add or remove a coordinate",
    )
    require(
        degree % 2 == 0 and 2 <= degree < dimension,
        f"an even degree k from 2 to {dimension - 1}",
        degree,
        "the majority's Fourier coefficient of degree k - 1 is 0 for odd k: take an even one",
    )


def majority_coefficient(dimension: int, degree: int) -> float:
    """Returns zeta_i, the Fourier coefficient of the majority of an odd number of bits at the sets of i of them.

    ``2^(1-d) C(d-1, n) (-1)^((i-1)/2) C(n, (i-1)/2) / C(d-1, i-1)`` with ``n = (d-1)/2`` for odd i, 0 for even i
    (O'Donnell 2014, theorem 5.19).

    >>> majority_coefficient(3, 1), majority_coefficient(3, 2), majority_coefficient(3, 3)
    (0.5, 0.0, -0.5)
    """
    if degree % 2 == 0:
        return 0.0
    half, place = (dimension - 1) // 2, (degree - 1) // 2
    # Integers first: they have hundreds of digits, and their quotient is exact to the last bit.
    signed = (-1) ** place * math.comb(dimension - 1, half) * math.comb(half, place)
    return signed / (2 ** (dimension - 1) * math.comb(dimension - 1, degree - 1))


def off_support_ratio(dimension: int, degree: int) -> float:
    """Returns ``|zeta_(k+1) / zeta_(k-1)|``, of weights off the support to those in it: ``(k-1) / (d-k)``.

    They are smaller from ``d = 2k`` on. With ``1/2k`` in the support that is about ``1/2d`` off it, not the ``1/kd`` of
    section B.1.1.
    """
    return (degree - 1) / (dimension - degree)


def expected_coefficients(dimension: int, degree: int, width: int, aligned: bool = False) -> tuple[float, float]:
    """Returns the size of ``E f(x) x_j``, off and in the support, of a teacher after the exact first stage.

    Root mean squares over initialisations. A pair of neurons adds ``2 a_i E[relu(w_i . x + b_i) x_j]``, whose sign is
    that of ``a_i w_ij``: by Claim B.3 a product of the signs of k - 1 (or k + 1) initial weights, as often positive as
    negative. The sum over m/2 pairs is therefore of the order of ``1 / (k sqrt(m))``. Lemma B.5 finds ``1 / 8k``, as it
    uses of all neurons the signs that it takes one to have "without loss of generality". Where the initial weights are
    ``aligned`` on the support they have these up to one sign for all, and the mean there is ``1 / 4k``: over biases
    that come with either sign, ``relu(z + b) - relu(-z + b)`` is z on average.
    """
    ratio = off_support_ratio(dimension, degree)
    inner, outer = (_sums_of_signs(count) for count in (degree, dimension - degree))
    squares = [0.0, 0.0]
    for bias in (number / degree for number in range(1 - degree, degree)):
        # Of a neuron whose weights are positive; E[x_j | a sum of signs] is the sum over their number.
        terms = [
            (p * q * max((s + ratio * t) / (2 * degree) + bias, 0.0), t / (dimension - degree), s / degree)
            for (s, p), (t, q) in itertools.product(inner, outer)
        ]
        for place, mean in enumerate(sum(height * term[place] for height, *term in terms) for place in range(2)):
            squares[place] += mean**2 / (2 * degree - 1)
    off, inside = (math.sqrt(2 / width * square) for square in squares)
    return off, 1 / (4 * degree) if aligned else inside


def _sums_of_signs(count: int) -> list[tuple[int, float]]:
    """Returns the values of a sum of uniform signs with their probabilities."""
    return [(count - 2 * minus, math.comb(count, minus) / 2**count) for minus in range(count + 1)]


def width(degree: int, failure: float) -> int:
    """Returns m of Lemma B.7, ``2^k k log(k / delta)``, as the next even number: neurons come in pairs."""
    return 2 * math.ceil(2**degree * degree * math.log(degree / failure) / 2)


def first_rate(dimension: int, degree: int, width: int) -> float:
    """Returns eta_1 of Lemma B.2, ``m / (k |zeta_(k-1)|)``."""
    return width / (degree * abs(majority_coefficient(dimension, degree - 1)))


def first_batch(dimension: int, degree: int, error: float) -> float:
    """Returns B_1 of Lemma B.7, ``k^2 log(k d / epsilon) / zeta_(k-1)^2``.

    The lemma prints ``|zeta|^2`` in the numerator; its next line, ``d^(k-1) k^2 log``, has it below the line.
    """
    zeta = majority_coefficient(dimension, degree - 1)
    return degree**2 * math.log(degree * dimension / error) / zeta**2


def first_batch_for_students(dimension: int, degree: int, error: float) -> float:
    """Returns B_1 of Corollary B.9, ``d^(10/3)`` times as large: what a teacher of students is asked for.

    The factor bounds terms of even degree, which are 0 after a first stage of whatever batch: it is not needed.
    """
    return dimension ** (10 / 3) * first_batch(dimension, degree, error)


def first_batch_of_student(dimension: int, degree: int, width: int, failure: float) -> float:
    """Returns B_1 of a progressive student in Theorem B.1, ``k^2 log(d m / delta)``."""
    return degree**2 * math.log(dimension * width / failure)


def second_steps(dimension: int, degree: int, width: int, error: float) -> float:
    """Returns T_2 of Lemma B.7, ``m d^2 k^3 / epsilon^2``, at batch 1."""
    return width * dimension**2 * degree**3 / error**2


def second_rate(dimension: int, degree: int, width: int, steps: float) -> float:
    """Returns eta_2 of Lemma B.7, ``4 k^1.5 / (d sqrt(m (T_2 - 1)))``."""
    return 4 * degree**1.5 / (dimension * math.sqrt(width * (steps - 1)))
