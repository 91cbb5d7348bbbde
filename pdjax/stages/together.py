"""Which student runs are trained together, as one program: those whose students see the same batches.

Students of several curricula then share what their teachers say, as each checkpoint is asked once for a batch. Where
a longer run does at first what a shorter one does, they are the same students. Every run has its own records and
states, and is resumed, kept and probed as if it were alone; with whom it was trained is in its ``run.json``, as its
sums may round otherwise with others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.distill.curriculum import padded
from pdjax.distill.part import Whole
from pdjax.distill.teacher import Teacher
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription, read_description
from pdjax.stages.programs import student_program
from pdjax.stages.runs import Course, SharedRun, run_directory
from pdjax.train.chunk import in_blocks
from pdjax.train.optimizer import Optimizer
from pdjax.train.replicas import Replica
from pdjax.types import Params

NO_TEACHER = Course((), (), None)


class Student(NamedTuple):
    """A replica with what it learns from."""

    replica: Replica
    course: Course

    def until(self, budget: int) -> "Student":
        """Returns the student with what it learns from in its first steps."""
        count = sum(start < budget for start in self.course.starts)
        starts, steps = self.course.starts[:count], self.course.teacher_steps[:count]
        return self._replace(course=self.course._replace(starts=starts, teacher_steps=steps))


R = TypeVar("R", RunDescription, SharedRun)
"""A run, or one that is foreseen."""


class Group(NamedTuple, Generic[R]):
    """Runs that are trained together."""

    runs: tuple[R, ...]  # the longest first
    students: tuple[Student, ...]  # of the program, those of one family of losses next to each other
    began: tuple[str, ...] = ()  # the names of the runs with which these began, some of which may be done

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The program's."""
        return tuple(student.replica for student in self.students)

    def rows(self, run: R) -> tuple[int, ...]:
        """Returns which of the students are a run's."""
        known = {student.until(run.budget): row for row, student in enumerate(self.students)}
        return tuple(known[student] for student in students_of(run))


def students_of(run: RunDescription | SharedRun) -> tuple[Student, ...]:
    """Returns the students of a run, in its order."""
    if isinstance(run, SharedRun):
        # Of a curriculum that is not known yet two budgets may have different ones.
        course = run.course if run.course.starts else run.course._replace(rule=(run.course.rule, run.budget))
    else:
        course = Course(run.starts, run.teacher_steps, None)
    # Rows of a curriculum that begin behind the last step tell no students apart.
    return tuple(
        Student(replica, course if replica.loss.asks_teacher else NO_TEACHER).until(run.budget)
        for replica in run.replicas
    )


def grouped(runs: Sequence[R], most: int, ends_early: bool) -> list[Group[R]]:
    """Returns runs in groups of at most so many students, unless one run alone has more.

    Args:
      runs: that may be trained together.
      most: students of a group.
      ends_early: whether a shorter training is the beginning of a longer one.
    """
    left, groups = sorted(runs, key=lambda run: -run.budget), []
    while left:
        first, *left = left
        members, students = [first], [*students_of(first)]
        for run in left:
            mine = set(students_of(run))
            if run.budget < first.budget:
                fits = ends_early and mine <= {student.until(run.budget) for student in students}
            else:
                fits = len({*students, *mine}) <= most
            if fits:
                members.append(run)
                students += [student for student in students_of(run) if run.budget == first.budget]
        left = [run for run in left if run not in members]
        groups.append(as_one(members))
    return groups


def as_one(members: Sequence[R]) -> Group[R]:
    """Returns a group of runs, of which those of the largest budget bring the students."""
    longest = max(run.budget for run in members)
    students = dict.fromkeys(student for run in members if run.budget == longest for student in students_of(run))
    families = list(dict.fromkeys(student.replica.loss.family for student in students))
    ordered = sorted(students, key=lambda student: families.index(student.replica.loss.family))
    return Group(tuple(members), tuple(ordered))


def curricula_of(group: Group[R]) -> list[Course]:
    """Returns the different courses of students who ask a teacher."""
    return list(dict.fromkeys(student.course for student in group.students if student.course != NO_TEACHER))


def ends_early(optimizer: Optimizer) -> bool:
    """Whether a shorter training is the beginning of a longer one."""
    kind = type(optimizer)
    known = kind.update is Optimizer.update and kind.factor is Optimizer.factor
    return known and optimizer.schedule == "constant" and optimizer.warmup_fraction == 0


def can_be_together(experiment: Experiment, run: RunDescription | SharedRun) -> bool:
    """Whether a run may be trained with others: it draws the batches of all, and asks a teacher for logits alone."""
    strategies = [experiment.strategy(name) for name in run.strategies]
    return (
        experiment.student_training.shared_batches
        and not any(one.is_adaptive and one.loss.asks_teacher for one in strategies)  # such a curriculum is its own
        and all(isinstance(strategy.part, Whole) for strategy in strategies)
        and not any(strategy.loss.has_params or strategy.loss.reads_intermediates for strategy in strategies)
        and not in_blocks(student_program(experiment, run.replicas).program)
    )


def together(experiment: Experiment, runs: Sequence[R], stacked: bool, devices: int) -> list[Group[R]]:
    """Returns runs that nothing has been done for in groups, those that stay alone last.

    Args:
      experiment: whose runs.
      runs: in any order.
      stacked: whether all checkpoints are on the device at once.
      devices: that they are trained on; of several each run takes as many as divide its own students.
    """
    shared = stacked and devices == 1 and experiment.loop.together > 1
    # A process has one run of Weights & Biases at a time.
    shared = shared and "wandb" not in experiment.loop.writers
    joined = [run for run in runs if shared and can_be_together(experiment, run)]
    groups = grouped(joined, experiment.loop.together, ends_early(experiment.student_training.optimizer))
    return groups + [as_one([run]) for run in runs if run not in joined]


def groups_of(
    experiment: Experiment, workdir: Path, pending: Sequence[RunDescription], stacked: bool
) -> list[Group[RunDescription]]:
    """Returns the runs that are to be done in groups.

    Those that have begun stay with whom they began, as others would round their sums otherwise; where that cannot be,
    each is alone.

    Args:
      experiment: whose runs.
      workdir: of the experiment.
      pending: the runs.
      stacked: whether all checkpoints are on the device at once.
    """
    begun = [run for run in pending if _recorded(workdir, run) is not None]
    groups: list[Group[RunDescription]] = []
    taken: list[RunDescription] = []
    for run in begun:
        if run not in taken:
            left = [one for one in pending if one not in taken]  # nobody belongs to two
            groups.append(again(experiment, workdir, left, run))
            taken += groups[-1].runs
    fresh = [run for run in pending if run not in taken]
    return groups + together(experiment, fresh, stacked, len(jax.devices()))


def again(
    experiment: Experiment, workdir: Path, runs: Sequence[RunDescription], run: RunDescription
) -> Group[RunDescription]:
    """Returns the group in which a run of these was trained, or the run alone where that cannot be."""
    names = _recorded(workdir, run) or ()
    # Who has begun otherwise since is no member any more. Who has nothing yet was not reached when all was stopped.
    members = [one for one in runs if one.name in names and _recorded(workdir, one) in (names, None)]
    # Shorter runs bring no students: without them the program is the same.
    longest = {name for name in names if _budget(name) == max(map(_budget, names))}
    whole = longest <= {one.name for one in members}
    # The answers of a cache, and what one of several processes holds, are of one run.
    apart = experiment.placement.residency == "cached" or jax.process_count() > 1
    return as_one(members)._replace(began=names) if whole and not apart else as_one([run])


def _budget(name: str) -> int:
    """Returns the budget in the name of a run, behind which is at most a number (``pdjax.stages.growing``)."""
    return int(name.rpartition("-")[2].partition("+")[0])


def _recorded(workdir: Path, run: RunDescription) -> tuple[str, ...] | None:
    """Returns the names of the runs with which a run has begun, itself among them; None if it has not."""
    directory = run_directory(workdir, run)
    return (read_description(directory).together or (run.name,)) if (directory / "run.json").exists() else None


def teacher_of(group: Group[RunDescription], checkpoints: Params, steps: Sequence[int], rows: int) -> Teacher | None:
    """Returns the teacher of a group's students; None where none of them asks one.

    Args:
      group: of runs without adaptive curricula.
      checkpoints: stacked ...
      steps: ... of these teacher steps.
      rows: length of the padded tables, so that groups share one program.
    """
    courses = curricula_of(group)
    if not courses:
        return None
    starts = np.stack([np.asarray(padded(course.starts, rows)) for course in courses])
    slots = np.zeros((len(courses), rows), np.int32)  # padded rows never hold: any slot will do
    for row, course in zip(slots, courses, strict=True):
        row[: len(course.teacher_steps)] = [steps.index(step) for step in course.teacher_steps]
    if len(courses) == 1:
        return Teacher(checkpoints, jnp.asarray(starts[0]), jnp.asarray(slots[0]))
    # Students of the labels ask nobody: any curriculum will do.
    curriculum = [courses.index(student.course) if student.course in courses else 0 for student in group.students]
    return Teacher(checkpoints, jnp.asarray(starts), jnp.asarray(slots), jnp.array(curriculum, jnp.int32))
