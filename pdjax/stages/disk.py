"""How much disk an experiment takes: said, and refused where it is not there, before anything is written."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdjax.experiment import Experiment
from pdjax.io.records import read_description
from pdjax.io.store import disk_bytes, require_space
from pdjax.stages.caching import foreseen_bytes, kept_elsewhere
from pdjax.stages.programs import Training, size_program, student_program, teacher_program
from pdjax.stages.runs import foresee_runs
from pdjax.stages.students import kept_bytes
from pdjax.stages.teacher import checkpoint_bytes, most_kept, teacher_identity
from pdjax.train.loop import KEPT_STATES
from pdjax.train.state import init_state
from pdjax.weights.checkpoint import is_series

_RUN = 45_000
"""Bytes of a run's directories and small files, in blocks of 4 KiB."""
_METRICS, _COST, _MEASURED = 150, 100, 500
"""Bytes of a line of a run's metrics, of its costs, and of a probe."""
_PAGE, _FIGURE, _ROW = 300_000, 150_000, 290
"""Bytes of a report for the page, for each figure, and for each number, which stands in tables and figures."""
_NUMBERS = 8
"""What a probe measures of a model, about."""


class _SinkBytes(NamedTuple):
    """What a sink of metrics writes, in bytes."""

    run: int
    replica: int
    line: int  # of the run's metrics


_SINKS = {"tensorboard": _SinkBytes(4_096, 18_000, 120), "wandb": _SinkBytes(75_000, 0, 140)}
"""By the name in ``loop.writers``, with the configuration in each; wandb's files may stay when they are sent."""


class Foreseen(NamedTuple):
    """An experiment, or one that it has within, that is about to be run."""

    experiment: Experiment
    directory: Path  # may not exist yet
    stored: Sequence[int]  # the teacher steps that its trajectory holds, or will hold


class Written(NamedTuple):
    """What a part of an experiment writes, about."""

    stage: str
    place: Path  # its directory; of runs that have grown the names of further ones begin alike
    size: int  # bytes
    passing: int = 0  # bytes more while it is at work
    replicas: int = 0  # of a run
    rows: int = 0  # numbers that it adds to the report's table

    @property
    def pending(self) -> int:
        """The bytes that are yet to be written."""
        if self.stage == "report":  # the old one stays until the new one is there
            return self.size
        places = [self.place, *self.place.parent.glob(f"{self.place.name}+*")]
        ended = [place for place in places if (place / "result.json").exists()]
        if not self.replicas:
            return 0 if ended else max(0, self.size - _bytes_of(self.place))
        # One that lost what it is gets that again from its stage, and is not to be refused here.
        done = [place for place in ended if (place / "run.json").exists()]
        left = self.replicas - sum(len(read_description(place).replicas) for place in done)
        if left <= 0:
            return 0
        there = sum(_bytes_of(place) for place in places if place not in done)
        return max(0, self.size * left // self.replicas - there) + self.passing


def require_disk(foreseen: Sequence[Foreseen], stages: Sequence[str]) -> str:
    """Requires the disk that the stages of an experiment will yet take.

    Args:
      foreseen: the experiment, then those that it has within.
      stages: that are run.

    Returns:
      What they take in all, as a line.

    Raises:
      UserError: there is less.
    """
    parts, *others = (list(written(one)) for one in foreseen)
    whole = teacher_identity(foreseen[0].experiment)
    for one, within in zip(foreseen[1:], others, strict=True):
        stage = one.directory.relative_to(foreseen[0].directory).parts[0]
        shares = teacher_identity(one.experiment) == whole
        # Of these stages; a variant's teacher is the experiment's where nothing in it differs.
        counted = {"probes", "students", "sizes"} | (set() if shares else {"teacher"})
        counted |= {"student_probes"} if stage == "teachers" else set()
        parts += [part._replace(stage=stage, rows=0) for part in within if part.stage in counted]
    elsewhere = kept_elsewhere(foreseen[0].experiment)
    asked = [part for part in parts if part.stage in stages and part.size]
    parts, apart = ([part for part in asked if (part.place == elsewhere) is there] for there in (False, True))
    by_stage = {stage: sum(part.size for part in parts if part.stage == stage) for stage in (p.stage for p in parts)}
    require_space(foreseen[0].directory, sum(part.pending for part in parts), "all that is yet to be written")
    listed = ", ".join(f"{stage.replace('_', ' ')} {size / 1e6:.1f}" for stage, size in by_stage.items())
    line = f"disk: {sum(by_stage.values()) / 1e6:.1f} MB in all ({listed})"
    # Some may be there already: what is missing is known, and required, when the students begin.
    apart_bytes = sum(part.size for part in apart)
    return line + (f"; answers of teachers {apart_bytes / 1e6:.1f} MB in {elsewhere}" if apart_bytes else "")


def written(foreseen: Foreseen) -> Iterator[Written]:
    """Yields what an experiment writes, the report last: all in its directory, but for answers that lie elsewhere."""
    parts = [*_of_teacher(foreseen), *_of_students(foreseen), *_of_sizes(foreseen)]
    yield from parts
    experiment = foreseen.experiment
    figures = sum(len(experiment.budgets) if one.kind == "training" else 1 for one in experiment.comparisons)
    figures += 2 + len(experiment.probes.measured) + len(experiment.ablations)
    size = _PAGE + _FIGURE * figures + _ROW * sum(part.rows for part in parts)
    yield Written("report", foreseen.directory / "report", size)


def _of_teacher(foreseen: Foreseen) -> Iterator[Written]:
    experiment, directory, stored = foreseen
    training, place = experiment.teacher_training, directory / "teacher"
    teachers = len(training.seeds)
    if training.trajectory is None:
        run = _of_run("teacher", place, experiment, teacher_program(experiment), training.steps, teachers)
        kept = teachers * most_kept(experiment) * checkpoint_bytes(experiment)
        yield run._replace(size=run.size + kept, replicas=teachers)
    elif is_series(training.trajectory):
        yield Written("teacher", place, len(stored) * checkpoint_bytes(experiment))
    if experiment.probes.measured:
        yield _of_probes("probes", directory / "probes", len(experiment.probes.measured) * len(stored) * teachers)


def _of_students(foreseen: Foreseen) -> Iterator[Written]:
    experiment, directory, stored = foreseen
    training, probes = experiment.student_training, experiment.probes
    every, probed = training.checkpoint_every, {*probes.students}
    runs = foresee_runs(experiment, stored)
    for run in runs:
        count, place = len(run.replicas), directory / "students" / f"{run.strategies[0]}-{run.budget}"
        program = student_program(experiment, run.replicas, run.course.part)
        written = _of_run("students", place, experiment, program, run.budget, count)
        shown = _rows(experiment, run.budget, len(run.strategies) * len(training.seeds) * len(training.learning_rates))
        yield written._replace(size=written.size + kept_bytes(experiment, run.budget, count), rows=shown)
        if every is not None and probed & {*run.strategies} and experiment.probes_students_of(run.budget):
            measured = sum(probe.of_students for probe in probes.measured) * (1 + run.budget // every) * count
            yield _of_probes("student_probes", place / "probes", measured)
    if experiment.placement.residency == "cached":
        yield Written("students", kept_elsewhere(experiment) or directory / "answers", foreseen_bytes(experiment, runs))


def _of_sizes(foreseen: Foreseen) -> Iterator[Written]:
    experiment, directory, _ = foreseen
    sizes = experiment.sizes
    if sizes is None:
        return
    for name, model in sizes.models():
        program = size_program(experiment, sizes, model)
        yield _of_run("sizes", directory / "sizes" / name, experiment, program, sizes.steps, program.num_replicas)


def _of_probes(stage: str, place: Path, measured: int) -> Written:
    return Written(stage, place, measured * _MEASURED, rows=measured * _NUMBERS)


def _of_run(stage: str, place: Path, experiment: Experiment, training: Training, steps: int, replicas: int) -> Written:
    """Returns what a run writes: its last training states, records and other files."""
    state = disk_bytes(_state(training), replicas)
    chunks, evaluations = steps // experiment.loop.chunk_steps, 1 + steps // experiment.evaluation.every
    kept = min(KEPT_STATES, -(-steps // experiment.loop.save_every))  # a short run saves once
    lines = (chunks + evaluations) * replicas
    size = kept * state + _RUN + lines * _METRICS + chunks * _COST
    for sink in (_SINKS[name] for name in experiment.loop.writers):
        size += sink.run + replicas * sink.replica + lines * sink.line
    # One state more while the next one is written.
    return Written(stage, place, size, passing=state, replicas=replicas, rows=_rows(experiment, steps, replicas))


def _state(training: Training) -> Any:
    """Returns the training state of one replica as shapes."""
    losses = training.program.losses[:1]
    program = training.program._replace(losses=losses, group_sizes=())
    return _shapes(program._replace(bounds=None))


@functools.cache
def _shapes(program: Any) -> Any:
    return jax.eval_shape(functools.partial(init_state, program), jax.ShapeDtypeStruct((1,), jnp.int32))


def _rows(experiment: Experiment, steps: int, models: int) -> int:
    """Returns how many numbers of held-out examples a run adds to the table of results."""
    return 2 * models * (1 + steps // experiment.evaluation.every)


def _bytes_of(place: Path) -> int:
    """Returns the bytes of disk that a directory takes."""
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(Path(directory) / name).st_blocks * 512
            except FileNotFoundError:  # another process is at work here
                continue
    return total
