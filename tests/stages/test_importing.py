"""Checkpoints of others as a trajectory, from folders that our own writing of weights has made."""

import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, StudentTraining, TeacherTraining
from pdjax.io.lock import writing
from pdjax.io.records import read_run
from pdjax.io.sealed import read_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.keys import named_key
from pdjax.models.gpt2 import Gpt2
from pdjax.stages import importing
from pdjax.stages.importing import import_series
from pdjax.stages.programs import teacher_shape
from pdjax.stages.selection import recorded_phases
from pdjax.stages.teacher import open_trajectory, stored_steps, train_teacher
from pdjax.tasks.pcfg import PcfgLanguageTask
from pdjax.train.step import Evaluation
from pdjax.weights.checkpoint import is_series, read_config, read_params, teacher_of
from pdjax.weights.describe import config_of
from pdjax.weights.layouts import weights_of

STEPS = (10, 20, 100)
TASK = PcfgLanguageTask(root=10)
TEACHER = Gpt2(1, 1, 8, tied_head=True)
LONGER = PcfgLanguageTask(root=10, length=TASK.num_positions + 3)


def write_checkpoint(folder, seed, task=TASK, teacher=TEACHER):
    """Writes a teacher with fresh parameters in Hugging Face's format."""
    folder.mkdir(parents=True)
    inputs = jax.eval_shape(lambda: task.sample(jax.random.key(0), 1)).inputs
    inputs = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), inputs)
    params = teacher.build(task).init(jax.random.key(seed), inputs)
    safetensors.numpy.save_file(weights_of(params, teacher), folder / "model.safetensors")
    config = config_of(teacher, task.vocabulary, task.num_positions)
    (folder / "config.json").write_text(json.dumps(config))
    return params


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """The folder of three checkpoints, whose names are not in the order of their steps; and their parameters."""
    folder = tmp_path_factory.mktemp("series")
    return folder, {step: write_checkpoint(folder / f"step{step}", step) for step in STEPS}


def experiment_of(folder, **fields):
    defaults = dict(
        name="imported",
        task=TASK,
        teacher=TEACHER,
        student=Gpt2(1, 1, 4),
        strategies=(Strategy("one_shot", selection=Equal(1)),),
        teacher_training=TeacherTraining(trajectory=str(folder)),
        student_training=StudentTraining(budgets=(50,)),
        evaluation=Evaluation(every=50, num_batches=2, batch_size=8),
    )
    return Experiment(**(defaults | fields))


@pytest.fixture(scope="module")
def imported(series, tmp_path_factory):
    """An experiment on the series, and its working directory after the teacher stage."""
    experiment, workdir = experiment_of(series[0]), tmp_path_factory.mktemp("imported")
    train_teacher(experiment, workdir, Interrupt())
    return experiment, workdir


def held_out(experiment):
    each = experiment.evaluation
    keys = [named_key(experiment.seed, "evaluation", index) for index in range(each.num_batches)]
    return [experiment.task.sample(key, each.batch_size) for key in keys]


def params_in(experiment, workdir, step):
    store = open_trajectory(experiment, workdir)
    try:
        return store.restore(step, teacher_shape(experiment))
    finally:
        store.close()


def test_a_series_is_a_trajectory_in_numeric_order(series, imported):
    experiment, workdir = imported
    assert list(stored_steps(experiment, workdir)) == list(STEPS)
    for step, params in series[1].items():
        jax.tree.map(np.testing.assert_array_equal, params_in(experiment, workdir, step), dict(params))
    assert read_json(workdir / "teacher" / "result.json")["checkpoints"] == list(STEPS)


def test_losses_are_measured_on_the_held_out_examples(series, imported):
    experiment, workdir = imported
    curves = read_run(workdir / "teacher").evaluation
    assert curves.steps.tolist() == list(STEPS)
    model = TEACHER.build(TASK)
    for step, loss, accuracy in zip(STEPS, curves.loss[:, 0], curves.accuracy[:, 0], strict=True):
        # By another route: whole batches, drawn as the evaluation says.
        total, right, count = 0.0, 0.0, 0.0
        for batch in held_out(experiment):
            logits, _ = model.apply(series[1][step], batch.inputs)
            log_probs = jax.nn.log_softmax(logits)
            each = -np.take_along_axis(np.asarray(log_probs), np.asarray(batch.targets)[..., None], -1)[..., 0]
            total += float((each * batch.weights).sum())
            right += float(((logits.argmax(-1) == batch.targets) * batch.weights).sum())
            count += float(batch.weights.sum())
        assert loss == pytest.approx(total / count, rel=1e-5)
        assert accuracy == pytest.approx(right / count, rel=1e-6)


def test_the_same_command_converts_nothing_again(series, imported, monkeypatch):
    experiment, workdir = imported
    monkeypatch.setattr(importing, "read_params", None)  # would fail if it were called
    train_teacher(experiment, workdir, Interrupt())


def test_what_is_imported_needs_its_source_no_more(trained, tmp_path, caplog):
    folder = shutil.copytree(trained.folder, tmp_path / "series")
    experiment = experiment_of(folder, teacher=trained.experiment.teacher)
    train_teacher(experiment, tmp_path / "run", Interrupt())
    shutil.rmtree(folder)
    with caplog.at_level("INFO", "pdjax"):
        train_teacher(experiment, tmp_path / "run", Interrupt())
    assert f"{folder} is gone, what was imported from it is here" in caplog.text
    assert list(stored_steps(experiment, tmp_path / "run")) == list(trained.steps)
    with pytest.raises(UserError, match="expected a folder of checkpoints"):
        train_teacher(experiment, tmp_path / "other", Interrupt())


def test_a_checkpoint_that_is_gone_is_converted_again(series, imported, tmp_path):
    experiment, workdir = imported
    shutil.copytree(workdir, tmp_path / "again")
    before = (tmp_path / "again" / "teacher" / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "again" / "teacher" / "trajectory" / "checkpoints" / "20")
    train_teacher(experiment, tmp_path / "again", Interrupt())
    restored = params_in(experiment, tmp_path / "again", 20)
    jax.tree.map(np.testing.assert_array_equal, restored, dict(series[1][20]))
    assert (tmp_path / "again" / "teacher" / "metrics.jsonl").read_text() == before


def test_what_was_interrupted_goes_on(series, imported, tmp_path, interrupt_at):
    experiment, workdir = imported
    with pytest.raises(Interrupted, match="up to step20 are imported"):
        train_teacher(experiment, tmp_path, interrupt_at(2))
    assert not (tmp_path / "teacher" / "result.json").exists()
    train_teacher(experiment, tmp_path, Interrupt())
    for name in ("metrics.jsonl", "result.json"):
        assert (tmp_path / "teacher" / name).read_text() == (workdir / "teacher" / name).read_text()


def test_two_do_not_import_into_one_directory(series, imported, tmp_path):
    experiment, _ = imported
    with writing(tmp_path / "teacher"), pytest.raises(UserError, match=r"nobody writes to .*; found process \d+"):
        train_teacher(experiment, tmp_path, Interrupt())
    train_teacher(experiment, tmp_path, Interrupt())
    assert list(stored_steps(experiment, tmp_path)) == list(STEPS)


def test_what_another_has_imported_meanwhile_is_not_written_over(series, imported, tmp_path, monkeypatch):
    """It began and ended between the first look at the directory and its lock."""
    experiment, _ = imported
    convert, metrics = importing._convert, tmp_path / "teacher" / "metrics.jsonl"

    def behind_another(*arguments):
        monkeypatch.setattr(importing, "_convert", convert)
        train_teacher(experiment, tmp_path, Interrupt())
        return convert(*arguments)

    monkeypatch.setattr(importing, "_convert", behind_another)
    with pytest.raises(UserError, match=r"nobody else to import into .*; found more there than before; run again"):
        train_teacher(experiment, tmp_path, Interrupt())
    kept = metrics.read_bytes()
    train_teacher(experiment, tmp_path, Interrupt())
    assert metrics.read_bytes() == kept


def test_rows_of_positions_that_no_string_reaches_are_left_out(tmp_path):
    params = write_checkpoint(tmp_path / "step1", 0, LONGER)
    imported = read_params(tmp_path / "step1", TEACHER, TASK)
    table, whole = imported.params["positions"]["embedding"], params["positions"]["embedding"]
    np.testing.assert_array_equal(table, whole[: TASK.num_positions])
    reached = f"transformer.wpe.weight[{TASK.num_positions}:{LONGER.num_positions}]"
    assert "no string of PcfgLanguageTask reaches" in imported.ignored[reached]


def test_other_positions_than_the_configuration_says_are_refused(tmp_path):
    write_checkpoint(tmp_path / "step1", 0)
    file = tmp_path / "step1" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_positions": LONGER.num_positions}))
    line = f"wpe.weight of the {LONGER.num_positions} positions in config.json; found {TASK.num_positions}; "
    with pytest.raises(UserError, match=line):
        read_params(tmp_path / "step1", TEACHER, TASK)


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "no file"), (b"version https://git-lfs.github.com/spec/v1\n", "a pointer to it of git LFS")],
)
def test_what_is_in_place_of_a_configuration(tmp_path, content, found):
    file = tmp_path / "config.json"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}; found {found}"):
        read_config(tmp_path)


def test_too_few_positions_are_refused(tmp_path):
    write_checkpoint(tmp_path / "step1", 0)
    experiment = experiment_of(tmp_path, task=LONGER)
    with pytest.raises(UserError, match=f"knows the {LONGER.num_positions} positions .* use a task of shorter"):
        stored_steps(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (Gpt2(2, 1, 8, tied_head=True), "num_layers 1; found num_layers 2; .*teacher_of"),
        (Gpt2(1, 1, 8), "tied_head True; found tied_head False"),
        (Gpt2(1, 2, 4, tied_head=True), "num_heads 1, head_dim 8; found num_heads 2, head_dim 4"),
    ],
)
def test_another_teacher_than_the_folder_holds_is_refused(series, tmp_path, other, complaint):
    with pytest.raises(UserError, match=complaint):
        stored_steps(experiment_of(series[0], teacher=other), tmp_path / "run")


def test_the_width_may_be_written_either_way(series, tmp_path):
    # And a teacher uses no dropout, nor do scanned layers make it another one.
    written = Gpt2(1, 1, None, 8, tied_head=True, dropout=0.5, scan_layers=True)
    assert list(stored_steps(experiment_of(series[0], teacher=written), tmp_path)) == list(STEPS)


def test_the_teacher_of_a_series_and_of_a_trajectory(series, imported):
    _, workdir = imported
    described = teacher_of(series[0], TASK)
    assert stored_steps(experiment_of(series[0], teacher=described), workdir) == list(STEPS)
    assert teacher_of(workdir / "teacher" / "trajectory", TASK) == TEACHER


def test_an_imported_trajectory_is_one_like_any_other(series, imported, tmp_path):
    _, workdir = imported
    given = experiment_of(workdir / "teacher" / "trajectory")
    assert not is_series(given.teacher_training.trajectory)
    train_teacher(given, tmp_path, Interrupt())
    assert list(stored_steps(given, tmp_path)) == list(STEPS)
    assert read_run(tmp_path / "teacher").evaluation.steps.tolist() == list(STEPS)


def test_the_working_directory_is_no_trajectory(imported, tmp_path):
    _, workdir = imported
    with pytest.raises(UserError, match=r"holds the store teacher/trajectory; write .*/teacher/trajectory"):
        stored_steps(experiment_of(workdir), tmp_path)


def test_phases_are_those_of_the_losses_that_the_source_says(series, tmp_path):
    folder, _ = series
    shutil.copytree(folder, tmp_path / "series")
    losses = [2.0] * 4 + [1.5, 1.0, 0.6] + [0.5] * 4
    log = [{"step": 10 * i, "eval_loss": loss} for i, loss in enumerate(losses)]
    state = {"global_step": 100, "log_history": log}
    (tmp_path / "series" / "step100" / "trainer_state.json").write_text(json.dumps(state))
    experiment = experiment_of(tmp_path / "series")
    train_teacher(experiment, tmp_path / "run", Interrupt())
    run = read_run(tmp_path / "run" / "teacher")
    assert run.source.loss[:, 0].tolist() == losses
    assert run.evaluation.steps.tolist() == list(STEPS)
    phases = recorded_phases(tmp_path / "run", None)
    assert phases.loss is not None
    assert 30 < phases.loss.middle < 70


def test_what_an_audit_is_certain_of_stops_the_import(trained, tmp_path):
    folder, (first, *_, last) = shutil.copytree(trained.folder, tmp_path / "series"), trained.steps
    shutil.copyfile(folder / f"step{last}/model.safetensors", folder / f"step{first}/model.safetensors")
    experiment = experiment_of(folder, teacher=trained.experiment.teacher)
    complaint = rf"duplicates: steps {first}, {last} hold the same weights.* \(python -m pdjax.weights audit .*series\)"
    with pytest.raises(UserError, match=complaint):
        train_teacher(experiment, tmp_path / "run", Interrupt())
    assert not (tmp_path / "run").exists()


def test_what_an_audit_suspects_is_said_and_recorded(trained, tmp_path, caplog):
    folder = shutil.copytree(trained.folder, tmp_path / "series")
    one, other = (folder / f"step{trained.steps[i]}" / "model.safetensors" for i in (2, 6))
    held = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(held)
    with caplog.at_level("WARNING", "pdjax"):
        train_teacher(experiment_of(folder, teacher=trained.experiment.teacher), tmp_path, Interrupt())
    assert "order (likely): steps 60, 140 fit much better each at the other's place" in caplog.text
    rows = list(csv.DictReader((tmp_path / "teacher" / "audit.csv").read_text().splitlines()))
    assert [row["findings"] for row in rows if row["findings"]] == ["order"] * 2
    assert (tmp_path / "teacher" / "audit.png").read_bytes().startswith(b"\x89PNG")
    losses = read_run(tmp_path / "teacher").evaluation.loss[:, 0]
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses.tolist())


@pytest.fixture
def interrupted(trained, tmp_path, interrupt_at):
    """An import of a copy of the series that was stopped after two checkpoints."""
    folder = shutil.copytree(trained.folder, tmp_path / "series")
    experiment = experiment_of(folder, teacher=trained.experiment.teacher)
    with pytest.raises(Interrupted):
        train_teacher(experiment, tmp_path / "run", interrupt_at(2))
    return experiment, folder, tmp_path / "run"


def test_a_checkpoint_that_the_source_no_more_has_does_not_stay(interrupted):
    experiment, folder, workdir = interrupted
    shutil.rmtree(folder / "step20")
    with pytest.raises(UserError, match=r"or none, of the steps \[20\]; put them back, or remove .*run/teacher"):
        train_teacher(experiment, workdir, Interrupt())
    shutil.rmtree(workdir / "teacher")  # as it says
    train_teacher(experiment, workdir, Interrupt())
    assert 20 not in read_run(workdir / "teacher").evaluation.steps


def test_a_checkpoint_of_other_weights_under_its_name_is_noticed(interrupted):
    experiment, folder, workdir = interrupted
    train_teacher(experiment, workdir, Interrupt())
    shutil.copyfile(folder / "step80/model.safetensors", folder / "step60/model.safetensors")
    shutil.rmtree(folder / "step80")
    write_checkpoint(folder / "step80", 5, teacher=experiment.teacher)
    train_teacher(experiment, workdir, Interrupt())  # all is there, and its source is not looked at
    shutil.rmtree(workdir / "teacher" / "trajectory" / "checkpoints" / "60")
    with pytest.raises(UserError, match=r"others, or none, of the steps \[60, 80\]; put them back, or remove"):
        train_teacher(experiment, workdir, Interrupt())


def test_an_import_goes_on_with_the_held_out_examples_it_began_with(interrupted):
    experiment, _, workdir = interrupted
    with pytest.raises(UserError, match=r"seed and evaluation that the import into .* began with; found others"):
        train_teacher(dataclasses.replace(experiment, seed=1), workdir, Interrupt())


def test_what_cannot_be_converted_leaves_nothing(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "series")
    for step in trained.steps:
        config = json.loads((folder / f"step{step}" / "config.json").read_text())
        (folder / f"step{step}" / "config.json").write_text(json.dumps(config | {"n_layer": 2}))
    experiment = experiment_of(folder, teacher=dataclasses.replace(trained.experiment.teacher, num_layers=2))
    with pytest.raises(UserError, match=r"transformer.h.1.* with 2 layers"):
        train_teacher(experiment, tmp_path / "run", Interrupt())
    assert not (tmp_path / "run").exists()


def test_a_directory_of_something_else_is_left_alone(trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    experiment = experiment_of(trained.folder, teacher=trained.experiment.teacher)
    with pytest.raises(UserError, match=r"one that an import has begun, in .*; found notes.txt; choose another"):
        import_series(experiment, tmp_path, Interrupt())
