import pytest

from pdjax.distill.phases import LossPhases, Phases, Spike
from pdjax.distill.phases import RobustPeak as Peak
from pdjax.distill.phases import Transition as Rise
from pdjax.distill.selection import Auto, Equal, Final, Levels, Multiples, Phase, RobustPeak, Steps, Transition
from pdjax.errors import UserError

PHASES = LossPhases(400, 510, 600, "because")
AVAILABLE = list(range(100, 1601, 100))
NOTHING = Phases()


def shown(**phases):
    return NOTHING._replace(**phases)


def test_selections_as_tables():
    rows = {
        "final": Final().select(AVAILABLE, NOTHING),
        "steps": Steps((300, 700)).select(AVAILABLE, NOTHING),
        "equal": Equal(8).select(AVAILABLE, NOTHING),
        "phase": Phase().select(AVAILABLE, shown(loss=PHASES)),
        "multiples": Multiples().select(AVAILABLE, shown(loss=PHASES)),
        "multiples, 3": Multiples(count=3).select(AVAILABLE, shown(loss=PHASES)),
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
    late = LossPhases(1500, 1590, 1600, "late")
    assert Phase().select(AVAILABLE, shown(loss=late)).teacher_steps == (1500, 1600)


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"phase transition in the teacher's loss.*use Equal or Steps"):
        Phase().select(AVAILABLE, NOTHING)
    with pytest.raises(UserError, match="checkpoint_every"):
        Phase().select([1600], shown(loss=PHASES))
    with pytest.raises(UserError, match="equally spaced"):
        Equal(7).select(AVAILABLE, NOTHING)


def test_points_of_the_transition_and_spikes_of_levels_as_tables():
    rise = shown(transition=Rise(310, 540, 760, "it rises"))
    spikes = shown(spikes=(Spike(510, "root"), Spike(290, "left"), Spike(530, "leaf")))
    rows = {
        "middle": Transition().select(AVAILABLE, rise),
        "two": Transition(("end", "start")).select(AVAILABLE, rise),
        "all levels": Levels().select(AVAILABLE, spikes),
        "left": Levels((1,)).select(AVAILABLE, spikes),
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
    with pytest.raises(UserError, match=r"rise of the teacher's accuracy.*Transition.*shows none"):
        Transition().select(AVAILABLE, NOTHING)
    with pytest.raises(UserError, match=r"record of the teacher's correlations"):
        Levels().select(AVAILABLE, NOTHING)
    with pytest.raises(UserError, match=r"expected levels from 0 to 0; found \[1\]"):
        Levels((1,)).select(AVAILABLE, shown(spikes=(Spike(500, "root"),)))


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
    peak = None if turn is None else Peak(turn, True, "there")
    chosen = Auto().select(AVAILABLE, shown(loss=PHASES, robust_peak=peak))
    assert chosen.teacher_steps == (first, 1600)
    assert words in chosen.reason


def test_automatic_choice_by_robustness_alone():
    chosen = Auto().select(AVAILABLE, shown(robust_peak=Peak(280, True, "there")))
    assert chosen.teacher_steps == (300, 1600)
    assert "where M_robust turns: there; the loss shows no phases;" in chosen.reason


def test_the_robust_peak_selects_the_nearest_stored_checkpoint_and_the_final_one():
    chosen = RobustPeak().select(AVAILABLE, shown(robust_peak=Peak(540, True, "it peaks there")))
    assert chosen.teacher_steps == (500, 1600)
    assert "step 500: it peaks there" in chosen.reason


def test_multiples_of_a_given_first_need_no_evidence():
    assert Multiples(500).select(AVAILABLE, NOTHING).teacher_steps == (500, 1000, 1500, 1600)
    assert Multiples(500, 2).select(AVAILABLE, NOTHING).teacher_steps == (500, 1600)


@pytest.mark.parametrize(
    "selection",
    [
        Phase(),
        Multiples(),
        Multiples(count=4),
        RobustPeak(),
        Auto(),
        Transition(("start", "middle")),
        Levels(),
        Levels((0, 2)),
    ],
)
def test_no_training_shows_more_checkpoints_than_a_selection_has_points(selection):
    points = selection.points(AVAILABLE, num_levels=3)
    counts = []
    for step in AVAILABLE:
        later, last = min(step + 100, 1600), min(step + 200, 1600)
        spikes = (Spike(step, ""), Spike(later, ""), Spike(last, ""))
        peak, rise = Peak(later, True, ""), Rise(step, later, last, "")
        phases = Phases(LossPhases(step, step, last, ""), rise, spikes, peak)
        counts.append(len(selection.select(AVAILABLE, phases).teacher_steps))
    assert max(counts) == len(points) + 1  # and the final one


@pytest.mark.parametrize("selection", [RobustPeak(), Auto()])
def test_what_a_training_does_not_show_cannot_select(selection):
    with pytest.raises(UserError, match=f"for the selection {type(selection).__name__}"):
        selection.select(AVAILABLE, NOTHING)
