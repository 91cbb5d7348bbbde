import dataclasses

import jax
import numpy as np
import pytest

from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.records import read_run
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.bert import Bert
from pdjax.models.mlp import Mlp
from pdjax.stages import teacher
from pdjax.stages.programs import teacher_shape
from pdjax.stages.teacher import open_trajectory, stored_steps, train_teacher
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

SEEDS = (3, 0, 7)


@pytest.fixture(scope="module")
def small():
    """Three teachers of parity, 60 steps with a checkpoint every 20."""
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(Strategy("one_shot"),),
        teacher_training=TeacherTraining(
            seed=SEEDS[0],
            extra_seeds=SEEDS[1:],
            steps=60,
            batch_size=1,
            learning_rate=2e-2,
            checkpoint_every=20,
            optimizer=Sgd(),
        ),
        student_training=StudentTraining(budgets=(60,)),
        evaluation=Evaluation(20, num_batches=16, batch_size=256),
        loop=Loop(20, save_every=60),
    )


@pytest.fixture(scope="module")
def several(small, tmp_path_factory):
    """The working directory of the three teachers."""
    workdir = tmp_path_factory.mktemp("several")
    train_teacher(small, workdir, Interrupt())
    return workdir


def checkpoints(config, workdir, seed=None):
    """A trajectory's checkpoints by step, and what was measured with each."""
    store = open_trajectory(config, workdir, seed)
    by_step = {step: (store.restore(step, teacher_shape(config)), store.metrics(step)) for step in store.steps()}
    store.close()
    return by_step


def test_every_seed_has_a_trajectory_of_its_own(small, several):
    directory = several / "teacher"
    names = {path.name for path in directory.iterdir() if (path / "store.json").exists()} - {"state"}
    assert names == {"trajectory", "trajectory-seed0", "trajectory-seed7"}
    assert [replica.seed for replica in read_run(directory).description.replicas] == list(SEEDS)
    for seed in SEEDS:
        assert list(checkpoints(small, several, seed)) == list(stored_steps(small, several)) == [20, 40, 60]


def test_students_learn_from_the_first_seed(small, several):
    default, first = checkpoints(small, several), checkpoints(small, several, SEEDS[0])
    jax.tree.map(np.testing.assert_array_equal, default, first)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_of_several_teachers_equals_its_seed_alone(small, several, tmp_path, seed):
    training = dataclasses.replace(small.teacher_training, seed=seed, extra_seeds=())
    alone = dataclasses.replace(small, teacher_training=training)
    train_teacher(alone, tmp_path, Interrupt())
    assert [path.name for path in (tmp_path / "teacher").glob("trajectory*")] == ["trajectory"]
    one, together = checkpoints(alone, tmp_path), checkpoints(small, several, seed)
    assert one.keys() == together.keys()
    for step, (params, means) in one.items():
        others, other_means = together[step]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, others)
        assert means == pytest.approx(other_means, rel=1e-4)
    different = checkpoints(small, several, SEEDS[SEEDS.index(seed) - 1])[60][0]
    assert not np.allclose(params["hidden_0"]["kernel"], different["hidden_0"]["kernel"], atol=1e-2)


def test_means_kept_with_a_checkpoint_are_those_of_its_seed(small, several):
    recorded = read_run(several / "teacher").evaluation
    for column, seed in enumerate(SEEDS):
        means = checkpoints(small, several, seed)[60][1]
        assert means["loss"] == pytest.approx(recorded.loss[-1, column])
        assert means["accuracy"] == pytest.approx(recorded.accuracy[-1, column])


def test_the_curves_of_a_given_teacher_are_copied_by_the_first_process_before_any_goes_on(
    small, several, tmp_path, monkeypatch
):
    trajectory = str(several / "teacher" / "trajectory")
    training = dataclasses.replace(small.teacher_training, trajectory=trajectory, extra_seeds=())
    given, there = dataclasses.replace(small, teacher_training=training), []

    def meet(name):
        there.append({path.name for path in (tmp_path / "teacher").glob("*")})

    monkeypatch.setattr(teacher, "meet", meet)
    for first in (False, True):
        monkeypatch.setattr(teacher, "is_first", lambda first=first: first)
        train_teacher(given, tmp_path, Interrupt())
    assert there == [set(), {"run.json", "metrics.jsonl", "result.json"}]
    (several / "teacher" / "result.json").rename(tmp_path / "kept")
    monkeypatch.setattr(teacher, "is_first", lambda: False)
    with pytest.raises(UserError, match=r"the teacher's result\.json beside its trajectory"):
        train_teacher(given, tmp_path, Interrupt())
    (tmp_path / "kept").rename(several / "teacher" / "result.json")


def test_a_teacher_may_go_on_with_its_layers_computed_again(small, interrupt_at, tmp_path):
    """What is kept for the backward pass is no part of a result, and may change in between."""
    config = dataclasses.replace(
        small,
        task=PcfgTask("cfg3b", 8),
        teacher=Bert(1, 1, 8),
        student=Bert(1, 1, 8),
        teacher_training=TeacherTraining(steps=40, batch_size=4, checkpoint_every=20, optimizer=Sgd()),
        student_training=StudentTraining(budgets=(40,)),
        evaluation=Evaluation(20, num_batches=1, batch_size=8),
        loop=dataclasses.replace(small.loop, optimized=False),
    )
    train_teacher(config, tmp_path / "whole", Interrupt())
    with pytest.raises(Interrupted):
        train_teacher(config, tmp_path / "resumed", interrupt_at(1))
    again = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, rematerialize=True))
    train_teacher(again, tmp_path / "resumed", Interrupt())
    (whole, resumed) = (read_run(tmp_path / name / "teacher").train for name in ("whole", "resumed"))
    assert resumed.steps.tolist() == whole.steps.tolist() == [20, 40]
    np.testing.assert_allclose(resumed.loss, whole.loss, rtol=1e-5)
