"""Claim R1: what a teacher's predictions correlate with in its transition."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from pdjax.distill.phases import Transition
from pdjax.report.claims.claim import Absent, Case, Claim, decided, measured
from pdjax.report.results import Results

LOW_DEGREES = (1, 2, 3)

Transitions = Mapping[int, Transition]
"""By the seeds of teachers."""


def measure(results: Results) -> list[Case] | Absent:
    """Compares the correlations with the monomials of every low degree, over teachers."""
    table = results.table
    rows = table[(table.role == "teacher") & (table.measure == "correlation")]
    if results.teacher is None or rows.empty:
        return Absent("no correlations of the teachers with monomials were measured (yet)")
    seeds, found = transitions_of(results)
    # A given trajectory comes with the curves of all teachers trained along with it, of which probes measure the first.
    probed = [seed for seed in seeds if seed in set(rows.seed)]
    transitions = {seed: found[seed] for seed in probed if seed in found}
    left_out = {"were not probed": len(seeds) - len(probed), "had no transition": len(probed) - len(transitions)}
    note = "; ".join(f"{count} of {len(seeds)} teachers {why}" for why, count in left_out.items() if count)
    inside, off = rows[rows.feature >= 0], rows[rows.feature < 0]
    degrees = [degree for degree in LOW_DEGREES if degree in set(inside.degree) & set(off.degree)]
    cases = [_case(degree, _curves(inside, degree), _curves(off, degree), transitions, note) for degree in degrees]
    return cases or Absent("no low degree has monomials both in and off the support")


def transitions_of(results: Results) -> tuple[list[int], Transitions]:
    """Returns the seeds of all teachers that were trained, and the transitions of those that had one."""
    seeds: list[int] = []
    found: dict[int, Transition] = {}
    for one in results.by_teacher.values():
        trained = [] if one.teacher is None else [replica.seed for replica in one.teacher.description.replicas]
        seeds += trained
        rises = () if one.selection is None else one.selection.transitions
        found |= {seed: rise for seed, rise in zip(trained, rises, strict=False) if rise is not None}
    return seeds, found


def _curves(rows: pd.DataFrame, degree: int) -> pd.DataFrame:
    """Returns the mean correlation with the monomials of a degree: a row by step, a column by teacher."""
    return rows[rows.degree == degree].groupby(["step", "seed"]).value.mean().unstack("seed")


def _case(degree: int, inside: pd.DataFrame, off: pd.DataFrame, transitions: Transitions, note: str) -> Case:
    gap = inside - off
    middle = at_point("middle", gap, transitions)
    measurements = (
        measured("in the support minus twice off it, middle", middle - at_point("middle", off, transitions)),
        measured("gap at the middle minus at the start", middle - at_point("start", gap, transitions)),
        measured("gap at the middle minus at the end", middle - at_point("end", gap, transitions)),
    )
    return decided(f"degree {degree}", measurements, note=note)


def at_point(point: Literal["start", "middle", "end"], curves: pd.DataFrame, transitions: Transitions) -> pd.Series:
    """Returns every teacher's value at the checkpoint nearest to a point of its transition."""
    values = {}
    for seed, transition in transitions.items():
        kept = curves[seed].dropna()  # teachers need not have kept the same steps
        values[seed] = kept.iloc[np.abs(kept.index - getattr(transition, point)).argmin()]
    return pd.Series(values, dtype=float).rename_axis("teacher")


R1 = Claim(
    name="R1",
    text="During its phase transition the teacher correlates far more with low-degree monomials of the support than "
    "with others, before and after it does not.",
    source="figures 2, 9, 12 and 17",
    rule="Every teacher has a transition of its own: start, middle and end of the rise of its accuracy. The gap is the "
    "mean correlation with the monomials of one degree in the support minus that off the support, at the nearest "
    "checkpoint. The claim holds for a degree if 95% Student t intervals over teachers lie above 0 for: the "
    "correlation in the support minus twice that off the support, at the middle (“far more”); the gap at the middle "
    "minus that at the start; the gap at the middle minus that at the end. It fails if one lies below 0. Teachers that "
    "no probe measured, or that had no transition within their training, are left out.",
    smallest=0.01,
    figure="correlations",
    measure=measure,
)
