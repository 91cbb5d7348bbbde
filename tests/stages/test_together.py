"""Runs that are trained together: who joins whom, and that each ends as if it were alone."""

import contextlib
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.part import LowDegree
from pdjax.distill.schedules import EqualSplit, FixedDuration, TeacherSplit
from pdjax.distill.selection import Equal, Phase, Steps
from pdjax.distill.strategy import Strategy
from pdjax.distill.teacher import Teacher
from pdjax.errors import TrainingError
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.progress import Progress
from pdjax.io.records import read_description, read_run
from pdjax.io.sealed import read_json, write_json
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.mlp import Mlp
from pdjax.plan.experiment import plan_experiment
from pdjax.stages.programs import student_program, student_replicas
from pdjax.stages.runs import foresee_runs, plan_runs
from pdjax.stages.students import open_checkpoints, students_shape, train_students
from pdjax.stages.teacher import open_trajectory, train_teacher
from pdjax.stages.together import grouped, groups_of, students_of, together
from pdjax.tasks.parity import ParityTask
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Sgd
from pdjax.train.replicas import place_hyperparameters
from pdjax.train.sharding import MeshSizes, Placement, build_mesh
from pdjax.train.state import init_state
from pdjax.train.step import Evaluation

TWO = Strategy("two", schedule=FixedDuration(15), selection=Steps((20, 40)))
FOUR = Strategy("four", schedule=TeacherSplit(0.5), selection=Equal(4))
SHARING = (Strategy("labels", Labels()), Strategy("one_shot"), TWO, FOUR)
SOFT = dataclasses.replace(TWO, name="soft", loss=Distillation(0.5))
ALL_DEVICES = jax.devices()
ALONE = Strategy("adaptive", schedule=UntilSaturated(window=1, max_steps=30), selection=Equal(4))


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Runs are joined where there is one device."""
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: first)
        yield


@pytest.fixture(scope="module")
def small():
    """Students of a parity on batches of 8; a constant rate, so that a short training begins a longer one."""
    once = dict(batch_size=8, optimizer=Sgd())
    return Experiment(
        name="small",
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        student=Mlp((20,)),
        strategies=(*SHARING, SOFT, ALONE),
        teacher_training=TeacherTraining(steps=80, checkpoint_every=20, learning_rate=5e-2, **once),
        student_training=StudentTraining(
            seeds=(0, 1), learning_rates=(5e-2,), budgets=(20, 40), checkpoint_every=20, **once
        ),
        evaluation=Evaluation(20, num_batches=2, batch_size=64),
        loop=Loop(10, save_every=20),
    )


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A working directory of runs that were trained together, and one of runs that were not."""
    places = {most: tmp_path_factory.mktemp(f"together{most}") for most in (32, 1)}
    for most, workdir in places.items():
        config = at_once(small, most)
        train_teacher(config, workdir, Interrupt())
        train_students(config, workdir, Interrupt())
    return places


def at_once(experiment, most):
    return dataclasses.replace(experiment, loop=dataclasses.replace(experiment.loop, together=most))


def with_strategies(experiment, *strategies):
    return dataclasses.replace(experiment, strategies=strategies)


def descriptions(workdir):
    return {path.parent.name: read_description(path.parent) for path in workdir.glob("students/*/run.json")}


def records(workdir):
    """What must not depend on interruptions: metrics, and digests of kept checkpoints and of the last states."""
    paths = [*workdir.glob("students/*/metrics.jsonl"), *workdir.glob("students/*/trajectory/**/record/metadata")]
    last = {f"{run.name}/state/checkpoints/{run.budget}" for run in descriptions(workdir).values()}
    paths += [path for name in last for path in workdir.glob(f"students/{name}/record/metadata")]
    assert len(paths) > 20
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def foreseen(config, stacked=True, devices=1):
    groups = together(config, foresee_runs(config, config.teacher_training.checkpoints), stacked, devices)
    return {frozenset((run.strategies, run.budget) for run in group.runs): group for group in groups}


def test_students_of_all_curricula_are_one_program_and_short_runs_are_its_beginning(small):
    """Also where the short ones do not live to see all rows of the curriculum."""
    groups = foreseen(small)
    names = [("labels",), ("one_shot",), ("soft", "two"), ("four",)]
    joined = frozenset((name, budget) for name in names for budget in (20, 40))
    assert set(groups) == {joined, frozenset({(("adaptive",), 20)}), frozenset({(("adaptive",), 40)})}
    group = groups[joined]
    assert len(group.students) == len(set(group.students)) == 2 * 5
    assert [run.budget for run in group.runs] == [40] * 4 + [20] * 4
    for run in group.runs:
        assert [group.students[row].until(run.budget) for row in group.rows(run)] == [
            student.until(run.budget) for student in students_of(run)
        ]
    asking = [student.replica.loss.asks_teacher for student in group.students]
    assert sorted(asking) in (asking, asking[::-1])  # losses of one family stand next to each other


def test_a_schedule_that_knows_the_budget_is_no_beginning(small):
    split = dataclasses.replace(FOUR, schedule=EqualSplit())
    falling = dataclasses.replace(small.student_training, optimizer=Sgd("cosine"))
    for config in (
        with_strategies(small, SHARING[1], split),
        dataclasses.replace(with_strategies(small, SHARING[1], TWO), student_training=falling),
    ):
        budgets = [{run.budget for run in group.runs} for group in foreseen(config).values()]
        assert {20} in budgets
        assert config.strategies[1] is TWO or {20, 40} in budgets  # one_shot does not look
        assert config.strategies[1] is split or {20, 40} not in budgets
    unknown = dataclasses.replace(TWO, selection=Phase())  # found by the teacher's training
    assert len(foreseen(with_strategies(small, unknown))) == 2


@pytest.mark.parametrize(
    ("change", "stacked", "devices"),
    [
        ({"student_training": {"shared_batches": False}}, True, 1),
        ({"student_training": {"batch_size": 1}}, True, 1),  # blocks of steps
        ({"loop": {"together": 1}}, True, 1),
        ({"loop": {"writers": ("wandb",)}}, True, 1),
        ({}, False, 1),
        ({}, True, 2),
    ],
)
def test_runs_that_share_nothing_stay_alone(small, change, stacked, devices):
    config = with_strategies(small, *SHARING)
    for part, values in change.items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})
    assert all(len(group.runs) == 1 for group in foreseen(config, stacked, devices).values())


def test_parts_of_checkpoints_and_what_a_loss_trains_stay_alone(small):
    part = dataclasses.replace(TWO, name="part", part=LowDegree(num_inputs=64))
    groups = foreseen(with_strategies(small, *SHARING[:2], part))
    assert frozenset({(("part",), 40)}) in groups


def test_no_group_has_more_students_than_were_asked_for(small):
    runs = [run for run in foresee_runs(small, small.teacher_training.checkpoints) if run.budget == 40]
    for most in (1, 2, 4, 6, 32):
        groups = grouped(runs, most, True)
        assert sorted(run.strategies for group in groups for run in group.runs) == sorted(
            run.strategies for run in runs
        )
        assert all(len(group.students) <= most or len(group.runs) == 1 for group in groups)
    assert len(grouped(runs, 4, True)) < len(runs)


def test_every_run_ends_as_if_it_were_alone(small, finished):
    """Sums of many students may round otherwise than those of few."""
    joined, alone = descriptions(finished[32]), descriptions(finished[1])
    assert {name: run.identity for name, run in joined.items()} == {name: run.identity for name, run in alone.items()}
    assert all(run.together == () for run in alone.values())
    names = {name for name, run in joined.items() if run.together}
    assert len(names) == len(joined) - 2
    assert all(set(joined[name].together) == names for name in names)
    for name, run in joined.items():
        one, other = (read_run(finished[most] / "students" / name) for most in (32, 1))
        for kind in ("train", "evaluation"):
            curves, expected = getattr(one, kind), getattr(other, kind)
            assert curves.steps.tolist() == expected.steps.tolist()
            np.testing.assert_allclose(curves.loss, expected.loss, rtol=1e-5)
            np.testing.assert_allclose(curves.accuracy, expected.accuracy, atol=1e-6)
        kept = []
        for most in (32, 1):
            with contextlib.closing(open_checkpoints(finished[most], run)) as store:
                assert store.steps() == list(range(20, run.budget + 1, 20))
                shape = students_shape(small, len(run.replicas))
                kept.append([store.restore(step, shape) for step in store.steps()])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *kept)


def test_runs_differ_from_each_other(finished):
    assert len({json.dumps(read_run(p).evaluation.loss.tolist()) for p in finished[32].glob("students/*-40")}) == 5


def test_the_steps_of_a_chunk_count_at_once(small, finished, tmp_path, monkeypatch):
    """One by one, all but the first of the runs would seem to take no time, and so would what is left."""
    counted = []
    monkeypatch.setattr(Progress, "advance", lambda progress, steps: counted.append(steps))
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    train_students(with_strategies(small, *SHARING), tmp_path, Interrupt())
    assert counted == [10 * len(SHARING) * 2] * 2 + [10 * len(SHARING)] * 2  # two budgets, until the shorter one ends


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_runs_that_are_stopped_go_on_together(small, finished, interrupt_at, tmp_path, looks):
    """Before the short ones end, when they do, and after."""
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted, match=f"is saved at step {10 * looks} of 40"):
        train_students(small, tmp_path, interrupt_at(looks))
    short = [path.name for path in tmp_path.glob("students/*/result.json")]
    assert bool(short) == (looks > 1)
    train_students(small, tmp_path, Interrupt())
    assert records(tmp_path) == records(finished[32])


def remove_states(workdir, *names, above):
    """As if these runs had been killed before they saved what they did above a step."""
    for name in names:
        for path in (workdir / f"students/{name}/state/checkpoints").glob("[0-9]*"):
            if int(path.name) > above:
                shutil.rmtree(path)


@pytest.mark.parametrize(
    ("looks", "names", "above"),
    [
        (3, ("labels-40", "four-40"), 20),  # a step of which some have saved nothing
        (1, ("labels-40", "one_shot-20", "four-40"), 0),  # the first one
        (4, ("labels-40", "four-40"), 20),  # the last one
    ],
)
def test_killed_between_their_saves_they_go_on_from_the_last_common_state(
    small, finished, interrupt_at, tmp_path, caplog, looks, names, above
):
    """What is done again is compared with what is there, and no state stays ahead of its records."""
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with contextlib.suppress(Interrupted):
        train_students(small, tmp_path, interrupt_at(looks))
    for path in tmp_path.glob("students/*-40/result.json"):
        path.unlink()
    remove_states(tmp_path, *names, above=above)
    shutil.rmtree(tmp_path / "students" / "adaptive-40", ignore_errors=True)
    ahead = {
        path.parts[-4] for path in tmp_path.glob("students/*-40/state/checkpoints/[0-9]*") if int(path.name) > above
    }
    with caplog.at_level("INFO"), contextlib.suppress(Interrupted):  # at the first look
        train_students(small, tmp_path, interrupt_at(1))
    assert ahead
    assert all(f"{name}: its state of step" in caplog.text for name in ahead)
    for name in ("labels-40", "one_shot-40"):
        steps = {int(path.name) for path in (tmp_path / f"students/{name}/state/checkpoints").glob("[0-9]*")}
        assert max(steps) == above + 10
    train_students(small, tmp_path, Interrupt())
    assert records(tmp_path) == records(finished[32])


def test_a_result_that_is_overdue_is_written_at_once(small, finished, interrupt_at, tmp_path):
    """A short run was killed between its last state and its result, and the long ones are stopped again later."""
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted, match="step 20 of 40"):
        train_students(small, tmp_path, interrupt_at(2))
    for name in ("labels-20", "four-20"):
        (tmp_path / f"students/{name}/result.json").unlink()
    with pytest.raises(Interrupted, match="step 30 of 40"):
        train_students(small, tmp_path, interrupt_at(1))
    assert (tmp_path / "students/labels-20/result.json").exists()
    train_students(small, tmp_path, Interrupt())
    assert records(tmp_path) == records(finished[32])


def test_a_long_run_without_its_result_gets_it_and_stays_what_it_was(small, finished, tmp_path):
    workdir = shutil.copytree(finished[32], tmp_path / "workdir")
    (workdir / "students/labels-40/result.json").unlink()
    train_students(small, workdir, Interrupt())
    assert records(workdir) == records(finished[32])
    assert (workdir / "students/labels-40/run.json").read_bytes() == (
        finished[32] / "students/labels-40/run.json"
    ).read_bytes()
    assert (workdir / "students/labels-40/result.json").exists()


def test_a_run_that_lost_what_it_is_is_described_again(small, finished, tmp_path):
    workdir = shutil.copytree(finished[32], tmp_path / "workdir")
    for name in ("run.json", "result.json"):
        (workdir / "students/labels-40" / name).unlink()
    train_students(small, workdir, Interrupt())
    assert read_description(workdir / "students/labels-40").name == "labels-40"
    assert records(workdir) == records(finished[32])


def test_nobody_belongs_to_two_groups(small, finished, interrupt_at, tmp_path):
    """Of a run that has nothing yet, two others say that it is theirs."""
    config = with_strategies(small, *SHARING[:2], FOUR)
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted):
        train_students(config, tmp_path, interrupt_at(1))
    with contextlib.closing(open_trajectory(config, tmp_path)) as trajectory:
        runs = [run for _, run in plan_runs(config, tmp_path, trajectory) if run.budget == 40]
    shutil.rmtree(tmp_path / "students" / "four-40")
    for name in ("labels-40", "one_shot-40"):
        path = tmp_path / "students" / name / "run.json"
        write_json(path, {**read_json(path), "together": [name, "four-40"]})
    groups = groups_of(config, tmp_path, runs, True)
    assert sorted(run.name for group in groups for run in group.runs) == sorted(run.name for run in runs)


def test_who_has_gone_another_way_is_no_partner_any_more(small, finished, interrupt_at, tmp_path):
    """Of two that began together one went on alone, and the directory of another was removed."""
    config = with_strategies(small, *SHARING[:2], FOUR)
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted):
        train_students(config, tmp_path, interrupt_at(3))
    with contextlib.closing(open_trajectory(config, tmp_path)) as trajectory:
        runs = [run for _, run in plan_runs(config, tmp_path, trajectory) if run.budget == 40]
    path = tmp_path / "students" / "labels-40" / "run.json"
    write_json(path, {**read_json(path), "together": []})
    groups = groups_of(config, tmp_path, runs, True)
    assert sorted(run.name for group in groups for run in group.runs) == sorted(run.name for run in runs)
    assert all(len(group.runs) == 1 for group in groups)
    train_students(config, tmp_path, Interrupt())
    shutil.rmtree(tmp_path / "students" / "four-40")
    shutil.rmtree(tmp_path / "students" / "four-20")
    train_students(config, tmp_path, Interrupt())
    for path in tmp_path.glob("students/*-40"):
        one, other = (read_run(w / "students" / path.name).evaluation.loss for w in (tmp_path, finished[32]))
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_curriculum_may_have_rows_that_no_student_reaches(small, tmp_path):
    later = Strategy("later", schedule=FixedDuration(15), selection=Equal(4))  # from 0, 15, 30 and 45 on
    config = with_strategies(small, *SHARING[:2], later)
    train_teacher(config, tmp_path, Interrupt())
    train_students(config, tmp_path, Interrupt())
    names = {"labels-20", "labels-40", "later-20", "later-40", "one_shot-20", "one_shot-40"}
    assert set(descriptions(tmp_path)["later-40"].together) == names


@pytest.mark.parametrize("change", ["streamed", "several devices", "several processes"])
def test_begun_together_they_go_on_with_another_placement(small, finished, interrupt_at, tmp_path, monkeypatch, change):
    config = with_strategies(small, *SHARING[:2], SOFT, TWO)
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted):
        train_students(config, tmp_path, interrupt_at(3))
    if change == "streamed":
        config = dataclasses.replace(config, placement=Placement(residency="streamed"))
    elif change == "several devices":
        monkeypatch.setattr(jax, "devices", lambda *_: ALL_DEVICES)
    else:
        with contextlib.closing(open_trajectory(config, tmp_path)) as trajectory:
            runs = [run for _, run in plan_runs(config, tmp_path, trajectory) if run.budget == 40]
        assert len(groups_of(config, tmp_path, runs, True)) == 1
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        assert len(groups_of(config, tmp_path, runs, True)) == len(runs)
        return
    train_students(config, tmp_path, Interrupt())
    for path in tmp_path.glob("students/*-40"):
        one, other = (
            read_run(workdir / "students" / path.name).evaluation.loss for workdir in (tmp_path, finished[32])
        )
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_without_a_partner_a_run_that_has_begun_goes_on_alone(small, finished, interrupt_at, tmp_path):
    shutil.copytree(finished[32] / "teacher", tmp_path / "teacher")
    with pytest.raises(Interrupted):
        train_students(small, tmp_path, interrupt_at(3))
    train_students(with_strategies(small, TWO), tmp_path, Interrupt())
    (path,) = tmp_path.glob("students/*-40/result.json")
    # Two strategies were one run, which keeps its name and all of its replicas, whoever asks for some of them.
    assert path.parent.name == "soft-40"


def test_lost_checkpoints_are_computed_again_with_the_same_partners(small, finished, tmp_path):
    workdir = shutil.copytree(finished[32], tmp_path / "workdir")
    for name, step in (("one_shot-40", 20), ("four-20", 20), ("labels-40", 40)):
        shutil.rmtree(workdir / f"students/{name}/trajectory/checkpoints/{step}")
    assert records(workdir) != records(finished[32])
    train_students(small, workdir, Interrupt())
    assert records(workdir) == records(finished[32])
    assert not [*workdir.glob("students/*/recovery")]


def test_what_is_not_finite_is_named_by_its_own_run(small, tmp_path):
    training = dataclasses.replace(small.student_training, learning_rates=(5e-2, 1e30), budgets=(40,))
    config = dataclasses.replace(with_strategies(small, *SHARING[:2]), student_training=training)
    train_teacher(config, tmp_path, Interrupt())
    with pytest.raises(TrainingError, match=r"(labels|one_shot)-40: .* replica 2 \(seed 0, learning rate 1e\+30\)"):
        train_students(config, tmp_path, Interrupt())


def test_each_checkpoint_is_asked_once(small):
    """Three curricula: one has the final checkpoint from the start, and the others reach it after each other."""
    asked = []

    @dataclasses.dataclass(frozen=True)
    class Counting:
        model: object

        def init(self, key, inputs):
            return self.model.init(key, inputs)

        def apply(self, params, inputs, dropout_key=None):
            jax.debug.callback(lambda: asked.append(1))
            return self.model.apply(params, inputs, dropout_key)

    replicas = student_replicas(with_strategies(small, TWO), [Distillation()])[:1] * 3
    program = student_program(small, replicas).program
    program = program._replace(teacher_model=Counting(program.teacher_model))
    stack = init_state(program._replace(model=program.teacher_model), jnp.arange(3)).params
    starts = jnp.array([[0, 100, 100], [0, 2, 100], [0, 2, 4]], jnp.int32)
    slots = jnp.array([[2, 0, 0], [1, 2, 0], [0, 1, 2]], jnp.int32)
    teacher = Teacher(stack, starts, slots, jnp.array([0, 1, 2], jnp.int32))
    state = init_state(program, jnp.array([0, 0, 0]))
    rows = place_hyperparameters(build_mesh(MeshSizes(), 3, program.batch_size), replicas)
    count = 6
    after, _ = train_chunk(program, count, state, rows, teacher, jnp.int32(0), jnp.int32(count))
    jax.effects_barrier()
    assert len(asked) == 2 * 3 + 2 * 2 + 2 * 1
    for row in range(3):
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], (rows, state.params, state.opt_state))
        alone, _ = train_chunk(
            program, count, state._replace(params=one[1], opt_state=one[2]), one[0],
            Teacher(stack, starts[row], slots[row]), jnp.int32(0), jnp.int32(count),
        )  # fmt: skip
        jax.tree.map(
            lambda a, b, row=row: np.testing.assert_allclose(a[row], b[0], atol=1e-6), after.params, alone.params
        )
    assert not np.allclose(*(np.asarray(jax.tree.leaves(after.params)[0][row]) for row in (0, 2)))


def test_a_plan_has_the_programs_that_are_run(small):
    plan = plan_experiment(small, None)
    programs = {program.name: program for program in plan.programs}
    stages = {stage.name: stage for stage in plan.stages}
    several = "students with a teacher of 3 curricula x 10"
    assert set(programs) == {"teacher", several, "students with a teacher x 2"}
    joined = stages[several]
    assert joined.steps == 40
    assert len(joined.runs) == 8
    assert joined.disk > stages["students with a teacher x 2"].disk
    alone = {stage.name: stage for stage in plan_experiment(at_once(small, 1), None).stages}
    disk = sum(stage.disk for name, stage in stages.items() if name != "teacher")
    assert disk == pytest.approx(sum(stage.disk for name, stage in alone.items() if name != "teacher"), rel=0.01)
    one = programs["students with a teacher x 2"]
    # Three checkpoints in use, and five times the students.
    assert programs[joined.name].teacher_products == pytest.approx(3 * one.teacher_products, rel=0.01)
    assert programs[joined.name].student_products == pytest.approx(5 * one.student_products, rel=0.01)


def test_a_description_from_before_has_no_partners(finished):
    path = finished[1] / "students" / "labels-40"
    content = read_json(path / "run.json")
    assert content.pop("together") == []
    write_json(path / "run.json", content)
    assert read_description(path).together == ()
