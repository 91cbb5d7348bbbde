"""Cached teachers: what each checkpoint says to the students' batches is computed once, and read from then on.

Every run whose curriculum has a checkpoint at the same steps of the same batches, with losses that need the same cut of
it, reads the same files: other learning rates, seeds of students and strategies, in this working directory or in any
that names the same ``placement.cache``.
"""

import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pdjax.distill.kept import Cut, Kept
from pdjax.distill.teacher import Answers
from pdjax.errors import require
from pdjax.experiment import Experiment
from pdjax.io.feed import open_feed
from pdjax.io.processes import agree, fetch, is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.store import CheckpointStore, require_space
from pdjax.io.target_cache import TargetCache, kept_of, shard_of
from pdjax.io.teacher_source import Cached, Stacked, TeacherSource
from pdjax.settings import determining
from pdjax.stages.programs import teacher_shape
from pdjax.stages.runs import SharedRun
from pdjax.tasks.base import batch_shapes
from pdjax.train.asking import ask_chunk
from pdjax.train.replicas import Replica, Sweep, place_checkpoints

logger = logging.getLogger("pdjax")


class _Curriculum(NamedTuple):
    """A run's curriculum: checkpoint k from ``starts[k]`` on, up to ``ends[k]``."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    teacher_steps: tuple[int, ...]

    @classmethod
    def of(cls, starts: tuple[int, ...], teacher_steps: tuple[int, ...], budget: int) -> "_Curriculum":
        return cls(starts, (*starts[1:], budget), teacher_steps)

    def at(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yields the checkpoints of the steps from ``begin`` to ``end``: first and last step, and the teacher step."""
        for start, stop, step in zip(*self, strict=True):
            if max(start, begin) < min(stop, end):
                yield max(start, begin), min(stop, end), step

    def shards(self, budget: int, chunk: int) -> list[tuple[int, int]]:
        """Returns of which checkpoints the answers are needed, to which chunks, by their first steps."""
        return [(step, begin) for begin in range(0, budget, chunk) for _, _, step in self.at(begin, begin + chunk)]


def cached_source(
    experiment: Experiment,
    workdir: Path,
    trajectory: CheckpointStore,
    interrupt: Interrupt,
    description: RunDescription,
    sweep: Sweep,
) -> TeacherSource:
    """Returns the source of a run's teachers, after computing what of it is not there yet.

    Raises:
      UserError: a file is damaged, the disk is too small, or a loss needs more of a teacher than is kept.
      Interrupted: a signal asked to stop; what is computed stays.
    """
    if not description.starts:
        return Stacked(sweep, None)
    chunk, budget = experiment.loop.chunk_steps, description.budget
    root = kept_elsewhere(experiment) or workdir / "answers"
    rows = _Curriculum.of(description.starts, description.teacher_steps, budget)
    cuts = tuple(dict.fromkeys(cuts_of(description.replicas)))
    caches = {
        (step, cut): TargetCache(root, _identity(experiment, trajectory, sweep, step, cut))
        for step, cut in itertools.product(rows.teacher_steps, cuts)
    }
    if is_first():
        for cache in caches.values():
            cache.open()
    needed = rows.shards(budget, chunk)
    meet("what is cached has been seen")
    missing = [(step, begin) for step, begin in needed if not all(caches[step, cut].has(begin) for cut in cuts)]
    _announce(experiment, root, cuts, len(needed), len(missing))
    if missing:
        _compute(experiment, trajectory, sweep, caches, cuts, sorted(missing), interrupt)
    meet("what is cached is complete")
    # One shape for the whole run: room for as many classes as any place has.
    most = {cut: max(caches[step, cut].most(begin) for step, begin in needed) for cut in cuts}

    def read(begin: int, end: int) -> Answers:
        parts = list(rows.at(begin, end))

        def kept(cut: Cut) -> Kept:
            each = [
                jax.tree.map(
                    lambda leaf, a=first - begin, b=last - begin: leaf[a:b],
                    kept_of(caches[step, cut].read(begin), most[cut]),
                )
                for first, last, step in parts
            ]
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)

        by_cut = {cut: kept(cut) for cut in cuts}
        return Answers(tuple(by_cut[cut] for cut in cuts_of(description.replicas)))

    return Cached(sweep, read, budget)


def kept_elsewhere(experiment: Experiment) -> Path | None:
    """Returns the directory of the answers where it is not one in the working directory."""
    return None if experiment.placement.cache is None else Path(experiment.placement.cache).expanduser()


def foreseen_bytes(experiment: Experiment, runs: Iterable[SharedRun]) -> int:
    """Returns the bytes of the answers that runs read, those that several read once, without ties.

    Raises:
      UserError: a loss needs more of a teacher than is kept.
    """
    chunk = experiment.loop.chunk_steps
    shards = {
        (cut, *shard)
        for run in runs
        if run.course.starts
        for cut in cuts_of(run.replicas)
        for shard in _Curriculum.of(run.course.starts, run.course.teacher_steps, run.budget).shards(run.budget, chunk)
    }
    return sum(chunk * step_bytes(experiment, cut) for cut, *_ in shards)


def cuts_of(replicas: Sequence[Replica]) -> Iterator[Cut]:
    """Yields, for each of a run's families of losses, what of a teacher it needs.

    Raises:
      UserError: it needs more than its most likely classes, or students of one family need different things.
    """
    for _, members in itertools.groupby(replicas, key=lambda replica: replica.loss.family):
        losses = list(dict.fromkeys(replica.loss for replica in members))
        cuts = {loss.cut for loss in losses}
        expected = "losses that look at a teacher's most likely classes alone with placement.residency 'cached'"
        remedy = "take TopK, or Distillation at a temperature near 0, of one temperature in a run, or another residency"
        require(len(cuts) == 1 and None not in cuts, expected, ", ".join(map(str, losses)), remedy)
        yield from (cut for cut in cuts if cut is not None)


def _identity(
    experiment: Experiment, trajectory: CheckpointStore, sweep: Sweep, step: int, cut: Cut
) -> dict[str, object]:
    """Returns all that a checkpoint's answers depend on."""
    return {
        "teacher": trajectory.digest(step),
        "model": determining(experiment.teacher, defaults=True),
        "task": determining(experiment.task, defaults=True),
        "batches": [sweep.program.data_name, experiment.seed, sweep.program.batch_size],
        "cut": list(cut),
        "shard": experiment.loop.chunk_steps,
    }


def step_bytes(experiment: Experiment, cut: Cut) -> int:
    """Returns the bytes that a step's answers take, without ties."""
    places = int(np.prod(batch_shapes(experiment.task, experiment.student_training.batch_size).targets.shape))
    number = np.min_scalar_type(experiment.task.num_classes - 1).itemsize
    counts = np.min_scalar_type(cut.k).itemsize
    return places * (number + counts if cut.whole else cut.k * (number + 4) + counts + 4)


def _announce(experiment: Experiment, root: Path, cuts: Sequence[Cut], needed: int, missing: int) -> None:
    """Says how large the files are, and refuses when there is no room for those that are missing."""
    size = experiment.loop.chunk_steps * sum(step_bytes(experiment, cut) for cut in cuts)
    logger.info(
        "students: the teachers' answers take %.1f MB in %s, of which %.1f MB are to be computed",
        size * needed / 1e6, root, size * missing / 1e6,
    )  # fmt: skip
    require_space(root, size * missing, "the teachers' answers")


def _compute(
    experiment: Experiment,
    trajectory: CheckpointStore,
    sweep: Sweep,
    caches: Mapping[tuple[int, Cut], TargetCache],
    cuts: Sequence[Cut],
    missing: Sequence[tuple[int, int]],
    interrupt: Interrupt,
) -> None:
    """Asks checkpoints what is missing of their answers, ``missing`` by teacher step and first student step."""
    chunk, seed = experiment.loop.chunk_steps, np.int32(experiment.seed)
    ask = jax.jit(functools.partial(ask_chunk, sweep.program, tuple(cuts), chunk))
    last = max(begin for _, begin in missing) + chunk
    with closing(Progress("teachers' answers", len(missing) * chunk)) as progress:
        for step, together in itertools.groupby(missing, key=lambda one: one[0]):
            one = trajectory.restore(step, teacher_shape(experiment))
            checkpoint = place_checkpoints(sweep, one, stacked=False)
            with closing(open_feed(sweep, (), experiment.seed, last)) as feed:
                for _, begin in together:
                    answers = fetch(ask(checkpoint, seed, np.int32(begin), feed.examples(begin, begin + chunk)))
                    for cut, (kept, ties) in zip(cuts, answers, strict=True):
                        _require_whole(cut, kept, ties, step, begin)
                        if is_first():
                            caches[step, cut].write(begin, shard_of(kept, cut, experiment.task.num_classes))
                    progress.advance(chunk)
                    stopping = agree(interrupt.signal_number or 0)
                    if stopping:
                        raise Interrupted(stopping, "the answers of teachers so far are kept")


def _require_whole(cut: Cut, kept: Kept, ties: np.ndarray, step: int, begin: int) -> None:
    """Raises a ``UserError`` unless the classes of a cut have the mass that they are to have."""
    if not cut.whole:
        return
    counted = np.sum(kept.log_p > -np.inf, axis=-1)
    require(
        bool(np.all(kept.log_rest == -np.inf) and np.all(counted == ties)),
        f"checkpoint {step} at temperature {cut.temperature:g} to have its mass on its most likely class, or on up to "
        f"{cut.k} that tie",
        f"others in the batches from student step {begin} on",
        "lower the temperature to 0, or take the loss TopK, or another placement.residency",
    )
