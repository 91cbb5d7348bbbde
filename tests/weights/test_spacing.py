"""Steps that are missing, where the spacing leaves no doubt, and none where it changes."""

import itertools
import random

import pytest

from pdjax.weights.spacing import missing_steps

PYTHIA = [0, *(2**n for n in range(10)), *range(1000, 143_001, 1000)]
MULTIBERTS = [*range(0, 200_001, 20_000), *range(300_000, 2_000_001, 100_000)]
ROUNDED = sorted({round(1.5**n) for n in range(30)})


@pytest.mark.parametrize(
    "steps",
    [
        PYTHIA,
        MULTIBERTS,
        ROUNDED,
        [],
        [7],
        [0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000],
        [*range(0, 9000, 1000), 9765],
        [0, 100, 200, 300, 310, 320, 330, 340, 350, 360, 400, 500, 600, 700, 800],
        [*range(0, 1000, 50), *(2**n * 1000 for n in range(8))],
        list(itertools.accumulate(random.Random(0).choices(range(1, 100), k=50))),
    ],
)
def test_none(steps):
    assert missing_steps(steps) == []


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        (PYTHIA, [4]),
        (PYTHIA, [16, 5000, 57_000, 58_000, 141_000]),
        (MULTIBERTS, [60_000, 900_000]),
        (range(0, 1001, 100), [500, 700]),
        (range(3, 1000, 50), [153, 203, 403]),
    ],
)
def test_holes(steps, missing):
    assert missing_steps([step for step in steps if step not in missing]) == missing


def test_a_rounded_step():
    place = ROUNDED.index(3325)
    (missing,) = missing_steps(ROUNDED[:place] + ROUNDED[place + 1 :])
    assert missing == pytest.approx(3325, rel=0.01)
