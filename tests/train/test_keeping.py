"""Which steps of a grid are kept, as tables."""

import pytest

from pdjax.errors import UserError
from pdjax.train.keeping import AtSteps, Geometric, Regular, WhileFalling

GRID = range(10, 201, 10)


@pytest.mark.parametrize(
    ("keep", "steps"),
    [
        (Regular(), tuple(GRID)),
        (AtSteps((10, 30, 150)), (10, 30, 150, 200)),
        (AtSteps((30, 200)), (30, 200)),
        (AtSteps(()), (200,)),
        (Geometric(), (10, 20, 40, 80, 160, 200)),
        (Geometric(3.0), (10, 30, 90, 200)),
        (Geometric(1.01), tuple(GRID)),  # never the same one again
        (Geometric(1.5), (10, 20, 30, 40, 60, 90, 140, 200)),  # 4.5 and 13.5 go to the even one
        (Geometric(50.0), (10, 200)),
        (WhileFalling(), (200,)),
        (WhileFalling(at_least_every=80), (80, 160, 200)),
    ],
)
def test_steps_that_are_kept_whatever_the_training_shows(keep, steps):
    keep.check(GRID)
    assert tuple(keep.sure(GRID)) == steps
    if not keep.decides:
        assert keep.most(GRID, 100) == len(steps)
        assert tuple(keep.kept(GRID, (0, 40, 120), (1.0, 1.0, 1.0), 100)) == tuple(s for s in steps if s <= 120)


def test_a_ratio_is_the_decimal_it_is_written_as():
    """In binary, 1.15 * 10 is just below 11.5, which goes to 12 as the even one."""
    grid = range(1, 101)
    steps = Geometric(1.15).sure(grid)
    assert steps[:11] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)


FALLING = {0: 1.0, 10: 0.99, 20: 0.9, 30: 0.7, 35: 0.5, 40: 0.65, 50: 0.7, 60: 0.6, 70: 0.5, 80: 0.5, 90: 0.1}


def kept(keep, until=90, size=100):
    steps = [step for step in FALLING if step <= until]
    return tuple(keep.kept(GRID, steps, [FALLING[step] for step in steps], size))


@pytest.mark.parametrize(
    ("keep", "steps"),
    [
        # 20 has fallen by 0.1 since the untrained model; 40 and 50 by less since 30; 35 is not on the grid.
        (WhileFalling(0.09), (20, 30, 60, 70, 90)),
        (WhileFalling(0.3), (30, 90)),
        (WhileFalling(5.0), ()),
        # Regular ones come besides, and the next fall is measured from them.
        (WhileFalling(0.09, at_least_every=50), (20, 30, 50, 60, 70, 90)),
        # The last and three regular ones (100 and 150 are to come) leave places for two, or none.
        (WhileFalling(0.09, at_least_every=50, most_checkpoints=6), (20, 30, 50)),
        (WhileFalling(0.09, at_least_every=50, most_checkpoints=4), (50,)),
        (WhileFalling(0.09, most_checkpoints=3), (20, 30)),
        (WhileFalling(0.09, most_bytes=399), (20, 30)),
        (WhileFalling(0.09, most_bytes=1000, most_checkpoints=2), (20,)),
    ],
)
def test_steps_that_are_kept_while_the_loss_falls(keep, steps):
    keep.check(GRID)
    assert kept(keep) == steps
    # What was decided stays decided.
    assert all(kept(keep, until) == tuple(s for s in steps if s <= until) for until in FALLING)
    assert len({*steps, *keep.sure(GRID)}) <= keep.most(GRID, 100)


def test_the_last_step_is_kept_when_the_budget_is_spent():
    steps = list(range(0, 201, 10))
    decided = WhileFalling(0.09, most_checkpoints=3).kept(GRID, steps, [20 - step / 10 for step in steps], 100)
    assert decided == [10, 20, 200]


@pytest.mark.parametrize(
    ("keep", "most"),
    [
        (WhileFalling(), 20),
        (WhileFalling(most_checkpoints=7), 7),
        (WhileFalling(most_checkpoints=70), 20),
        (WhileFalling(most_bytes=799), 7),
        (WhileFalling(most_bytes=799, most_checkpoints=3), 3),
    ],
)
def test_a_budget_is_the_least_of_its_limits(keep, most):
    assert keep.most(GRID, 100) == most


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (AtSteps((30, 20)), r"steps in increasing order; found \(30, 20\)"),
        (AtSteps((30, 30)), r"steps in increasing order; found \(30, 30\)"),
        (AtSteps((10, 15, 300)), r"multiples of checkpoint_every = 10 up to 200; found \[15, 300\]"),
        (
            WhileFalling(at_least_every=15),
            r"at_least_every that is a multiple of checkpoint_every = 10, or None; f.* 15",
        ),
        (WhileFalling(at_least_every=50, most_checkpoints=3), r"most_checkpoints of at least 4, .*; found 3"),
    ],
)
def test_what_does_not_fit_the_grid(keep, message):
    with pytest.raises(UserError, match=message):
        keep.check(GRID)


def test_a_budget_of_bytes_that_is_too_small():
    with pytest.raises(UserError, match=r"most_bytes of at least 400, for 4 checkpoints; found 399"):
        WhileFalling(at_least_every=50, most_bytes=399).most(GRID, 100)
