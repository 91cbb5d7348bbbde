"""Residencies as a whole experiment sees them."""

import dataclasses

import pytest

from pdjax.config import from_config_dict
from pdjax.errors import UserError
from pdjax.io.signals import Interrupt
from pdjax.stages import sources
from pdjax.stages.students import train_students
from pdjax.stages.teacher import train_teacher


@pytest.fixture(scope="module")
def small(load_config_file):
    """Students of a parity that follow 4 checkpoints, or one."""
    config = load_config_file("parity_mlp").get_config("smoke")
    with config.unlocked():
        config.task.dimension, config.teacher.widths = 6, (12,)
        config.teacher_training.extra_seeds = ()
        config.teacher_training.steps, config.teacher_training.checkpoint_every = 80, 20
        config.loop.chunk_steps, config.loop.save_every, config.evaluation.every = 10, 40, 20
        config.student_training.budgets, config.sizes = (80,), None
        config.strategies = {name: config.strategies[name] for name in ("labels", "one_shot", "progressive")}
        config.strategies.progressive.selection.count = 4
        config.strategies.progressive.duration = 15
        config.comparisons, config.probes.monomials = {}, None
    return from_config_dict(config)


def with_residency(config, residency):
    return dataclasses.replace(config, placement=dataclasses.replace(config.placement, residency=residency))


def metrics(workdir):
    return {path.parent.name: path.read_bytes() for path in sorted((workdir / "students").glob("*/metrics.jsonl"))}


def test_all_residencies_leave_the_same_records(small, tmp_path, monkeypatch):
    for residency in ("stacked", "streamed", "auto", "auto without memory"):
        if residency == "auto without memory":
            monkeypatch.setattr(sources, "memory_of", lambda device: 1)
        config = with_residency(small, residency.split()[0])
        train_teacher(config, tmp_path / residency, Interrupt())
        train_students(config, tmp_path / residency, Interrupt())
    recorded = [metrics(tmp_path / residency) for residency in ("stacked", "streamed", "auto", "auto without memory")]
    assert len(recorded[0]) == 3
    assert recorded[1] == recorded[0]
    assert recorded[2] == recorded[0]
    assert recorded[3] == recorded[0]


def test_an_adaptive_curriculum_is_never_streamed(load_config_file):
    config = load_config_file("parity_mlp").get_config("smoke")
    with config.unlocked():
        config.placement.residency = "streamed"
    with pytest.raises(UserError, match=r"'auto' or 'stacked' for the adaptive strategies.adaptive; found streamed"):
        from_config_dict(config)
