"""What counts of a batch alone gives what the whole batch gives, and is what is computed where it fits."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Distillation, HiddenMatching, Labels, Loss
from pdjax.distill.teacher import Teacher
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.settings import settings
from pdjax.stages.programs import bounds_of, compiled, student_program, student_replicas, teacher_program
from pdjax.tasks.base import Bounds
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.chunk import train_chunk
from pdjax.train.narrow import fits, narrowed, narrowly
from pdjax.train.optimizer import Sgd
from pdjax.train.replicas import place_hyperparameters, product_of_replicas
from pdjax.train.sharding import MeshSizes, Placement, build_mesh
from pdjax.train.state import Program, init_state
from pdjax.train.step import LABELS, evaluate

MASKED, NEXT = PcfgTask("cfg3b", 10), PcfgLanguageTask("cfg3b", 10)
FITTING, TIGHT = Bounds(9, 6), Bounds(5, 1)
TAUGHT = (Distillation(1.0),)
STEPS = 3


def batches(task, count, size=4):
    return jax.vmap(lambda key: task.sample(key, size))(jax.random.split(jax.random.key(0), count))


@dataclasses.dataclass(frozen=True)
class Watched:
    """A model that notes how many positions it was really shown, and of how many it was asked."""

    model: object
    seen: list = dataclasses.field(default_factory=list, compare=False, hash=False)

    def init(self, key, inputs):
        return self.model.init(key, inputs)

    def apply(self, params, inputs, dropout_key=None):
        shape = inputs["tokens"].shape[1], inputs["asked"].shape[1] if "asked" in inputs else None
        jax.debug.callback(lambda: self.seen.append(shape))
        return self.model.apply(params, inputs, dropout_key)


@settings
class OfPositions(Loss):
    """A loss of a user's own, which may look at where a place is."""

    label = "of positions"

    def values(self, student, teacher, batch, numbers, params):
        return jnp.arange(batch.targets.shape[-1]) * LABELS.values(student, teacher, batch, numbers, params)


@settings
class OfTheBatch(Distillation):
    """A loss of a user's own, which looks at the whole batch."""

    of_whole_batch: ClassVar[bool] = True


def trained(program, bounds, losses=TAUGHT, replicas=2):
    """The parameters and metrics behind some steps of students whose teacher changes."""
    program = program._replace(bounds=bounds)
    members = product_of_replicas(range(replicas), [1e-1], losses)
    rows = place_hyperparameters(build_mesh(MeshSizes(), len(members), 4, jax.devices()[:1]), members)
    stack = init_state(program._replace(model=program.teacher_model), jnp.arange(2)).params
    teacher = Teacher(stack, jnp.array([0, 1]), jnp.array([1, 0]))
    run = jax.jit(functools.partial(train_chunk, program, STEPS))
    state, metrics = run(init_state(program, rows.seed), rows, teacher, jnp.int32(3), jnp.int32(STEPS))
    jax.effects_barrier()
    return state.params, metrics


def assert_same(some, others):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), some, others)


@pytest.mark.parametrize(
    ("task", "architecture", "bounds"),
    [(MASKED, Bert(2, 1, 8, attend_to_selected=False), FITTING), (NEXT, Gpt2(1, 1, 8), Bounds(9, None))],
)
def test_what_counts_alone_trains_as_the_whole_batch_does(task, architecture, bounds):
    """Within bounds that some batches keep and others do not."""
    model = Watched(architecture.build(task))
    program = Program(task, model, architecture.build(task), Sgd(), 4, True, "data", losses=TAUGHT)
    whole = trained(program, None, replicas=1)
    assert set(model.seen) == {(task.num_positions, None)}
    model.seen.clear()
    assert_same(trained(program, bounds, replicas=1), whole)
    assert set(model.seen) == {bounds, (task.num_positions, None)}


def test_batches_of_their_own_pieces_and_several_losses_are_narrowed_too(program):
    program = program._replace(optimizer=Sgd(), model=Watched(program.model), losses=TAUGHT)
    several = program._replace(losses=(LABELS, Distillation(1.0)), group_sizes=(2, 2))
    for some, losses, bounds in (
        (several, (LABELS, Distillation(1.0)), FITTING),
        (program._replace(shared_batches=False), TAUGHT, Bounds(9, 5)),
        (program._replace(micro_batches=2), TAUGHT, Bounds(9, 4)),
    ):
        program.model.seen.clear()
        narrow = trained(some, bounds, losses)
        assert set(program.model.seen) == {bounds, (MASKED.num_positions, None)}
        assert_same(narrow, trained(some, None, losses))


def test_what_never_fits_is_taken_whole(program):
    program = program._replace(optimizer=Sgd(), model=Watched(program.model), losses=TAUGHT)
    narrow = trained(program, TIGHT)
    assert set(program.model.seen) == {(MASKED.num_positions, None)}
    assert_same(narrow, trained(program, None))


def test_evaluations_are_narrowed_too(program):
    program = program._replace(model=Watched(program.model))
    params = init_state(program, jnp.arange(2)).params
    whole, narrow = (
        jax.jit(functools.partial(evaluate, program._replace(bounds=bounds), 6, 4))(params, jnp.int32(5))
        for bounds in (None, FITTING)
    )
    jax.effects_barrier()
    assert set(program.model.seen) == {FITTING, (MASKED.num_positions, None)}
    assert_same(narrow, whole)


def test_a_batch_fits_where_all_of_its_strings_do():
    drawn = batches(MASKED, 200)
    lengths, counts = (np.asarray(part).sum(-1).max(-1) for part in (drawn.inputs["valid"], drawn.weights))
    for bounds in (FITTING, Bounds(8, 11), Bounds(11, 4), Bounds(9, None)):
        expected = (lengths <= bounds.length) & (counts <= (bounds.asked or 99))
        assert 0 < expected.sum() < 200
        assert jax.vmap(functools.partial(fits, bounds))(drawn).tolist() == expected.tolist()
        # Several together where each of them does.
        assert bool(fits(bounds, jax.tree.map(lambda leaf: leaf[:9], drawn))) == expected[:9].all()


def test_all_that_counts_is_asked_once_and_nothing_else_weighs():
    drawn = batches(MASKED, 200)
    fitting = np.flatnonzero(jax.vmap(functools.partial(fits, FITTING))(drawn))
    for i in fitting[:20]:
        batch = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), drawn)
        small = jax.tree.map(np.asarray, narrowed(FITTING, jax.tree.map(jnp.asarray, batch)))
        assert small.inputs["tokens"].shape == (4, 9)
        assert small.targets.shape == small.weights.shape == small.inputs["asked"].shape == (4, 6)
        for row in range(4):
            counted = small.weights[row] > 0
            asked = small.inputs["asked"][row]
            assert len(set(asked)) == 6
            assert asked[counted].tolist() == np.flatnonzero(batch.weights[row]).tolist()
            assert small.targets[row][counted].tolist() == batch.targets[row][batch.weights[row] > 0].tolist()
            assert small.weights[row].sum() == batch.weights[row].sum()


@pytest.mark.parametrize(("task", "size"), [(MASKED, 1), (PcfgTask("cfg3b", 10, mask_rate=0.15, select_bos=True), 8)])
def test_nearly_all_batches_of_masked_strings_are_within_the_bounds(task, size):
    bounds = task.bounds(size)
    drawn = batches(task, 4000, size)
    lengths, counts = (np.asarray(part).sum(-1).max(-1) for part in (drawn.inputs["valid"], drawn.weights))
    assert np.mean(lengths <= bounds.length) > 0.94
    assert np.mean(counts <= bounds.asked) > 0.94
    # As tight as that allows.
    assert bounds.length == lengths.min() or np.mean(lengths <= bounds.length - 1) < 0.96
    assert np.mean(counts <= bounds.asked - 1) < 0.96


def test_strings_of_which_all_counts_are_bounded_in_length_alone():
    task = PcfgLanguageTask("cfg3b", 16)
    assert task.bounds(8) == Bounds(PcfgTask("cfg3b", 16).bounds(8).length, None)
    assert task.bounds(8).length < task.bounds(64).length < task.num_positions
    assert task.bounds(10**9) is None
    assert ParityTask(6, 2).bounds(8) is None


def test_only_where_it_pays_and_changes_nothing_programs_have_bounds(tiny):
    optimized = dataclasses.replace(tiny, loop=dataclasses.replace(tiny.loop, optimized=True))
    student = student_program(optimized, student_replicas(optimized, [Distillation()]))
    expected = optimized.task.bounds(optimized.student_training.batch_size)
    assert compiled(optimized, student).program.bounds == bounds_of(optimized, student) == expected
    assert compiled(tiny, student).program.bounds is None
    # Teachers draw batches of their own: all of them have to fit.
    teachers = dataclasses.replace(
        optimized, teacher_training=dataclasses.replace(optimized.teacher_training, extra_seeds=(7, 8))
    )
    several = 3 * optimized.teacher_training.batch_size
    assert bounds_of(teachers, teacher_program(teachers)) == optimized.task.bounds(several)
    dropping = dataclasses.replace(optimized, student=dataclasses.replace(optimized.student, dropout=0.1))
    assert bounds_of(dropping, student_program(dropping, student_replicas(dropping, [Distillation()]))) is None
    certain = tuple(
        one if isinstance(one.loss, Labels) else dataclasses.replace(one, loss=Distillation(1e-20))
        for one in optimized.strategies
    )
    cached = dataclasses.replace(optimized, strategies=certain, placement=Placement(residency="cached"))
    assert bounds_of(cached, student) is None
    for unknown in (OfPositions(), OfTheBatch()):
        training = student._replace(program=student.program._replace(losses=(unknown,)))
        assert bounds_of(optimized, training) is None
    looking = student_program(optimized, student_replicas(optimized, [HiddenMatching()]))
    assert bounds_of(optimized, looking) is None


def test_without_bounds_nothing_is_compiled_twice():
    batch = MASKED.sample(jax.random.key(0), 4)
    program = str(jax.make_jaxpr(lambda batch: narrowly(None, lambda b: b.weights.sum(), batch))(batch))
    assert "cond" not in program
    assert "cond" in str(jax.make_jaxpr(lambda batch: narrowly(TIGHT, lambda b: b.weights.sum(), batch))(batch))
