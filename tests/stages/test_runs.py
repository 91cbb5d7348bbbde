"""Which runs there are: one for each budget and curriculum, whatever the losses."""

import dataclasses
import re

import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation, HiddenMatching, Labels, TopK
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Phase, RobustPeak, Steps, Transition
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.io.sealed import write_json, write_lines
from pdjax.settings import named
from pdjax.stages.runs import asked_runs, foresee_runs, plan_runs
from pdjax.train.replicas import Replica, product_of_replicas

EARLY = Steps((8,))
RULE = UntilSaturated("accuracy", 2, 0.01, 400)
HARD, SOFT = Distillation(0.0), Distillation(1.0)
STRATEGIES = named(
    (
        Strategy("labels", Labels()),
        Strategy("hard", HARD),
        Strategy("early", HARD, FixedDuration(4), EARLY),
        Strategy("soft", SOFT, budgets=(8,)),
        Strategy("same", HARD, FixedDuration(4), EARLY, budgets=(16,)),
        Strategy("patient", HARD, RULE, EARLY, budgets=(16,)),
        Strategy("labels_again", Labels(), FixedDuration(4), EARLY, budgets=(16,)),
    )
)


class Trajectory:
    """Stands for a store with two checkpoints."""

    def steps(self):
        return [8, 32]

    def digest(self, step):
        return f"digest of {step}"


@pytest.fixture
def config(tiny):
    training = dataclasses.replace(tiny.student_training, budgets=(16, 8), seeds=(5, 6), learning_rates=(0.1,))
    probes = dataclasses.replace(tiny.probes, students=())
    return dataclasses.replace(
        tiny, strategies=tuple(STRATEGIES.values()), comparisons=(), student_training=training, probes=probes
    )


@pytest.fixture
def workdir(tmp_path):
    """The records of a teacher that shows nothing."""
    run = {"role": "teacher", "name": "teacher", "strategies": [], "budget": 32, "identity": "0"}
    replicas = [{"seed": 0, "learning_rate": 0.1, "loss": {"class": "pdjax.distill:Labels"}}]
    write_json(tmp_path / "teacher" / "run.json", run | {"replicas": replicas, "starts": [], "teacher_steps": []})
    record = {"split": "evaluation", "step": 0, "replica": 0, "loss": [1, 1], "accuracy": [0, 1]}
    write_lines(tmp_path / "teacher" / "metrics.jsonl", [record])
    return tmp_path


def test_a_strategy_may_be_for_some_budgets_only(config):
    assert [(budget, strategy.name) for budget, strategy in asked_runs(config)] == [
        *[(8, name) for name in ("labels", "hard", "early", "soft")],
        *[(16, name) for name in ("labels", "hard", "early", "same", "patient", "labels_again")],
    ]


def test_strategies_of_one_curriculum_are_one_run_with_a_block_of_replicas_for_each_loss(config, workdir):
    runs = {run.name: run for _, run in plan_runs(config, workdir, Trajectory())}
    assert {name: run.strategies for name, run in runs.items()} == {
        "labels-8": ("labels",),
        "hard-8": ("hard", "soft"),
        "early-8": ("early",),
        "labels-16": ("labels", "labels_again"),  # without a teacher there is no curriculum
        "hard-16": ("hard",),
        "early-16": ("early", "same"),
        "patient-16": ("patient",),  # its first row is that of no other; and it may move on at another step
    }
    assert runs["hard-8"].replicas == (
        Replica(5, 0.1, HARD),
        Replica(6, 0.1, HARD),
        Replica(5, 0.1, SOFT),
        Replica(6, 0.1, SOFT),
    )
    assert runs["early-16"].replicas == runs["hard-16"].replicas  # two strategies, the same students
    assert runs["labels-16"].replicas == (Replica(5, 0.1, Labels()), Replica(6, 0.1, Labels()))
    assert runs["early-16"].starts == (0, 4)
    assert (runs["patient-16"].starts, runs["patient-16"].teacher_steps) == ((0,), (8, 32))


def test_all_runs_are_foreseen_where_no_checkpoint_depends_on_the_teacher(config, workdir):
    planned = [run for _, run in plan_runs(config, workdir, Trajectory())]
    assert [(group.budget, group.strategies, group.replicas) for group in foresee_runs(config, [8, 32])] == [
        (run.budget, run.strategies, run.replicas) for run in planned
    ]


def test_strategies_whose_checkpoints_the_teacher_decides_are_one_run_if_they_find_them_in_the_same_way(config):
    """The phase may turn out to be at step 8, where ``early`` is: these may be one run, but nobody knows yet."""
    strategies = (
        STRATEGIES["early"],
        Strategy("phase", HARD, FixedDuration(4), Phase()),
        Strategy("soft", SOFT, FixedDuration(4), Phase(), budgets=(16,)),
        Strategy("long", HARD, FixedDuration(6), Phase()),
    )
    runs = foresee_runs(dataclasses.replace(config, strategies=strategies), [8, 32])
    assert {(run.budget, run.strategies): len(run.replicas) for run in runs} == {
        (8, ("early",)): 2,
        (8, ("phase",)): 2,
        (8, ("long",)): 2,
        (16, ("early",)): 2,
        (16, ("phase", "soft")): 4,
        (16, ("long",)): 2,
    }


@pytest.mark.parametrize("selection", [Phase(), Transition(), RobustPeak(), Steps((9,))], ids=repr)
def test_students_of_the_labels_ask_for_no_checkpoint_whatever_their_strategy_selects(config, selection):
    """As a copy of a progressive strategy does, of which only the loss is replaced."""
    copy, probes = (
        Strategy("plain", Labels(), FixedDuration(4), selection),
        dataclasses.replace(config.probes, measured=()),
    )
    strategies = (STRATEGIES["labels"], copy)
    runs = foresee_runs(dataclasses.replace(config, strategies=strategies, probes=probes, ablations=()), [8, 32])
    assert {run.strategies for run in runs} == {("labels", "plain")}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (TopK(6), "in config.strategies.odd.loss: expected k + 1 < 7, the number of classes; found 6"),
        (
            HiddenMatching(student_layer=9),
            "expected student_layer from -2 to 1, as the student has 2 hidden states; found 9",
        ),
        (HiddenMatching(teacher_layer=-3), "expected teacher_layer from -2 to 1, as the teacher has 2 hidden"),
    ],
)
def test_a_loss_that_the_models_cannot_serve_is_refused_before_anything_is_trained(config, loss, message):
    with pytest.raises(UserError, match=re.escape(message)):
        foresee_runs(dataclasses.replace(config, strategies=(Strategy("odd", loss),)), [8, 32])


def test_the_order_of_strategies_orders_the_runs_and_changes_nothing_in_them(config, workdir):
    """Nor where they lie: what was trained before the strategies were written in another order stays theirs."""
    turned = dataclasses.replace(config, strategies=config.strategies[::-1])
    runs, again = ([run for _, run in plan_runs(c, workdir, Trajectory())] for c in (config, turned))
    assert sorted(runs, key=str) == sorted(again, key=str)
    assert [run.name for run in runs] == [
        *("labels-8", "hard-8", "early-8", "labels-16", "hard-16", "early-16", "patient-16"),
    ]
    assert [run.name for run in again] == [
        *("hard-8", "early-8", "labels-8", "labels-16", "patient-16", "early-16", "hard-16"),
    ]


def test_runs_differ_in_identity(config, workdir):
    identities = [run.identity for _, run in plan_runs(config, workdir, Trajectory())]
    assert len(set(identities)) == len(identities)
    other = dataclasses.replace(STRATEGIES["patient"], schedule=dataclasses.replace(RULE, min_gain=0.02))
    changed = dataclasses.replace(config, strategies=tuple((STRATEGIES | {"patient": other}).values()))
    changed_identities = [run.identity for _, run in plan_runs(changed, workdir, Trajectory())]
    assert [a == b for a, b in zip(identities, changed_identities, strict=True)] == [True] * 6 + [False]


def test_students_of_another_teacher_are_other_runs(config, workdir):
    """Even where it has checkpoints of the same steps; those of the labels have none."""
    another = Trajectory()
    another.digest = lambda step: f"another-{step}"
    runs, others = ([run for _, run in plan_runs(config, workdir, t)] for t in (Trajectory(), another))
    assert [a.identity == b.identity for a, b in zip(runs, others, strict=True)] == [not a.starts for a in runs]


def test_replicas_of_one_learning_rate_stand_together_and_so_do_those_of_a_family_of_losses():
    assert product_of_replicas((3, 1), (0.1, 0.2)) == tuple(
        Replica(seed, rate) for seed, rate in ((3, 0.1), (1, 0.1), (3, 0.2), (1, 0.2))
    )
    replicas = product_of_replicas((3,), (0.1, 0.2), (SOFT, Labels(), HARD))
    assert replicas == tuple(Replica(3, rate, loss) for loss in (SOFT, HARD, Labels()) for rate in (0.1, 0.2))
