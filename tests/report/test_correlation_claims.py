"""Verdicts on claim R1: over which teachers the correlations are compared, and what is said of the others."""

from collections.abc import Sequence
from typing import Any

import pytest

from pdjax.probes.monomials import MonomialProbe
from pdjax.report.claims import Case
from pdjax.report.claims.correlations import R1

TRANSITION = {"start": 100, "middle": 200, "end": 300, "reason": "it rises"}
OFF = 0.1
"""Correlation off the support, at all steps."""


def record(workdir: Any, transitions: Sequence[Any], middles: Sequence[float]) -> None:
    """Writes the curves and transitions of teachers, and the correlations of the first of them.

    Those in the support are ``OFF`` before and after the transition, and the given ones at its middle.
    """
    seeds = range(len(transitions))
    workdir.parity()
    workdir.change(teacher_training={"extra_seeds": tuple(seeds[1:])}, probes={"measured": (MonomialProbe(),)})
    workdir.teacher()
    workdir.start()
    workdir.select({"one_shot": (400,)}, transition=transitions[0], transitions=transitions)
    curves = [{100: OFF, 200: middle, 300: OFF} for middle in middles]
    records = [
        {"seed": seed, "step": step, "correlations": [inside, OFF]}
        for seed, curve in enumerate(curves)
        for step, inside in curve.items()
    ]
    workdir.probe("monomials", records, members=[[0], [2]], groups=[0, -1])


def decide(workdir: Any) -> Case:
    """Returns the verdict on the only degree."""
    (case,) = workdir.cases(R1)
    assert case.name == "degree 1"
    return case


@pytest.mark.parametrize(("middle", "verdict"), [(0.5, "holds"), (0.15, "fails"), (0.2, "undecided")])
def test_correlations_in_the_support_are_more_than_twice_those_off_it(workdir: Any, middle: float, verdict: str):
    record(workdir, [TRANSITION] * 3, (middle - 0.01, middle, middle + 0.01))
    result = decide(workdir)
    assert (result.verdict, result.note) == (verdict, "")
    means = [m.interval.mean for m in result.measurements if m.interval is not None]
    assert means == pytest.approx([middle - 2 * OFF, middle - OFF, middle - OFF])


def test_a_teacher_without_transition_is_left_out(workdir: Any):
    record(workdir, [TRANSITION, None, TRANSITION], (0.5, 0.0, 0.51))
    result = decide(workdir)
    assert (result.verdict, result.note) == ("holds", "1 of 3 teachers had no transition")
    assert [m.interval.size for m in result.measurements if m.interval is not None] == [2, 2, 2]


def test_teachers_of_which_only_the_curves_were_given_are_left_out(workdir: Any):
    """A given trajectory is that of one teacher; its curves are those of all that were trained along with it."""
    record(workdir, [TRANSITION] * 3, (0.5,))
    workdir.change(teacher_training={"trajectory": "elsewhere/teacher/trajectory"})
    workdir.configure()
    result = decide(workdir)
    assert (result.verdict, result.note) == ("not tested", "needs 2 teachers; 2 of 3 teachers were not probed")


def test_without_a_selection_no_teacher_has_a_transition(workdir: Any):
    record(workdir, [TRANSITION] * 3, (0.5, 0.5, 0.5))
    (workdir.path / "selection.json").unlink()
    result = decide(workdir)
    assert (result.verdict, result.note) == ("not tested", "needs 2 teachers; 3 of 3 teachers had no transition")


def test_without_correlations_there_is_nothing_to_compare(finished: Any):
    assert finished.absence(R1) == "no correlations of the teachers with monomials were measured (yet)"
