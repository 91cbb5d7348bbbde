"""Variants of the experiment, and adaptive curricula, on models of three tokens and strings of at most 10 tokens."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.adaptive import UntilRobust, UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import RobustPeak, Steps
from pdjax.distill.strategy import Strategy
from pdjax.errors import TrainingError, UserError
from pdjax.experiment import Ablation, Probes, Variant
from pdjax.io.probe_records import read_probe
from pdjax.io.progress import Progress
from pdjax.io.records import read_measured, read_run
from pdjax.io.sealed import read_json, write_json
from pdjax.io.signals import Interrupt
from pdjax.io.store import stack
from pdjax.probes import ngrams
from pdjax.probes.agreement import AgreementProbe, agreement
from pdjax.probes.ngrams import NgramProbe
from pdjax.settings import named
from pdjax.stages import probes, students
from pdjax.stages.adaptive import adaptation
from pdjax.stages.programs import student_program, student_replicas, teacher_shape
from pdjax.stages.run import run_experiment
from pdjax.stages.teacher import open_trajectory
from pdjax.train.state import init_state

EARLY = Steps((8, 16))
NGRAMS = NgramProbe((2, 3), 8, 2, (50,), 16)
AGREES = UntilSaturated("agreement", 1, 1e-4, 12)
CROSSES = UntilRobust(NGRAMS, 12)
HARD = Distillation(0.0)
STRATEGIES = named(
    (
        Strategy("hard", HARD),
        Strategy("soft", Distillation(1.0)),
        Strategy("peak", HARD, FixedDuration(4), RobustPeak()),
        Strategy("agree", HARD, AGREES, EARLY),
        Strategy("cross", HARD, CROSSES, EARLY),
    )
)


@pytest.fixture(scope="module")
def config(tiny, trigrams):
    """Two students of every strategy for 24 steps; the ablation has other masks, and wider students."""
    variants = (Variant("masks", {"task": {"mask_rate": 0.5}}), Variant("wide", {"student": {"width": 16}}))
    ablation = Ablation("other", "Other masks and students", variants, ("hard", "peak"), (16,), base="as it is")
    training = dataclasses.replace(tiny.student_training, budgets=(24,), seeds=(0, 1), checkpoint_every=12)
    return dataclasses.replace(
        tiny,
        teacher=trigrams(),
        student=trigrams(),
        strategies=tuple(STRATEGIES.values()),
        comparisons=(),
        ablations=(ablation,),
        student_training=training,
        probes=Probes((NGRAMS, AgreementProbe(1, 16)), students=("soft",), seed=tiny.probes.seed),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """All stages but the report, done."""
    path = tmp_path_factory.mktemp("run") / "work"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "NUM_LENGTHS", 1)  # each is compiled
        run_experiment(config, path, ("teacher", "probes", "students", "student_probes", "ablations"), Interrupt())
    return path


def test_strategies_of_one_curriculum_share_a_run_whose_students_learned_apart(workdir):
    run = read_run(workdir / "students" / "hard-24")
    assert run.description.strategies == ("hard", "soft")
    assert [replica.loss.temperature for replica in run.description.replicas] == [0.0, 0.0, 1.0, 1.0]
    final = run.evaluation.loss[-1]
    assert len(set(final.tolist())) == 4
    assert not (workdir / "students" / "soft-24").exists()


def test_a_variant_of_the_student_has_the_same_teacher_and_one_of_the_task_its_own(workdir):
    wide, masks = (workdir / "ablations" / "other" / name for name in ("wide", "masks"))
    assert (wide / "teacher").resolve() == (workdir / "teacher").resolve()
    assert not (masks / "teacher").is_symlink()
    identity = [read_json(path / "teacher" / "result.json")["identity"] for path in (workdir, wide, masks)]
    assert identity[0] == identity[1] != identity[2]
    for path in (wide, masks):
        assert {p.name for p in (path / "students").iterdir()} == {"hard-16", "peak-16"}
        assert read_probe(path, "ngrams")[0]  # what the strategy 'peak' selects by
        assert not read_probe(path, "agreement")[0]


def test_a_finished_experiment_does_nothing_again(config, workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")}
    run_experiment(config, workdir, ("teacher", "probes", "students", "student_probes", "ablations"), Interrupt())
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")} == before


def test_teachers_and_asked_students_are_probed_at_every_checkpoint(workdir):
    grams, agreement = (read_probe(workdir, name)[0] for name in ("ngrams", "agreement"))
    assert [record["step"] for record in grams] == [record["step"] for record in agreement] == list(range(4, 33, 4))
    values = np.array([record["distances"] for record in grams])
    assert values.shape == (8, 2, 2, 1)
    assert np.all((values >= 0) & (values <= 1))
    assert agreement[-1]["top1"] == 1  # the final teacher with itself
    assert agreement[-1]["divergence"] == pytest.approx(0, abs=1e-6)
    student, _ = read_probe(workdir / "students" / "hard-24", "ngrams")
    assert [(record["step"], record["replica"]) for record in student] == list(itertools.product((0, 12, 24), range(4)))
    untrained = np.array([record["distances"] for record in student[:4]])
    assert untrained.shape == (4, 2, 2, 1)
    np.testing.assert_array_equal(
        untrained[:2], untrained[2:]
    )  # strategies by seeds: both begin with the same students
    assert not np.array_equal(untrained[0], untrained[1])
    assert not (workdir / "students" / "peak-24" / "probes").exists()


def test_untrained_students_stand_in_the_order_of_their_replicas(config, workdir):
    description = read_run(workdir / "students" / "hard-24").description
    seeds = [replica.seed for replica in description.replicas]
    assert seeds == [0, 1, 0, 1]
    backwards = dataclasses.replace(description, replicas=description.replicas[::-1])
    made = [students.untrained_students(config, run) for run in (description, backwards)]
    alone = init_state(student_program(config, student_replicas(config)).program, jnp.array(seeds)).params
    for one, other, expected in zip(*map(jax.tree.leaves, (*made, alone)), strict=True):
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected[::-1])


@pytest.mark.parametrize("name", ["agree", "cross"])
def test_adaptive_students_decide_by_what_is_recorded(workdir, name):
    run = read_run(workdir / "students" / f"{name}-24")
    steps, measured = read_measured(workdir / "students" / f"{name}-24")
    assert steps == run.evaluation.steps.tolist()
    values = np.stack(measured)
    assert values.shape == (len(steps), 2, 3)
    for replica, starts in enumerate(run.starts):
        if name == "agree":
            assert starts == AGREES.starts(steps, values[:, replica])
        else:
            assert starts == CROSSES.starts(steps, values[:, replica])
        assert all(b - a <= 12 for a, b in itertools.pairwise(starts))
        assert len(starts) > 1


def test_the_agreement_that_decides_is_that_with_each_teacher(config, workdir):
    """Students that are the teacher's checkpoints agree with themselves alone, or wholly by chance."""
    same = dataclasses.replace(config, student=config.teacher)
    store = open_trajectory(config, workdir)
    checkpoints = stack(store, [8, 16, 32], teacher_shape(config))
    store.close()
    adapt = adaptation(same, STRATEGIES["agree"], lambda: checkpoints, 3)
    assert adapt is not None
    assert adapt.measure is not None
    shares = adapt.measure(checkpoints)
    np.testing.assert_array_equal(np.diag(shares), 1)
    task, model = config.task, config.teacher.build(config.task)
    last = jax.tree.map(lambda leaf: leaf[2], checkpoints)
    held_out = AgreementProbe(config.evaluation.num_batches, config.evaluation.batch_size)
    one = agreement(task, model, model, held_out, checkpoints, last, np.int32(config.seed))
    assert shares.dtype == np.float64  # what a record of it holds too
    np.testing.assert_array_equal(shares[:, 2], np.float64(one.same.sum) / np.float64(one.same.count))
    crossing = adaptation(same, STRATEGIES["cross"], lambda: checkpoints, 3)
    assert crossing is not None
    assert crossing.measure is not None
    surplus = crossing.measure(checkpoints)
    assert surplus.dtype == np.float64
    measure = jax.jit(functools.partial(ngrams.ngram_distances, task, model, CROSSES.ngrams))
    distances = measure(checkpoints, np.int32(config.seed))
    robust = np.median(distances[:, ngrams.MEASURES.index("robust")], axis=-1).mean(axis=-1)
    np.testing.assert_allclose(surplus, robust[:, None] - robust[None], atol=1e-6)


def test_probes_of_other_students_are_never_taken_for_these(config, workdir):
    """As if the run had been trained again, or against another teacher, beside the old probes."""
    path = workdir / "students" / "hard-24" / "probes" / "result.json"
    kept = path.read_text()
    probes.probe_students(config, workdir, Interrupt())  # is done, and does nothing
    assert path.read_text() == kept
    result = read_json(path)
    write_json(path, result | {"identity": dict.fromkeys(result["identity"], "another")})
    with pytest.raises(UserError, match=r"probes of this experiment's models; found those of others in .*hard-24"):
        probes.probe_students(config, workdir, Interrupt())
    path.write_text(kept)


@pytest.fixture
def longer(config):
    """Students of one strategy that nobody has trained yet."""
    return dataclasses.replace(
        config,
        strategies=(STRATEGIES["hard"],),
        student_training=dataclasses.replace(config.student_training, budgets=(48,)),
        probes=dataclasses.replace(config.probes, students=()),
        ablations=(),
    )


@pytest.mark.parametrize("stage", [probes.probe_teachers, probes.probe_students, students.train_students])
def test_an_error_ends_the_display_of_progress(config, longer, workdir, monkeypatch, stage):
    def fail(*_):
        raise TrainingError("a loss is not finite")

    ended = []
    monkeypatch.setattr(Progress, "close", lambda progress: ended.append(progress))
    monkeypatch.setattr(probes, "unmeasured", lambda _, asked: list(asked))
    monkeypatch.setattr(probes, "measure_checkpoints", fail)
    monkeypatch.setattr(students, "train_together", fail)
    nothing_kept = dataclasses.replace(longer.student_training, checkpoint_every=None)
    untrained = dataclasses.replace(longer, student_training=nothing_kept)
    with pytest.raises(TrainingError, match="not finite"):
        stage(untrained if stage is students.train_students else config, workdir, Interrupt())
    assert len(ended) == 1
