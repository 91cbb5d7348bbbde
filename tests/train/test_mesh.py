"""Every mesh gives the losses of one device; a mesh of replicas alone communicates nothing."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.errors import UserError
from pdjax.io.store import CheckpointStore
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.train import sharding
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters, place_teacher
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.state import Program, init_state
from pdjax.train.step import Evaluation

STEPS, REPLICAS = 4, 8
MEMBERS = [Replica(i, 1e-3 * (1 + i), Distillation(1e-1, 0.3)) for i in range(REPLICAS)]
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


MODELS = ["bert", "bert, in blocks of the vocabulary", "gpt2", "gpt_neox", "mlp", "mlp, a batch for each replica"]


@pytest.fixture(scope="module", params=MODELS)
def program(request, experiment):
    """A student and a teacher, for batches of 8."""
    model, _, how = request.param.partition(", ")
    name = {"bert": "pcfg", "mlp": "parity_mlp"}.get(model, "parity_transformer")
    smoke = experiment(name, "smoke")
    task, student, teacher = smoke.task, smoke.student, smoke.teacher
    if model == "mlp":
        task, student, teacher = dataclasses.replace(task, dimension=64), Mlp((128, 64)), Mlp((128, 64))
    else:  # above sharding.SMALL
        small = {"num_layers": 1, "num_heads": 2, "head_dim": 32}
        student, teacher = (dataclasses.replace(one, **small) for one in (student, teacher))
    if model == "gpt_neox":  # a loop of one layer, and the last behind it
        student = teacher = GptNeoX(**{**small, "num_layers": 2}, scan_layers=True)
    if model == "bert":
        task = dataclasses.replace(task, root=10)
    if how == "in blocks of the vocabulary":  # 7 classes
        student, teacher = (dataclasses.replace(one, vocabulary_block=3) for one in (student, teacher))
    models = (student.build(task), teacher.build(task))
    optimizer = smoke.student_training.optimizer
    shared = how != "a batch for each replica"
    return Program(task, *models, optimizer, 8, shared, "data", losses=(Distillation(),))


def prepare(program, mesh, split, devices=None, pieces=1):
    """Returns a sweep of 8 replicas on a mesh, and the arguments of its chunk."""
    placement = Placement(MeshSizes(*mesh), split, split, "stacked", micro_batches=pieces)
    evaluation = Evaluation(STEPS, 1, 8)
    sweep = build_sweep(program, STEPS, REPLICAS, evaluation, placement, devices)
    members = place_hyperparameters(sweep.mesh, MEMBERS)
    teachers = init_state(program._replace(model=program.teacher_model), jnp.arange(2)).params
    teacher = Teacher(jax.tree.map(lambda leaf: 5 * leaf, teachers), jnp.array([0, 2]), jnp.array([1, 0]))
    state = sweep.init(members.seed)
    return sweep, (state, members, place_teacher(sweep, teacher), np.int32(0), np.int32(10))


def losses(program, mesh, split="sharded", devices=None, pieces=1):
    """Returns the losses of a chunk and of an evaluation behind it."""
    sweep, arguments = prepare(program, mesh, split, devices, pieces)
    state, metrics = sweep.chunk(*arguments)
    return np.asarray(metrics.loss.sum), np.asarray(sweep.evaluate(state.params, np.int32(0)).loss.sum)


def test_every_mesh_gives_the_losses_of_one_device(program):
    """To 1e-4 of the loss after 4 steps: sums over examples, heads and hidden units are split up."""
    train, held_out = losses(program, (1, 1, 1), devices=jax.devices()[:1])
    assert np.ptp(train, axis=1).min() > 1e-3  # replicas do differ
    # Each compiles for a while; what replicas and examples alone do is the same for every model.
    meshes = [(2, 2, 2)] if has_layers(program) else [(2, 2, 2), (8, 1, 1), (1, 8, 1)]
    for mesh in meshes:
        again, evaluated = losses(program, mesh)
        np.testing.assert_allclose(again, train, rtol=1e-4, err_msg=str(mesh))
        np.testing.assert_allclose(evaluated, held_out, rtol=1e-4, err_msg=str(mesh))
    if not has_layers(program):
        np.testing.assert_allclose(losses(program, (2, 2, 2), pieces=2)[0], train, rtol=1e-4)


def test_devices_share_every_piece_of_a_batch(program):
    with pytest.raises(UserError, match=r"batch_size that 2 placement\.micro_batches of 8 devices .*; found 8; lower"):
        prepare(program, (1, 8, 1), "replicated", pieces=2)


def has_layers(program):
    params = jax.eval_shape(lambda: init_state(program, jnp.arange(1))).params
    return not {"layers_0", "layers"}.isdisjoint(params)


def test_states_are_created_split(program):
    sweep, (state, *_) = prepare(program, (2, 2, 2), "sharded")
    for leaf, where in zip(jax.tree.leaves(state), jax.tree.leaves(sweep.state), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    largest = max(jax.tree.leaves(state.params), key=lambda leaf: leaf.size)
    assert largest.addressable_shards[0].data.size == largest.size // 8
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == largest.shape]
    assert all(leaf.sharding == largest.sharding for leaf in moments)


@pytest.mark.parametrize("program", [*MODELS[:2], *MODELS[-2:]], indirect=True)
def test_a_mesh_of_replicas_communicates_nothing(program):
    sweep, arguments = prepare(program, (8, 1, 1), "replicated")
    text = sweep.chunk.lower(*arguments).compile().as_text()
    assert re.search(r"\bwhile\b|\bfusion\b", text)  # it is the program
    assert [word for word in COLLECTIVES if word in text] == []
    if has_layers(program):
        return
    sweep, arguments = prepare(program, (1, 8, 1), "replicated")
    assert "all-reduce" in sweep.chunk.lower(*arguments).compile().as_text()  # as a mesh of examples does


def test_a_large_teacher_is_split_while_students_are_whole(program):
    placement = Placement(MeshSizes(2, 2, 2), "sharded", "replicated", "stacked")
    sweep = build_sweep(program, STEPS, REPLICAS, Evaluation(STEPS, 1, 8), placement)
    teachers = init_state(program._replace(model=program.teacher_model), jnp.arange(2)).params
    placed = place_teacher(sweep, Teacher(teachers, jnp.array([0, 2]), jnp.array([1, 0]))).checkpoints
    largest = max(jax.tree.leaves(placed), key=lambda leaf: leaf.size)
    assert largest.addressable_shards[0].data.size == largest.size // 4
    state = sweep.init(place_hyperparameters(sweep.mesh, MEMBERS).seed)
    for leaf in jax.tree.leaves(state.params):
        assert leaf.addressable_shards[0].data.shape == (4, *leaf.shape[1:])


@pytest.mark.parametrize("program", ["bert", "mlp"], indirect=True)
def test_a_run_goes_on_on_another_mesh(program, tmp_path):
    """Saved from 8 devices with a replica each, restored where 2 x 2 x 2 split replicas, examples and models."""
    sweep, (state, *arguments) = prepare(program, (8, 1, 1), "replicated")
    state, _ = sweep.chunk(state, *arguments)
    store = CheckpointStore(tmp_path, {})
    store.save(STEPS, state)
    other, (_, *others) = prepare(program, (2, 2, 2), "sharded")
    restored = sharding.put(store.restore(STEPS, jax.eval_shape(other.init, others[0].seed)), other.state)
    store.close()
    for ours, theirs, where in zip(*map(jax.tree.leaves, (restored, state, other.state)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.sharding.is_equivalent_to(where, ours.ndim)
    _, went_on = sweep.chunk(state, *arguments)
    _, moved = other.chunk(restored, *others)
    np.testing.assert_allclose(moved.loss.sum, went_on.loss.sum, rtol=1e-4)
