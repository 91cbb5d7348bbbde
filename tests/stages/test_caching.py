"""Cached teachers as a whole experiment sees them: the students that live ones teach, without asking one twice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pdjax.distill.losses import Distillation, Labels, TopK
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Experiment, Loop, StudentTraining, TeacherTraining
from pdjax.io.records import read_run
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.models.bert import Bert
from pdjax.plan.experiment import plan_experiment
from pdjax.stages import caching
from pdjax.stages.caching import foreseen_bytes
from pdjax.stages.runs import foresee_runs
from pdjax.stages.students import train_students
from pdjax.stages.teacher import train_teacher
from pdjax.tasks.pcfg import PcfgTask
from pdjax.tasks.text import Prepared, TextTask
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source
from pdjax.train.optimizer import Adam
from pdjax.train.sharding import Placement
from pdjax.train.step import Evaluation

SHARP, SOME = Distillation(1e-20), TopK(3, 1.0)  # tests/distill/test_kept.py has temperature 0
FIRST = FixedDuration(5)  # moves on within a chunk of 4 steps


@pytest.fixture(scope="module")
def small(trigrams):
    """Students of a grammar who learn from one checkpoint or from two, of their most likely classes."""
    return Experiment(
        name="small",
        task=PcfgTask("cfg3b", 10),
        teacher=trigrams(16),
        student=trigrams(8),
        strategies=(
            Strategy("labels", Labels()),
            Strategy("one_shot", SHARP),
            Strategy("one_shot_some", SOME),
            Strategy("two", SHARP, FIRST, Equal(2)),
        ),
        teacher_training=TeacherTraining(steps=8, batch_size=8, checkpoint_every=4, optimizer=Adam()),
        student_training=StudentTraining(seeds=(0, 1), budgets=(12,), batch_size=8, optimizer=Adam()),
        evaluation=Evaluation(4, num_batches=2, batch_size=64),
        loop=Loop(4, save_every=4),
    )


@pytest.fixture(scope="module")
def live(small, tmp_path_factory):
    """The working directory of the teacher, and of students of live ones."""
    workdir = tmp_path_factory.mktemp("live")
    train_teacher(small, workdir, Interrupt())
    train_students(small, workdir, Interrupt())
    return workdir


def cached(experiment, cache=None):
    return dataclasses.replace(experiment, placement=Placement(residency="cached", cache=cache))


def test_a_plan_foresees_the_answers(small, live, begun, caplog):
    """Their bytes on disk, those that runs share once; in a program they take the place of checkpoints."""
    caplog.set_level("INFO", "pdjax")
    plan = plan_experiment(cached(small), None)
    workdir = begun("planned")
    train_students(cached(small), workdir, Interrupt())
    said = [record.args for record in caplog.records if "answers take" in record.msg]
    assert foreseen_bytes(small, foresee_runs(small, [4, 8])) == round(sum(1e6 * args[2] for args in said))
    assert plan.residency.startswith("cached (answers of 2 checkpoints 0.0 MB on disk)")
    assert "computing answers (of teachers to all batches)" in plan.left_out
    teachers = {program.name: program.memory.teachers for program in plan.programs}
    places = 4 * 8 * small.task.num_positions  # of a chunk
    assert teachers["students with a teacher x 2"] == places * 8  # a class and its probability
    assert all(program.teacher_products == 0 for program in plan.programs)
    assert teachers["students of labels x 2"] == 0


@pytest.fixture
def begun(live, tmp_path):
    """Copies the teacher into a new working directory."""

    def make(name):
        shutil.copytree(live / "teacher", tmp_path / name / "teacher")
        return tmp_path / name

    return make


@pytest.fixture
def asked(monkeypatch):
    """Counts the shards that are computed."""
    shards = []
    write = caching.TargetCache.write
    monkeypatch.setattr(
        caching.TargetCache, "write", lambda cache, begin, shard: [shards.append(begin), write(cache, begin, shard)]
    )
    return shards


def assert_same_students(workdir, other):
    runs = sorted(path.name for path in (other / "students").iterdir())
    assert sorted(path.name for path in (workdir / "students").iterdir()) == runs
    for name in runs:
        one, two = (read_run(path / "students" / name) for path in (workdir, other))
        for split in ("train", "evaluation"):
            ours, theirs = getattr(one, split), getattr(two, split)
            np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(ours.accuracy, theirs.accuracy)


def test_students_of_cached_teachers_are_those_of_live_ones(small, live, begun, asked):
    """Whatever the loss; a checkpoint's answers to the same batches are computed once, for all runs."""
    workdir = begun("cached")
    train_students(cached(small), workdir, Interrupt())
    assert_same_students(workdir, live)
    # The final teacher answers in all three chunks, to two cuts; the one before it in the first two.
    assert sorted(asked) == [0, 0, 0, 4, 4, 4, 8, 8]

    def read(path):
        return [json.loads(line) for line in (path / "students/two-12/metrics.jsonl").read_text().splitlines()]

    # Bit for bit, where all of the mass is on one class.
    evaluations = [[record for record in read(path) if record["split"] == "evaluation"] for path in (workdir, live)]
    assert evaluations[0] == evaluations[1]


def test_of_text_in_blocks_of_the_vocabulary(small, tmp_path):
    """What configs/text.py has: examples that are read, scanned layers, and no array of all logits."""
    documents = (f"the {word} of number {i} and {i * i}\n\n" for i in range(300) for word in ("one", "two"))
    (tmp_path / "some.txt").write_text("".join(documents))
    source = Source("some", str(tmp_path / "some.txt"), "blank")
    prepare(tmp_path / "corpus", Preparation((source,), vocabulary=150, length=12, held_out=0.3))
    bert = Bert(1, 1, 4, scan_layers=True, vocabulary_block=64)
    experiment = dataclasses.replace(
        small,
        task=TextTask(Prepared.of(str(tmp_path / "corpus"))),
        teacher=dataclasses.replace(bert, num_heads=2),
        student=bert,
        strategies=(small.strategy("two"), dataclasses.replace(small.strategy("two"), name="some", loss=SOME)),
        evaluation=Evaluation(4, num_batches=1, batch_size=32),
        loop=dataclasses.replace(small.loop, optimized=False),
    )
    train_teacher(experiment, tmp_path / "live", Interrupt())
    shutil.copytree(tmp_path / "live", tmp_path / "cached")
    train_students(experiment, tmp_path / "live", Interrupt())
    train_students(cached(experiment), tmp_path / "cached", Interrupt())
    assert_same_students(tmp_path / "cached", tmp_path / "live")


def test_what_is_cached_is_not_computed_again(small, live, begun, asked, tmp_path):
    """In another working directory, with other seeds; of other batches it is."""
    share = str(tmp_path / "answers")
    train_students(cached(small, share), begun("first"), Interrupt())
    count = len(asked)
    training = dataclasses.replace(small.student_training, seeds=(5,), learning_rates=(1e-3, 1e-2))
    other = dataclasses.replace(cached(small, share), student_training=training)
    train_students(other, begun("second"), Interrupt())
    assert len(asked) == count
    train_students(dataclasses.replace(other, seed=1), begun("third"), Interrupt())
    assert len(asked) == 2 * count


def test_stopped_while_caching(small, live, begun, asked, interrupt_at):
    workdir = begun("stopped")
    config = dataclasses.replace(cached(small), strategies=(small.strategy("one_shot"), small.strategy("two")))
    with pytest.raises(Interrupted, match="answers of teachers so far are kept"):
        train_students(config, workdir, interrupt_at(2))
    assert asked == [0, 4]
    train_students(config, workdir, Interrupt())
    assert sorted(asked) == [0, 0, 4, 4, 8]
    undisturbed = begun("undisturbed")
    train_students(config, undisturbed, Interrupt())
    files = [sorted(path.rglob("*.safetensors")) for path in (workdir, undisturbed)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    for name in ("one_shot-12", "two-12"):
        records = [(path / "students" / name / "metrics.jsonl").read_bytes() for path in (workdir, undisturbed)]
        assert records[0] == records[1]


def test_a_damaged_file_is_named(small, live, begun):
    workdir = begun("damaged")
    config = dataclasses.replace(cached(small), strategies=(small.strategy("one_shot"),))
    train_students(config, workdir, Interrupt())
    shutil.rmtree(workdir / "students")
    path = sorted((workdir / "answers").rglob("00000004.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} as it was written; found another content; remove it"):
        train_students(config, workdir, Interrupt())
    path.unlink()
    shutil.rmtree(workdir / "students")
    train_students(config, workdir, Interrupt())


def test_a_teacher_that_is_not_sharp_enough_is_refused(small, begun, monkeypatch):
    """Its mass lies on more than what a cache can keep."""
    monkeypatch.setattr(Distillation, "cut", property(lambda loss: caching.Cut(8, 1.0, True)))
    config = dataclasses.replace(cached(small), strategies=(small.strategy("one_shot"),))
    with pytest.raises(UserError, match="checkpoint 8 at temperature 1 to have its mass on its most likely class"):
        train_students(config, begun("soft"), Interrupt())


@pytest.mark.parametrize(
    ("loss", "shared", "message"),
    [
        (Distillation(1e-4), True, "a loss of strategies.one_shot that looks at a teacher's most likely classes alone"),
        (SHARP, False, "student_training.shared_batches with placement.residency 'cached'"),
    ],
)
def test_what_cannot_be_cached_is_refused_before_anything_is_trained(small, loss, shared, message):
    training = dataclasses.replace(small.student_training, shared_batches=shared)
    with pytest.raises((UserError, ValueError), match=message):
        dataclasses.replace(cached(small), strategies=(Strategy("one_shot", loss),), student_training=training)
