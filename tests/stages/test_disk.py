"""What an experiment takes on disk is said, and refused where it is not there, before anything is written."""

import dataclasses
import shutil
from collections import namedtuple

import pytest

from pdjax.distill.losses import Labels, TopK
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Ablation, Experiment, Variant
from pdjax.io.signals import Interrupt
from pdjax.stages.disk import announce_disk, disk_by_stage
from pdjax.stages.run import run_experiment
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask

STAGES = ("teacher", "probes", "students", "report")


@pytest.fixture(scope="module")
def smoke(experiment):
    return dataclasses.replace(experiment("parity_mlp", "smoke"), ablations=())


def parts(config):
    return disk_by_stage(config, config.teacher_training.checkpoints)


def free(monkeypatch, size):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - size, size))


def test_too_little_is_refused_and_nothing_is_written(smoke, tmp_path, monkeypatch):
    free(monkeypatch, 100_000)
    with pytest.raises(UserError, match=r"MB of free disk for all that is yet to be written; found 0\.1 MB free"):
        run_experiment(smoke, tmp_path / "work", STAGES, Interrupt())
    assert not (tmp_path / "work").exists()


def test_what_is_written_already_needs_no_room(smoke, tmp_path, monkeypatch):
    total = sum(size for stage, size in parts(smoke).items() if stage in STAGES)
    (tmp_path / "file").write_bytes(b"x" * (total - 50_000))
    free(monkeypatch, 100_000)
    announce_disk(smoke, tmp_path, STAGES, smoke.teacher_training.checkpoints)


def test_only_stages_that_are_run_need_room(smoke, tmp_path, monkeypatch):
    free(monkeypatch, parts(smoke)["teacher"] + 1)
    announce_disk(smoke, tmp_path, ("teacher",), smoke.teacher_training.checkpoints)
    with pytest.raises(UserError, match="yet to be written"):
        announce_disk(smoke, tmp_path, STAGES, smoke.teacher_training.checkpoints)


def test_every_part_counts(smoke):
    before = parts(smoke)
    twice = dataclasses.replace(smoke.student_training, seeds=tuple(range(100, 112)))
    assert parts(dataclasses.replace(smoke, student_training=twice))["students"] > before["students"]
    more = dataclasses.replace(smoke.teacher_training, extra_seeds=(7, 8, 9))
    assert parts(dataclasses.replace(smoke, teacher_training=more))["teacher"] == pytest.approx(
        before["teacher"] * len(more.seeds) / len(smoke.teacher_training.seeds), rel=0.1
    )
    assert parts(dataclasses.replace(smoke, sizes=None))["sizes"] == 0 < before["sizes"]


def test_answers_take_room_where_they_lie_in_the_working_directory(smoke, trigrams, tmp_path):
    top = Experiment(
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
    needs = {
        residency or cache: parts(
            dataclasses.replace(
                top,
                placement=dataclasses.replace(top.placement, residency=residency or "cached", cache=cache),
            )
        )["students"]
        for residency, cache in (("stacked", None), ("cached", None), (None, str(tmp_path)))
    }
    assert needs["cached"] > needs["stacked"] == needs[str(tmp_path)]


def test_variants_take_a_teacher_of_their_own_where_they_have_one(smoke):
    budget = smoke.budgets[:1]

    def of(**changes):
        variant = Ablation("other", "Others", (Variant("one", changes),), ("labels",), budget)
        return parts(dataclasses.replace(smoke, ablations=(variant,)))["ablations"]

    other = dataclasses.replace(smoke.task, degree=smoke.task.degree + 1)
    assert isinstance(other, ParityTask)
    same, own = of(student={"widths": (8,)}), of(task={"degree": other.degree})
    assert own > same + 0.5 * parts(smoke)["teacher"]
