"""Teachers that keep some of their states: the same training, with fewer checkpoints."""

import contextlib
import dataclasses
import shutil

import jax
import numpy as np
import pytest

from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Steps
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, Loop, Probes, StudentTraining, TeacherTraining
from pdjax.io.records import read_run
from pdjax.io.sealed import read_json, read_lines
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.mlp import Mlp
from pdjax.plan.experiment import plan_experiment
from pdjax.plan.table import as_text
from pdjax.probes.agreement import AgreementProbe
from pdjax.stages.programs import teacher_shape
from pdjax.stages.run import run_experiment
from pdjax.stages.teacher import checkpoint_bytes, open_trajectory, stored_steps, train_teacher
from pdjax.tasks.parity import ParityTask
from pdjax.train.keeping import AtSteps, Geometric, Regular, WhileFalling
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

FALLING = WhileFalling(0.002, at_least_every=40, most_checkpoints=7)


@pytest.fixture(scope="module")
def small():
    """A teacher of 100 steps on a grid of 10, evaluated every 30 steps besides, with states every 40."""
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(Strategy("two_shot", schedule=FixedDuration(10), selection=Steps((40,))),),
        teacher_training=TeacherTraining(
            seed=3, steps=100, batch_size=4, learning_rate=2e-2, checkpoint_every=10, optimizer=Sgd()
        ),
        student_training=StudentTraining(seeds=(0,), budgets=(20,), batch_size=4, optimizer=Sgd()),
        evaluation=Evaluation(30, num_batches=2, batch_size=64),
        loop=Loop(10, save_every=40),
    )


def with_keep(experiment, keep, **changes):
    training = dataclasses.replace(experiment.teacher_training, keep=keep, **changes)
    return dataclasses.replace(experiment, teacher_training=training)


def checkpoints(experiment, workdir, seed=None):
    """Arrays and metrics by step."""
    with contextlib.closing(open_trajectory(experiment, workdir, seed)) as store:
        like = teacher_shape(experiment)
        return {step: (store.restore(step, like), store.metrics(step)) for step in store.steps()}


@pytest.fixture(scope="module")
def regular(small, tmp_path_factory):
    """The working directory of a teacher that keeps the whole grid."""
    workdir = tmp_path_factory.mktemp("regular")
    train_teacher(small, workdir, Interrupt())
    return workdir


@pytest.fixture(scope="module")
def falling(small, tmp_path_factory):
    """That of one that keeps checkpoints while its loss falls."""
    workdir = tmp_path_factory.mktemp("falling")
    train_teacher(with_keep(small, FALLING), workdir, Interrupt())
    return workdir


def assert_same(some, others):
    for step, (params, means) in some.items():
        jax.tree.map(np.testing.assert_array_equal, params, others[step][0])
        assert means == others[step][1]


@pytest.mark.parametrize(
    ("keep", "steps"), [(AtSteps((10, 40, 70)), [10, 40, 70, 100]), (Geometric(), [10, 20, 40, 80, 100])]
)
def test_planned_checkpoints_are_those_of_the_whole_grid(small, regular, tmp_path, keep, steps):
    config = with_keep(small, keep)
    assert list(stored_steps(config, tmp_path)) == steps
    train_teacher(config, tmp_path, Interrupt())
    kept = checkpoints(config, tmp_path)
    assert list(kept) == steps == read_json(tmp_path / "teacher" / "result.json")["checkpoints"]
    assert_same(kept, checkpoints(small, regular))


def test_what_is_decided_online_is_a_function_of_the_records(small, regular, falling):
    """The training is that of the whole grid; of 7 checkpoints, those at 40, 80 and 100 have their place."""
    config = with_keep(small, FALLING)
    kept = checkpoints(config, falling)
    metrics = [workdir / "teacher" / "metrics.jsonl" for workdir in (falling, regular)]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    curves = read_run(falling / "teacher").evaluation
    decided = FALLING.kept(config.teacher_training.grid, curves.steps.tolist(), curves.loss[:, 0].tolist(), 1)
    assert list(kept) == list(decided) == read_json(falling / "teacher" / "result.json")["checkpoints"]
    assert {40, 80, 100} < set(kept)
    assert len(kept) <= 7
    assert_same(kept, checkpoints(small, regular))


class Killed(BaseException):
    """As SIGKILL ends a process: nothing more is saved."""


class Killing(Interrupt):
    """Ends the loop at a look, as if the process had been killed there."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def signal_number(self):
        self.looks -= 1
        if self.looks == 0:
            raise Killed
        return None


@pytest.mark.parametrize("looks", [2, 5, 7, 10])
@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_resumed_training_decides_the_same(small, falling, tmp_path, interrupt_at, way, looks):
    config = with_keep(small, FALLING)
    end, interrupt = (Interrupted, interrupt_at(looks)) if way == "stopped" else (Killed, Killing(looks))
    with contextlib.suppress(Interrupted) if looks == 10 and way == "stopped" else pytest.raises(end):
        train_teacher(config, tmp_path, interrupt)
    train_teacher(config, tmp_path, Interrupt())
    again, uninterrupted = checkpoints(config, tmp_path), checkpoints(config, falling)
    assert list(again) == list(uninterrupted)
    assert_same(again, uninterrupted)
    for name in ("metrics.jsonl", "result.json"):
        assert (tmp_path / "teacher" / name).read_bytes() == (falling / "teacher" / name).read_bytes()


def test_lost_checkpoints_that_were_decided_about_are_computed_again(small, falling, tmp_path):
    config = with_keep(small, FALLING)
    workdir = shutil.copytree(falling, tmp_path / "workdir")
    before = checkpoints(config, workdir)
    for step in (next(iter(before)), 100):
        shutil.rmtree(workdir / "teacher" / "trajectory" / "checkpoints" / str(step))
    train_teacher(config, workdir, Interrupt())
    after = checkpoints(config, workdir)
    assert list(after) == list(before)
    assert_same(after, before)


def test_further_teachers_have_the_steps_of_the_first(small, falling, tmp_path):
    config = with_keep(small, FALLING, extra_seeds=(0,))
    train_teacher(config, tmp_path, Interrupt())
    assert list(checkpoints(config, tmp_path)) == list(checkpoints(config, tmp_path, 0))
    assert list(checkpoints(config, tmp_path)) == list(checkpoints(with_keep(small, FALLING), falling))


def test_students_and_probes_of_what_was_kept(small, falling, tmp_path):
    config = dataclasses.replace(with_keep(small, FALLING), probes=Probes((AgreementProbe(1, 8),)))
    run_experiment(config, tmp_path, ("teacher", "probes", "students"), Interrupt())
    probed = [record["step"] for record in read_lines(tmp_path / "probes" / "agreement.jsonl").records]
    assert probed == list(checkpoints(config, tmp_path))
    assert read_run(tmp_path / "students" / "two_shot-20").description.teacher_steps == (40, 100)


def test_a_step_that_is_not_sure_to_be_kept_is_refused_before_anything_is_trained(small, tmp_path):
    config = with_keep(small, dataclasses.replace(FALLING, at_least_every=None))
    with pytest.raises(UserError, match=r"found no checkpoint for \[40\] among \[100\]; .* checkpoint_every or keep"):
        run_experiment(config, tmp_path / "new", ("teacher",), Interrupt())
    assert not (tmp_path / "new").exists()


def test_a_budget_of_bytes(small, tmp_path):
    size = checkpoint_bytes(small)
    keep = dataclasses.replace(FALLING, most_checkpoints=None, most_bytes=2 * size)
    with pytest.raises(UserError, match=rf"most_bytes of at least {3 * size}, for 3 checkpoints; found {2 * size}"):
        run_experiment(with_keep(small, keep), tmp_path / "new", ("teacher",), Interrupt())
    assert not (tmp_path / "new").exists()
    config = with_keep(small, dataclasses.replace(keep, most_bytes=4 * size))
    train_teacher(config, tmp_path, Interrupt())
    assert len(checkpoints(config, tmp_path)) == 4


def test_a_plan_says_at_most(small):
    plans = {keep: plan_experiment(with_keep(small, keep), None) for keep in (Regular(), Geometric(), FALLING)}
    assert [plan.kept_at_most for plan in plans.values()] == [None, None, 7]
    assert ["at most 7 checkpoints: the teacher's training decides which" in as_text(p) for p in plans.values()] == [
        False,
        False,
        True,
    ]
    states = min(plan.stages[0].disk for plan in plans.values()) - 5 * checkpoint_bytes(small)
    for plan, count in zip(plans.values(), (10, 5, 7), strict=True):
        assert plan.stages[0].disk == pytest.approx(states + count * checkpoint_bytes(small), abs=10)


def test_a_choice_that_is_the_default_is_no_part_of_an_identity(small):
    assert with_keep(small, Regular()).digest == small.digest
    assert "keep" not in small.determining("teacher_training")["teacher_training"]
    assert len({with_keep(small, keep).digest for keep in (Regular(), Geometric(), FALLING)}) == 3
