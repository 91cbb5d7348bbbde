"""MLPs and GPT-2 in the loop: a run that is stopped and resumed repeats an undisturbed one, decisions included."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.experiment import Loop
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_run
from pdjax.io.sealed import read_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.teacher_source import Stacked
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.tasks.parity import ParityTask
from pdjax.train.loop import Adapt, Job, train
from pdjax.train.optimizer import Adam, Sgd
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters, place_teacher
from pdjax.train.state import Program, init_state
from pdjax.train.step import Evaluation

BUDGET = 120
RULE = UntilSaturated(score="accuracy", window=2, min_gain=0.02, max_steps=40)
KINDS = {
    "mlp": (Mlp((24,)), Sgd(), 1, 0.05),
    "gpt2": (Gpt2(1, 2, 4, None, 2), Adam("cosine", 0.1), 8, 5e-3),
}


def decide(steps, accuracy):
    """The rule on the accuracy, whoever of three is the teacher."""
    return RULE.starts(steps, np.repeat(accuracy[:, None], 3, axis=1))


@pytest.fixture(scope="module", params=KINDS)
def job(request):
    """An adaptive job of two replicas with three teachers, chunks of 10 steps."""
    model, optimizer, batch_size, rate = KINDS[request.param]
    task = ParityTask(6, 2)
    built = model.build(task)
    program = Program(task, built, built, optimizer, batch_size, False, "data", losses=(Distillation(),))
    sweep = build_sweep(program, 10, 2, Evaluation(20, 2, 64))
    teachers = jax.tree.map(lambda leaf: 3 * leaf, init_state(program, jnp.arange(10, 13)).params)
    teacher = Teacher(teachers, jnp.tile(jnp.array([0, BUDGET * 9, BUDGET * 9]), (2, 1)), jnp.arange(3))
    replicas = tuple(Replica(seed, rate, Distillation(1.0)) for seed in (0, 1))
    return Job(
        description=RunDescription("student", "adaptive-120", ("adaptive",), BUDGET, replicas, (0,), (1, 2, 3), "abc"),
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, replicas),
        open_source=lambda: Stacked(sweep, place_teacher(sweep, teacher)),
        data_seed=0,
        evaluation_seed=0,
        evaluate_every=20,
        adapt=Adapt(lambda steps, accuracy, _: [decide(steps, column) for column in np.stack(accuracy, axis=1)], None),
    )


LOOP = Loop(chunk_steps=10, save_every=30, writers=())


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    train(job, directory, LOOP, Interrupt(), Progress("test", BUDGET))
    return directory


def test_every_replica_moves_on_by_its_own_accuracy(job, undisturbed):
    run = read_run(undisturbed)
    for replica, starts in enumerate(run.starts):
        assert starts == decide(run.evaluation.steps.tolist(), run.evaluation.accuracy[:, replica])
        assert len(starts) > 1


@pytest.mark.parametrize("looks", [1, 5, 11])
def test_a_resumed_run_repeats_its_bits_and_its_decisions(interrupt_at, job, undisturbed, tmp_path, looks):
    with pytest.raises(Interrupted):
        train(job, tmp_path, LOOP, interrupt_at(looks), Progress("test", BUDGET))
    train(job, tmp_path, LOOP, Interrupt(), Progress("test", BUDGET))
    assert (tmp_path / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert read_json(tmp_path / "curriculum.json") == read_json(undisturbed / "curriculum.json")


def test_a_replica_equals_its_seed_alone(job, undisturbed, tmp_path):
    """Own batches and own decisions: the other replica makes no difference beyond rounding."""
    replica = job.description.replicas[1]
    description = dataclasses.replace(job.description, replicas=(replica,))
    program = job.sweep.chunk.__wrapped__.args[0]
    assert isinstance(job.sweep.chunk.__wrapped__, functools.partial)
    sweep = build_sweep(program, 10, 1, Evaluation(20, 2, 64))
    teacher = job.open_source().teacher(0, 10)
    teacher = teacher._replace(starts=teacher.starts[1:])
    alone = dataclasses.replace(
        job,
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, (replica,)),
        open_source=lambda: Stacked(sweep, place_teacher(sweep, teacher)),
    )
    train(alone, tmp_path, LOOP, Interrupt(), Progress("test", BUDGET))
    one, both = read_run(tmp_path), read_run(undisturbed)
    assert one.starts[0] == both.starts[1]
    np.testing.assert_allclose(one.evaluation.loss[:, 0], both.evaluation.loss[:, 1], atol=1e-4)
