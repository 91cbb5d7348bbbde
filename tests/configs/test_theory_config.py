"""Algorithm 1, SGD by size, and the causal test."""

import dataclasses

import pytest

from pdjax.distill.hinge import HingeLabels
from pdjax.distill.part import LowDegree, WithoutLowDegree
from pdjax.errors import UserError
from pdjax.probes.samples import SamplesProbe
from pdjax.stages.runs import foresee_runs
from pdjax.theory.algorithm import check_pair, first_rate, second_rate, width

VARIANTS = ("", "smoke", "sgd", "causal")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_locked_valid_and_has_its_own_name(check_variant, variant):
    check_variant("theory", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_foreseen_runs_are_those_that_there_are(check_foreseen_runs, variant):
    check_foreseen_runs("theory", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_chunks_trace_at_the_variants_sizes(experiment, trace_chunks, variant):
    trace_chunks(experiment("theory", variant))


@pytest.mark.parametrize("variant", ["", "smoke"])
def test_every_setting_has_the_numbers_of_its_own_d_and_k(experiment, variant):
    """What a variant forgets to change would be that of another d or k, and nobody would see it."""
    config = experiment("theory", variant)
    for one in (config, *config.variants().values()):
        d, k, m = one.task.dimension, one.task.degree, one.teacher.width
        check_pair(d, k)
        rule, training = one.teacher_training.optimizer, one.teacher_training
        assert m == width(k, 0.1)
        assert (rule.first_rate, rule.support) in ((first_rate(d, k, m), ()), (None, tuple(range(k))))
        assert rule.largest == 1 / (2 * k) or rule.first_rate is not None
        second = config.teacher_training.steps - config.teacher_training.optimizer.first_steps
        assert training.learning_rate == 8 * second_rate(d, k, m, second)
        assert one.student.width == 2**k * k
        assert one.student_training.optimizer.largest == 1 / (2 * k)
        assert rule.first_steps in training.checkpoints  # the checkpoint of the theorem is kept
        assert training.steps > rule.first_steps


def test_labels_are_searched_far_enough_and_once_for_each_d_and_k(experiment):
    config = experiment("theory", "")
    searched = {}
    probed = [one for key, one in config.variants().items() if not key.startswith("found/")]
    for one in (config, *probed):
        (probe,) = [probe for probe in one.probes.measured if isinstance(probe, SamplesProbe)]
        if probe.max_label_samples is not None:
            assert (one.task, one.teacher.aligned) not in searched
            searched[one.task, one.teacher.aligned] = probe
    assert {(task.dimension, task.degree) for task, aligned in searched} == {
        *((d, 4) for d in (21, 31, 45, 63)),
        *((21, k) for k in (2, 6)),
    }
    assert not any(aligned for _, aligned in searched)
    assert all(probe.num_label_students >= 20 for probe in searched.values())


def test_every_part_stands_beside_what_claim_c_compares_it_with(experiment):
    config = experiment("theory", "causal")
    for suffix in ("", "_soft"):
        whole = config.strategy(f"whole{suffix}")
        for degree in (1, 2, 3, 5):
            low, without, elsewhere = (
                config.strategy(f"{name}_{degree}{suffix}") for name in ("low", "without", "elsewhere")
            )
            assert (low.part, without.part) == (LowDegree(degree), WithoutLowDegree(degree))
            assert elsewhere.part == LowDegree(degree, "elsewhere")
            assert len({(s.loss, s.schedule, s.selection) for s in (whole, low, without, elsewhere)}) == 1
        assert config.strategy(f"one_shot{suffix}").loss == whole.loss


@pytest.mark.parametrize("name", ["teacher_training", "student_training"])
def test_a_first_stage_that_never_ends_is_refused(experiment, name):
    config = experiment("theory", "smoke")
    training = getattr(config, name)
    last = training.steps if name == "teacher_training" else training.budgets[0]
    optimizer = dataclasses.replace(training.optimizer, first_steps=last)
    with pytest.raises(ValueError, match=f"{name}.optimizer.first_steps below the {last} steps"):
        dataclasses.replace(config, **{name: dataclasses.replace(training, optimizer=optimizer)})


def test_the_loss_of_teachers_is_shown_their_classes(experiment):
    """Eight of them would be trained on the first two, without a word."""
    config = experiment("hierarchical", "smoke")
    training = dataclasses.replace(config.teacher_training, loss=HingeLabels())
    config = dataclasses.replace(config, teacher_training=training)
    with pytest.raises(UserError, match=r"config\.teacher_training\.loss: expected two classes for a hinge loss"):
        foresee_runs(config, config.teacher_training.checkpoints)
