"""The only training loop: restore, run a chunk, log, evaluate, save, until the budget is spent."""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pdjax.distill.teacher import Answers, Teacher
from pdjax.errors import TrainingError, UserError
from pdjax.experiment import Loop
from pdjax.io.feed import evaluation_examples, open_feed
from pdjax.io.processes import agree, fetch, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_measured, read_run
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.store import CheckpointStore, DamageError
from pdjax.io.surroundings import peak_memory
from pdjax.io.teacher_source import TeacherSource
from pdjax.io.writer import Writer, open_writer
from pdjax.settings import plain
from pdjax.train import sharding
from pdjax.train.replicas import Sweep
from pdjax.train.state import Hyperparameters, TrainState
from pdjax.types import Examples, Params, StepMetrics, exact_ratio

logger = logging.getLogger("pdjax")

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
    """Everything one run needs; its result is a function of this alone, and of whom it is trained with."""

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
    rows: tuple[int, ...] | None = None  # of the sweep's replicas, which are this run's; None: all
    configuration: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # that sinks are told


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
    train_together([(job, directory)], loop, interrupt, progress, until)


def train_together(
    jobs: Sequence[tuple[Job, Path]], loop: Loop, interrupt: Interrupt, progress: Progress, until: int | None = None
) -> None:
    """Runs jobs of one sweep at once, each in its directory, as ``train`` does one.

    Each has its own ``rows`` of the sweep's replicas, states and records, and ends at its own budget; ``until`` counts
    for all. They differ in nothing else but what they keep.
    """
    # What they share is said by any of them.
    shared = jobs[0][0]
    last = until or max(job.description.budget for job, _ in jobs)
    # Whatever cannot be opened leaves nothing open.
    with ExitStack() as stack:
        opened = [_Run(job, directory, until, stack) for job, directory in jobs]
        state, done = _first_state(shared, opened)
        for run in opened:
            run.go_on(done, loop, stack)
        meet("records are those of the state")
        for run in opened:
            progress.skip(min(done or 0, run.last))
        source = stack.enter_context(closing(shared.open_source()))
        seeds = fetch(shared.hyperparameters.seed).tolist()
        feed = stack.enter_context(closing(open_feed(shared.sweep, seeds, shared.data_seed, last)))
        held_out = evaluation_examples(shared.sweep, shared.evaluation_seed)
        for run in opened:
            run.history = _History(run.job, source, run.writer, run.directory, done)
            # Its last state was saved, and its result was not: at once, as it falls behind the others from here on.
            if until is None and done is not None and done >= run.last:
                run.write_result()
        if done is None:
            _evaluate(shared, opened, state, 0, held_out, progress)
        running = _Running(shared, loop.chunk_steps, progress)
        # `step` counts the steps done when the chunk has run; states are saved at such steps alone.
        for step in range((done or 0) + loop.chunk_steps, last + 1, loop.chunk_steps):
            began, before = time.monotonic(), step - loop.chunk_steps
            runs = [run for run in opened if step <= run.last]
            if source.makes_room(before):
                running.finish()  # it may use what is to go
            teacher, examples = source.teacher(before, step), feed.examples(before, step)
            state = running.start(runs, state, teacher, examples, step)
            due = [run for run in runs if run.is_evaluated_at(step, before)]
            if due:
                running.finish()
                _evaluate(shared, due, state, step, held_out, progress)
            # A signal may reach one process of several. Left to itself it would save at a step at which the others do
            # not, and all take part in every save: they stop together.
            stopping = agree(interrupt.signal_number or 0) or None
            for run in runs:
                if stopping is not None or step == run.job.description.budget or step % loop.save_every == 0:
                    running.finish()
                    run.save(state, step)
            for run in runs:
                run.writer.write_cost(step, (time.monotonic() - began) / len(runs), peak_memory())
            # Last, as it is what makes a run count as done: when all have saved the step.
            for run in runs:
                if step == run.job.description.budget and until is None:
                    run.write_result()
            budget = max(run.job.description.budget for run in runs)
            if stopping is not None and step < budget:
                names = ", ".join(run.job.description.name for run in runs)
                raise Interrupted(stopping, f"{names} is saved at step {step} of {budget}")
        running.finish()
    for job, _ in jobs:
        meet(f"{job.description.name} is done")


class _Run:
    """A run of a job: what it has open, and which of the replicas are its own.

    Args:
      job: what is run.
      directory: of its files.
      until: a step to leave off at; None is its budget.
      stack: closes what is opened.
    """

    history: "_History"
    writer: Writer

    def __init__(self, job: Job, directory: Path, until: int | None, stack: ExitStack):
        self.job, self.directory = job, directory
        self.last = min(until or job.description.budget, job.description.budget)
        identity = {"run": job.description.identity}
        self.store = stack.enter_context(closing(CheckpointStore(directory / "state", identity, keep=KEPT_STATES)))
        # One that lacks nothing but its result was trained with whom it says.
        if self.store.latest_step() != job.description.budget or not (directory / "run.json").exists():
            write_json(directory / "run.json", plain(job.description))

    def go_on(self, done: int | None, loop: Loop, stack: ExitStack) -> None:
        """Opens the records, of which the first process drops those behind the step from which all go on.

        The other processes wait: an adaptive run reads them in each process.
        """
        # Before the records: of a state that stays there is never a record too few.
        for step in self.store.steps():
            if step > (done or 0):
                name = self.job.description.name
                logger.info("%s: its state of step %d goes, as training goes on from before it", name, step)
                self.store.remove(step)
        seal = None if done is None else self.store.behind(done)
        self.writer = stack.enter_context(
            closing(open_writer(self.directory, done, seal, loop.writers, self.job.description, self.job.configuration))
        )

    def own(self, tree: Any, axis: int = 0) -> Any:
        """Returns the run's own replicas of arrays that have all of them along an axis."""
        rows = self.job.rows
        return tree if rows is None else jax.tree.map(lambda leaf: leaf.take(np.array(rows), axis), tree)

    def is_evaluated_at(self, step: int, before: int) -> bool:
        """Whether the run is evaluated at the end of the chunk between two steps."""
        candidate = self.job.kept is not None and step in self.job.kept.candidates
        # A multiple of `evaluate_every` within the chunk is evaluated at the chunk's end.
        every = self.job.evaluate_every
        return candidate or step == self.job.description.budget or before // every < step // every

    def save(self, state: TrainState, step: int) -> None:
        """Saves the training state, behind the records of its step."""
        # In this order: records behind a state are dropped when a run resumes, but records that a state lacks are lost
        # for good.
        self.writer.flush()
        own = TrainState(state.step, self.own(state.params), self.own(state.opt_state))
        self.store.save(step, own, behind=self.writer.seal)

    def write_result(self) -> None:
        """Says that the run is done, and what it kept."""
        description = self.job.description
        kept = {} if self.job.kept is None else {"checkpoints": list(self.history.kept())}
        result = {"step": description.budget, "identity": description.identity, "records": self.writer.seal, **kept}
        self.writer.flush()
        write_json(self.directory / "result.json", result)


def _first_state(job: Job, runs: Sequence[_Run]) -> tuple[TrainState, int | None]:
    """Returns the last state that all runs have saved, on the sweep's devices, and its step.

    If that is damaged, the one before it; if there is none, the initial state and None.

    Raises:
      UserError: all of them are damaged.
    """
    steps = sorted(set.intersection(*(set(run.store.steps()) for run in runs)), reverse=True)
    if not steps:
        return job.sweep.init(job.hyperparameters.seed), None
    for step in steps:
        state, damage = None, None
        try:
            state = _saved_state(job, runs, step)
        except DamageError as error:
            damage = error
        # What one process cannot read, all of them leave.
        if not agree(damage is not None) and state is not None:
            return state, step
        logger.warning("the state of step %d is damaged: %s", step, damage or "another process cannot read it")
    where = " and ".join(str(run.store.directory) for run in runs)
    again = f"remove {where} and run the same command again, which trains from the start"
    raise UserError(f"a state of {job.description.name} as it was saved", f"damage in those of steps {steps}", again)


def _saved_state(job: Job, runs: Sequence[_Run], done: int) -> TrainState:
    """Returns the state that the runs have saved at a step, on the sweep's devices."""
    seeds = job.hyperparameters.seed
    whole = jax.eval_shape(job.sweep.init, seeds)

    def shape_of(run: _Run) -> TrainState:
        count = len(run.job.description.replicas)

        def own(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)

        return TrainState(whole.step, *jax.tree.map(own, (whole.params, whole.opt_state)))

    saved = [run.store.restore(done, shape_of(run)) for run in runs]
    if all(run.job.rows is None for run in runs):
        return sharding.put(saved[0], job.sweep.state)

    def joined(shape: Any, *parts: np.ndarray) -> np.ndarray:
        leaf = np.empty(shape.shape, shape.dtype)
        for run, part in zip(runs, parts, strict=True):
            leaf[np.array(run.job.rows)] = part
        return leaf

    like = (whole.params, whole.opt_state)
    together = jax.tree.map(joined, like, *((one.params, one.opt_state) for one in saved))
    return sharding.put(TrainState(saved[0].step, *together), job.sweep.state)


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

    def __init__(self, job: Job, chunk_steps: int, progress: Progress):
        self._job, self._chunk_steps, self._progress = job, chunk_steps, progress
        # Whose it is, the step behind it, and its results.
        self._measured: tuple[Sequence[_Run], int, StepMetrics, Array] | None = None

    def start(
        self,
        runs: Sequence[_Run],
        state: TrainState,
        teacher: Teacher | Answers | None,
        examples: Examples | None,
        step: int,
    ) -> TrainState:
        """Starts the chunk that ends at ``step``, and then finishes the one before."""
        job = self._job
        seed, budget = np.int32(job.data_seed), np.int32(max(run.job.description.budget for run in runs))
        # Arguments and no constants of the program: runs with other data or another length share it.
        state, metrics = job.sweep.chunk(state, job.hyperparameters, teacher, seed, budget, examples)
        # Of the parameters now, as the next chunk takes over their memory.
        measured = runs, step, metrics, _largest(state.params)
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
        (runs, step, metrics, largest), self._measured = self._measured, None
        metrics, largest = fetch(metrics), fetch(largest)
        for run in runs:
            own = run.own(metrics, axis=1)
            if not np.all(np.isfinite(own.loss.sum)):
                # Row n of [N, R] is the n-th step of the chunk; the first False is the least.
                bad = int(np.argmin(np.isfinite(own.loss.sum).all(axis=1)))
                _require_finite(run, "the loss", own.loss.sum[bad], step - self._chunk_steps + bad)
            # The last update comes after the last of these losses. Nothing that is not finite may be evaluated or kept.
            _require_finite(run, "a parameter", run.own(largest), step)
            # In float64: float32 counts one by one only up to 2**24 places, which a chunk of large batches exceeds.
            run.writer.write("train", step, jax.tree.map(lambda leaf: leaf.astype(np.float64).sum(axis=0), own))
        # At once, as they took their time together: one by one all but the first would seem to have taken none.
        self._progress.advance(self._chunk_steps * len(runs))


@jax.jit
def _largest(params: Params) -> Float[Array, "R"]:
    """Returns the largest magnitude among each replica's parameters; not finite if any of them is not."""
    # Maxima pass NaN on. Reduced on the device, [R] numbers are fetched instead of all parameters.
    rows = [jnp.max(jnp.abs(leaf.reshape(len(leaf), -1)), axis=1) for leaf in jax.tree.leaves(params)]
    return jnp.max(jnp.stack(rows), axis=0)


def _evaluate(
    job: Job, runs: Sequence[_Run], state: TrainState, step: int, held_out: Examples | None, progress: Progress
) -> None:
    """Evaluates all replicas on the held-out batches, and has each run record, decide and keep."""
    measured = fetch(job.sweep.evaluate(state.params, np.int32(job.evaluation_seed), held_out))
    models = job.sweep.of_model(state.params)
    for run in runs:
        metrics, description = run.own(measured), run.job.description
        _require_finite(run, "the held-out loss", metrics.loss.sum, step)
        run.writer.write("evaluation", step, metrics)
        means = {name: exact_ratio(part.sum, part.count) for name, part in metrics._asdict().items()}
        progress.report(description.name, step, description.budget, means["loss"].mean(), means["accuracy"].mean())
        run.history.add(step, means, models)  # of which adaptive runs alone look at any, and these have all replicas
        if step > 0 and run.job.keep is not None and step in run.history.kept():
            run.job.keep(step, run.own(models), means)


def _require_finite(run: _Run, what: str, values: ByReplica, step: int) -> None:
    """Raises a ``TrainingError`` that names step, replica and the last good state, unless all values are finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return
    replica, description = int(bad[0]), run.job.description
    member = description.replicas[replica]
    good = run.store.latest_step()
    saved = (
        f"the last good state is step {good}, {run.store.path(good)}" if good is not None else "no state was saved yet"
    )
    raise TrainingError(
        f"{description.name}: {what} is not finite at step {step} in replica {replica} (seed {member.seed}, "
        f"learning rate {member.learning_rate:g}); {saved}; lower the learning rate or clip the gradient"
    )
