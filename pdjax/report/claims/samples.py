"""Claim R3: how many samples the first stage needs as the dimension grows, from a teacher and from labels."""

from pdjax.report.claims.claim import Absent, Case, Claim, Measurement, decided
from pdjax.report.results import Results
from pdjax.report.samples import FINAL, FIRST, LABELS, by, exponent, searched, series
from pdjax.report.stats import Interval


def measure(results: Results) -> list[Case] | Absent:
    """Fits exponents in d, for every degree that several dimensions have."""
    rows = searched(results)
    cases = []
    for source, degree, chosen in series(rows, "dimension", "degree"):
        fitted = exponent(by(chosen, "dimension"))
        name = f"{source}, k = {degree:.0f}"
        shown = (Measurement("exponent in d", fitted, "" if fitted else "too few found"),)
        if source.startswith(FIRST):
            cases.append(decided(name, [_bounded("1 minus the exponent", fitted, 1, -1)], shown=shown))
        elif source == LABELS:
            bounds = (
                _bounded(f"exponent minus {degree - 2:.0f}", fitted, -(degree - 2), 1),
                _bounded(f"{degree:.0f} minus the exponent", fitted, degree, -1),
            )
            cases.append(decided(name, bounds, shown=shown))
        elif source.startswith(FINAL):
            cases.append(Case(name, (), "not tested", "theorem B.1 is about errors that fall with d", shown))
    return cases or Absent("no samples of the first stage were counted at several dimensions")


def _bounded(quantity: str, fitted: Interval | None, offset: float, sign: int) -> Measurement:
    """Returns ``offset + sign * exponent``."""
    if fitted is None:
        return Measurement(quantity, None, "too few found")
    ends = sorted(offset + sign * end for end in (fitted.low, fitted.high))
    return Measurement(quantity, Interval(offset + sign * fitted.mean, *ends, fitted.size), "")


R3 = Claim(
    name="R3",
    text="The first stage needs about as many samples in every dimension when the teacher's checkpoint after its own "
    "first stage is learned from, and about d^(k-1) from labels.",
    source="theorem 3.2",
    rule="Samples are the smallest batch after which in 90% of a student's neurons the k largest weights are the "
    "support. The exponent is the slope of the logarithm of their median against log d, with a 95% bootstrap interval "
    "over teachers (of labels, over students). From the checkpoint it is to lie below 1, from labels within 1 of "
    "k - 1: each holds if the interval does, and fails if it lies outside. Only teachers count from which the support "
    "can be found at all: whose smallest |E f x_j| in the support is above the largest off it, as theorem B.1 "
    "supposes.",
    smallest=0.1,
    figure="samples_by_dimension",
    measure=measure,
)
