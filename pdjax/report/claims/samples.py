"""Claim R3: how many samples the first stage needs as the dimension grows, from a teacher and from labels."""

from collections.abc import Iterator

import pandas as pd

from pdjax.report.claims.claim import Absent, Case, Claim, Measurement, decided
from pdjax.report.results import Results
from pdjax.report.samples import FIRST, LABELS, searched
from pdjax.report.scaling import lines
from pdjax.report.stats import Interval

_TOO_FEW = "too few found it"


def measure(results: Results) -> list[Case] | Absent:
    """Fits exponents in d, for every degree that several dimensions have."""
    rows = searched(results)
    cases = list(_cases(rows[rows.separated]))
    return cases or Absent("no samples of the first stage were counted at several dimensions")


def _cases(rows: pd.DataFrame) -> Iterator[Case]:
    for line in lines(rows, "dimension", ["degree"]):
        degree, fitted = int(line.rest["degree"]), line.exponent
        name = f"{line.source}, k = {degree}"
        shown = (Measurement("exponent in d", fitted, "" if fitted else _TOO_FEW),)
        if line.source.startswith(FIRST):
            bounds = (_bounded("1 minus the exponent", fitted, 1, -1),)
        elif line.source == LABELS:
            bounds = (
                _bounded(f"exponent minus {degree - 2}", fitted, 2 - degree, 1),
                _bounded(f"{degree} minus the exponent", fitted, degree, -1),
            )
        else:
            continue
        yield decided(name, bounds, shown=shown)


def _bounded(quantity: str, fitted: Interval | None, offset: float, sign: int) -> Measurement:
    """Returns ``offset + sign * exponent``."""
    if fitted is None:
        return Measurement(quantity, None, _TOO_FEW)
    low, high = sorted(offset + sign * end for end in (fitted.low, fitted.high))
    note = "needs 2 seeds" if fitted.size < 2 else ""
    return Measurement(quantity, Interval(offset + sign * fitted.mean, low, high, fitted.size), note)


R3 = Claim(
    name="R3",
    text="The first stage needs about as many samples in every dimension when the teacher’s checkpoint after its own "
    "first stage is learned from, and about d^(k-1) from labels.",
    source="theorem 3.2",
    rule="Samples are the smallest batch after which in 90% of a student’s neurons the k largest weights are the "
    "support. The exponent is the slope of the logarithm of their median against log d, with a 95% bootstrap interval "
    "over teachers (of labels, over students). From the checkpoint it is to lie below 1, from labels within 1 of "
    "k - 1: each holds if the interval does, and fails if it lies outside. Only teachers count from which the support "
    "can be found at all: whose smallest |E f x_j| in the support is above the largest off it, as theorem B.1 "
    "supposes.",
    smallest=0.1,
    figure="samples_by_dimension",
    measure=measure,
)
