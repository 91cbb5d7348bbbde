"""A whole experiment on given hardware: its programs, hours by stage, and disk."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from pdjax.distill.losses import Loss
from pdjax.distill.part import Whole
from pdjax.experiment import Experiment
from pdjax.io.store import SAFETY, tree_bytes
from pdjax.io.teacher_source import are_stacked, memory_of
from pdjax.plan.hardware import Topology
from pdjax.plan.program import ProgramPlan, plan_program
from pdjax.plan.roofline import EFFICIENCY
from pdjax.stages.caching import cuts_of, foreseen_bytes
from pdjax.stages.programs import size_program, student_program, teacher_program, teacher_shape
from pdjax.stages.runs import SharedRun, foresee_runs
from pdjax.stages.students import kept_bytes
from pdjax.stages.teacher import most_kept, stored_steps
from pdjax.train.loop import KEPT_STATES
from pdjax.train.replicas import families
from pdjax.types import Model


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """One run."""

    strategies: tuple[str, ...]  # whose students it trains; none for a teacher or another size
    budget: int  # training steps


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What the runs of one program take."""

    name: str
    runs: tuple[RunPlan, ...]
    replicas: int  # of each run
    steps: int  # of all runs together
    hours: float  # not a number where a program does not fit
    disk: int  # bytes of kept checkpoints and of training states


@dataclasses.dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment takes."""

    config: str
    topology: str
    devices: int
    residency: str  # stacked or streamed, with the bytes of both; or cached, with those of the answers
    assumed: dict[str, float] | None  # shares of the peaks, and seconds a kernel, of the roofline; None: measured
    programs: tuple[ProgramPlan, ...]
    stages: tuple[StagePlan, ...]
    found_later: tuple[str, ...]  # strategies whose checkpoints the teacher's training decides (``foresee_runs``)
    kept_at_most: int | None  # checkpoints of a trajectory, where the teacher's training decides about them
    left_out: tuple[str, ...]  # what the experiment does besides

    @property
    def fits(self) -> bool:
        """Whether all programs do."""
        return all(program.memory.fits for program in self.programs)


def plan_experiment(experiment: Experiment, topology: Topology | None) -> ExperimentPlan:
    """Plans an experiment for a topology, or with measured steps for the devices of this machine.

    Raises:
      UserError: a mesh does not fit the devices, or a curriculum the teacher's checkpoints or a student's length.
    """
    devices = jax.devices() if topology is None else topology.devices
    chip = None if topology is None else topology.chip
    plan = functools.partial(plan_program, experiment, chip=chip, devices=devices)
    runs = _runs_by_program(experiment)
    checkpoints, size = most_checkpoints(experiment), tree_bytes(teacher_shape(experiment))
    memory = chip.memory if chip is not None else min(memory_of(device) for device in devices)
    stacked = are_stacked(experiment.placement.residency, checkpoints * size, memory)
    # Teachers and other sizes learn from labels: ``held`` says nothing of them.
    trained = experiment.teacher_training.trajectory is None
    programs = [plan("teacher", teacher_program(experiment), held=1)] if trained else []
    cached = experiment.placement.residency == "cached"
    for name, shared in runs.items():
        # All runs of a program have as many replicas, with the same families of losses: one of them shows it.
        replicas, part = shared[0].replicas, shared[0].course.part
        held = None if not stacked and isinstance(part, Whole) else checkpoints
        if cached:
            held = tuple(cuts_of(replicas)) if replicas[0].loss.asks_teacher else 1
        programs.append(plan(name, student_program(experiment, replicas, part), held=held))
    sizes = experiment.sizes
    if sizes is not None:
        for name, model in sizes.models():
            programs.append(plan(f"size {name}", size_program(experiment, sizes, model), held=1))
    how = "stacked" if stacked else "streamed"
    residency = (
        f"{how} ({checkpoints} checkpoints stacked {checkpoints * size / 1e6:.0f} MB, "
        f"two streamed {2 * size / 1e6:.0f} MB, of {memory / 1e9:.0f} GB)"
    )
    if cached:
        answers = foreseen_bytes(experiment, itertools.chain.from_iterable(runs.values()))
        residency = f"cached (answers of {checkpoints} checkpoints {answers / 1e6:.1f} MB on disk)"
    return ExperimentPlan(
        config=experiment.name,
        topology="this machine" if topology is None else topology.name,
        devices=len(devices),
        residency=residency,
        assumed=None if chip is None else EFFICIENCY | {"seconds_a_kernel": chip.kernel},
        programs=tuple(programs),
        stages=_stages(experiment, {program.name: program for program in programs}, runs, size),
        found_later=tuple(s.name for s in experiment.strategies if s.loss.asks_teacher and not s.selection.is_given),
        kept_at_most=most_kept(experiment) if experiment.teacher_training.keep.decides else None,
        left_out=left_out(experiment),
    )


def left_out(experiment: Experiment) -> tuple[str, ...]:
    """Names what no plan is made of: probes, variants, each of which has a plan of its own, and what a cache takes."""
    probes = [probe.name for probe in experiment.probes.measured]
    answers = ["of teachers to all batches"] if experiment.placement.residency == "cached" else []
    parts = (("probes", probes), ("ablations", list(experiment.variants())), ("computing answers", answers))
    return tuple(f"{what} ({', '.join(names)})" for what, names in parts if names)


def most_checkpoints(experiment: Experiment) -> int:
    """Returns how many of the teacher's checkpoints students use: at most so many, as some are found after training."""
    stored = _stored(experiment)
    levels = len(getattr(experiment.task, "levels", ())) or 1
    asking = (strategy.selection for strategy in experiment.strategies if strategy.loss.asks_teacher)
    later = [selection for selection in asking if not selection.is_given]
    # Sets: a point that several selections find is one checkpoint, and so is a step that several name.
    points = {point for selection in later for point in selection.points(stored, levels)}
    given = {step for run in foresee_runs(experiment, stored) for step in run.course.teacher_steps}
    final = {stored[-1]} if later else set[int]()
    most = most_kept(experiment) if experiment.teacher_training.trajectory is None else len(stored)
    return min(most, len(points) + len(given | final))


def _stored(experiment: Experiment) -> Sequence[int]:
    """Returns the teacher's checkpoints that there will be, or those of a given trajectory."""
    # Nothing has been run yet: what an import has left is in no working directory.
    return stored_steps(experiment, Path())


def _runs_by_program(experiment: Experiment) -> dict[str, list[SharedRun]]:
    """Returns the runs of students by their program, those with a teacher first."""
    runs: dict[tuple[Any, int, Model], list[SharedRun]] = {}
    teacher = experiment.teacher.build(experiment.task)
    for run in foresee_runs(experiment, _stored(experiment)):
        # What determines a program: the losses without their numbers, in blocks of so many replicas, and what teaches.
        model = run.course.part.model(teacher, experiment.task)
        runs.setdefault((families(run.replicas), len(run.replicas), model), []).append(run)
    named: dict[str, list[SharedRun]] = {}
    ordered = sorted(runs.items(), key=lambda item: (not _taught(item[0][0]), item[0][1]))
    for ((losses, _), count, model), members in ordered:
        teachers = "with a teacher" if model == teacher else "with parts of a teacher"
        name = f"students {teachers if losses[0].asks_teacher else 'of labels'} x {count}"
        kinds = ", ".join(type(loss).__name__ for loss in losses)
        # Losses of one class may differ in more than numbers, such as a layer: nothing but a count tells these apart.
        counted = (f"{name} ({kinds}, {number})" for number in itertools.count(2))
        free = (one for one in itertools.chain((name, f"{name} ({kinds})"), counted) if one not in named)
        named[next(free)] = members
    return named


def _taught(families: tuple[tuple[Loss, ...], tuple[int, ...]]) -> bool:
    return families[0][0].asks_teacher


def _stages(
    experiment: Experiment, programs: Mapping[str, ProgramPlan], runs: Mapping[str, Sequence[SharedRun]], size: int
) -> tuple[StagePlan, ...]:
    training = experiment.teacher_training
    stage = functools.partial(_stage, evaluate_every=experiment.evaluation.every)
    stages = []
    if training.trajectory is None:
        kept = int(SAFETY * len(training.seeds) * size * most_kept(experiment))
        stages = [stage(programs["teacher"], [RunPlan((), training.steps)], kept=kept)]
    for name, members in runs.items():
        alike = [RunPlan(run.strategies, run.budget) for run in members]
        kept = sum(kept_bytes(experiment, run.budget, len(run.replicas)) for run in members)
        stages.append(stage(programs[name], alike, kept=kept))
    if experiment.sizes is not None:
        of_sizes = (program for name, program in programs.items() if name.startswith("size "))
        stages += [stage(program, [RunPlan((), experiment.sizes.steps)]) for program in of_sizes]
    return tuple(stages)


def _stage(program: ProgramPlan, runs: Sequence[RunPlan], evaluate_every: int, kept: int = 0) -> StagePlan:
    """Plans the runs of a program, which ``kept`` bytes of checkpoints stay from."""
    steps = sum(run.budget for run in runs)
    # Not a number where a step is not: such a stage has no hours.
    seconds = steps * (program.seconds + program.evaluation_seconds / evaluate_every)
    # Every run keeps its last training states when it is done.
    disk = kept + int(SAFETY * len(runs) * KEPT_STATES * program.saved)
    return StagePlan(program.name, tuple(runs), program.replicas, steps, seconds / 3600, disk)


def as_json(plan: ExperimentPlan) -> dict[str, Any]:
    """Returns a plan as plain data."""
    return dataclasses.asdict(plan) | {"fits": plan.fits}
