"""How the cases of a claim become verdicts together: small effects, many comparisons, and what would decide."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pdjax.report.claims.claim import Case
from pdjax.report.stats import LEVEL, MOST_UNITS, Interval, p_above, p_below, p_within, units_needed


def judged(cases: Sequence[Case]) -> list[Case]:
    """Returns the cases of a claim, each with the verdict that it has among all of them.

    An effect that certainly lies within the smallest one of interest is too small to matter, whichever its sign. Of
    many verdicts some are right by chance: by Holm's method the k-th most certain of m tested cases has to be certain
    at a level of 0.025 / (m - k + 1), and from the first one on that is not, all are undecided. Together, a wrong
    verdict comes out in at most 5 % of studies. An undecided case says how many seeds or teachers would decide it.
    """
    cases = [_small(case) for case in cases]
    tested = {place: p for place, case in enumerate(cases) if (p := _p(case)) is not None}
    order = sorted((place for place in tested if cases[place].verdict != "undecided"), key=lambda place: tested[place])
    certain = True
    for rank, place in enumerate(order):
        certain = certain and tested[place] <= LEVEL / (len(tested) - rank)
        if not certain:
            note = f"“{cases[place].verdict}” by itself, but not certain enough among {len(tested)} cases (Holm)"
            cases[place] = dataclasses.replace(cases[place], verdict="undecided", note=_joined(cases[place].note, note))
    return [_with_outlook(case) for case in cases]


def _small(case: Case) -> Case:
    """Returns a case whose effect is too small to matter as that."""
    if case.verdict in ("not tested", "too small to matter") or not case.smallest or case.p is not None:
        return case
    found = _deciding(case)
    within = [p_within(interval, case.smallest) <= LEVEL for interval in found]
    lost = any(interval.high < 0 and not small for interval, small in zip(found, within, strict=True))
    return dataclasses.replace(case, verdict="too small to matter") if any(within) and not lost else case


def _p(case: Case) -> float | None:
    """Returns the p-value of a case's verdict, of an undecided one 1; None where it is not tested by intervals."""
    found = _deciding(case)
    if case.verdict == "not tested" or (case.p is None and not found):
        return None
    if case.p is not None:
        return case.p
    if case.verdict == "holds":  # all of it has to be so
        return max(p_above(interval) for interval in found)
    # One is enough, and it may be any of them.
    if case.verdict == "fails":
        return min(1.0, len(found) * min(p_below(interval) for interval in found))
    if case.verdict == "too small to matter":
        return min(1.0, len(found) * min(p_within(interval, case.smallest) for interval in found))
    return 1.0


def _with_outlook(case: Case) -> Case:
    """Returns an undecided case with how many units would decide it by itself."""
    found = _deciding(case)
    if case.verdict != "undecided" or not found or case.p is not None:
        return case
    needed = [units_needed(interval, case.smallest) or np.inf for interval in found]
    # One below 0 decides alone; all above 0 have to be so.
    below = [units for units, interval in zip(needed, found, strict=True) if interval.mean < 0]
    units = min(below) if below else max(needed)
    if units <= max(interval.size for interval in found):
        return case
    text = f"more than {MOST_UNITS:,}" if units == np.inf else f"about {units:,}"
    note = f"{text} {case.measurements[0].units} would decide it, if the means stay"
    return dataclasses.replace(case, note=_joined(case.note, note))


def _deciding(case: Case) -> list[Interval]:
    return [m.interval for m in case.measurements if m.interval is not None and m.interval.size > 1]


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
