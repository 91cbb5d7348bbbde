import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.curriculum import FOREVER
from pdjax.distill.losses import Distillation, ReverseKL, TopK
from pdjax.distill.teacher import Teacher
from pdjax.train.replicas import Replica, build_sweep, families, place_hyperparameters, place_teacher
from pdjax.train.state import init_state

SEEDS = (3, 1, 4, 1_000_000)
STEPS = 8


def make_teacher(program, slots):
    checkpoints = init_state(program._replace(model=program.teacher_model), jnp.arange(2)).params
    return Teacher(jax.tree.map(lambda leaf: 10 * leaf, checkpoints), jnp.array([0, 5]), jnp.array(slots))


def run(program, tiny, seeds, slots=(0, 1)):
    return run_replicas(program, tiny, [Replica(seed, 5e-3, Distillation()) for seed in seeds], slots)


def run_replicas(program, tiny, replicas, slots=(0, 1)):
    sweep = build_sweep(program, STEPS, len(replicas), tiny.evaluation)
    members = place_hyperparameters(sweep.mesh, replicas)
    teacher = place_teacher(sweep, make_teacher(program, slots))
    return sweep.chunk(sweep.init(members.seed), members, teacher, jnp.int32(0), jnp.int32(STEPS)), sweep, members


@pytest.mark.parametrize("shared", [True, False])
def test_replica_of_a_sweep_equals_its_seed_alone(program, tiny, shared):
    """Parameters agree to 2e-5 after 8 Adam steps of 5e-3: XLA orders the sums of batched products differently."""
    program = program._replace(shared_batches=shared)
    (together, metrics), _, _ = run(program, tiny, SEEDS)
    for i, seed in enumerate(SEEDS):
        (alone, single), _, _ = run(program, tiny, (seed,))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b[0], atol=2e-5), together.params, alone.params)
        np.testing.assert_allclose(metrics.loss.sum[:, i], single.loss.sum[:, 0], rtol=1e-4)
    assert not np.allclose(metrics.loss.sum[:, 0], metrics.loss.sum[:, 1])  # seeds do matter


@pytest.mark.parametrize("shared", [True, False])
def test_replicas_of_several_losses_in_one_program_equal_each_alone(program, tiny, shared):
    """Also where the losses of a class differ in their numbers; to the tolerances of replicas of one loss."""
    losses = [Distillation(100.0), Distillation(50.0, 0.5), ReverseKL(100.0), TopK(2, 100.0)]
    members = [Replica(seed, 5e-3, loss) for seed, loss in zip(SEEDS, losses, strict=True)]
    program = program._replace(shared_batches=shared)

    def trained(replicas):
        kinds, sizes = families(replicas)
        some = program._replace(losses=kinds, group_sizes=sizes if len(kinds) > 1 else ())
        (state, metrics), _, _ = run_replicas(some, tiny, replicas)
        return state.params, metrics.loss.sum

    params, values = trained(members)
    for i, member in enumerate(members):
        alone, single = trained([member])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b[0], atol=2e-5), params, alone)
        np.testing.assert_allclose(values[:, i], single[:, 0], rtol=1e-4)
    same_seed = [dataclasses.replace(member, seed=0) for member in members]
    _, values = trained(same_seed)
    assert len({round(float(value), 3) for value in values[-1]}) == len(losses)  # the losses do differ


def test_replicas_are_spread_over_all_devices(program, tiny):
    (state, _), sweep, members = run(program, tiny, SEEDS)
    for leaf in jax.tree.leaves(state.params):
        assert len(leaf.sharding.device_set) == 4
        assert leaf.addressable_shards[0].data.shape[0] == 1
    text = (
        sweep.chunk.lower(state, members, make_teacher(program, (0, 1)), jnp.int32(0), jnp.int32(8)).compile().as_text()
    )
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert collective not in text


@contextlib.contextmanager
def heard_compilations():
    """Lists the compilations within the block."""
    compilations = []

    def listen(name, duration, **_):
        if "backend_compile" in name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_changing_the_teacher_or_the_chunk_compiles_nothing_new(program, tiny):
    (state, _), sweep, members = run(program, tiny, SEEDS)
    teachers = [place_teacher(sweep, make_teacher(program, slots)) for slots in ((0, 1), (1, 0))]
    seed, total = jnp.int32(0), jnp.int32(100)
    jax.block_until_ready((teachers, seed, total))
    with heard_compilations() as compilations:
        for teacher in teachers:
            for _ in range(2):
                state, _ = sweep.chunk(state, members, teacher, seed, total)
        assert compilations == []
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))  # the listener does hear compilations
        assert compilations
    assert int(state.step) == 5 * STEPS


def test_every_replica_has_a_curriculum_of_its_own_beside_it(program, tiny):
    """An adaptive curriculum goes on without another compilation, and lies where its replica does."""
    sweep = build_sweep(program, STEPS, len(SEEDS), tiny.evaluation)
    members = place_hyperparameters(sweep.mesh, [Replica(seed, 5e-3, Distillation()) for seed in SEEDS])
    tables = [jnp.array([[0, FOREVER]] * 4), jnp.array([[0, 12], [0, FOREVER], [0, 9], [0, FOREVER]])]
    first, second = (place_teacher(sweep, make_teacher(program, (0, 1))._replace(starts=table)) for table in tables)
    assert len(first.starts.sharding.device_set) == 4
    assert first.starts.addressable_shards[0].data.shape == (1, 2)
    seed, total = jnp.int32(0), jnp.int32(100)
    state, _ = sweep.chunk(sweep.init(members.seed), members, first, seed, total)
    fork = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf), leaf.sharding), state)
    jax.block_until_ready((fork, second))
    with heard_compilations() as compilations:
        _, moved = sweep.chunk(state, members, second, seed, total)
    assert compilations == []
    _, stayed = sweep.chunk(fork, members, first, seed, total)
    same = np.asarray(moved.loss.sum == stayed.loss.sum)
    assert same[:, 1].all()
    assert same[:, 3].all()
    # Steps 8 to 15: the first replica moves on from step 12, the third from step 9 on.
    assert same[:, 0].tolist() == [True] * 4 + [False] * 4
    assert same[:, 2].tolist() == [True] * 1 + [False] * 7


def test_chunk_reuses_the_memory_of_the_state(program, tiny):
    (state, _), sweep, members = run(program, tiny, SEEDS)
    old = jax.tree.leaves(state.params)[0]
    teacher = place_teacher(sweep, make_teacher(program, (0, 1)))
    sweep.chunk(state, members, teacher, jnp.int32(0), jnp.int32(STEPS))
    assert old.is_deleted()
