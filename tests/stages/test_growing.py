"""Experiments that grow: what is there stays, and what is added ends as if it had been asked for at once."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Steps
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import (
    Ablation,
    Experiment,
    Loop,
    Probes,
    SizedModel,
    SizePanel,
    Sizes,
    StudentTraining,
    TeacherTraining,
    Variant,
)
from pdjax.io.records import read_begun, read_description
from pdjax.io.sealed import read_json, write_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.workdir import open_workdir, read_experiment
from pdjax.models.mlp import Mlp
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.monomials import MonomialProbe
from pdjax.report.reading import read_results
from pdjax.stages.exporting import candidates
from pdjax.stages.run import run_experiment
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

STAGES = ("teacher", "probes", "students", "student_probes", "sizes", "ablations")
MONOMIALS, AGREEMENT = MonomialProbe(1, off_support=2, num_inputs=64, batch_size=64), AgreementProbe(1, 16)
LABELS, TWO = Strategy("labels", Labels()), Strategy("two", schedule=FixedDuration(10), selection=Steps((20,)))


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Programs for one compile sooner."""
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: first)
        yield


@pytest.fixture(scope="module")
def before():
    """Two strategies, seeds and models, one budget, rate, probe and variant."""
    once = dict(batch_size=8, optimizer=Sgd())
    return Experiment(
        name="growing",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(LABELS, TWO),
        teacher_training=TeacherTraining(steps=40, checkpoint_every=20, learning_rate=5e-2, **once),
        student_training=StudentTraining(
            seeds=(0, 1), learning_rates=(5e-2,), budgets=(20,), checkpoint_every=20, **once
        ),
        sizes=Sizes((SizePanel("width", (SizedModel("8", Mlp((8,))),)),), seeds=(0, 1), steps=20, **once),
        probes=Probes((AGREEMENT,), students=("two",)),
        ablations=(Ablation("task", "Tasks", (Variant("three", {"task": {"degree": 3}}),), ("two",), (20,)),),
        evaluation=Evaluation(20, num_batches=2, batch_size=64),
        loop=Loop(10, save_every=20),
    )


@pytest.fixture(scope="module")
def after(before):
    """More of everything; two of the strategies share what there is, one of them its very students."""
    soft, same = dataclasses.replace(TWO, name="a_soft", loss=Distillation(2.0)), dataclasses.replace(TWO, name="same")
    panel = SizePanel("width", (SizedModel("8", Mlp((8,))), SizedModel("16", Mlp((16,)))))
    (ablation,) = before.ablations
    return dataclasses.replace(
        before,
        strategies=(soft, same, LABELS, TWO),
        student_training=dataclasses.replace(
            before.student_training, seeds=(2, 0, 1, 3), learning_rates=(5e-2,), budgets=(40, 20)
        ),
        sizes=dataclasses.replace(before.sizes, panels=(panel,), seeds=(0, 1, 2, 3)),
        probes=Probes((MONOMIALS, AGREEMENT), students=("labels", "two")),
        ablations=(dataclasses.replace(ablation, strategies=("labels", "two")),),
    )


@pytest.fixture(scope="module")
def begun(before, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("begun") / "work"
    run_experiment(before, workdir, STAGES, Interrupt())
    return workdir


@pytest.fixture(scope="module")
def grown(begun, after, tmp_path_factory):
    workdir = shutil.copytree(begun, tmp_path_factory.mktemp("grown") / "work", symlinks=True)
    run_experiment(after, workdir, STAGES, Interrupt())
    return workdir


@pytest.fixture(scope="module")
def at_once(after, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("at_once") / "work"
    run_experiment(after, workdir, STAGES, Interrupt())
    return workdir


def measured(workdir):
    """All numbers by what they are of: whichever run trained it."""
    table = read_results(workdir).table_with_variants
    names = [name for name in table if name not in ("model", "value", "teacher_seed")]
    rows = table.astype(dict.fromkeys(names, str)).sort_values(names, kind="stable")
    assert rows.complete.eq("True").all()
    return rows[names].to_numpy().tolist(), rows.value.to_numpy(float)


def test_what_is_added_ends_as_if_it_had_been_asked_for_at_once(grown, at_once):
    (names, values), (expected_names, expected) = measured(grown), measured(at_once)
    assert names == expected_names
    assert len(values) > 400
    # Replicas of other numbers round their sums otherwise.
    np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-6)


def test_what_was_there_keeps_every_byte_but_who_it_is_for(begun, grown):
    kept = [path for path in begun.rglob("*") if path.is_file() and path.name in ("metrics.jsonl", "result.json")]
    kept += [path for path in begun.rglob("*") if path.is_file() and "checkpoints" in path.parts]
    assert len(kept) > 40
    for path in kept:
        if path.parent == begun / "probes" and path.name == "result.json":
            continue  # says that another probe is done
        assert path.read_bytes() == (grown / path.relative_to(begun)).read_bytes(), path
    old, new = (read_description(root / "students/two-20") for root in (begun, grown))
    assert (old.strategies, new.strategies) == (("two",), ("same", "two"))
    assert dataclasses.replace(new, strategies=old.strategies) == old


def test_replicas_that_are_missing_have_runs_of_their_own(grown):
    runs = read_begun(grown / "students", "*")
    assert {name: (run.strategies, len(run.replicas)) for name, run in runs.items()} == {
        "labels-20": (("labels",), 2),
        "labels-20+2": (("labels",), 2),
        "labels-40": (("labels",), 4),
        "two-20": (("same", "two"), 2),
        "a_soft-20": (("a_soft", "same", "two"), 4 + 2),
        "a_soft-40": (("a_soft", "same", "two"), 8),
    }
    assert {*read_begun(grown / "sizes", "*/*")} == {"width/8", "width/8+2", "width/16"}


def test_students_are_found_for_export_whichever_run_trained_them(after, grown):
    models = [model for model in candidates(after, grown) if model.run in ("two-20", "width/8")]
    assert sorted((model.run, model.seed, model.learning_rate) for model in models) == [
        *(("two-20", seed, 0.05) for seed in range(4)),
        *(("width/8", seed, 0.005) for seed in range(4)),
    ]


def test_a_grown_experiment_does_nothing_again(after, grown):
    paths = [path for path in grown.rglob("*.json*") if path.name != "selection.json"]
    times = {path: path.stat().st_mtime_ns for path in paths}
    run_experiment(after, grown, STAGES, Interrupt())
    assert {path: path.stat().st_mtime_ns for path in paths} == times


def test_what_grows_is_unfinished_until_all_of_it_is_there(begun, after, tmp_path, interrupt_at):
    """And goes on under the same names."""
    workdir = shutil.copytree(begun, tmp_path / "work", symlinks=True)
    assert read_results(workdir).unfinished == []
    open_workdir(after, workdir)
    texts = {state.name: state.text for state in read_results(workdir).states}
    assert (texts["labels-20"], texts["labels-40"]) == ("unfinished: 2 of 4 models are not started", "not started")
    with pytest.raises(Interrupted):
        run_experiment(after, workdir, ("students",), interrupt_at(1))
    texts = {state.name: state.text for state in read_results(workdir).states}
    assert texts["labels-20"] == "unfinished: evaluated to step 0 of 20"
    run_experiment(after, workdir, ("students", "sizes"), Interrupt())
    assert read_results(workdir).unfinished == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"seed": 1}, "config.seed: 0 there, 1 here"),
        ({"strategies": (TWO,)}, "config.strategies.labels"),
        (
            {"strategies": (LABELS, dataclasses.replace(TWO, schedule=FixedDuration(5)))},
            "config.strategies.two.schedule.duration: 10 there, 5 here",
        ),
        ({"student_training": {"seeds": (0, 2)}}, "config.student_training.seeds: [0, 1] there, [0, 2] here"),
        ({"student_training": {"batch_size": 4}}, "config.student_training.batch_size: 8 there, 4 here"),
        ({"probes": {"measured": (AgreementProbe(1, 8),)}}, "config.probes.measured.agreement.batch_size"),
        ({"probes": {"students": ()}}, "config.probes.students: ['two'] there, [] here"),
        ({"sizes": None}, "config.sizes"),
        ({"teacher_training": {"extra_seeds": (1,)}}, "config.teacher_training.extra_seeds: [] there, [1] here"),
    ],
    ids=str,
)
def test_what_would_change_results_is_refused_and_changes_nothing(before, begun, changes, place):
    whole = {
        name: dataclasses.replace(getattr(before, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    written = (begun / "config.json").read_bytes()
    with pytest.raises(UserError, match=re.escape(place)):
        open_workdir(dataclasses.replace(before, ablations=(), **whole), begun)
    assert (begun / "config.json").read_bytes() == written


def test_who_asks_for_less_again_is_refused(before, after, begun, tmp_path):
    workdir = shutil.copytree(begun, tmp_path / "work", symlinks=True)
    open_workdir(after, workdir)
    assert read_experiment(workdir).digest == after.digest
    with pytest.raises(UserError, match=r"config\.student_training\.seeds: \[2, 0, 1, 3\] there, \[0, 1\] here"):
        open_workdir(before, workdir)


@pytest.mark.parametrize("copied", [False, True])
def test_a_run_that_was_moved_or_copied_is_said(before, begun, tmp_path, copied):
    workdir = shutil.copytree(begun, tmp_path / "work", symlinks=True)
    here, there = workdir / "students/two-20", workdir / "students/three-20"
    shutil.copytree(here, there) if copied else here.rename(there)
    for read in (lambda: read_results(workdir), lambda: run_experiment(before, workdir, STAGES, Interrupt())):
        with pytest.raises(UserError, match=r"expected the run two-20 in .*; found it in .*three-20; move it back"):
            read()


def test_probes_of_an_earlier_version_are_refused(before, begun, tmp_path):
    workdir = shutil.copytree(begun, tmp_path / "work", symlinks=True)
    path = workdir / "probes/result.json"
    write_json(path, {**read_json(path), "identity": "0"})
    with pytest.raises(UserError, match=r"digests of each probe in .*; found one of all of them; an earlier version"):
        run_experiment(before, workdir, ("probes",), Interrupt())
