"""Examples that the host reads: which ones reach which step, replica and device, and what does not depend on chunks."""

import dataclasses
import threading
import zlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.experiment import Loop
from pdjax.io.feed import AHEAD, check_examples, evaluation_examples, held_out_examples, open_feed
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_run
from pdjax.io.signals import Interrupt
from pdjax.io.teacher_source import Stacked
from pdjax.models.mlp import Mlp
from pdjax.settings import settings
from pdjax.tasks.base import FedTask, batch_shapes
from pdjax.tasks.parity import ParityTask
from pdjax.train.loop import Job, train
from pdjax.train.optimizer import Sgd
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.state import Program
from pdjax.train.step import Evaluation
from pdjax.types import Batch

BATCH, STEPS, SIZE = 4, 12, 3
EVALUATION = Evaluation(every=6, num_batches=2, batch_size=4)


@settings
class Told(FedTask):
    """Whether the sum of three numbers, each a function of stream, seed and index, is above 0."""

    predicts: ClassVar[str] = "example"

    num_classes: ClassVar[int] = 2  # pyright: ignore
    vocabulary: ClassVar[int] = 2  # pyright: ignore
    num_positions: ClassVar[int] = SIZE  # pyright: ignore

    held_out: int = 8

    @property
    def example(self):
        return {"numbers": jax.ShapeDtypeStruct((SIZE,), np.float32)}

    def open(self):
        return Reader(self.held_out, [])

    def batch(self, key, examples):
        numbers = examples["numbers"]
        targets = (numbers.sum(-1) > 0).astype(jnp.int32)
        return Batch({"vector": numbers}, targets, jnp.ones(len(numbers)), {})


def example(stream, seed, index, held_out):
    """The numbers of an example."""
    return np.random.default_rng((zlib.crc32(stream.encode()), seed, index, held_out)).standard_normal(SIZE)


@dataclasses.dataclass
class Reader:
    held_out: int
    asked: list

    def read(self, stream, seed, indices, held_out):
        self.asked += [(seed, index) for index in indices]
        return {"numbers": np.stack([example(stream, seed, i, held_out) for i in indices]).astype(np.float32)}

    def num_held_out(self):
        return self.held_out


def make_program(shared):
    model = Mlp((5,)).build(Told())
    return Program(Told(), model, None, Sgd(), BATCH, shared, "numbers")


def make_sweep(shared, chunk=4, mesh=None, replicas=2, pieces=1):
    mesh = mesh or MeshSizes(1, 1, 1)
    devices = jax.devices()[: mesh.replica * mesh.data * mesh.model]
    return build_sweep(
        make_program(shared), chunk, replicas, EVALUATION, Placement(mesh, micro_batches=pieces), devices
    )


def run(sweep, chunk, begin=0, seeds=(3, 4), data_seed=9):
    """Returns the losses of every step and replica, and the final parameters, of a run in chunks."""
    members = place_hyperparameters(sweep.mesh, [Replica(seed, 0.1) for seed in seeds])
    feed = open_feed(sweep, seeds, data_seed, STEPS)
    state, losses = sweep.init(members.seed), []
    for first in range(begin, STEPS, chunk):
        examples = feed.examples(first, first + chunk)
        state, metrics = sweep.chunk(state, members, None, np.int32(data_seed), np.int32(STEPS), examples)
        losses.append(np.asarray(metrics.loss.sum))
    feed.close()
    return np.concatenate(losses), jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_sees_its_own_examples(shared):
    """Those of its numbers in the stream, of the run's seed or of the replica's."""
    sweep = make_sweep(shared)
    feed = open_feed(sweep, (3, 4), 9, STEPS)
    numbers = np.asarray(feed.examples(4, 8)["numbers"])
    feed.close()
    seeds = [9] if shared else [3, 4]
    expected = [
        [[example("numbers", seed, step * BATCH + i, False) for i in range(BATCH)] for seed in seeds]
        for step in range(4, 8)
    ]
    np.testing.assert_array_equal(numbers, np.array(expected, np.float32).reshape(numbers.shape))
    assert numbers.shape == ((4, BATCH, SIZE) if shared else (4, 2, BATCH, SIZE))


@pytest.mark.parametrize("shared", [True, False])
def test_the_chunk_length_changes_nothing(shared):
    whole, parameters = run(make_sweep(shared, 12), 12)
    parts, same = run(make_sweep(shared, 4), 4)
    np.testing.assert_array_equal(parts, whole)
    jax.tree.map(np.testing.assert_array_equal, same, parameters)


def test_replicas_share_batches_or_do_not():
    """Replicas of one seed: with shared batches they are the same, without too, as each has the stream of its seed."""
    losses, _ = run(make_sweep(False), 4, seeds=(3, 4))
    alone, _ = run(make_sweep(False, replicas=1), 4, seeds=(4,))
    np.testing.assert_allclose(losses[:, 1:], alone, rtol=1e-5)
    assert not np.allclose(losses[:, 0], losses[:, 1])


@pytest.mark.parametrize("mesh", [MeshSizes(1, 4, 1), MeshSizes(2, 2, 1)], ids=["data", "both"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_mesh_changes_nothing(shared, mesh):
    expected, _ = run(make_sweep(shared), 4)
    spread, _ = run(make_sweep(shared, mesh=mesh), 4)
    np.testing.assert_allclose(spread, expected, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_pieces_of_a_batch_change_nothing(shared):
    whole, parameters = run(make_sweep(shared), 4)
    cut, same = run(make_sweep(shared, pieces=2), 4)
    np.testing.assert_allclose(cut, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), same, parameters)


@pytest.mark.parametrize("shared", [True, False])
def test_every_example_is_read_once(monkeypatch, shared):
    """However many devices hold it: those of a process share what it reads."""
    reader = Reader(8, [])
    monkeypatch.setattr(Told, "open", lambda task: reader)
    feed = open_feed(make_sweep(shared, mesh=MeshSizes(2, 2, 2)), (3, 4), 9, 4)
    jax.block_until_ready(feed.examples(0, 4))
    feed.close()
    seeds = [9] if shared else [3, 4]
    assert sorted(reader.asked) == [(seed, index) for seed in seeds for index in range(4 * BATCH)]


def test_chunks_are_read_ahead_but_not_beyond_the_end(monkeypatch):
    reader, read = Reader(8, []), threading.Event()
    monkeypatch.setattr(Told, "open", lambda task: reader)
    feed = open_feed(make_sweep(True, chunk=1), (3, 4), 9, AHEAD + 2)
    feed.examples(0, 1)
    feed._thread.submit(read.set)
    assert read.wait(10)
    assert len(reader.asked) == (1 + AHEAD) * BATCH
    for step in range(1, AHEAD + 2):
        feed.examples(step, step + 1)
    feed.close()
    assert len(reader.asked) == (AHEAD + 2) * BATCH


def test_an_error_while_reading_is_raised_where_the_examples_are_needed(monkeypatch):
    def damaged(self, stream, seed, indices, held_out):
        raise UserError("sound files", "a damaged one", "prepare them again")

    monkeypatch.setattr(Reader, "read", damaged)
    feed = open_feed(make_sweep(True), (3, 4), 9, STEPS)
    with pytest.raises(UserError, match="a damaged one"):
        feed.examples(0, 4)
    feed.close()


def test_evaluations_see_held_out_examples():
    """The same for all, none of the training's; the loss is that of all of them at once."""
    sweep = make_sweep(True)
    members = place_hyperparameters(sweep.mesh, [Replica(seed, 0.1) for seed in (3, 4)])
    params = sweep.init(members.seed).params
    examples = evaluation_examples(sweep, 5)
    metrics = sweep.evaluate(params, np.int32(5), examples)
    numbers = np.stack([example("evaluation", 5, index, True) for index in range(8)]).astype(np.float32)
    for replica in range(2):
        mine = jax.tree.map(lambda leaf, r=replica: leaf[r], params)
        logits, _ = sweep.program.model.apply(mine, {"vector": jnp.asarray(numbers)})
        right = np.argmax(logits, -1) == (numbers.sum(-1) > 0)
        assert metrics.accuracy.sum[replica] == right.sum()
        assert metrics.accuracy.count[replica] == 8
    (held_out,) = held_out_examples(Told(), 5, "evaluation", 1, 8)["numbers"]
    np.testing.assert_array_equal(held_out, numbers)


def test_what_does_not_suffice_is_refused():
    check_examples(Told(held_out=8), {"evaluation": 8})
    with pytest.raises(UserError, match="at most 7 held-out examples, as there are; found 8 for evaluation"):
        check_examples(Told(held_out=7), {"evaluation": 8})
    check_examples(ParityTask(6, 2), {"evaluation": 10**9})  # as many as one likes


def test_tasks_that_are_sampled_read_nothing():
    sweep = build_sweep(
        Program(ParityTask(6, 2), Mlp((5,)).build(ParityTask(6, 2)), None, Sgd(), 4, True, "x"), 4, 1, EVALUATION
    )
    assert open_feed(sweep, (0,), 0, 10).examples(0, 4) is None
    assert evaluation_examples(sweep, 0) is None


def test_nothing_is_drawn_of_a_fed_task():
    with pytest.raises(TypeError, match="Told draws batches of examples"):
        Told().sample(jax.random.key(0), 2)
    assert batch_shapes(Told(), 7).inputs["vector"].shape == (7, SIZE)


def test_a_run_that_is_stopped_goes_on_with_the_same_examples(tmp_path):
    sweep = make_sweep(True)
    replicas = (Replica(3, 0.1), Replica(4, 0.1))
    description = RunDescription("student", "told", (), STEPS, replicas, (), (), "an identity")
    job = Job(description, sweep, place_hyperparameters(sweep.mesh, replicas), lambda: Stacked(sweep, None), 9, 5, 4)
    loop = Loop(4, save_every=4)
    progress = Progress("test", 2 * STEPS)
    train(job, tmp_path / "whole", loop, Interrupt(), progress)
    train(job, tmp_path / "parts", loop, Interrupt(), progress, until=4)
    train(job, tmp_path / "parts", loop, Interrupt(), progress)
    whole, parts = (read_run(tmp_path / name) for name in ("whole", "parts"))
    for split in ("train", "evaluation"):
        np.testing.assert_array_equal(getattr(parts, split).loss, getattr(whole, split).loss)
