import numpy as np
import pytest

from pdjax.config import SelectionConfig
from pdjax.errors import UserError
from pdjax.selection import (
    Evidence,
    Phases,
    RobustPeak,
    Spike,
    Transition,
    find_phases,
    find_robust_peak,
    find_spikes,
    find_transition,
    select,
)

STEPS = np.arange(0, 1601, 50)
PHASES = Phases(400, 510, 600, "because")
AVAILABLE = list(range(100, 1601, 100))


def curve(knots):
    """A loss that is linear between (step, loss) knots."""
    return np.interp(STEPS, *zip(*knots, strict=True))


def selection(kind, count=None, steps=None, points=None, levels=None):
    return SelectionConfig(kind, count, steps, points, levels)


NOTHING = Evidence()


def shown(**evidence):
    return NOTHING._replace(**evidence)


def test_finds_the_drop_after_the_plateau():
    """Random start, plateau at 1.0 until 400, drop to 0.7 until 600, slow end: the paper's three phases."""
    phases = find_phases(STEPS, curve([(0, 1.95), (50, 1.05), (100, 1.0), (400, 0.99), (600, 0.69), (1600, 0.49)]))
    assert phases is not None
    assert abs(phases.start - 400) <= 50
    assert abs(phases.end - 600) <= 50
    assert phases.middle == 500
    assert "plateau" in phases.reason


def test_noise_of_an_evaluation_does_not_move_the_phases():
    loss = curve([(0, 1.95), (50, 1.05), (100, 1.0), (400, 0.99), (600, 0.69), (1600, 0.49)])
    noise = np.random.default_rng(0).normal(0, 0.004, loss.shape)
    phases = find_phases(STEPS, loss + noise)
    assert phases is not None
    assert abs(phases.middle - 500) <= 50


def test_a_plateau_from_the_start_as_in_parity():
    phases = find_phases(STEPS, curve([(0, 0.693), (900, 0.69), (1100, 0.05), (1600, 0.01)]))
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
    assert find_phases(STEPS, curve(knots)) is None


def test_too_few_evaluations_have_no_phases():
    assert find_phases(STEPS[:3], np.array([1.0, 1.0, 0.0])) is None


def test_selections_as_tables():
    rows = {
        "final": select(selection("final"), AVAILABLE, NOTHING),
        "steps": select(selection("steps", steps=(300, 700)), AVAILABLE, NOTHING),
        "equal": select(selection("equal", count=8), AVAILABLE, NOTHING),
        "phase": select(selection("phase"), AVAILABLE, shown(phases=PHASES)),
        "multiples": select(selection("multiples"), AVAILABLE, shown(phases=PHASES)),
        "multiples, 3": select(selection("multiples", count=3), AVAILABLE, shown(phases=PHASES)),
    }
    assert {name: row.teacher_steps for name, row in rows.items()} == {
        "final": (1600,),
        "steps": (300, 700, 1600),
        "equal": (200, 400, 600, 800, 1000, 1200, 1400, 1600),
        "phase": (500, 1600),
        "multiples": (500, 1000, 1500, 1600),
        "multiples, 3": (500, 1000, 1600),
    }
    assert "500" in rows["phase"].reason
    assert "because" in rows["phase"].reason


def test_the_final_teacher_is_never_its_own_intermediate_checkpoint():
    late = Phases(1500, 1590, 1600, "late")
    assert select(selection("phase"), AVAILABLE, shown(phases=late)).teacher_steps == (1500, 1600)


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"phase transition in the teacher's loss.*use selection.kind"):
        select(selection("phase"), AVAILABLE, NOTHING)
    with pytest.raises(UserError, match="checkpoint_every"):
        select(selection("phase"), [1600], shown(phases=PHASES))
    with pytest.raises(UserError, match="equally spaced"):
        select(selection("equal", count=7), AVAILABLE, NOTHING)


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


def test_points_of_the_transition_and_spikes_of_levels_as_tables():
    rise = shown(transition=Transition(310, 540, 760, "it rises"))
    spikes = shown(spikes=(Spike(510, "root"), Spike(290, "left"), Spike(530, "leaf")))
    rows = {
        "middle": select(selection("transition", points=("middle",)), AVAILABLE, rise),
        "two": select(selection("transition", points=("end", "start")), AVAILABLE, rise),
        "all levels": select(selection("levels"), AVAILABLE, spikes),
        "left": select(selection("levels", levels=(1,)), AVAILABLE, spikes),
    }
    assert {name: row.teacher_steps for name, row in rows.items()} == {
        "middle": (500, 1600),
        "two": (300, 800, 1600),
        "all levels": (300, 500, 1600),  # two spikes have the same nearest checkpoint
        "left": (300, 1600),
    }
    assert "middle at 500" in rows["middle"].reason
    assert "it rises" in rows["middle"].reason
    assert "root; left; leaf" in rows["all levels"].reason


def test_what_the_training_did_not_show_cannot_be_selected():
    with pytest.raises(UserError, match=r"rise of the teacher's accuracy.*'transition'.*shows none"):
        select(selection("transition", points=("middle",)), AVAILABLE, NOTHING)
    with pytest.raises(UserError, match=r"record of the teacher's correlations"):
        select(selection("levels"), AVAILABLE, NOTHING)
    with pytest.raises(UserError, match=r"selection\.levels from 0 to 0; found \[1\]"):
        select(selection("levels", levels=(1,)), AVAILABLE, shown(spikes=(Spike(500, "root"),)))


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


# Phases are 400 to 600 with the middle 510. A row: where M_robust turns, the choice, and what the reason says.
TURNS = {
    "both": (530, 500, "halfway between step 510, the middle of the loss drop, and step 530"),
    "halfway": (600, 600, "halfway between step 510"),
    "outside": (700, 500, "M_robust turns outside: there"),
    "loss alone": (None, 500, "M_robust was not measured"),
}


@pytest.mark.parametrize("row", TURNS.values(), ids=TURNS)
def test_automatic_choice_is_between_loss_and_robustness_within_the_drop(row):
    turn, first, words = row
    peak = None if turn is None else RobustPeak(turn, True, "there")
    found = select(selection("auto"), AVAILABLE, shown(phases=PHASES, robust_peak=peak))
    assert found.teacher_steps == (first, 1600)
    assert words in found.reason


def test_automatic_choice_by_robustness_alone():
    found = select(selection("auto"), AVAILABLE, shown(robust_peak=RobustPeak(280, True, "there")))
    assert found.teacher_steps == (300, 1600)
    assert "no phases; there" in found.reason


def test_the_robust_peak_selects_the_nearest_stored_checkpoint_and_the_final_one():
    found = select(selection("robust_peak"), AVAILABLE, shown(robust_peak=RobustPeak(540, True, "it peaks there")))
    assert found.teacher_steps == (500, 1600)
    assert "step 500: it peaks there" in found.reason


def test_multiples_of_a_given_first_need_no_evidence():
    assert select(selection("multiples", steps=(500,)), AVAILABLE, NOTHING).teacher_steps == (500, 1000, 1500, 1600)
    assert select(selection("multiples", count=2, steps=(500,)), AVAILABLE, NOTHING).teacher_steps == (500, 1600)


@pytest.mark.parametrize("kind", ["robust_peak", "auto"])
def test_what_a_training_does_not_show_cannot_select(kind):
    with pytest.raises(UserError, match=kind):
        select(selection(kind), AVAILABLE, NOTHING)
