"""What an experiment takes on disk is said, and refused where it is not there, before anything is written."""

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pdjax.distill.losses import Labels, TopK
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Ablation, Experiment, Variant
from pdjax.io.records import RunDescription
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt
from pdjax.settings import plain
from pdjax.stages import disk, run
from pdjax.stages.caching import kept_elsewhere
from pdjax.stages.disk import Foreseen, require_disk, written
from pdjax.stages.run import run_experiment
from pdjax.stages.teacher import _describe
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask
from pdjax.train.replicas import Replica

STAGES = ("teacher", "probes", "students", "student_probes", "sizes", "report")


@pytest.fixture(scope="module")
def smoke(experiment):
    return dataclasses.replace(experiment("parity_mlp", "smoke"), ablations=())


def foreseen(config, directory=Path("nowhere")):
    variants = config.variants().items()
    return [
        Foreseen(one, place, one.teacher_training.checkpoints)
        for one, place in ((config, directory), *((one, directory / "ablations" / name) for name, one in variants))
    ]


def parts(config):
    sizes = dict.fromkeys(STAGES, 0)
    for part in written(foreseen(config)[0]):
        sizes[part.stage] += part.size
    return sizes


def free(monkeypatch, size):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - size, size))


def needed(config, directory, stages, monkeypatch):
    """Returns how much disk has to be free."""
    asked = []
    monkeypatch.setattr(disk, "require_space", lambda place, size, purpose: asked.append(size))
    require_disk(foreseen(config, directory), stages)
    return asked[0]


def test_too_little_is_refused_and_nothing_is_written(smoke, tmp_path, monkeypatch):
    free(monkeypatch, 100_000)
    with pytest.raises(UserError, match=r"MB of free disk for all that is yet to be written; found 0\.1 MB free"):
        run_experiment(smoke, tmp_path / "work", STAGES, Interrupt())
    assert not (tmp_path / "work").exists()


def test_what_is_written_already_needs_no_room(smoke, tmp_path, monkeypatch):
    """Of a run that is at work what is there, of a finished one all, whatever it takes; of others nothing of that."""
    teacher = tmp_path / "teacher"
    before = needed(smoke, tmp_path, ("teacher",), monkeypatch)
    teacher.mkdir()
    (teacher / "file").write_bytes(b"x" * 400_000)
    assert needed(smoke, tmp_path, ("teacher",), monkeypatch) == pytest.approx(before - 400_000, abs=8192)
    assert needed(smoke, tmp_path, ("students",), monkeypatch) > parts(smoke)["students"]
    (teacher / "file").unlink()
    for name in ("run.json", "result.json"):
        write_json(teacher / name, plain(_describe(smoke)))
    assert needed(smoke, tmp_path, ("teacher",), monkeypatch) == 0


def test_of_a_run_that_has_grown_what_is_missing_needs_room(smoke, tmp_path, monkeypatch):
    training = smoke.student_training
    part = next(part for part in written(foreseen(smoke, tmp_path)[0]) if part.stage == "students")
    replicas = tuple(Replica(seed, rate) for seed in training.seeds for rate in training.learning_rates)
    description = RunDescription("student", part.place.name, (), 1, replicas[:1], (), (), "0")
    assert part.replicas > 1
    for name in ("run.json", "result.json"):
        write_json(part.place / name, plain(description))
    assert part.pending == part.size * (part.replicas - 1) // part.replicas + part.passing


def test_a_run_that_lost_what_it_is_is_not_refused(smoke, tmp_path, monkeypatch):
    before = needed(smoke, tmp_path, ("teacher",), monkeypatch)
    write_json(tmp_path / "teacher" / "result.json", {"step": 1})
    assert needed(smoke, tmp_path, ("teacher",), monkeypatch) == pytest.approx(before, abs=8192)


def test_what_opens_a_store_does_so_in_every_process(smoke, tmp_path, monkeypatch):
    """Processes wait for each other there; what is written is asked of the first alone."""
    asked = {True: [], False: []}
    monkeypatch.setattr(run, "_run_stages", lambda *_: None)
    for first, calls in asked.items():
        monkeypatch.setattr(run, "is_first", lambda first=first: first)
        monkeypatch.setattr(
            run, "stored_steps", lambda one, _, calls=calls: calls.append(1) or one.teacher_training.checkpoints
        )
        run_experiment(smoke, tmp_path / str(first), STAGES, Interrupt())
    assert asked[True] == asked[False] != []


def test_only_stages_that_are_run_need_room(smoke, tmp_path, monkeypatch):
    assert needed(smoke, tmp_path, ("teacher",), monkeypatch) < 2 * parts(smoke)["teacher"]
    assert needed(smoke, tmp_path, STAGES, monkeypatch) > sum(parts(smoke).values())
    assert needed(smoke, tmp_path, ("report",), monkeypatch) == parts(smoke)["report"]


def test_every_part_counts(smoke):
    before = parts(smoke)
    twice = dataclasses.replace(smoke.student_training, seeds=tuple(range(100, 112)))
    assert parts(dataclasses.replace(smoke, student_training=twice))["students"] > before["students"]
    more = dataclasses.replace(smoke.teacher_training, extra_seeds=(7, 8, 9))
    assert parts(dataclasses.replace(smoke, teacher_training=more))["teacher"] == pytest.approx(
        before["teacher"] * len(more.seeds) / len(smoke.teacher_training.seeds), rel=0.1
    )
    assert parts(dataclasses.replace(smoke, sizes=None))["sizes"] == 0 < before["sizes"]


def test_sinks_take_room(smoke):
    sinks = {writers: dataclasses.replace(smoke.loop, writers=writers) for writers in ((), ("tensorboard",))}
    sizes = [sum(parts(dataclasses.replace(smoke, loop=loop)).values()) for loop in sinks.values()]
    assert sizes[1] - sizes[0] == pytest.approx(8_110_080 - 7_344_128, rel=0.2)  # as measured
    with_wandb = dataclasses.replace(smoke.loop, writers=("wandb",))
    assert sum(parts(dataclasses.replace(smoke, loop=with_wandb)).values()) - sizes[0] == pytest.approx(
        8_364_032 - 7_344_128, rel=0.2
    )


@pytest.fixture(scope="module")
def top(smoke, trigrams):
    """An experiment with a loss that needs its teachers' most likely class alone."""
    return Experiment(
        name="top",
        task=PcfgTask("cfg3b", 10),
        teacher=trigrams(16),
        student=trigrams(8),
        strategies=(Strategy("labels", Labels()), Strategy("top", TopK(1))),
        teacher_training=dataclasses.replace(smoke.teacher_training, batch_size=64),
        student_training=dataclasses.replace(smoke.student_training, shared_batches=True, batch_size=64),
        evaluation=smoke.evaluation,
        loop=smoke.loop,
    )


def placed(top, **fields):
    return dataclasses.replace(top, placement=dataclasses.replace(top.placement, **fields))


def test_answers_take_room_where_they_lie(top, tmp_path, monkeypatch):
    elsewhere = tmp_path / "answers"
    placements = {
        "stacked": {"residency": "stacked"},
        "cached": {"residency": "cached"},
        "apart": {"residency": "cached", "cache": str(elsewhere)},
    }
    asked = {}
    monkeypatch.setattr(disk, "require_space", lambda place, size, purpose: asked.update({place.name: size}))
    said = {
        name: require_disk(foreseen(placed(top, **fields), tmp_path / name), STAGES)
        for name, fields in placements.items()
    }
    size = asked["cached"] - asked["stacked"]
    assert size > 0
    assert asked["apart"] == asked["stacked"]
    assert kept_elsewhere(placed(top, cache="~/answers")) == Path.home() / "answers"
    assert said["apart"] == f"{said['stacked']}; answers of teachers {size / 1e6:.1f} MB in {elsewhere}"


def test_variants_take_a_teacher_of_their_own_where_they_have_one(smoke, monkeypatch):
    budget = smoke.budgets[:1]

    def of(**changes):
        variant = Ablation("other", "Others", (Variant("one", changes),), ("labels",), budget)
        config = dataclasses.replace(smoke, ablations=(variant,))
        return needed(config, Path("nowhere"), ("ablations",), monkeypatch)

    other = dataclasses.replace(smoke.task, degree=smoke.task.degree + 1)
    assert isinstance(other, ParityTask)
    same, own = of(student={"widths": (8,)}), of(task={"degree": other.degree})
    assert own > same + 0.5 * parts(smoke)["teacher"]
