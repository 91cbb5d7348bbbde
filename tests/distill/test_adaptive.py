"""The adaptive schedules' rules, on scores written by hand."""

import numpy as np
import pytest

from pdjax.distill.adaptive import UntilRobust, UntilSaturated

RULE = UntilSaturated(score="accuracy", window=3, min_gain=0.01, max_steps=1000)


def starts(accuracy, rule=RULE, checkpoints=3):
    """The rule on a score that is the same whoever the teacher is."""
    scores = np.repeat(np.array(accuracy)[:, None], checkpoints, axis=1)
    return rule.starts([10 * i for i in range(len(accuracy))], scores)


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
    rule = UntilSaturated(score="accuracy", window=3, min_gain=0.01, max_steps=40)
    assert starts([0.5] * 10, rule) == (0, 40, 80)


def test_the_last_checkpoint_is_kept():
    rule = UntilSaturated(score="accuracy", window=3, min_gain=0.01, max_steps=10)
    assert starts([0.5] * 10, rule, checkpoints=3) == (0, 10, 20)
    assert starts([0.5] * 10, rule, checkpoints=1) == (0,)


@pytest.mark.parametrize("length", range(1, 9))
def test_decisions_never_change_later(length):
    accuracy = [0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7]
    sofar, final = starts(accuracy[:length]), starts(accuracy)
    assert final[: len(sofar)] == sofar


def test_every_teacher_has_a_score_of_its_own():
    """The agreement with the first teacher saturates at 50; that with the second rises from another level."""
    first = [0.1, 0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    second = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.4, 0.4, 0.4, 0.4]
    scores = np.stack([first, second, second], axis=1)
    #  at 50 the three before average 0.567; at 60 all three are 0.6
    assert RULE.starts([10 * i for i in range(11)], scores) == (0, 60, 100)


CROSSING = UntilRobust(max_steps=1000)


def crossings(surplus, rule=CROSSING):
    return rule.starts([10 * i for i in range(len(surplus))], np.array(surplus))


def test_moves_on_where_the_difference_to_its_teacher_changes_sign():
    """It starts below its first teacher and comes above it at 20; it is above its second one by then, and below at 40;
    the third is the last."""
    surplus = [
        [-0.3, -0.1, 0.2],
        [-0.1, 0.1, 0.2],
        [0.05, 0.2, 0.2],
        [0.1, 0.1, 0.2],
        [0.2, -0.1, 0.2],
        [0.2, -0.1, -1],
    ]
    assert crossings(surplus) == (0, 20, 40)
    assert crossings(surplus[:4]) == (0, 20)


def test_reaching_its_teacher_exactly_is_enough():
    assert crossings([[-0.1, 0.1], [0.0, 0.1]]) == (0, 10)


def test_a_student_that_never_crosses_moves_on_after_so_many_steps():
    rule = UntilRobust(max_steps=30)
    assert crossings([[-0.1] * 3] * 8, rule) == (0, 30, 60)
    assert crossings([[-0.1] * 3] * 8) == (0,)
