"""Curricula as printed tables, and the lookup at their boundaries (reference: sections 2 and D.2 of the paper)."""

import itertools
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill import curriculum
from pdjax.distill.curriculum import Curriculum
from pdjax.errors import UserError

STORED = range(1000, 8001, 1000)


def table(rows):
    """Renders a curriculum; the steps of a row are 0-based and both its ends use its checkpoint."""
    ends = [start - 1 for start in rows.switches] + [""]
    lines = zip(rows.starts, ends, rows.teacher_steps, strict=True)
    return "".join(f"student step {start}..{end}: teacher {step}\n" for start, end, step in lines)


def written(text):
    return textwrap.dedent(text).lstrip("\n")


def test_explicit_gives_every_checkpoint_its_own_duration():
    assert table(curriculum.explicit([100, 250, 800], [50, 70, 30])) == written("""
        student step 0..49: teacher 100
        student step 50..119: teacher 250
        student step 120..: teacher 800
        """)


def test_explicit_without_the_duration_of_the_last():
    assert table(curriculum.explicit([100, 800], [50])) == written("""
        student step 0..49: teacher 100
        student step 50..: teacher 800
        """)


@pytest.mark.parametrize("durations", [[50], [50, 70, 30, 10], []])
def test_explicit_wants_as_many_durations_as_checkpoints(durations):
    with pytest.raises(UserError, match=rf"for each of 3 checkpoints.*found {len(durations)} durations.*same length"):
        curriculum.explicit([100, 250, 800], durations)


def test_explicit_refuses_a_checkpoint_for_no_steps():
    with pytest.raises(UserError, match=r"found \(0, 50, 50\)"):
        curriculum.explicit([100, 250, 800], [50, 0, 30])


def test_one_shot():
    assert table(curriculum.one_shot(8000)) == "student step 0..: teacher 8000\n"


def test_fixed_duration_of_definition_2_2():
    """(N, T) = (4, 500) with a teacher of 8000 steps: three intermediate checkpoints at equal distances."""
    steps = curriculum.equally_spaced(4, STORED)
    assert table(curriculum.fixed_duration(steps, 500)) == written("""
        student step 0..499: teacher 2000
        student step 500..999: teacher 4000
        student step 1000..1499: teacher 6000
        student step 1500..: teacher 8000
        """)


def test_fixed_duration_2_t():
    assert table(curriculum.fixed_duration([1000, 8000], 500)) == written("""
        student step 0..499: teacher 1000
        student step 500..: teacher 8000
        """)


def test_fixed_duration_3_t():
    assert table(curriculum.fixed_duration([1000, 2000, 8000], 1)) == written("""
        student step 0..0: teacher 1000
        student step 1..1: teacher 2000
        student step 2..: teacher 8000
        """)


def test_equal_split_that_divides():
    assert table(curriculum.equal_split([10, 20, 30, 40], 4000)) == written("""
        student step 0..999: teacher 10
        student step 1000..1999: teacher 20
        student step 2000..2999: teacher 30
        student step 3000..: teacher 40
        """)


def test_equal_split_that_does_not_divide():
    """k * 100 / 7 is 14.3, 28.6, 42.9, 57.1, 71.4, 85.7."""
    assert table(curriculum.equal_split([1, 2, 3, 4, 5, 6, 7], 100)) == written("""
        student step 0..13: teacher 1
        student step 14..27: teacher 2
        student step 28..41: teacher 3
        student step 42..56: teacher 4
        student step 57..70: teacher 5
        student step 71..84: teacher 6
        student step 85..: teacher 7
        """)


def test_equal_split_with_a_step_for_each():
    assert table(curriculum.equal_split([1, 2, 3], 3)) == written("""
        student step 0..0: teacher 1
        student step 1..1: teacher 2
        student step 2..: teacher 3
        """)


def test_equal_split_with_fewer_steps_than_checkpoints():
    with pytest.raises(UserError, match=r"each of 3 checkpoints; found 2 steps to split; use fewer checkpoints"):
        curriculum.equal_split([1, 2, 3], 2)


FOUR = (2000, 4000, 6000, 8000)


def test_teacher_split_with_kappa_1_and_a_student_as_long_as_the_teacher():
    assert table(curriculum.teacher_split(FOUR, 8000, 1.0, student_length=8000)) == written("""
        student step 0..1999: teacher 2000
        student step 2000..3999: teacher 4000
        student step 4000..5999: teacher 6000
        student step 6000..: teacher 8000
        """)


@pytest.mark.parametrize("student_length", [3001, 4000, 16000])
def test_teacher_split_with_kappa_one_half_keeps_the_final_one_to_the_end(student_length):
    assert table(curriculum.teacher_split(FOUR, 8000, 0.5, student_length)) == written("""
        student step 0..999: teacher 2000
        student step 1000..1999: teacher 4000
        student step 2000..2999: teacher 6000
        student step 3000..: teacher 8000
        """)


@pytest.mark.parametrize("student_length", [2001, 2500, 3000])
def test_teacher_split_drops_what_a_shorter_student_never_reaches(student_length):
    """At 3000 exactly, the last student step is 2999: the final checkpoint would be for nothing."""
    assert table(curriculum.teacher_split(FOUR, 8000, 0.5, student_length)) == written("""
        student step 0..999: teacher 2000
        student step 1000..1999: teacher 4000
        student step 2000..: teacher 6000
        """)


def test_teacher_split_for_a_student_within_the_first_interval():
    assert table(curriculum.teacher_split(FOUR, 8000, 1.0, student_length=2000)) == "student step 0..: teacher 2000\n"


def test_teacher_split_with_a_small_kappa_is_nearly_one_shot():
    assert table(curriculum.teacher_split(FOUR, 8000, 1 / 1000, student_length=16000)) == written("""
        student step 0..1: teacher 2000
        student step 2..3: teacher 4000
        student step 4..5: teacher 6000
        student step 6..: teacher 8000
        """)


def test_teacher_split_with_a_kappa_too_small_for_a_step_each():
    assert curriculum.teacher_split(FOUR, 8000, 0.0005, student_length=100).starts == (0, 1, 2, 3)
    with pytest.raises(UserError, match=r"each of 4 checkpoints; found 3\.2 steps to split; .* larger kappa"):
        curriculum.teacher_split(FOUR, 8000, 0.0004, student_length=100)


def test_teacher_split_takes_kappa_as_the_decimal_it_is_written_as():
    """0.58 * 100 is 57.99999999999999 in binary floating point."""
    assert curriculum.teacher_split([1, 2], 100, 0.58, student_length=100).starts == (0, 29)


def test_equally_spaced():
    assert curriculum.equally_spaced(8, STORED) == (1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000)
    assert curriculum.equally_spaced(1, STORED) == (8000,)


def test_equally_spaced_between_stored_steps():
    with pytest.raises(UserError, match=r"3 equally spaced .* every 1000 steps up to 8000; found .* 2666\.67"):
        curriculum.equally_spaced(3, STORED)
    with pytest.raises(UserError, match="found a distance of 500; change the number"):
        curriculum.equally_spaced(16, STORED)


PYTHIA = (0, *(2**n for n in range(10)), *range(1000, 143_001, 1000))


@pytest.mark.parametrize(
    ("count", "stored", "steps"),
    [
        (4, STORED, (2000, 4000, 6000, 8000)),
        (1, (500,), (500,)),
        (2, PYTHIA, (71_000, 143_000)),
        (4, (500, 1000, 1500, 1723), (500, 1000, 1500, 1723)),
        (3, (1, 2, 4, 8, 16, 1000), (8, 16, 1000)),
    ],
)
def test_nearly_equally_spaced(count, stored, steps):
    assert curriculum.nearly_equally_spaced(count, stored) == steps


@pytest.mark.parametrize("seed", range(20))
def test_no_other_steps_are_nearer_to_equal_distances(seed):
    rng = np.random.default_rng(seed)
    stored = tuple(np.sort(rng.choice(1000, 8, replace=False)).tolist())
    count = int(rng.integers(2, 6))
    wanted = [number * stored[-1] / count for number in range(1, count)]

    def distance(steps):
        return sum(abs(step - at) for step, at in zip(steps, wanted, strict=True))

    *found, final = curriculum.nearly_equally_spaced(count, stored)
    assert final == stored[-1]
    least = min(distance(steps) for steps in itertools.combinations(stored[:-1], count - 1))
    assert distance(found) == pytest.approx(least)


def test_more_than_there_are_are_refused():
    with pytest.raises(UserError, match=r"at least 4 stored checkpoints; found 2, \[10, 20\]; lower the number"):
        curriculum.nearly_equally_spaced(4, (10, 20))


def test_equally_spaced_where_others_are_stored_too():
    """The first one is no distance then."""
    assert curriculum.equally_spaced(2, (300, 4000, 6000, 8000)) == (4000, 8000)
    with pytest.raises(UserError, match=r"4 equally .* stored at \[1000, 2000, 4000, 8000\]; found a distance of 2000"):
        curriculum.equally_spaced(4, (1000, 2000, 4000, 8000))


def test_check_available_names_what_is_missing():
    rows = curriculum.fixed_duration([1000, 2000, 8000], 500)
    rows.check_available({1000, 2000, 3000, 8000})
    with pytest.raises(UserError, match=r"checkpoints \[1000, 2000, 8000\]; found no checkpoint for \[1000, 8000\]"):
        rows.check_available([2000, 3000])
    with pytest.raises(UserError, match=r"among \[2000, 3000\]; choose stored steps"):
        rows.check_available([3000, 2000])


@pytest.mark.parametrize(
    ("starts", "teacher_steps", "message"),
    [
        ((0, 10), (200, 100), r"increasing order .*found \(200, 100\)"),
        ((0, 10), (100, 100), r"increasing order .*found \(100, 100\); .*remove repeated"),
        ((10, 20), (100, 200), r"begin at 0 and increase; found \(10, 20\)"),
        ((0, 20, 10), (100, 200, 300), r"begin at 0 and increase; found \(0, 20, 10\)"),
        ((0, 10, 10), (100, 200, 300), r"begin at 0 and increase; found \(0, 10, 10\)"),
        ((), (), r"at least one; found starts \(\) for checkpoints \(\)"),
        ((0, 10), (100,), r"found starts \(0, 10\) for checkpoints \(100,\)"),
        ((0,), (100, 200), r"found starts \(0,\) for checkpoints \(100, 200\)"),
    ],
)
def test_malformed_tables(starts, teacher_steps, message):
    with pytest.raises(UserError, match=message):
        Curriculum(starts, teacher_steps)


def test_no_checkpoints():
    for construct in (lambda: curriculum.fixed_duration([], 5), lambda: curriculum.equal_split([], 5)):
        with pytest.raises(UserError):
            construct()


def test_switches_are_the_steps_of_a_change():
    assert curriculum.fixed_duration([1, 2, 3], 50).switches == (50, 100)
    assert curriculum.one_shot(3).switches == ()


# Row of the table (0, 50, 120) by student step: a start belongs to its own row.
ROW_AT = {0: 0, 1: 0, 49: 0, 50: 1, 51: 1, 119: 1, 120: 2, 121: 2, 20_000_000: 2, 2**31 - 2: 2}


@pytest.mark.parametrize("length", [3, 4, 9])
def test_lookup_at_the_boundaries(length):
    starts = curriculum.padded((0, 50, 120), length)
    rows = {step: int(curriculum.checkpoint_index(starts, jnp.int32(step))) for step in ROW_AT}
    assert rows == ROW_AT


def test_lookup_inside_compiled_code():
    starts = curriculum.padded((0, 50, 120), 5)
    rows = jax.jit(jax.vmap(curriculum.checkpoint_index, in_axes=(None, 0)))(starts, jnp.array(list(ROW_AT)))
    np.testing.assert_array_equal(rows, list(ROW_AT.values()))


def test_lookup_in_several_tables_at_once():
    tables = jnp.stack([curriculum.padded(starts, 3) for starts in [(0,), (0, 10), (0, 5, 10)]])
    rows = jax.vmap(jax.vmap(curriculum.checkpoint_index, in_axes=(None, 0)), in_axes=(0, None))(
        tables, jnp.array([0, 4, 5, 9, 10])
    )
    np.testing.assert_array_equal(rows, [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 1, 2]])


def test_padding_keeps_the_starts():
    starts = curriculum.padded((0, 7), 4)
    assert starts.dtype == jnp.int32
    np.testing.assert_array_equal(starts, [0, 7, 2**31 - 1, 2**31 - 1])


def test_lookup_over_every_step_spends_the_durations():
    """Conservation: 30 + 50 + 20 steps of a student of 100."""
    starts = curriculum.padded(curriculum.explicit([1, 2, 3], [30, 50]).starts, 6)
    rows = jax.vmap(curriculum.checkpoint_index, in_axes=(None, 0))(starts, jnp.arange(100))
    np.testing.assert_array_equal(np.bincount(rows, minlength=6), [30, 50, 20, 0, 0, 0])
