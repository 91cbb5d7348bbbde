"""Claim R1: what a teacher's predictions correlate with in its transition."""

import numpy as np

from pdjax.report.claims.statement import ClaimResult, Statement, decide, measured
from pdjax.report.results import Results

R1 = Statement(
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
)


def correlations_peak_in_the_transition(results: Results) -> list[ClaimResult]:
    """Claim R1 (figures 2, 9, 12 and 17): for every low degree, over teachers."""
    record = results.monomials
    if record is None:
        return []
    transitions = results.selection.get("transitions", [None] * len(record.seeds))
    # A given trajectory comes with the curves of all teachers trained along with it, of which probes measure the first.
    probed = transitions[: len(record.seeds)]
    shown = [(teacher, t) for teacher, t in enumerate(probed) if t is not None]
    left_out = {"were not probed": len(transitions) - len(probed), "had no transition": len(probed) - len(shown)}
    notes = [f"{count} of {len(transitions)} teachers {why}" for why, count in left_out.items() if count]
    cases = []
    for degree in record.low_degrees():
        inside, outside = record.mean(degree, None), record.mean(degree, -1)
        far, above_start, above_end = [], [], []
        for teacher, transition in shown:
            start, middle, end = (
                int(np.argmin(np.abs(record.steps - transition[point]))) for point in ("start", "middle", "end")
            )
            gap = inside[:, teacher] - outside[:, teacher]
            far.append(float(inside[middle, teacher] - 2 * outside[middle, teacher]))
            above_start.append(float(gap[middle] - gap[start]))
            above_end.append(float(gap[middle] - gap[end]))
        measurements = (
            measured("in the support minus twice off it, middle", far),
            measured("gap at the middle minus at the start", above_start),
            measured("gap at the middle minus at the end", above_end),
        )
        verdict, missing = decide(measurements)
        note = "; ".join([missing, *notes] if missing else notes)
        cases.append(ClaimResult(R1, f"degree {degree}", measurements, verdict, note))
    return cases
