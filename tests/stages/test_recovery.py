"""What is removed from real stores of a tiny experiment is there again, bit for bit, after the same command."""

import contextlib
import dataclasses
import shutil

import jax
import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, Loop, Probes, StudentTraining, TeacherTraining
from pdjax.io.records import read_description
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.mlp import Mlp
from pdjax.probes.agreement import AgreementProbe
from pdjax.stages.programs import teacher_shape
from pdjax.stages.run import run_experiment
from pdjax.stages.students import open_checkpoints, students_shape
from pdjax.stages.teacher import open_trajectory
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

# Where one array cannot be read, tensorstore's threads deliver the others to an event loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")

STAGES = ("teacher", "probes", "students", "student_probes")
TEACHER, OTHER = "teacher/trajectory", "teacher/trajectory-seed7"
STUDENTS, ADAPTIVE = "students/progressive-60/trajectory", "students/adaptive-60/trajectory"


@pytest.fixture(scope="module")
def small():
    """Two teachers and two runs of students, 60 steps each, with a checkpoint every 20 and a state every 30."""
    adaptive = UntilSaturated(window=1, max_steps=40)
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(
            Strategy("progressive", schedule=FixedDuration(15), selection=Equal(3)),
            Strategy("adaptive", schedule=adaptive, selection=Equal(3)),
        ),
        teacher_training=TeacherTraining(
            seed=3,
            extra_seeds=(7,),
            steps=60,
            batch_size=1,
            learning_rate=2e-2,
            checkpoint_every=20,
            optimizer=Sgd(),
        ),
        student_training=StudentTraining(
            seeds=(0, 1), budgets=(60,), batch_size=1, checkpoint_every=20, optimizer=Sgd()
        ),
        probes=Probes((AgreementProbe(num_batches=1, batch_size=64),), students=("progressive",)),
        evaluation=Evaluation(20, num_batches=2, batch_size=64),
        loop=Loop(10, save_every=30),
    )


def run(experiment, workdir, stages=STAGES, interrupt=None):
    run_experiment(experiment, workdir, stages, interrupt or Interrupt())


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    run(small, workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of what the experiment leaves."""
    return shutil.copytree(finished, tmp_path / "workdir")


def files(workdir):
    """All files by path but clocks and what Orbax writes: the records of checkpoints hold the SHA-256 of every array.

    Which training states are there besides the last hangs on where a run was stopped.
    """
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    clocks = {name for name in names if name.endswith(("progress.jsonl", "environment.json"))}
    others = {name for name in names if "/checkpoints/" in name and not name.endswith("/record/metadata")}
    states = {name for name in names if "/state/checkpoints/" in name and "/60/" not in name}
    return {name: (workdir / name).read_bytes() for name in names - clocks - others - states}


def assert_whole(experiment, workdir, finished):
    """As after an undisturbed run, and every array is what its record says."""
    assert files(workdir) == files(finished)
    for seed in experiment.teacher_training.seeds:
        with contextlib.closing(open_trajectory(experiment, workdir, seed)) as store:
            assert store.steps() == [20, 40, 60]
            for step in store.steps():
                store.restore(step, teacher_shape(experiment))
    for path in (workdir / "students").iterdir():
        with contextlib.closing(open_checkpoints(workdir, read_description(path))) as store:
            assert store.steps() == [20, 40, 60]
            for step in store.steps():
                store.restore(step, students_shape(experiment, 2))


def remove(workdir, *checkpoints):
    for name, step in checkpoints:
        shutil.rmtree(workdir / name / "checkpoints" / str(step))


LOST = {
    "first": [(TEACHER, 20)],
    "middle": [(TEACHER, 40)],
    "last": [(TEACHER, 60)],
    "several": [(TEACHER, 20), (TEACHER, 60), (OTHER, 40)],
    "another seed's": [(OTHER, 40)],
    "students' first": [(STUDENTS, 20)],
    "students' last": [(STUDENTS, 60)],
    "all of adaptive students": [(ADAPTIVE, 20), (ADAPTIVE, 40), (ADAPTIVE, 60)],
    "teachers' and students'": [(TEACHER, 40), (STUDENTS, 40), (ADAPTIVE, 40)],
}


@pytest.mark.parametrize("name", LOST)
def test_lost_checkpoints_of_finished_runs_are_computed_again(small, finished, workdir, name):
    remove(workdir, *LOST[name])
    run(small, workdir)
    assert_whole(small, workdir, finished)


def test_no_more_is_trained_than_is_lost(small, finished, workdir, caplog):
    """A lost last one begins with the state before it, and a lost first one ends there."""
    steps = {}
    for step in (20, 60):
        remove(workdir, (TEACHER, step))
        with pytest.raises(Interrupted, match="is saved at step") as caught:
            run(small, workdir, interrupt=Immediate())
        steps[step] = str(caught.value)
        run(small, workdir)
        assert_whole(small, workdir, finished)
    assert "saved at step 10 of 60" in steps[20]
    assert "saved at step 40 of 60" in steps[60]


class Immediate(Interrupt):
    """Asks to stop at once."""

    @property
    def signal_number(self):
        return 15

    @signal_number.setter
    def signal_number(self, value):
        pass


@pytest.mark.parametrize("looks", [1, 3])
def test_a_recovery_goes_on_after_it_was_stopped(small, finished, workdir, interrupt_at, looks):
    remove(workdir, (TEACHER, 20), (TEACHER, 40))
    with pytest.raises(Interrupted):
        run(small, workdir, interrupt=interrupt_at(looks))
    assert (workdir / "teacher" / "recovery").exists()
    run(small, workdir)
    assert_whole(small, workdir, finished)


def test_what_is_lost_while_a_recovery_is_stopped_behind_it_is_computed_too(small, finished, workdir, interrupt_at):
    remove(workdir, (TEACHER, 20), (TEACHER, 40))
    with pytest.raises(Interrupted, match="step 30"):
        run(small, workdir, interrupt=interrupt_at(3))
    remove(workdir, (TEACHER, 20))
    run(small, workdir)
    assert_whole(small, workdir, finished)


@pytest.mark.parametrize("part", ["students", "teacher"])
def test_lost_checkpoints_of_a_run_that_is_to_go_on(small, finished, tmp_path, interrupt_at, part):
    """It was stopped at step 50, behind two checkpoints."""
    if part == "students":
        run(small, tmp_path, ("teacher", "probes"))
    with pytest.raises(Interrupted, match="saved at step 50 of 60"):
        run(small, tmp_path, interrupt=interrupt_at(5))
    remove(tmp_path, (STUDENTS if part == "students" else TEACHER, 20))
    run(small, tmp_path)
    assert_whole(small, tmp_path, finished)


def damage(checkpoint, kind):
    """Flips bits in an array, or empties the record."""
    if kind == "record":
        (checkpoint / "record" / "metadata").write_text("")
        return
    file = max((path for path in checkpoint.rglob("d/*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "name", "step"),
    [
        ("array", TEACHER, 20),
        ("record", TEACHER, 60),
        ("array", OTHER, 60),
        ("record", OTHER, 20),
        ("array", STUDENTS, 60),
        ("record", STUDENTS, 20),
    ],
)
def test_the_remedy_for_a_damaged_checkpoint(small, finished, workdir, kind, name, step):
    checkpoint = workdir / name / "checkpoints" / str(step)
    damage(checkpoint, kind)
    for probed in ("probes", "students/progressive-60/probes"):
        shutil.rmtree(workdir / probed)  # they are measured again, which reads the checkpoints
    with pytest.raises(UserError, match=f"in {checkpoint}; .* remove this checkpoint's directory and run again"):
        run(small, workdir)
    shutil.rmtree(checkpoint)
    run(small, workdir)
    assert_whole(small, workdir, finished)


@pytest.mark.parametrize(
    ("kind", "states", "stage"),
    [("array", 1, "teacher"), ("record", 2, "teacher"), ("record", 1, "students"), ("array", 2, "students")],
)
def test_damaged_training_states(small, finished, tmp_path, interrupt_at, caplog, kind, states, stage):
    """The one before comes in its place, and is said to; where none is left, the start does at the user's word."""
    if stage == "students":
        run(small, tmp_path, ("teacher", "probes"))
    with pytest.raises(Interrupted, match="saved at step 50 of 60"):
        run(small, tmp_path, (stage,), interrupt_at(5))
    (state,) = tmp_path.glob(f"{'students/*' if stage == 'students' else 'teacher'}/state")
    for step in (50, 30)[:states]:
        damage(state / "checkpoints" / str(step), kind)
    if states == 2:
        with pytest.raises(UserError, match=rf"in those of steps \[50, 30\]; remove {state} and run the same command"):
            run(small, tmp_path)
        shutil.rmtree(state)
    caplog.clear()
    run(small, tmp_path)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (states == 1)
    assert all(
        line.startswith("the state of step 50 is damaged: expected checkpoint 50 as it was saved") for line in said
    )
    assert_whole(small, tmp_path, finished)


@pytest.mark.parametrize("stage", ["teacher", "students"])
def test_records_that_are_gone_with_the_end_of_their_file_are_noticed_on_resuming(
    small, finished, tmp_path, interrupt_at, stage
):
    if stage == "students":
        run(small, tmp_path, ("teacher", "probes"))
    with pytest.raises(Interrupted, match="saved at step 50 of 60"):
        run(small, tmp_path, (stage,), interrupt_at(5))
    (metrics,) = tmp_path.glob(f"{'students/*' if stage == 'students' else 'teacher'}/metrics.jsonl")
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=f"expected {metrics} as it was written; .* remove {metrics.parent} and run"):
        run(small, tmp_path)
    shutil.rmtree(metrics.parent)
    run(small, tmp_path)
    assert_whole(small, tmp_path, finished)


def test_checkpoints_that_changed_places_train_nobody(small, finished, workdir):
    first, second = (workdir / TEACHER / "checkpoints" / name for name in ("20", "40"))
    first.rename(first.with_name("x"))
    second.rename(first)
    first.with_name("x").rename(second)
    shutil.rmtree(workdir / "students")
    with pytest.raises(UserError, match=f"found step 40 of the same store in {first}; .* remove it and run again"):
        run(small, workdir, ("students",))
    remove(workdir, (TEACHER, 20), (TEACHER, 40))
    run(small, workdir)
    assert_whole(small, workdir, finished)


def test_a_stage_alone_says_which_other_one_computes_what_is_gone(small, finished, workdir):
    remove(workdir, (TEACHER, 40), (STUDENTS, 40))
    for stage in ("probes", "students", "student_probes"):
        with pytest.raises(UserError, match=r"none of the steps \[40\]; run --stage=teacher first, which computes"):
            run(small, workdir, (stage,))
    run(small, workdir, ("teacher",))
    with pytest.raises(
        UserError, match=r"all checkpoints of progressive-60; found .*\[40\]; run --stage=students first"
    ):
        run(small, workdir, ("student_probes",))
    run(small, workdir, ("students",))
    assert_whole(small, workdir, finished)


def test_another_machine_that_does_not_repeat_the_bits_changes_nothing(small, finished, workdir):
    """As if checkpoint 20, which is passed on the way, had been computed elsewhere."""
    remove(workdir, (TEACHER, 20), (TEACHER, 40), ("teacher/state", 30))
    with contextlib.closing(open_trajectory(small, workdir)) as store:
        params = store.restore(60, teacher_shape(small))
        store.save(20, jax.tree.map(lambda leaf: leaf * 1.0001, params))
    before = files(workdir)
    with pytest.raises(UserError, match=r"step 20 in .* to repeat with the same bits"):
        run(small, workdir)
    assert {path: before[path] for path in before} == {p: c for p, c in files(workdir).items() if "recovery" not in p}


@pytest.fixture
def given(small, workdir):
    """An experiment that is given the trajectory of the first seed by its path."""
    training = dataclasses.replace(small.teacher_training, trajectory=str(workdir / TEACHER))
    return dataclasses.replace(small, teacher_training=training, probes=Probes())


def test_a_given_trajectory_without_its_final_teacher(small, given, workdir, tmp_path):
    remove(workdir, (TEACHER, 60))
    with pytest.raises(
        UserError, match=r"checkpoint 60, the final teacher, in .*; found checkpoints \[20, 40\]; run the"
    ):
        run(given, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    run(small, workdir)  # the remedy
    run(given, tmp_path / "new")


def test_a_given_trajectory_that_lacks_a_checkpoint_is_said_to(given, workdir, tmp_path, caplog):
    remove(workdir, (TEACHER, 40))
    thinner = dataclasses.replace(given, strategies=(Strategy("one_shot"),))
    run(thinner, tmp_path / "new")
    assert f"checkpoints [40] are gone from {workdir / TEACHER}" in caplog.text


def test_the_remedy_for_a_damaged_checkpoint_of_a_given_trajectory(small, given, finished, workdir, tmp_path):
    damage(workdir / TEACHER / "checkpoints" / "40", "record")
    with pytest.raises(UserError, match="this checkpoint's directory and run the experiment that trained this teacher"):
        run(given, tmp_path / "new")
    remove(workdir, (TEACHER, 40))
    run(small, workdir)
    assert_whole(small, workdir, finished)
    run(given, tmp_path / "new")


def test_a_whole_trajectory_may_be_moved(small, given, workdir, tmp_path):
    shutil.move(workdir / "teacher", tmp_path / "elsewhere")
    training = dataclasses.replace(given.teacher_training, trajectory=str(tmp_path / "elsewhere" / "trajectory"))
    run(dataclasses.replace(given, teacher_training=training), tmp_path / "new")
