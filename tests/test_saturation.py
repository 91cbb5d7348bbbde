"""The adaptive curriculum's rule, on accuracies written by hand."""

import pytest

from pdjax.config import SaturationConfig
from pdjax.saturation import saturation_starts

RULE = SaturationConfig(window=3, min_gain=0.01, max_steps=1000)


def starts(accuracy, rule=RULE, checkpoints=3):
    return saturation_starts(rule, checkpoints, [10 * i for i in range(len(accuracy))], accuracy)


def test_moves_on_where_the_gain_ends():
    #        0    10   20   30   40    50    60    70
    rising = [0.5, 0.5, 0.6, 0.7, 0.75, 0.75, 0.75, 0.75]
    # At 50 the three before it average 0.683, still 0.067 below; at 60 0.733; at 70 0.75: no gain any more.
    assert starts(rising) == (0, 70)


def test_does_not_move_on_before_anything_was_gained():
    assert starts([0.5] * 20) == (0,)
    assert starts([0.5] * 9 + [0.52] * 4) == (0, 110)  # 0.02 gained at 90; at 110 only 0.007 above the mean


def test_the_window_does_not_reach_back_before_the_last_move():
    accuracy = [0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7]
    assert starts(accuracy) == (0, 40, 80)
    # Had the evaluations before 40 counted, the mean at 60 and 70 would still have been low, and 80 be the same;
    # a full window since the move is needed: at 50 and 60 there is none.
    assert starts(accuracy[:8]) == (0, 40)


def test_moves_on_in_any_case_after_so_many_steps():
    rule = SaturationConfig(window=3, min_gain=0.01, max_steps=40)
    assert starts([0.5] * 10, rule) == (0, 40, 80)


def test_the_last_checkpoint_is_kept():
    rule = SaturationConfig(window=3, min_gain=0.01, max_steps=10)
    assert starts([0.5] * 10, rule, checkpoints=3) == (0, 10, 20)
    assert starts([0.5] * 10, rule, checkpoints=1) == (0,)


@pytest.mark.parametrize("length", range(1, 9))
def test_decisions_never_change_later(length):
    accuracy = [0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7]
    sofar, whole = starts(accuracy[:length]), starts(accuracy)
    assert whole[: len(sofar)] == sofar
