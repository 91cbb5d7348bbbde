"""Students that see parts of their intermediate checkpoints, in a whole experiment."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.part import LowDegree, WithoutLowDegree, measure
from pdjax.distill.schedules import FixedDuration, TeacherSplit
from pdjax.distill.selection import Equal, Phase, Steps
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.records import read_run
from pdjax.io.sealed import read_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.mlp import Mlp
from pdjax.plan.experiment import plan_experiment
from pdjax.settings import plain
from pdjax.stages import sources
from pdjax.stages.programs import compiled, student_program, teacher_shape
from pdjax.stages.runs import foresee_runs, plan_runs
from pdjax.stages.students import train_students
from pdjax.stages.teacher import open_trajectory, train_teacher
from pdjax.stages.together import as_one
from pdjax.tasks.parity import ParityTask
from pdjax.train import blocked
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

TWO = Strategy("two", Distillation(1.0), FixedDuration(25), Steps((40,)))
PARTS = {
    "low": LowDegree(num_inputs=256),
    "elsewhere": LowDegree(1, "elsewhere", num_inputs=256),
    "equal": LowDegree(1, "support", "equal", num_inputs=256),
    "without": WithoutLowDegree(num_inputs=256),
    "second": LowDegree(2, num_inputs=256),
}
PARTIAL = tuple(dataclasses.replace(TWO, name=name, part=part) for name, part in PARTS.items())
WHOLES = (Strategy("labels", Labels()), Strategy("one_shot"), TWO)


@pytest.fixture(scope="module")
def small():
    """Students of a parity that follow one checkpoint, or a part of it, and move on within a chunk."""
    once = dict(batch_size=1, optimizer=Sgd())
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(*WHOLES, *PARTIAL),
        teacher_training=TeacherTraining(steps=80, checkpoint_every=20, learning_rate=2e-2, **once),
        student_training=StudentTraining(seeds=(0, 1), learning_rates=(2e-2,), budgets=(40,), **once),
        evaluation=Evaluation(20, num_batches=2, batch_size=64),
        loop=Loop(10, save_every=20),
    )


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    train_teacher(small, workdir, Interrupt())
    train_students(small, workdir, Interrupt())
    return workdir


def left(workdir, name="metrics.jsonl"):
    return {path.parent.name: path.read_bytes() for path in sorted((workdir / "students").glob(f"*/{name}"))}


def with_strategies(experiment, *strategies):
    return dataclasses.replace(experiment, strategies=strategies)


def test_every_part_is_a_run_of_its_own_and_the_others_stay_what_they_were(small, finished):
    names = [f"{strategy.name}-40" for strategy in small.strategies]
    assert sorted(left(finished)) == sorted(names)
    assert len({*left(finished).values()}) == len(names)
    with contextlib.closing(open_trajectory(small, finished)) as trajectory:
        with_parts, without = (
            {run.name: run for _, run in plan_runs(config, finished, trajectory)}
            for config in (small, with_strategies(small, *WHOLES))
        )
    assert len({run.identity for run in with_parts.values()}) == len(names)
    assert without == {name: with_parts[name] for name in without}


def test_runs_of_whole_checkpoints_have_the_identity_that_they_have_without_parts(small, tmp_path):
    """As it is since runs are known by their replicas: whoever has trained such students need not train them again."""

    class Trajectory:
        def steps(self):
            return [20, 40, 60, 80]

        def digest(self, step):
            return str(step)

    config = with_strategies(small, TWO)
    with pytest.MonkeyPatch.context() as patch:
        chosen = {"two": TWO.selection.select([20, 40, 60, 80], None)}
        patch.setattr("pdjax.stages.runs.select_checkpoints", lambda *_: chosen)
        ((_, run),) = plan_runs(config, tmp_path, Trajectory())
    assert run.identity == "38e03ccba78cd95efd6c1d6492f40fb6d55a825b84a47a6d36a3a4b1650e452c"


def test_strategies_of_one_part_are_one_run_and_labels_have_none(small):
    soft = dataclasses.replace(PARTIAL[0], name="soft", loss=Distillation(0.5))
    later = (
        dataclasses.replace(TWO, name="phase", selection=Phase()),
        dataclasses.replace(PARTIAL[0], name="found", selection=Phase()),
    )
    plain_students = Strategy("plain", Labels(), TWO.schedule, TWO.selection, part=LowDegree())
    config = with_strategies(small, *small.strategies, soft, plain_students, *later)
    runs = {run.strategies for run in foresee_runs(config, [20, 40, 60, 80])}
    others = {(name,) for name in ("one_shot", "two", "elsewhere", "equal", "without", "second", "phase", "found")}
    assert runs == {("labels", "plain"), ("low", "soft")} | others


def test_what_was_measured_is_recorded(small, finished):
    with contextlib.closing(open_trajectory(small, finished)) as trajectory:
        params = trajectory.restore(40, teacher_shape(small))
    teacher = small.teacher.build(small.task)
    assert sorted(left(finished, "part.json")) == sorted(f"{name}-40" for name in PARTS)
    for name, part in PARTS.items():
        record = read_json(finished / "students" / f"{name}-40" / "part.json")
        found = measure(small.task, teacher, part.measured(small.task), 256, 0, params)
        assert record["part"] == plain(part)
        assert record["monomials"] == ([[0], [1], [0, 1]] if name == "second" else [[0], [1]])
        assert record["shown_monomials"] == [list(s) for s in part.shown(small.task).members]
        (of_teacher,) = record["teachers"]  # the final one is whole
        assert of_teacher["step"] == 40
        assert of_teacher["coefficients"] == found.coefficients.tolist()
        assert of_teacher["standard_errors"] == found.errors.tolist()
        assert of_teacher["shown"] == part.weights(small.task, found.coefficients).tolist()


def test_students_see_the_part_of_every_checkpoint_but_the_teachers_last(small, finished, tmp_path):
    """Also where they never reach the last: T0 in 4 parts has 20 steps for the first."""
    equal = Strategy("low", schedule=TeacherSplit(1.0), selection=Equal(4), part=PARTS["low"])
    config = dataclasses.replace(
        with_strategies(small, equal),
        student_training=dataclasses.replace(small.student_training, budgets=(20, 80)),
    )
    with contextlib.closing(open_trajectory(small, finished)) as trajectory:
        runs = {run.budget: run for _, run in plan_runs(config, finished, trajectory)}
        stored = {step: trajectory.restore(step, teacher_shape(config)) for step in trajectory.steps()}
        source = sources.Sources(config, tmp_path, trajectory, list(runs.values()))
        training = student_program(config, runs[20].replicas, equal.part)
        sweep = compiled(config, training)
        teachers = {budget: source.open(as_one([run]), sweep).teacher(0, 10) for budget, run in runs.items()}
    assert runs[20].teacher_steps == (20,)
    assert runs[80].teacher_steps == (20, 40, 60, 80)
    inputs = small.task.sample(jax.random.key(0), 32).inputs
    teacher, model = small.teacher.build(small.task), training.program.teacher_model
    x = np.asarray(inputs["vector"])
    for budget, run in runs.items():
        for row, step in enumerate(run.teacher_steps):
            said = np.asarray(model.apply(teachers[budget].checkpoint(teachers[budget].slots[row]), inputs)[0])
            if step == 80:
                logits = np.asarray(teacher.apply(stored[80], inputs)[0])
                assert np.array_equal(said[:, 0] - said[:, 1], logits[:, 0] - logits[:, 1])
            else:
                c = measure(small.task, teacher, equal.part.measured(small.task), 256, 0, stored[step]).coefficients
                np.testing.assert_allclose(said[:, 0] - said[:, 1], x[:, :2] @ c, atol=1e-6)


def test_a_run_that_was_stopped_ends_with_the_same_bits(small, finished, interrupt_at, tmp_path):
    config = with_strategies(small, *PARTIAL[:1], *WHOLES[1:])
    train_teacher(config, tmp_path, Interrupt())
    with pytest.raises(Interrupted, match="low-40 is saved at step 20"):
        train_students(config, tmp_path, interrupt_at(2))
    train_students(config, tmp_path, Interrupt())
    for name in ("metrics.jsonl", "part.json"):
        expected = left(finished, name)
        assert left(tmp_path, name) == {run: expected[run] for run in left(tmp_path, name)}
    assert len(left(tmp_path)) == 3


def test_without_memory_for_all_checkpoints_parts_are_stacked_for_themselves(small, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "memory_of", lambda device: 1)
    train_teacher(small, tmp_path, Interrupt())
    train_students(with_strategies(small, *PARTIAL), tmp_path, Interrupt())
    assert left(tmp_path) == {name: lines for name, lines in left(finished).items() if name in left(tmp_path)}
    assert len(left(tmp_path)) == len(PARTS)


def test_steps_one_by_one_are_those_of_blocks_up_to_rounding(small, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(blocked, "applies", lambda program: False)
    config = dataclasses.replace(with_strategies(small, *PARTIAL[:4]), loop=Loop(20, save_every=20))
    train_teacher(small, tmp_path, Interrupt())
    train_students(config, tmp_path, Interrupt())
    for strategy in config.strategies:
        one, other = (read_run(workdir / "students" / f"{strategy.name}-40") for workdir in (tmp_path, finished))
        np.testing.assert_allclose(one.evaluation.loss, other.evaluation.loss, atol=1e-5)


def test_a_plan_has_a_program_for_each_number_of_terms(small):
    plan = plan_experiment(small, None)
    stages = {stage.name: {name for run in stage.runs for name in run.strategies} for stage in plan.stages}
    assert stages == {
        "teacher": set(),
        "students with a teacher x 2": {"one_shot", "two"},
        "students with parts of a teacher x 2": {"low", "elsewhere", "equal", "without"},
        "students with parts of a teacher x 2 (Distillation)": {"second"},
        "students of labels x 2": {"labels"},
    }
    assert plan.fits
