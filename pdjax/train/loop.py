"""The only training loop: restore, run a chunk, log, evaluate, save, until the budget is spent."""

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pdjax.distill.teacher import Answers, Teacher
from pdjax.errors import TrainingError
from pdjax.experiment import Loop
from pdjax.io.feed import evaluation_examples, open_feed
from pdjax.io.processes import agree, fetch, is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_measured, read_run, write_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.store import CheckpointStore
from pdjax.io.teacher_source import TeacherSource
from pdjax.io.writer import Writer, open_writer
from pdjax.settings import plain
from pdjax.train import sharding
from pdjax.train.replicas import Sweep
from pdjax.train.state import Hyperparameters, TrainState
from pdjax.types import Examples, Params, StepMetrics, exact_ratio

KEPT_STATES = 2
"""Training states that stay on disk: the newest, and one before it."""


ByReplica = Float[np.ndarray, "R"]
ByTeacher = Float[np.ndarray, "R K"]

Keep = Callable[[int, Params, Mapping[str, ByReplica]], None]
"""``keep(step, params, means)`` receives the parameters of all replicas, stacked, and their held-out means."""


class Kept(NamedTuple):
    """Which states of a run are kept besides those that it resumes from.

    ``decide(steps, losses)`` returns the steps of those kept so far, from all evaluations so far; None keeps all.
    """

    candidates: Collection[int]  # steps at which one may be kept, of which each is evaluated
    decide: Callable[[Sequence[int], Sequence[ByReplica]], Collection[int]] | None = None


class Adapt(NamedTuple):
    """How an adaptive curriculum goes on.

    ``decide(steps, accuracies, measured)`` returns the starts of each replica's curriculum so far, from all evaluations
    so far. ``measure(params)`` gives what is measured besides: how far each replica is with each of its K teachers;
    None if the accuracy alone decides.
    """

    decide: Callable[[Sequence[int], Sequence[ByReplica], Sequence[ByTeacher]], list[tuple[int, ...]]]
    measure: Callable[[Params], ByTeacher] | None


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything one run needs; its result is a function of this alone."""

    description: RunDescription
    sweep: Sweep
    hyperparameters: Hyperparameters
    open_source: Callable[[], TeacherSource]  # how its teacher reaches the chunks
    data_seed: int
    evaluation_seed: int
    evaluate_every: int
    kept: Kept | None = None  # None: none
    keep: Keep | None = None  # takes them
    adapt: Adapt | None = None  # None: the curriculum is fixed


def train(
    job: Job, directory: Path, loop: Loop, interrupt: Interrupt, progress: Progress, until: int | None = None
) -> None:
    """Runs a job in its directory to the end, continuing from the last saved state if there is one.

    Args:
      job: what to run.
      directory: of its files.
      loop: how often it is saved.
      interrupt: stops between chunks.
      progress: advances by steps.
      until: a step to leave off at, without a result; None is the end.

    Raises:
      Interrupted: a signal asked to stop; the state is saved.
      TrainingError: a loss or a parameter is not finite.
      UserError: the directory belongs to another run.
    """
    description, budget = job.description, job.description.budget
    # Whatever cannot be opened leaves nothing open.
    with ExitStack() as stack:
        store = stack.enter_context(
            closing(CheckpointStore(directory / "state", {"run": description.identity}, keep=KEPT_STATES))
        )
        write_json(directory / "run.json", plain(description))
        done = store.latest_step()
        # The first process drops records behind the saved step. The others wait: an adaptive run reads them in each
        # process.
        writer = stack.enter_context(closing(open_writer(directory, done, loop.writers, description)))
        meet("records are those of the state")
        progress.skip(done or 0)
        source = stack.enter_context(closing(job.open_source()))
        seeds = [replica.seed for replica in description.replicas]
        feed = stack.enter_context(closing(open_feed(job.sweep, seeds, job.data_seed, until or budget)))
        held_out = evaluation_examples(job.sweep, job.evaluation_seed)
        history = _History(job, source, writer, directory, done)
        state = _first_state(job, store, done)
        if done is None:
            means = _evaluate(job, state, 0, held_out, store, writer, progress)
            history.add(0, means, job.sweep.of_model(state.params))
        running = _Running(job, loop.chunk_steps, store, writer, progress)
        # `step` counts the steps done when the chunk has run; states are saved at such steps alone.
        for step in range((done or 0) + loop.chunk_steps, (until or budget) + 1, loop.chunk_steps):
            began, before = time.monotonic(), step - loop.chunk_steps
            if source.makes_room(before):
                running.finish()  # it may use what is to go
            teacher, examples = source.teacher(before, step), feed.examples(before, step)
            state = running.start(state, teacher, examples, step)
            candidate = job.kept is not None and step in job.kept.candidates
            # A multiple of `evaluate_every` within the chunk is evaluated at the chunk's end.
            if candidate or step == budget or before // job.evaluate_every < step // job.evaluate_every:
                running.finish()
                means = _evaluate(job, state, step, held_out, store, writer, progress)
                history.add(step, means, job.sweep.of_model(state.params))
                if job.keep is not None and step in history.kept():
                    job.keep(step, job.sweep.of_model(state.params), means)
            # A signal may reach one process of several. Left to itself it would save at a step at which the others do
            # not, and all take part in every save: they stop together.
            stopping = agree(interrupt.signal_number or 0) or None
            if stopping is not None or step == budget or step % loop.save_every == 0:
                running.finish()
                _save(state, step, store, writer)
            _log_cost(directory, step, time.monotonic() - began)
            if stopping is not None and step < budget:
                raise Interrupted(stopping, f"{description.name} is saved at step {step} of {budget}")
        running.finish()
        # Last, as it is what makes a run count as done.
        if until is None:
            checkpoints = {} if job.kept is None else {"checkpoints": list(history.kept())}
            write_json(directory / "result.json", {"step": budget, "identity": description.identity, **checkpoints})
    meet(f"{description.name} is done")


def _first_state(job: Job, store: CheckpointStore, done: int | None) -> TrainState:
    """Returns the initial state, or the saved one, on the sweep's devices."""
    if done is None:
        return job.sweep.init(job.hyperparameters.seed)
    saved = store.restore(done, jax.eval_shape(job.sweep.init, job.hyperparameters.seed))
    return sharding.put(saved, job.sweep.state)


class _History:
    """The evaluations so far, from which an adaptive curriculum goes on, and by which states are kept.

    Nothing of it is saved: a resumed run reads its own records and decides the same again.
    """

    def __init__(self, job: Job, source: TeacherSource, writer: Writer, directory: Path, done: int | None):
        self._job, self._source, self._writer, self._directory = job, source, writer, directory
        self._steps: list[int] = []
        self._loss: list[ByReplica] = []
        self._accuracy: list[ByReplica] = []
        self._measured: list[ByTeacher] = []
        self._starts: list[tuple[int, ...]] = []
        # Files of a long run take a while to read: where nothing is decided, nothing is read.
        decided = job.adapt is not None or (job.kept is not None and job.kept.decide is not None)
        if done is not None and decided:
            # As exact as what was decided from live: the records hold sums and counts, and the quotient is the same
            # float64.
            curves = read_run(directory).evaluation
            self._steps = curves.steps.tolist()
            self._loss, self._accuracy = list(curves.loss), list(curves.accuracy)
        if done is not None and job.adapt is not None:
            self._measured = read_measured(directory)[1]
            self._decide(job.adapt)

    def add(self, step: int, means: Mapping[str, ByReplica], params: Params) -> None:
        """Takes an evaluation's means, and measures what else the curriculum goes on by."""
        self._steps.append(step)
        self._loss.append(means["loss"])
        self._accuracy.append(means["accuracy"])
        adapt = self._job.adapt
        if adapt is None:
            return
        if adapt.measure is not None:
            self._measured.append(adapt.measure(params))
            self._writer.write_measured(step, self._measured[-1])
        self._decide(adapt)

    def kept(self) -> Collection[int]:
        """Returns the steps of the states that are kept, of those evaluated so far and perhaps of later ones."""
        kept = self._job.kept
        if kept is None:
            return ()
        return kept.candidates if kept.decide is None else kept.decide(self._steps, self._loss)

    def _decide(self, adapt: Adapt) -> None:
        # Always from all evaluations, not from the last one on: live and resumed decisions are one and the same
        # function.
        starts = adapt.decide(self._steps, self._accuracy, self._measured)
        if starts != self._starts:
            self._starts = starts
            write_json(self._directory / "curriculum.json", {"starts": starts})
            self._source.restart(starts)


class _Running:
    """The chunk that runs: what it measures is read when the next one has been started.

    A device that works for itself then need not wait for the host between chunks. Nothing that is not finite is
    evaluated, kept or saved, as ``finish`` comes before these; the chunk behind one that is not finite is in vain.
    """

    def __init__(self, job: Job, chunk_steps: int, store: CheckpointStore, writer: Writer, progress: Progress):
        self._job, self._chunk_steps = job, chunk_steps
        self._store, self._writer, self._progress = store, writer, progress
        self._measured: tuple[int, StepMetrics, Array] | None = None  # the step behind it, and its results

    def start(
        self, state: TrainState, teacher: Teacher | Answers | None, examples: Examples | None, step: int
    ) -> TrainState:
        """Starts the chunk that ends at ``step``, and then finishes the one before."""
        job = self._job
        seed, budget = np.int32(job.data_seed), np.int32(job.description.budget)
        # Arguments and no constants of the program: runs with other data or another length share it.
        state, metrics = job.sweep.chunk(state, job.hyperparameters, teacher, seed, budget, examples)
        # Of the parameters now, as the next chunk takes over their memory.
        measured = step, metrics, _largest(state.params)
        self.finish()
        self._measured = measured
        return state

    def finish(self) -> None:
        """Waits for the chunk, if one runs, and records the means over its batches.

        Raises:
          TrainingError: a loss or a parameter is not finite.
        """
        if self._measured is None:
            return
        (step, metrics, largest), self._measured = self._measured, None
        metrics = fetch(metrics)
        if not np.all(np.isfinite(metrics.loss.sum)):
            # Row n of [N, R] is the n-th step of the chunk; the first False is the least.
            bad = int(np.argmin(np.isfinite(metrics.loss.sum).all(axis=1)))
            at = step - self._chunk_steps + bad
            _require_finite(self._job, "the loss", metrics.loss.sum[bad], at, self._store)
        # The last update comes after the last of these losses. Nothing that is not finite may be evaluated or kept.
        _require_finite(self._job, "a parameter", fetch(largest), step, self._store)
        # In float64: float32 counts one by one only up to 2**24 places, which a chunk of large batches exceeds.
        self._writer.write("train", step, jax.tree.map(lambda leaf: leaf.astype(np.float64).sum(axis=0), metrics))
        self._progress.advance(self._chunk_steps)


@jax.jit
def _largest(params: Params) -> Float[Array, "R"]:
    """Returns the largest magnitude among each replica's parameters; not finite if any of them is not."""
    # Maxima pass NaN on. Reduced on the device, [R] numbers are fetched instead of all parameters.
    rows = [jnp.max(jnp.abs(leaf.reshape(len(leaf), -1)), axis=1) for leaf in jax.tree.leaves(params)]
    return jnp.max(jnp.stack(rows), axis=0)


def _evaluate(
    job: Job,
    state: TrainState,
    step: int,
    held_out: Examples | None,
    store: CheckpointStore,
    writer: Writer,
    progress: Progress,
) -> dict[str, ByReplica]:
    """Evaluates all replicas on the held-out batches; returns their means."""
    metrics = fetch(job.sweep.evaluate(state.params, np.int32(job.evaluation_seed), held_out))
    _require_finite(job, "the held-out loss", metrics.loss.sum, step, store)
    writer.write("evaluation", step, metrics)
    means = {name: exact_ratio(part.sum, part.count) for name, part in metrics._asdict().items()}
    progress.report(job.description.name, step, job.description.budget, means["loss"].mean(), means["accuracy"].mean())
    return means


def _save(state: TrainState, step: int, store: CheckpointStore, writer: Writer) -> None:
    """Saves the training state, behind the records of its step."""
    # In this order: records behind a state are dropped when a run resumes, but records that a state lacks are lost for
    # good.
    writer.flush()
    store.save(step, state)


def _require_finite(job: Job, what: str, values: ByReplica, step: int, store: CheckpointStore) -> None:
    """Raises a ``TrainingError`` that names step, replica and the last good state, unless all values are finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return
    replica = int(bad[0])
    member = job.description.replicas[replica]
    good = store.latest_step()
    saved = f"the last good state is step {good}, {store.path(good)}" if good is not None else "no state was saved yet"
    raise TrainingError(
        f"{job.description.name}: {what} is not finite at step {step} in replica {replica} (seed {member.seed}, "
        f"learning rate {member.learning_rate:g}); {saved}; lower the learning rate or clip the gradient"
    )


def _log_cost(directory: Path, step: int, seconds: float) -> None:
    """Appends wall-clock time and peak memory, which differ from run to run, to a file of their own."""
    if not is_first():
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    with open(directory / "progress.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 4), "peak_memory_bytes": peak}) + "\n")
