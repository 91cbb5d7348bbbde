"""Residencies as a whole experiment sees them."""

import dataclasses

import pytest

from pdjax.distill.losses import HiddenMatching, Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.mlp import Mlp
from pdjax.stages import sources
from pdjax.stages.students import train_students
from pdjax.stages.teacher import train_teacher
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation


@pytest.fixture(scope="module")
def small():
    """Students of a parity that follow 4 checkpoints, or one."""
    once = dict(batch_size=1, optimizer=Sgd())
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(
            Strategy("labels", Labels()),
            Strategy("one_shot"),
            Strategy("progressive", schedule=FixedDuration(15), selection=Equal(4)),
        ),
        teacher_training=TeacherTraining(steps=80, checkpoint_every=20, learning_rate=2e-2, **once),
        student_training=StudentTraining(seeds=(0, 1), learning_rates=(2e-2,), budgets=(80,), **once),
        evaluation=Evaluation(20, num_batches=16, batch_size=256),
        loop=Loop(10, save_every=40),
    )


def with_residency(config, residency):
    return dataclasses.replace(config, placement=dataclasses.replace(config.placement, residency=residency))


def metrics(workdir):
    return {path.parent.name: path.read_bytes() for path in sorted((workdir / "students").glob("*/metrics.jsonl"))}


def test_all_residencies_leave_the_same_records(small, tmp_path, monkeypatch):
    for residency in ("stacked", "streamed", "auto", "auto without memory"):
        if residency == "auto without memory":
            monkeypatch.setattr(sources, "memory_of", lambda device: 1)
        config = with_residency(small, residency.split()[0])
        train_teacher(config, tmp_path / residency, Interrupt())
        train_students(config, tmp_path / residency, Interrupt())
    recorded = [metrics(tmp_path / residency) for residency in ("stacked", "streamed", "auto", "auto without memory")]
    assert len(recorded[0]) == 3
    assert recorded[1] == recorded[0]
    assert recorded[2] == recorded[0]
    assert recorded[3] == recorded[0]


def test_students_whose_loss_has_parameters_go_on_where_they_stopped(small, interrupt_at, tmp_path):
    """The projection is trained from step to step as the model is, and saved with it; whatever the residency."""
    config = dataclasses.replace(
        small,
        student_training=dataclasses.replace(small.student_training, batch_size=4),
        strategies=(Strategy("matching", HiddenMatching(), FixedDuration(20), Equal(4)),),
    )
    for residency in ("stacked", "streamed"):
        train_teacher(config, tmp_path / residency, Interrupt())
    train_students(with_residency(config, "stacked"), tmp_path / "stacked", Interrupt())
    streamed = with_residency(config, "streamed")
    with pytest.raises(Interrupted, match="saved at step 50"):
        train_students(streamed, tmp_path / "streamed", interrupt_at(5))
    train_students(streamed, tmp_path / "streamed", Interrupt())
    assert metrics(tmp_path / "streamed") == metrics(tmp_path / "stacked")


def test_an_adaptive_curriculum_is_never_streamed(experiment):
    with pytest.raises(ValueError, match=r"'auto' or 'stacked' for the adaptive strategies.adaptive; found streamed"):
        with_residency(experiment("parity_mlp", "smoke"), "streamed")
