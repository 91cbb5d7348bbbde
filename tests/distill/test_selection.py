import pytest

from pdjax.config import SelectionConfig
from pdjax.distill.phases import LossPhases, Phases, RobustPeak, Spike, Transition
from pdjax.distill.selection import measured_points, select
from pdjax.errors import UserError

PHASES = LossPhases(400, 510, 600, "because")
AVAILABLE = list(range(100, 1601, 100))


def selection(kind, count=None, steps=None, points=None, levels=None):
    return SelectionConfig(kind, count, steps, points, levels)


NOTHING = Phases()


def shown(**phases):
    return NOTHING._replace(**phases)


def test_selections_as_tables():
    rows = {
        "final": select(selection("final"), AVAILABLE, NOTHING),
        "steps": select(selection("steps", steps=(300, 700)), AVAILABLE, NOTHING),
        "equal": select(selection("equal", count=8), AVAILABLE, NOTHING),
        "phase": select(selection("phase"), AVAILABLE, shown(loss=PHASES)),
        "multiples": select(selection("multiples"), AVAILABLE, shown(loss=PHASES)),
        "multiples, 3": select(selection("multiples", count=3), AVAILABLE, shown(loss=PHASES)),
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
    assert select(selection("phase"), AVAILABLE, shown(loss=late)).teacher_steps == (1500, 1600)


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"phase transition in the teacher's loss.*use selection.kind"):
        select(selection("phase"), AVAILABLE, NOTHING)
    with pytest.raises(UserError, match="checkpoint_every"):
        select(selection("phase"), [1600], shown(loss=PHASES))
    with pytest.raises(UserError, match="equally spaced"):
        select(selection("equal", count=7), AVAILABLE, NOTHING)


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
    chosen = select(selection("auto"), AVAILABLE, shown(loss=PHASES, robust_peak=peak))
    assert chosen.teacher_steps == (first, 1600)
    assert words in chosen.reason


def test_automatic_choice_by_robustness_alone():
    chosen = select(selection("auto"), AVAILABLE, shown(robust_peak=RobustPeak(280, True, "there")))
    assert chosen.teacher_steps == (300, 1600)
    assert "where M_robust turns: there; the loss shows no phases;" in chosen.reason


def test_the_robust_peak_selects_the_nearest_stored_checkpoint_and_the_final_one():
    chosen = select(selection("robust_peak"), AVAILABLE, shown(robust_peak=RobustPeak(540, True, "it peaks there")))
    assert chosen.teacher_steps == (500, 1600)
    assert "step 500: it peaks there" in chosen.reason


def test_multiples_of_a_given_first_need_no_evidence():
    assert select(selection("multiples", steps=(500,)), AVAILABLE, NOTHING).teacher_steps == (500, 1000, 1500, 1600)
    assert select(selection("multiples", count=2, steps=(500,)), AVAILABLE, NOTHING).teacher_steps == (500, 1600)


@pytest.mark.parametrize(
    "config",
    [
        selection("phase"),
        selection("multiples"),
        selection("multiples", count=4),
        selection("robust_peak"),
        selection("auto"),
        selection("transition", points=("start", "middle")),
        selection("levels"),
        selection("levels", levels=(0, 2)),
    ],
)
def test_no_training_shows_more_checkpoints_than_a_selection_has_points(config):
    points = measured_points(config, AVAILABLE, num_levels=3)
    counts = []
    for step in AVAILABLE:
        later, last = min(step + 100, 1600), min(step + 200, 1600)
        spikes = (Spike(step, ""), Spike(later, ""), Spike(last, ""))
        peak, rise = RobustPeak(later, True, ""), Transition(step, later, last, "")
        phases = Phases(LossPhases(step, step, last, ""), rise, spikes, peak)
        counts.append(len(select(config, AVAILABLE, phases).teacher_steps))
    assert max(counts) == len(points) + 1  # and the final one


@pytest.mark.parametrize("kind", ["robust_peak", "auto"])
def test_what_a_training_does_not_show_cannot_select(kind):
    with pytest.raises(UserError, match=kind):
        select(selection(kind), AVAILABLE, NOTHING)
