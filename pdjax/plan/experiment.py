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
from pdjax.io.store import disk_of, tree_bytes
from pdjax.io.teacher_source import are_stacked, memory_of
from pdjax.plan.hardware import Topology
from pdjax.plan.program import ProgramPlan, plan_program
from pdjax.plan.roofline import EFFICIENCY
from pdjax.stages.caching import cuts_of, foreseen_bytes
from pdjax.stages.programs import size_program, student_program, teacher_program, teacher_shape
from pdjax.stages.runs import SharedRun, foresee_runs
from pdjax.stages.students import kept_bytes
from pdjax.stages.teacher import checkpoint_bytes, most_kept, stored_steps
from pdjax.stages.together import Group, curricula_of, together
from pdjax.train.loop import KEPT_STATES
from pdjax.train.replicas import families


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
    replicas: int  # of the program
    steps: int  # of the program, for all runs
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
    checkpoints, size = most_checkpoints(experiment), tree_bytes(teacher_shape(experiment))
    memory = chip.memory if chip is not None else min(memory_of(device) for device in devices)
    stacked = are_stacked(experiment.placement.residency, checkpoints * size, memory)
    runs = _groups_by_program(experiment, stacked, len(devices))
    # Teachers and other sizes learn from labels: ``held`` says nothing of them.
    trained = experiment.teacher_training.trajectory is None
    programs = [plan("teacher", teacher_program(experiment), held=1)] if trained else []
    cached = experiment.placement.residency == "cached"
    for name, groups in runs.items():
        # All groups of a program have as many replicas, with the same families of losses: one of them shows it.
        replicas, part = groups[0].replicas, groups[0].runs[0].course.part
        held = None if not stacked and isinstance(part, Whole) else checkpoints
        if cached:
            held = tuple(cuts_of(replicas)) if replicas[0].loss.asks_teacher else 1
        training = student_program(experiment, replicas, part)
        programs.append(plan(name, training, held=held, curricula=len(curricula_of(groups[0]))))
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
        groups = itertools.chain.from_iterable(runs.values())
        answers = foreseen_bytes(experiment, itertools.chain.from_iterable(group.runs for group in groups))
        residency = f"cached (answers of {checkpoints} checkpoints {answers / 1e6:.1f} MB on disk)"
    return ExperimentPlan(
        config=experiment.name,
        topology="this machine" if topology is None else topology.name,
        devices=len(devices),
        residency=residency,
        assumed=None if chip is None else EFFICIENCY | {"seconds_a_kernel": chip.kernel},
        programs=tuple(programs),
        stages=_stages(experiment, {program.name: program for program in programs}, runs),
        found_later=tuple(s.name for s in experiment.strategies if s.loss.asks_teacher and not s.selection.is_given),
        kept_at_most=most_kept(experiment) if experiment.teacher_training.keep.decides else None,
        left_out=left_out(experiment),
    )


def left_out(experiment: Experiment) -> tuple[str, ...]:
    """Names what no plan is made of: probes, variants, each of which has a plan of its own, and what a cache takes."""
    probes = [probe.name for probe in experiment.probes.measured]
    answers = ["of teachers to all batches"] if experiment.placement.residency == "cached" else []
    teachers = list(map(str, experiment.further_teachers))
    parts = (
        ("probes", probes),
        ("further teachers", teachers),
        ("ablations", list(experiment.variants())),
        ("computing answers", answers),
    )
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


def _groups_by_program(experiment: Experiment, stacked: bool, devices: int) -> dict[str, list[Group[SharedRun]]]:
    """Returns the runs of students, in groups that are trained together, by their program; with a teacher first."""
    groups: dict[tuple[Any, ...], list[Group[SharedRun]]] = {}
    teacher = experiment.teacher.build(experiment.task)
    for group in together(experiment, foresee_runs(experiment, _stored(experiment)), stacked, devices):
        # What determines a program: the losses without their numbers, in blocks of so many replicas, and what teaches.
        model = group.runs[0].course.part.model(teacher, experiment.task)
        curricula = len(curricula_of(group))
        key = families(group.replicas), len(group.replicas), model, curricula if curricula > 1 else 1
        groups.setdefault(key, []).append(group)
    named: dict[str, list[Group[SharedRun]]] = {}
    ordered = sorted(groups.items(), key=lambda item: (not _taught(item[0][0]), item[0][1]))
    for ((losses, _), count, model, curricula), members in ordered:
        teachers = "with a teacher" if model == teacher else "with parts of a teacher"
        several = f" of {curricula} curricula" if curricula > 1 else ""
        name = f"students {teachers + several if _taught((losses, ())) else 'of labels'} x {count}"
        kinds = ", ".join(type(loss).__name__ for loss in losses)
        # Losses of one class may differ in more than numbers, such as a layer: nothing but a count tells these apart.
        counted = (f"{name} ({kinds}, {number})" for number in itertools.count(2))
        free = (one for one in itertools.chain((name, f"{name} ({kinds})"), counted) if one not in named)
        named[next(free)] = members
    return named


def _taught(families: tuple[tuple[Loss, ...], tuple[int, ...]]) -> bool:
    return any(loss.asks_teacher for loss in families[0])


def _stages(
    experiment: Experiment,
    programs: Mapping[str, ProgramPlan],
    groups: Mapping[str, Sequence[Group[SharedRun]]],
) -> tuple[StagePlan, ...]:
    training = experiment.teacher_training
    stage = functools.partial(_stage, evaluate_every=experiment.evaluation.every)
    stages = []
    if training.trajectory is None:
        kept = len(training.seeds) * most_kept(experiment) * checkpoint_bytes(experiment)
        stages = [stage(programs["teacher"], [RunPlan((), training.steps)], kept=kept)]
    for name, members in groups.items():
        runs = [run for group in members for run in group.runs]
        alike = [RunPlan(run.strategies, run.budget) for run in runs]
        kept = sum(kept_bytes(experiment, run.budget, len(run.replicas)) for run in runs)
        steps, states = sum(group.runs[0].budget for group in members), sum(len(run.replicas) for run in runs)
        stages.append(stage(programs[name], alike, kept=kept, steps=steps, states=states))
    if experiment.sizes is not None:
        of_sizes = (program for name, program in programs.items() if name.startswith("size "))
        stages += [stage(program, [RunPlan((), experiment.sizes.steps)]) for program in of_sizes]
    return tuple(stages)


def _stage(
    program: ProgramPlan,
    runs: Sequence[RunPlan],
    evaluate_every: int,
    kept: int = 0,
    steps: int | None = None,
    states: int | None = None,
) -> StagePlan:
    """Plans the runs of a program.

    Args:
      program: of the runs.
      runs: what each of them is.
      evaluate_every: steps between evaluations.
      kept: bytes of checkpoints that stay.
      steps: of the program; None where each run takes its own.
      states: training states of one replica that the runs leave; None where each run leaves one of each replica.
    """
    steps = sum(run.budget for run in runs) if steps is None else steps
    states = len(runs) * program.replicas if states is None else states
    # Not a number where a step is not: such a stage has no hours.
    seconds = steps * (program.seconds + program.evaluation_seconds / evaluate_every)
    # Every run keeps its last training states when it is done.
    saved = KEPT_STATES * program.saved * states / program.replicas
    disk = kept + disk_of(saved, program.arrays, KEPT_STATES * len(runs))
    return StagePlan(program.name, tuple(runs), program.replicas, steps, seconds / 3600, disk)


def as_json(plan: ExperimentPlan) -> dict[str, Any]:
    """Returns a plan as plain data."""
    return dataclasses.asdict(plan) | {"fits": plan.fits}
