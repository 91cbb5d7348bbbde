"""Claims about what checkpoints of several teachers show."""

from collections.abc import Sequence
from typing import Any

import pytest

from pdjax.probes.attention import AttentionProbe
from pdjax.probes.monomials import MonomialProbe
from pdjax.report.claims.teachers import ATTENTION, EARLY, SPIKES
from pdjax.tasks.parity import HierarchicalTask

TRANSITION = {"start": 200, "middle": 200, "end": 300, "reason": "it rises"}


DROP = {step: (2.0 if step <= 150 else 1.0 if step >= 250 else 1.5, 0.5) for step in range(50, 401, 50)}
"""A loss that rests until step 150 and drops until 250, and an accuracy."""


def probed(workdir: Any, middles: Sequence[float], curve: Any = DROP) -> None:
    """Writes teachers of which probes tell so much in the middle of the drop, and 0.8 in the end."""
    seeds = tuple(range(len(middles)))
    workdir.strings()
    workdir.change(further_teachers=seeds[1:])
    workdir.start()
    for seed, middle in enumerate(middles):
        of = workdir if seed == 0 else workdir.further(seed)
        of.teacher(curve if seed == seeds[-1] else DROP)
        of.measure(None, nonterminals={100: [[0.1, 0.1]], 200: [[middle, middle]], 400: [[0.8, 0.8]]})


@pytest.mark.parametrize(("middle", "verdict"), [(0.79, "holds"), (0.7, "fails"), (0.76, "undecided")])
def test_most_is_known_by_the_middle_of_the_drop(workdir: Any, middle: float, verdict: str):
    probed(workdir, (middle - 0.002, middle, middle + 0.002))
    (case,) = workdir.cases(EARLY)
    assert case.verdict == verdict
    assert case.measurements[0].interval.mean == pytest.approx(middle - 0.95 * 0.8)
    assert case.measurements[0].units == "teachers"


def test_one_teacher_says_nothing_of_others_and_one_without_a_drop_is_left_out(workdir: Any):
    probed(workdir, (0.79, 0.78), {step: (2.0 - step / 400, 0.5) for step in DROP})
    (case,) = workdir.cases(EARLY)
    assert case.verdict == "not tested"
    assert "left out, as the loss has no drop: 1 teacher" in case.note


def test_an_unfinished_study_says_nothing_yet(workdir: Any):
    probed(workdir, (0.79, 0.79, 0.78))
    workdir.further(2).forget("nonterminals")
    (case,) = workdir.cases(EARLY)
    assert (case.verdict, case.note) == ("not tested", "unfinished for the teachers 2")


def attending(workdir: Any, curves: Sequence[dict[int, float]]) -> None:
    seeds = range(len(curves))
    workdir.parity()
    workdir.change(teacher_training={"extra_seeds": tuple(seeds[1:])}, probes={"measured": (AttentionProbe(8),)})
    workdir.teacher()
    workdir.start()
    workdir.select({"one_shot": (400,)}, transition=TRANSITION, transitions=[TRANSITION] * len(curves))
    records = [
        {"seed": seed, "step": step, "positions": [0.1] * 6, "support": value}
        for seed, curve in enumerate(curves)
        for step, value in curve.items()
    ]
    workdir.probe("attention", records)


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ({100: 0.1, 200: 0.1, 300: 0.8, 400: 0.9}, "holds"),
        ({100: 0.1, 200: 0.5, 300: 0.6, 400: 0.9}, "fails"),  # most of it elsewhere
        ({100: 0.9, 200: 0.8, 300: 0.2, 400: 0.1}, "fails"),  # it falls
        ({100: 0.9, 200: 0.1, 300: 0.5, 400: 1.3}, "fails"),  # it comes back: more happens outside
    ],
)
def test_attention_grows_with_the_accuracy(workdir: Any, curve: dict[int, float], verdict: str):
    attending(
        workdir, [{step: value + 0.001 * seed * step / 400 for step, value in curve.items()} for seed in range(3)]
    )
    (case,) = workdir.cases(ATTENTION)
    assert case.verdict == verdict


def test_without_attention_there_is_nothing_to_compare(finished: Any):
    assert finished.absence(ATTENTION) == "no attention of the teachers was measured (yet)"
    assert finished.absence(EARLY) == "no probes of non-terminals have measured teachers (yet)"
    assert finished.absence(SPIKES) == "the task has no hierarchy of features"


@pytest.mark.parametrize(
    ("places", "verdict"),
    [
        ([(200, 400)] * 3, "holds"),
        ([(400, 200)] * 3, "holds"),
        ([(200, 200)] * 3, "fails"),
        # As by noise: apart with each teacher, and never in one direction.
        ([(200, 400), (400, 200), (100, 400), (400, 100), (200, 100), (100, 200)], "undecided"),
    ],
)
def test_levels_spike_apart(workdir: Any, places: Sequence[tuple[int, int]], verdict: str):
    seeds = range(len(places))
    workdir.parity(HierarchicalTask(dimension=6, degree=2, depth=2))
    workdir.change(
        teacher_training={"extra_seeds": tuple(seeds[1:]), "checkpoint_every": 50},
        probes={"measured": (MonomialProbe(),)},
    )
    workdir.teacher()
    workdir.start()
    records = [
        {
            "seed": seed,
            "step": step,
            "correlations": [0.5 if step == at else 0.1 for at in peaks] + [0.9 * (step < 200)],
        }
        for seed, peaks in enumerate(places)
        for step in (100, 200, 400)
    ]
    # The last is of degree 2, as high as a feature's own, and does not count.
    workdir.probe("monomials", records, members=[[0], [2], [0, 1]], groups=[0, 1, 0])
    (case,) = workdir.cases(SPIKES)
    assert (case.name, case.verdict) == ("levels 0 and 1", verdict)
