import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.errors import UserError
from pdjax.io.teacher_source import Stacked, Streamed
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters, place_teacher
from pdjax.train.state import init_state
from pdjax.train.step import Evaluation

STARTS, TEACHER_STEPS, ROWS = (0, 3, 8, 12, 17), (10, 20, 30, 40, 50), 7
CHUNK, CHUNKS = 4, 6


@pytest.fixture(scope="module")
def checkpoints(program):
    """Five teachers that differ, by step, as a store gives them."""
    states = init_state(program._replace(model=program.teacher_model), jnp.arange(len(TEACHER_STEPS)))
    each = [jax.tree.map(lambda leaf, i=i: 10 * np.asarray(leaf[i]), states.params) for i in range(len(TEACHER_STEPS))]
    return dict(zip(TEACHER_STEPS, each, strict=True))


@pytest.fixture(scope="module")
def sweep(program):
    return build_sweep(program, CHUNK, 2, Evaluation(CHUNK, 1, 4))


@pytest.fixture
def streamed(sweep, checkpoints):
    """The curriculum, streamed."""
    source = Streamed(sweep, checkpoints.__getitem__, STARTS, TEACHER_STEPS, ROWS)
    yield source
    source.close()


def train(sweep, source):
    """Returns the losses of six chunks and the student at their end."""
    members = place_hyperparameters(sweep.mesh, [Replica(seed, 5e-3, Distillation(1e-2)) for seed in (0, 1)])
    state, losses = sweep.init(members.seed), []
    for begin in range(0, CHUNK * CHUNKS, CHUNK):
        teacher = source.teacher(begin, begin + CHUNK)
        state, metrics = sweep.chunk(state, members, teacher, np.int32(0), np.int32(100))
        losses.append(np.asarray(metrics.loss.sum))
    return np.concatenate(losses), jax.tree.map(np.asarray, state.params)


def test_streamed_checkpoints_teach_what_stacked_ones_do(sweep, checkpoints, streamed):
    """Bit for bit, with switches within chunks, between them, and rows that never hold."""
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *checkpoints.values())
    starts = np.array([*STARTS, *[2**31 - 1] * (ROWS - len(STARTS))], np.int32)
    slots = np.array([*range(len(STARTS)), 0, 0], np.int32)
    losses, params = train(sweep, Stacked(sweep, place_teacher(sweep, Teacher(stack, starts, slots))))
    again, same = train(sweep, streamed)
    np.testing.assert_array_equal(again, losses)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    wrong = place_teacher(sweep, Teacher(stack, starts, slots[::-1].copy()))
    assert not np.array_equal(train(sweep, Stacked(sweep, wrong))[0], losses)  # the order does matter


def test_the_device_holds_two_checkpoints(sweep, checkpoints, streamed):
    def held():
        shapes = {leaf.shape for leaf in jax.tree.leaves(checkpoints[10])}
        marked = max(shapes, key=np.prod)
        return sum(leaf.shape == marked for leaf in jax.live_arrays())

    before = held()
    for begin in range(0, CHUNK * CHUNKS, CHUNK):
        streamed.teacher(begin, begin + CHUNK)
        streamed._reader.submit(lambda: None).result()  # the next one has been read as well
        assert held() - before <= 2
    assert held() > before


def test_room_is_made_where_a_checkpoint_has_had_its_time(streamed):
    made = []
    for begin in range(0, CHUNK * CHUNKS, CHUNK):
        made.append(streamed.makes_room(begin))
        streamed.teacher(begin, begin + CHUNK)
    assert made == [False, True, True, True, False, True]  # rows 0, 1, 2, 3, 3 and 4 hold at first


def test_a_chunk_that_needs_three_checkpoints_is_refused(streamed):
    with pytest.raises(UserError, match=r"at most two checkpoints.*found 3 from student step 7 to 13.*chunk_steps"):
        streamed.teacher(7, 13)


def test_a_resumed_run_begins_in_the_middle(sweep, streamed, checkpoints):
    teacher = streamed.teacher(12, 16)
    row = int(teacher.slots[3])
    jax.tree.map(np.testing.assert_array_equal, teacher.checkpoint(jnp.int32(row)), checkpoints[40])


def test_a_checkpoint_that_cannot_be_read_is_an_error_of_its_chunk(sweep, checkpoints):
    def load(step):
        if step == 30:
            raise UserError("checkpoint 30 as it was saved", "another SHA-256", "remove it")
        return checkpoints[step]

    source = Streamed(sweep, load, STARTS, TEACHER_STEPS, ROWS)
    source.teacher(0, 4)
    source.teacher(4, 8)
    with pytest.raises(UserError, match="checkpoint 30"):
        source.teacher(8, 12)
    source.close()


def test_reading_the_next_checkpoint_does_not_hold_up_the_chunks(sweep, checkpoints):
    """Reading takes 0.2 s, a chunk 0.5 s: after the first, no more than 5 % of the chunks' time is spent waiting."""

    def load(step):
        time.sleep(0.2)
        return checkpoints[step]

    source = Streamed(sweep, load, STARTS, TEACHER_STEPS, ROWS)
    source.teacher(0, 4)
    first = source.waited_seconds
    for begin in range(4, CHUNK * CHUNKS, CHUNK):
        time.sleep(0.5)
        source.teacher(begin, begin + CHUNK)
    source.close()
    assert first > 0.1  # it is measured
    assert source.waited_seconds - first < 0.05 * 0.5 * (CHUNKS - 1)
