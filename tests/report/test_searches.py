"""Searches for the best first checkpoint: the figure, claim R4 and the claim about the automatic selection."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Auto
from pdjax.distill.strategy import Strategy
from pdjax.report.claims.automatic import AUTO
from pdjax.report.claims.inflection import R4
from pdjax.report.reading import read_results
from pdjax.report.searches import searches

FIRSTS = (100, 200, 300, 400, 500)
BEST_AT_300 = {100: 0.4, 200: 0.45, 300: 0.6, 400: 0.55, 500: 0.42}


def searched(
    workdir: Any,
    means: Mapping[int, float],
    peak: int | None = 300,
    auto: int | None = None,
    spread: float = 0.01,
    peaked: bool = True,
) -> None:
    """Writes a search with T = 25 and T = 50, which is 0.02 less accurate, and what the training showed.

    The seeds of a strategy lie ``spread`` around its mean, those of each one differently.
    """
    automatic = Strategy("auto", Distillation(0.0), FixedDuration(25), Auto())
    workdir.strings()
    workdir.search(sorted(means), (25, 50), *([] if auto is None else [automatic]))
    workdir.change(student_training={"budgets": (100,)})
    workdir.change(teacher_training={"steps": 600})
    workdir.start()
    chosen = {f"c{first}_{t}": (first, 600) for first in means for t in (25, 50)}
    peaks = None if peak is None else {"step": peak, "peaked": peaked, "reason": "it peaks there"}
    workdir.select({**chosen, **({} if auto is None else {"auto": (auto, 600)})}, robust_peak=peaks)
    for index, (first, mean) in enumerate(means.items()):
        for t in (25, 50):
            off = np.roll([-spread, 0, spread], index) * (1 if t == 25 else 0.5)
            final = [mean - (0.02 if t == 50 else 0) + float(o) for o in off]
            workdir.student(f"c{first}_{t}", 100, {100: final}, table=((0, first), (t, 600)))
    if auto is not None and auto not in means:
        workdir.student("auto", 100, {100: (0.5, 0.5, 0.5)}, table=((0, auto), (25, 600)))
    elif auto is not None:
        share(workdir, f"c{auto}_25-100", "auto")


def searched_by_teachers(workdir: Any, best: Mapping[int, int], spread: float = 0.01, chosen: int = 0) -> None:
    """Writes a search of several teachers, each with another best first checkpoint, which is its peak of M_robust.

    ``auto`` chooses a checkpoint so many places behind the best; its students are as good as those of the search.
    """
    seeds = sorted(best)
    automatic = Strategy("auto", Distillation(0.0), FixedDuration(25), Auto())
    workdir.strings()
    workdir.search(FIRSTS, (25,), automatic)
    workdir.change(student_training={"budgets": (100,)}, teacher_training={"steps": 600, "seed": seeds[0]})
    workdir.change(seed=seeds[0], further_teachers=tuple(seeds[1:]))
    workdir.start()
    for place, seed in enumerate(seeds):
        of = workdir if place == 0 else workdir.further(seed)
        students = of.experiment.student_training.seeds
        middle = FIRSTS.index(best[seed])
        accuracy = {first: 0.6 - 0.05 * abs(middle - index) for index, first in enumerate(FIRSTS)}
        auto = FIRSTS[middle + chosen]
        of.select(
            {f"c{first}_25": (first, 600) for first in FIRSTS} | {"auto": (auto, 600)},
            robust_peak={"step": best[seed], "peaked": True, "reason": "it peaks there"},
        )
        for key, first in [(f"c{first}_25", first) for first in FIRSTS] + [("auto", auto)]:
            off = spread * (place - (len(seeds) - 1) / 2) * (1 if first > 300 else -1)
            final = [accuracy[first] + off + more for more in (-0.2, 0, 0.2)]  # students of a teacher are its mean
            replicas = [(student, 1e-3) for student in students]
            of.student(key, 100, {100: final}, replicas, table=((0, first), (25, 600)))


def share(workdir: Any, run: str, strategy: str) -> None:
    """Makes the students of a run those of another strategy too."""
    key = run.removesuffix("-100")
    workdir.replace(f"students/{run}/run.json", f'["{key}"]', f'["{key}", "{strategy}"]')


def test_places_count_along_the_grid_and_between_its_places(workdir: Any):
    searched(workdir, dict.fromkeys(FIRSTS, 0.5))
    (search,) = searches(read_results(workdir.path))
    pairs = {(100, 100): 0, (100, 200): 1, (500, 300): 2, (350, 300): 1, (350, 400): 1, (350, 500): 2, (350, 100): 3}
    assert {pair: search.places_apart(*pair) for pair in pairs} == pairs


def test_r4_holds_where_the_peak_beats_all_that_is_not_beside_it(workdir: Any):
    searched(workdir, BEST_AT_300)
    (case,) = workdir.cases(R4)
    assert case.verdict == "holds"
    assert case.name == "First checkpoints, 100 steps"
    assert [m.quantity for m in case.listed] == [
        "300 (T = 25) minus 100 (T = 25)",
        "300 (T = 25) minus 500 (T = 25)",
        "300 (T = 25) minus 200 (T = 25) (neighbour)",
        "300 (T = 25) minus 400 (T = 25) (neighbour)",
    ]
    assert [m.interval.mean for m in case.listed if m.interval is not None] == pytest.approx([0.2, 0.18, 0.15, 0.05])
    assert "highest mean: first checkpoint 300, 0 places from C1" in case.note
    assert "1 place from the middle of the loss’s drop (200)" in case.note


def test_a_better_neighbour_does_not_decide_r4(workdir: Any):
    searched(workdir, {**BEST_AT_300, 400: 0.7})
    (case,) = workdir.cases(R4)
    assert case.verdict == "holds"
    assert "highest mean: first checkpoint 400, 1 place from C1" in case.note


def test_r4_fails_where_a_checkpoint_elsewhere_is_better(workdir: Any):
    searched(workdir, {**BEST_AT_300, 500: 0.7})
    (case,) = workdir.cases(R4)
    assert case.verdict == "fails"
    assert "highest mean: first checkpoint 500, 2 places from C1" in case.note


def test_r4_is_undecided_where_seeds_differ_more_than_means(workdir: Any):
    searched(workdir, BEST_AT_300, spread=0.3)
    assert workdir.cases(R4)[0].verdict == "undecided"


def test_r4_needs_a_rise_of_m_robust(workdir: Any):
    searched(workdir, BEST_AT_300, peak=None)
    (case,) = workdir.cases(R4)
    assert (case.verdict, case.note) == (
        "not tested",
        "there is no peak: M_robust does not rise, or was not measured",
    )


def test_c1_of_r4_is_the_place_of_the_grid_nearest_to_the_peak(workdir: Any):
    searched(workdir, BEST_AT_300, peak=330)
    (case,) = workdir.cases(R4)
    assert case.verdict == "holds"
    assert "C1 is 300, nearest to the peak of M_robust at step 330" in case.note


def test_where_m_robust_rises_fastest_is_no_c1(workdir: Any):
    searched(workdir, BEST_AT_300, peak=330, peaked=False)
    (case,) = workdir.cases(R4)
    assert (case.verdict, case.note) == (
        "not tested",
        "there is no peak: M_robust does not fall within the training",
    )


def test_c1_of_r4_is_where_m_robust_turns_if_students_learned_from_there(workdir: Any):
    searched(workdir, BEST_AT_300, peak=330, auto=330)
    (case,) = workdir.cases(R4)
    assert case.verdict == "holds"
    assert [m.quantity for m in case.listed] == [
        *(f"330 (T = 25) minus {first} (T = 25)" for first in (100, 200, 500)),
        *(f"330 (T = 25) minus {first} (T = 25) (neighbour)" for first in (300, 400)),
    ]
    assert "C1 is 330, the peak of M_robust;" in case.note


def test_r4_waits_for_every_duration_of_a_first_checkpoint(workdir: Any):
    searched(workdir, BEST_AT_300)
    (workdir.path / "students" / "c500_50-100" / "result.json").unlink()
    (case,) = workdir.cases(R4)
    assert case.verdict == "not tested"
    assert "first checkpoint 500 unfinished" in case.note


def test_r4_needs_places_that_are_not_beside_the_peak(workdir: Any):
    searched(workdir, {200: 0.4, 300: 0.6, 400: 0.5})
    (case,) = workdir.cases(R4)
    assert case.verdict == "not tested"
    assert "no first checkpoint more than one place away" in case.note


@pytest.mark.parametrize(
    ("auto", "verdict", "apart"), [(400, "fails", "1 place"), (250, "fails", "1 place"), (500, "fails", "2 places")]
)
def test_the_automatic_choice_is_judged_by_its_regret(workdir: Any, auto: int, verdict: str, apart: str):
    searched(workdir, BEST_AT_300, auto=auto, spread=0.001)
    (case,) = workdir.cases(AUTO)
    assert case.verdict == verdict
    assert case.note == f"chosen: {auto}, best: 300, {apart} apart in a grid of 5"
    lost = {400: -0.05, 250: -0.1, 500: -0.18}[auto]
    means = [m.interval.mean for m in case.listed if m.interval is not None]
    assert means == pytest.approx([0.02 + lost, lost])


def test_a_small_regret_does_not_matter(workdir: Any):
    searched(workdir, {**BEST_AT_300, 400: BEST_AT_300[300] - 0.005}, auto=400, spread=0.001)
    assert [case.verdict for case in workdir.cases(AUTO)] == ["holds"]


def test_the_best_choice_has_no_regret(workdir: Any):
    searched(workdir, BEST_AT_300, auto=300)
    (case,) = workdir.cases(AUTO)
    assert (case.verdict, case.note) == (
        "holds",
        "chosen: 300, best: 300, 0 places apart in a grid of 5: the same students",
    )


def test_the_automatic_choice_needs_a_whole_grid(workdir: Any):
    searched(workdir, {200: 0.4, 300: 0.6, 400: 0.5}, auto=300)
    (case,) = workdir.cases(AUTO)
    assert (case.verdict, case.note) == ("not tested", "3 first checkpoints, needs 4")


def test_each_of_several_teachers_has_a_c1_of_its_own(workdir: Any):
    searched_by_teachers(workdir, {0: 300, 4: 200, 6: 200, 9: 300}, spread=0.001)
    (case,) = workdir.cases(R4)
    assert (case.verdict, case.note) == ("holds", "C1 lies at 200 and 300")
    assert [m.quantity for m in case.measurements] == ["C1 minus 100", "C1 minus 400", "C1 minus 500"]
    # 400 and 100 are beside the C1 of some teachers: there these decide nothing.
    assert [m.interval.size for m in case.measurements if m.interval is not None] == [2, 2, 4]
    assert {m.units for m in case.measurements} == {"teachers"}


def test_teachers_without_a_peak_are_left_out(workdir: Any):
    searched_by_teachers(workdir, {0: 300, 4: 300, 6: 300, 9: 300})
    for seed, why in ((4, '"peaked": true'), (6, '"peaked": true')):
        workdir.replace(f"teachers/{seed}/selection.json", why, '"peaked": false')
    (case,) = workdir.cases(R4)
    assert "M_robust has no peak in 2 of 4 teachers, which are left out" in case.note
    assert [m.interval.size for m in case.measurements if m.interval is not None] == [2, 2]


@pytest.mark.parametrize(("chosen", "verdict", "lost"), [(0, "holds", 0.0), (1, "fails", -0.05)])
def test_the_regret_of_several_teachers_is_against_the_best_of_each(
    workdir: Any, chosen: int, verdict: str, lost: float
):
    searched_by_teachers(workdir, {0: 300, 4: 200, 6: 300, 9: 400}, spread=0.0, chosen=chosen)
    (case,) = workdir.cases(AUTO)
    assert case.verdict == verdict
    (shown,) = case.shown
    assert (shown.quantity, shown.units) == ("chosen minus best", "teachers")
    assert shown.interval is not None
    assert (shown.interval.mean, shown.interval.size) == (pytest.approx(lost), 4)


def test_without_a_search_or_an_automatic_choice_there_are_no_cases(finished: Any):
    none = "there is no search for the best first checkpoint whose checkpoints are chosen"
    assert finished.absence(R4) == none
    assert finished.absence(AUTO) == "no strategy has one intermediate checkpoint that was chosen automatically"
    finished.strings()
    finished.add(Strategy("auto", Distillation(0.0), FixedDuration(25), Auto()))
    finished.configure()
    finished.select({"auto": (200, 400)})
    assert finished.absence(AUTO) == none
