import numpy as np
import pytest

from pdjax.config import SelectionConfig
from pdjax.errors import UserError
from pdjax.selection import Phases, find_phases, select

STEPS = np.arange(0, 1601, 50)
PHASES = Phases(400, 510, 600, "because")
AVAILABLE = list(range(100, 1601, 100))


def curve(knots):
    """A loss that is linear between (step, loss) knots."""
    return np.interp(STEPS, *zip(*knots, strict=True))


def selection(kind, count=None, steps=None):
    return SelectionConfig(kind, count, steps)


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
        "final": select(selection("final"), AVAILABLE, None),
        "steps": select(selection("steps", steps=(300, 700)), AVAILABLE, None),
        "equal": select(selection("equal", count=8), AVAILABLE, None),
        "phase": select(selection("phase"), AVAILABLE, PHASES),
        "multiples": select(selection("multiples"), AVAILABLE, PHASES),
        "multiples, 3": select(selection("multiples", count=3), AVAILABLE, PHASES),
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
    assert select(selection("phase"), AVAILABLE, late).teacher_steps == (1500, 1600)


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"plateau.*use selection.kind"):
        select(selection("phase"), AVAILABLE, None)
    with pytest.raises(UserError, match="checkpoint_every"):
        select(selection("phase"), [1600], PHASES)
    with pytest.raises(UserError, match="equally spaced"):
        select(selection("equal", count=7), AVAILABLE, None)
