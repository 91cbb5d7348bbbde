import contextlib
import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Labels
from pdjax.distill.strategy import Strategy
from pdjax.errors import TrainingError, UserError
from pdjax.io.processes import fetch
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_run
from pdjax.io.sealed import read_lines
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.store import CheckpointStore
from pdjax.io.teacher_source import Stacked
from pdjax.stages.adaptive import adaptation
from pdjax.train import sharding
from pdjax.train.loop import Job, Kept, train
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters
from pdjax.train.state import TrainState
from pdjax.types import Mean, StepMetrics

BUDGET = 12


@pytest.fixture(scope="module")
def make_job(program, tiny):
    """Makes jobs of one compiled sweep of two students that learn from labels, with chunks of 2 steps."""
    sweep = build_sweep(program._replace(teacher_model=None, losses=(Labels(),)), 2, 2, tiny.evaluation)

    def make(learning_rates=(5e-3, 1e-3), **changes):
        replicas = tuple(Replica(seed, rate) for seed, rate in zip((0, 1), learning_rates, strict=True))
        description = RunDescription("student", "labels-12", ("labels",), BUDGET, replicas, (), (), identity="abc")
        job = Job(
            description=description,
            sweep=sweep,
            hyperparameters=place_hyperparameters(sweep.mesh, replicas),
            open_source=lambda: Stacked(sweep, None),
            data_seed=0,
            evaluation_seed=0,
            evaluate_every=4,
        )
        return dataclasses.replace(job, **changes)

    return make


@pytest.fixture(scope="module")
def loop(tiny):
    return dataclasses.replace(tiny.loop, chunk_steps=2, save_every=6)


def final_state(job, directory):
    store = CheckpointStore(directory / "state", {"run": job.description.identity})
    state = store.restore(BUDGET, jax.eval_shape(job.sweep.init, job.hyperparameters.seed))
    store.close()
    return state


def assert_same_run(job, one, other):
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, final_state(job, one), final_state(job, other))


@pytest.fixture(scope="module")
def undisturbed(make_job, loop, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    train(make_job(), directory, loop, Interrupt(), Progress("test", BUDGET))
    return directory


def test_run_records_what_it_did(undisturbed):
    run = read_run(undisturbed)
    assert run.complete
    assert run.evaluation.steps.tolist() == [0, 4, 8, 12]
    assert run.train.steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert (run.evaluation.loss[-1] < run.evaluation.loss[0]).all()
    first = read_lines(undisturbed / "metrics.jsonl").records[0]
    assert first["split"] == "evaluation"
    assert first["loss"][1] == first["accuracy"][1] > 0  # (sum, count) over the same selected positions
    assert run.seconds > 0


@pytest.mark.parametrize("looks", [1, 2, 3, 4, 5])
def test_interrupted_and_resumed_run_has_the_same_bits(interrupt_at, make_job, loop, undisturbed, tmp_path, looks):
    job = make_job()
    with pytest.raises(Interrupted, match=f"saved at step {2 * looks} of 12"):
        train(job, tmp_path, loop, interrupt_at(looks), Progress("test", BUDGET))
    assert not (tmp_path / "result.json").exists()
    with contextlib.closing(CheckpointStore(tmp_path / "state", {"run": job.description.identity})) as store:
        assert store.latest_step() == 2 * looks
    train(job, tmp_path, loop, Interrupt(), Progress("test", BUDGET))
    assert_same_run(job, undisturbed, tmp_path)


class Told:
    """The starts that an adaptive curriculum is told, and no teacher."""

    def teacher(self, begin, end):
        return None

    def makes_room(self, begin):
        return False

    def restart(self, starts):
        self.starts = starts

    def close(self):
        pass


def recited(sweep, right, count):
    """A sweep that trains nothing: evaluation e finds ``right[e]`` of ``count`` examples right, by replica."""

    def init(seeds):
        return TrainState(jnp.int32(0), {"evaluation": jnp.zeros_like(seeds)}, ())

    def measured(index):
        return StepMetrics(Mean(count, count), Mean(right[index], count))

    return sweep._replace(
        init=init,
        chunk=lambda state, *_: (jax.tree.map(lambda leaf: leaf + 1, state), jax.tree.map(np.atleast_2d, measured(0))),
        evaluate=lambda params, *_: measured(int(params["evaluation"][0])),
        state=jax.tree.map(lambda _: sharding.replicated(sweep.mesh), jax.eval_shape(init, count)),
    )


@pytest.mark.parametrize("looks", [8, 20])
def test_a_resumed_run_decides_what_an_uninterrupted_one_did(interrupt_at, make_job, loop, tiny, tmp_path, looks):
    """Students whose accuracies, over 100 examples or 7 to 200, gain about ``min_gain`` between evaluations."""
    evaluations, replicas = 30, 64
    random = np.random.default_rng(looks)
    count = np.where(np.arange(replicas) < 32, 100, random.integers(7, 200, replicas)).astype(np.float32)
    right = np.minimum(np.cumsum(random.integers(0, 3, (evaluations + 1, replicas)), axis=0), count).astype(np.float32)
    rule = UntilSaturated("accuracy", window=1, min_gain=0.01, max_steps=1000)
    strategy = Strategy("till_saturate", schedule=rule)
    job = make_job(evaluate_every=1, adapt=adaptation(tiny, strategy, dict, 9))
    students = tuple(Replica(seed, 1e-3) for seed in range(replicas))
    job = dataclasses.replace(
        job,
        description=dataclasses.replace(job.description, budget=evaluations, replicas=students),
        sweep=recited(job.sweep, right, count),
        hyperparameters=place_hyperparameters(job.sweep.mesh, students),
    )
    loop = dataclasses.replace(loop, chunk_steps=1, save_every=evaluations)
    uninterrupted, parts = Told(), Told()

    def run(told, directory, interrupt):
        train(dataclasses.replace(job, open_source=lambda: told), directory, loop, interrupt, Progress("test", 30))

    run(uninterrupted, tmp_path / "uninterrupted", Interrupt())
    with pytest.raises(Interrupted, match=f"saved at step {looks}"):
        run(parts, tmp_path / "parts", interrupt_at(looks))
    run(parts, tmp_path / "parts", Interrupt())
    assert max(map(len, uninterrupted.starts)) > 2
    assert parts.starts == uninterrupted.starts
    assert read_run(tmp_path / "parts").starts == read_run(tmp_path / "uninterrupted").starts


def test_records_behind_the_saved_state_are_dropped(interrupt_at, make_job, loop, undisturbed, tmp_path):
    """As after SIGKILL between two saves: records up to step 10, half a line, a state of step 6."""
    job = make_job()
    with pytest.raises(Interrupted):
        train(job, tmp_path, loop, interrupt_at(3), Progress("test", BUDGET))
    records = (undisturbed / "metrics.jsonl").read_text().splitlines(keepends=True)
    until_ten = [line for line in records if json.loads(line)["step"] <= 10]
    (tmp_path / "metrics.jsonl").write_text("".join(until_ten) + records[-1][:20])
    train(job, tmp_path, loop, Interrupt(), Progress("test", BUDGET))
    assert_same_run(job, undisturbed, tmp_path)


def test_kept_parameters_of_every_replica_come_with_their_step_and_metrics(make_job, loop, undisturbed, tmp_path):
    kept = {}

    def keep(step, params, metrics):
        kept[step] = (jax.tree.map(np.asarray, params), dict(metrics))

    job = make_job(kept=Kept((6, 12)), keep=keep)
    train(job, tmp_path, loop, Interrupt(), Progress("test", BUDGET))
    assert sorted(kept) == [6, 12]
    final, recorded = final_state(job, undisturbed), read_run(tmp_path).evaluation
    jax.tree.map(np.testing.assert_array_equal, kept[12][0], final.params)
    np.testing.assert_allclose(kept[6][1]["loss"], recorded.loss[recorded.steps.tolist().index(6)])


def test_a_loss_that_is_not_finite_names_step_replica_and_last_good_state(make_job, loop, tmp_path):
    """One replica's learning rate is absurd from the first step; the other one is healthy."""
    job = make_job(learning_rates=(1e-3, 1e30))
    with pytest.raises(TrainingError) as caught:
        train(job, tmp_path, dataclasses.replace(loop, save_every=2), Interrupt(), Progress("test", BUDGET))
    message = str(caught.value)
    assert "not finite at step" in message
    assert "replica 1 (seed 1, learning rate 1e+30)" in message
    assert "state" in message
    store = CheckpointStore(tmp_path / "state", {"run": "abc"})
    for step in store.steps():  # whatever was saved is good
        state = store.restore(step, jax.eval_shape(job.sweep.init, job.hyperparameters.seed))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_nothing_that_is_not_finite_is_recorded_or_kept(make_job, loop, tmp_path):
    """Replica 0 ends its first chunk, whose losses are all finite, with parameters that overflow every loss."""
    kept = []
    job = make_job(
        learning_rates=(1e30, 1e-3), kept=Kept(range(2, 13, 2)), keep=lambda *arguments: kept.append(arguments)
    )
    with pytest.raises(TrainingError, match=r"held-out loss is not finite at step 2 in replica 0"):
        train(job, tmp_path, loop, Interrupt(), Progress("test", BUDGET))
    assert not kept
    assert all(np.isfinite(record["loss"]).all() for record in read_lines(tmp_path / "metrics.jsonl").records)


def test_directory_of_another_run_is_refused(make_job, loop, undisturbed):
    job = make_job()
    other = dataclasses.replace(job, description=dataclasses.replace(job.description, identity="other"))
    with pytest.raises(UserError, match="abc"):
        train(other, undisturbed, loop, Interrupt(), Progress("test", BUDGET))
    assert read_run(undisturbed).description.identity == "abc"


def order_of(monkeypatch, job, directory, loop):
    """Returns what a run does in which order: chunks by their last step, reading of their losses, evaluations."""
    done, number = [], itertools.count(loop.chunk_steps, loop.chunk_steps)

    def chunk(*arguments):
        done.append(f"start {next(number)}")
        return job.sweep.chunk(*arguments)

    def evaluate(*arguments):
        done.append("evaluate")
        return job.sweep.evaluate(*arguments)

    def fetched(tree):
        done.extend(["read"] if isinstance(tree, StepMetrics) and tree.loss.sum.ndim == 2 else [])
        return fetch(tree)

    monkeypatch.setattr("pdjax.train.loop.fetch", fetched)
    watched = dataclasses.replace(job, sweep=job.sweep._replace(chunk=chunk, evaluate=evaluate))
    train(watched, directory, loop, Interrupt(), Progress("test", BUDGET))
    return done


def test_a_chunk_is_started_before_the_last_one_is_read(make_job, loop, undisturbed, monkeypatch, tmp_path):
    job = make_job()  # evaluated at 4, 8 and 12, and saved at 6 and 12
    done = order_of(monkeypatch, job, tmp_path, loop)
    first = "evaluate, start 2, start 4, read, read, evaluate, start 6, read, start 8, read, evaluate"
    assert ", ".join(done) == f"{first}, start 10, start 12, read, read, evaluate"
    assert_same_run(job, undisturbed, tmp_path)


def test_a_chunk_is_done_before_a_checkpoint_leaves_the_device(make_job, loop, monkeypatch, tmp_path):
    source = Told()
    source.makes_room = lambda begin: begin == 2
    done = order_of(monkeypatch, make_job(open_source=lambda: source), tmp_path, loop)
    assert done[:6] == ["evaluate", "start 2", "read", "start 4", "read", "evaluate"]


def test_no_device_memory_is_left_behind(make_job, loop, tmp_path):
    """The number of live arrays after a run does not depend on how many steps it had."""
    job = make_job()
    train(job, tmp_path / "a", loop, Interrupt(), Progress("test", BUDGET))
    before = len(jax.live_arrays())
    longer = dataclasses.replace(job, description=dataclasses.replace(job.description, budget=60))
    train(longer, tmp_path / "b", loop, Interrupt(), Progress("test", BUDGET))
    assert len(jax.live_arrays()) <= before
