"""Further teachers with students of their own: the same experiment once more, with seeds that no other one has."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from pdjax.configuration import experiment_of
from pdjax.distill.strategy import Strategy
from pdjax.errors import NotShownError
from pdjax.experiment import Ablation, Experiment, Variant
from pdjax.io.processes import fetch
from pdjax.io.records import read_run
from pdjax.io.signals import Interrupt
from pdjax.report.reading import read_results
from pdjax.report.summary import notes
from pdjax.settings import named
from pdjax.stages import run
from pdjax.stages.run import run_experiment
from pdjax.stages.students import train_students
from pdjax.train import replicas
from tests.fingerprint import read
from tests.minimal import get_config

RATE = 5e-3
"""Of the students of ``two_shot``; all others have that of the experiment."""

STAGES = ("teacher", "students", "student_probes", "teachers")


@pytest.fixture(scope="module")
def config() -> Experiment:
    small = experiment_of(get_config("few"))
    own = dataclasses.replace(named(small.strategies)["two_shot"], learning_rate=RATE)
    return dataclasses.replace(
        small,
        strategies=(Strategy("one_shot"), own),
        comparisons=(),
        further_teachers=(5, 7),
        student_training=dataclasses.replace(small.student_training, seeds=(0, 2)),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "work"
    run_experiment(config, path, STAGES, Interrupt())
    return path


def test_a_further_teacher_is_the_experiment_with_other_seeds_throughout(config, workdir, tmp_path):
    alone = config.of_further_teachers()[7]
    assert (alone.seed, alone.teacher_training.seeds) == (7, (7,))
    seeds = [one.student_training.seeds for one in (config, *config.of_further_teachers().values())]
    assert len({*itertools.chain(*seeds)}) == 6
    run_experiment(alone, tmp_path / "alone", STAGES, Interrupt())
    assert read(tmp_path / "alone") == read(workdir / "teachers" / "7")
    shutil.rmtree(tmp_path / "alone")


def test_teachers_and_their_students_differ(workdir):
    places = (workdir, workdir / "teachers" / "5", workdir / "teachers" / "7")
    for name in ("teacher", "students/one_shot-32"):
        losses = [read_run(place / name).evaluation.loss[-1, 0] for place in places]
        assert len({*losses}) == 3


def test_seeds_of_students_do_not_depend_on_others(config):
    """More teachers, in another order, with more students: what was trained stays what it is."""
    training = dataclasses.replace(config.student_training, seeds=(2, 0, 9))
    grown = dataclasses.replace(config, further_teachers=(3, 7, 5), student_training=training)
    for seed, one in config.of_further_teachers().items():
        other = grown.of_further_teachers()[seed]
        assert {*one.student_training.seeds} < {*other.student_training.seeds}
        assert one.probes.seed == other.probes.seed
    last = dataclasses.replace(config, student_training=dataclasses.replace(training, seeds=(2**31 - 1,)))
    assert max(max(one.student_training.seeds) for one in last.of_further_teachers().values()) < 2**31


def test_a_study_grows(config, tmp_path):
    small = dataclasses.replace(config, further_teachers=(5,), strategies=config.strategies[:1])
    run_experiment(small, tmp_path / "work", STAGES, Interrupt())
    before = read(tmp_path / "work" / "teachers" / "5")
    training = dataclasses.replace(small.student_training, seeds=(0, 2, 4))
    grown = dataclasses.replace(small, further_teachers=(7, 5), student_training=training)
    run_experiment(grown, tmp_path / "work", STAGES, Interrupt())
    assert {*before} < {*read(tmp_path / "work" / "teachers" / "5")}
    group = read_results(tmp_path / "work").finished("one_shot", None, 32)
    assert group is not None
    assert group.count == "3 teachers with 3 students each"


def test_all_teachers_have_one_program(config, tmp_path):
    replicas._compiled.cache_clear()
    run_experiment(config, tmp_path / "work", ("teacher", "students"), Interrupt())
    first = replicas._compiled.cache_info().misses
    run_experiment(config, tmp_path / "work", ("teachers",), Interrupt())
    assert 0 < first == replicas._compiled.cache_info().misses
    shutil.rmtree(tmp_path / "work")


def test_variants_have_one_teacher(config):
    ablation = Ablation("other", "Other", (Variant("wide", {"student": {"widths": (9,)}}),), ("one_shot",), (32,))
    (variant,) = dataclasses.replace(config, ablations=(ablation,)).variants().values()
    assert variant.further_teachers == ()


def test_students_learn_at_the_rate_of_their_strategy(config, workdir):
    rates = {"one_shot": config.student_training.learning_rates[0], "two_shot": RATE}
    assert rates["one_shot"] != RATE
    for place in (workdir, workdir / "teachers" / "5"):
        for name, rate in rates.items():
            found = read_run(place / "students" / f"{name}-32").description.replicas
            assert {replica.learning_rate for replica in found} == {rate}


def test_units_of_the_report_are_teachers(workdir):
    results = read_results(workdir)
    assert results.learning_rates == (None,)
    group = results.finished("two_shot", None, 32)
    assert group is not None
    assert (group.unit, group.units, group.learning_rate) == ("teacher", (0, 5, 7), RATE)
    assert group.count == "3 teachers with 2 students each"
    own = read_run(workdir / "teachers" / "5" / "students" / "two_shot-32").evaluation.accuracy[-1]
    assert group.final()[5] == pytest.approx(np.mean(fetch(own)))
    assert group.over().shape[1] == 3
    assert len(group.drawn("accuracy")) == group.over().size


def test_a_group_is_finished_when_all_teachers_are(workdir, tmp_path):
    assert read_results(workdir).finished("one_shot", None, 32) is not None
    assert not any("Not begun" in note or "not finished" in note for note in notes(read_results(workdir), []))
    shutil.copytree(workdir, tmp_path / "part", symlinks=True)
    (tmp_path / "part" / "teachers" / "7" / "students" / "one_shot-32" / "result.json").unlink()
    begun = read_results(tmp_path / "part")
    assert begun.finished("one_shot", None, 32) is None
    assert begun.unfinished == ["teachers/7/one_shot-32"]
    shutil.rmtree(tmp_path / "part" / "teachers" / "7")
    part = read_results(tmp_path / "part")
    assert part.finished("one_shot", None, 32) is None
    assert "Not begun: the teachers 7." in notes(part, [])


@pytest.mark.parametrize(("unlucky", "left"), [(5, (0, 7)), (0, (5, 7))])
def test_a_teacher_that_has_not_learned_is_left_out_and_said(config, tmp_path, monkeypatch, unlucky, left):
    def train(experiment, directory, interrupt):
        if experiment.teacher_training.seed == unlucky:
            raise NotShownError("a rise", "none", "train longer")
        train_students(experiment, directory, interrupt)

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_students", train)
        run_experiment(config, tmp_path / "work", STAGES, Interrupt())
    results = read_results(tmp_path / "work")
    assert results.left_out == {unlucky: "expected a rise; found none; train longer"}
    group = results.finished("one_shot", None, 32)
    assert group is not None
    assert group.units == left
    said = notes(results, [])
    assert f"Teacher {unlucky} is left out: expected a rise; found none; train longer." in said
    assert not any("Not started" in note for note in said)
    # Of all but its students there are records.
    assert {*results.table[results.table.role == "teacher"].seed} == {0, 5, 7}
    run_experiment(config, tmp_path / "work", STAGES, Interrupt())
    assert read_results(tmp_path / "work").left_out == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"further_teachers": (5, 5)}, "distinct further_teachers"),
        ({"further_teachers": (0,)}, "distinct further_teachers"),
        ({"further_teachers": (-1,)}, "further_teachers"),
    ],
)
def test_teachers_that_share_seeds_are_refused(config, changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(config, **changes)


def test_a_given_teacher_is_one(config):
    given = dataclasses.replace(config.teacher_training, trajectory="somewhere")
    with pytest.raises(ValueError, match=r"no further_teachers with teacher_training.trajectory"):
        dataclasses.replace(config, teacher_training=given)


def test_own_rates_are_compared_with_one(config):
    several = dataclasses.replace(config.student_training, learning_rates=(1e-3, 1e-2))
    with pytest.raises(ValueError, match="learning_rates where strategies have"):
        dataclasses.replace(config, student_training=several)
