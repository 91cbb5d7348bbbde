"""What a training shows, found in curves written by hand."""

import numpy as np
import pytest

from pdjax.distill.phases import Phases, find_loss_phases, find_robust_peak, find_spikes, find_transition
from pdjax.distill.selection import Phase

STEPS = np.arange(0, 1601, 50)


def curve(knots):
    """A loss that is linear between (step, loss) knots."""
    return np.interp(STEPS, *zip(*knots, strict=True))


def test_finds_the_drop_after_the_plateau():
    """Random start, plateau at 1.0 until 400, drop to 0.7 until 600, slow end: the paper's three phases."""
    phases = find_loss_phases(STEPS, curve([(0, 1.95), (50, 1.05), (100, 1.0), (400, 0.99), (600, 0.69), (1600, 0.49)]))
    assert phases is not None
    assert abs(phases.start - 400) <= 50
    assert abs(phases.end - 600) <= 50
    assert phases.middle == 500
    assert "plateau" in phases.reason


PAPER = {
    "drop that slows down": [(0, 1.8), (100, 1.05), (400, 1.02), (1000, 0.6), (2000, 0.25), (8000, 0.1)],
    "steady drop": [(0, 1.8), (60, 1.04), (400, 1.0), (2000, 0.4), (8000, 0.2)],
}
"""What section 4.2 says of a teacher on cfg3b: little change for the first 5 % of 8000 steps, a rapid drop for the next
20 %, then a slow one."""


@pytest.mark.parametrize("variant", ["paper", "paper-ablations"])
@pytest.mark.parametrize("shape", PAPER)
def test_the_papers_phases_are_found_at_the_evaluations_of_its_configuration(experiment, variant, shape):
    of_paper = experiment("pcfg", variant)
    training, every = of_paper.teacher_training, of_paper.evaluation.every
    steps = np.arange(0, training.steps + 1, every)
    noise = np.random.default_rng(0).normal(0, 0.002, steps.shape)
    loss = np.interp(steps, *zip(*PAPER[shape], strict=True)) + noise
    phases = find_loss_phases(steps, loss)
    assert phases is not None
    assert 300 <= phases.start <= 500
    assert 1000 <= phases.end <= 2200
    stored = range(training.checkpoint_every, training.steps + 1, training.checkpoint_every)
    assert Phase().select(stored, Phases(phases)).teacher_steps == (1000, 8000)
    assert find_loss_phases(steps[:: 500 // every], loss[:: 500 // every]) is None


RECORDED = {
    "BERT": (
        "1.904 1.040 1.022 1.022 1.017 1.016 1.011 1.005 0.970 0.901 0.840 0.805 0.782 0.769 0.737 0.728 0.717 0.701 "
        "0.690 0.679 0.670 0.663 0.659 0.657 0.656",
        (350, 450, 550),
    ),
    "GPT-2": (
        "1.971 0.772 0.712 0.693 0.638 0.597 0.509 0.480 0.455 0.443 0.439 0.419 0.416 0.406 0.391 0.391 0.383 0.380 "
        "0.377 0.376 0.375",
        (200, 300, 350),
    ),
    "GPT-2 on another machine": (
        "1.971 0.772 0.712 0.704 0.645 0.580 0.501 0.466 0.459 0.432 0.431 0.419 0.412 0.412 0.397 0.392 0.385 0.382 "
        "0.378 0.376 0.376",
        (150, 250, 350),
    ),
}
"""Held-out losses every 50 steps of the first teachers of configs/pcfg.py and pcfg_gpt.py (docs/results), and where
they drop."""


@pytest.mark.parametrize("name", RECORDED)
def test_a_drop_behind_a_deep_first_fall_is_found(name):
    """The first fall is most of it: compared with the average of the whole training, GPT-2 never slows down."""
    text, expected = RECORDED[name]
    loss = np.array([float(value) for value in text.split()])
    phases = find_loss_phases(50 * np.arange(len(loss)), loss)
    assert phases is not None
    assert (phases.start, phases.middle, phases.end) == expected


def test_what_only_slows_down_has_no_phases_but_by_its_noise():
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        steps = 50 * np.arange(rng.integers(15, 40))
        noise = rng.normal(0, 0.003, steps.shape)
        found += find_loss_phases(steps, 0.4 + 1.6 * (1 + steps / 50) ** -rng.uniform(0.3, 1.5) + noise) is not None
    assert found == 0


def test_noise_of_an_evaluation_does_not_move_the_phases():
    loss = curve([(0, 1.95), (50, 1.05), (100, 1.0), (400, 0.99), (600, 0.69), (1600, 0.49)])
    noise = np.random.default_rng(0).normal(0, 0.004, loss.shape)
    phases = find_loss_phases(STEPS, loss + noise)
    assert phases is not None
    assert abs(phases.middle - 500) <= 50


def test_a_plateau_from_the_start_as_in_parity():
    phases = find_loss_phases(STEPS, curve([(0, 0.693), (900, 0.69), (1100, 0.05), (1600, 0.01)]))
    assert phases is not None
    assert abs(phases.middle - 1000) <= 50


@pytest.mark.parametrize(
    "knots",
    [
        [(0, 1.0), (1600, 1.0)],
        [(0, 1.0), (1600, 0.0)],
        [(0, 1.0), (200, 0.2), (1600, 0.1)],
        [(0, 1.0), (1600, 2.0)],
    ],
    ids=["flat", "steady", "fast start only", "diverging"],
)
def test_no_transition_no_phases(knots):
    assert find_loss_phases(STEPS, curve(knots)) is None


def test_too_few_evaluations_have_no_phases():
    assert find_loss_phases(STEPS[:3], np.array([1.0, 1.0, 0.0])) is None


def test_finds_the_rise_from_chance_to_the_end():
    """Chance until 400, half of the rise at 600, within a percent of the end from 800 on."""
    accuracy = curve([(0, 0.5), (400, 0.5), (800, 1.0), (1600, 1.0)])
    transition = find_transition(STEPS, accuracy, chance=0.5)
    assert transition is not None
    assert (transition.start, transition.middle, transition.end) == (400, 600, 800)
    assert "0.500 at step 400" in transition.reason


def test_scatter_around_chance_is_no_rise_and_the_last_percent_counts():
    accuracy = curve([(0, 0.5), (400, 0.5), (800, 0.98), (1200, 1.0), (1600, 1.0)])
    noise = np.where(STEPS < 400, np.random.default_rng(0).normal(0, 0.008, STEPS.shape), 0.0)
    transition = find_transition(STEPS, accuracy + noise, chance=0.5)
    assert transition is not None
    assert (transition.start, transition.end) == (400, 1100)


def test_the_middle_is_nearest_to_half_of_the_rise():
    """A rest at three quarters, half of the rise, is the middle although no accuracy there reaches it."""
    accuracy = curve([(0, 0.5), (400, 0.5), (500, 0.748), (700, 0.748), (800, 1.0), (1600, 1.0)])
    transition = find_transition(STEPS, accuracy, chance=0.5)
    assert transition is not None
    assert (transition.start, transition.middle, transition.end) == (400, 500, 800)


@pytest.mark.parametrize("knots", [[(0, 0.5), (1600, 0.51)], [(0, 0.5), (800, 0.5), (1600, 0.9)]])
def test_no_rise_and_one_that_goes_on_to_the_last_evaluation_are_no_transition(knots):
    assert find_transition(STEPS, curve(knots), chance=0.5) is None


def test_each_feature_has_its_own_spike():
    steps = np.array([100, 200, 300, 400])
    inside = np.array([[0.1, 0.0], [0.3, 0.1], [0.2, 0.2], [0.0, 0.1]])
    spikes = find_spikes(steps, inside, np.array([0.01, 0.02, 0.03, 0.04]))
    assert [spike.step for spike in spikes] == [200, 300]
    assert "level 1 peaks at step 300: 0.200 on average, 0.030 off the support" in spikes[1].reason


def test_the_peak_of_robustness_is_that_of_the_mean_over_n():
    """n = 2 peaks at 200 and n = 3 at 400; their means are 0.2, 0.35, 0.3, 0.4, 0.1."""
    steps = np.array([100, 200, 300, 400, 500])
    robust = np.array([[0.2, 0.2], [0.5, 0.2], [0.3, 0.3], [0.3, 0.5], [0.1, 0.1]])
    peak = find_robust_peak(steps, robust, (2, 3))
    assert peak is not None
    assert peak.step == 400
    for part in ("n = 2, 3", "0.200 at step 100", "0.400 at step 400", "0.100 at step 500"):
        assert part in peak.reason


def test_without_a_fall_it_is_the_fastest_rise():
    """From 300 to 400 the mean rises by 0.2, more than anywhere else; at the end it is 95 % of its peak."""
    steps = np.array([100, 200, 300, 400, 500, 600, 700])
    mean = np.array([0.0, 0.0, 0.1, 0.3, 0.4, 0.4, 0.38])
    peak = find_robust_peak(steps, mean[:, None], (2,))
    assert peak is not None
    assert (peak.step, peak.peaked) == (400, False)
    assert "no peak before the training ends with 0.380 at step 700" in peak.reason
    fallen = find_robust_peak(steps, np.append(mean[:-1], 0.35)[:, None], (2,))
    assert fallen is not None
    assert (fallen.step, fallen.peaked) == (500, True)


def test_without_a_rise_there_is_none():
    assert find_robust_peak(np.array([1, 2, 3]), np.array([[0.5], [0.4], [0.3]]), (2,)) is None


def test_the_peak_of_m_robust_is_that_of_short_n_grams():
    """Longer ones go on rising, and would hide it."""
    steps, short, long = np.arange(100, 600, 100), [0.1, 0.5, 0.9, 0.5, 0.2], [0.1, 0.3, 0.5, 1.5, 3.0]
    robust = np.stack([short, short, long], axis=1)
    peak = find_robust_peak(steps, robust, (3, 5, 10))
    assert peak is not None
    assert (peak.step, peak.peaked) == (300, True)
    assert "averaged over n = 3, 5," in peak.reason
    assert find_robust_peak(steps, robust[:, 2:], (10,)) is None
