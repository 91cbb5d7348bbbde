"""Claim R6: larger models learn faster."""

import dataclasses
import itertools

from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, decided, measured
from pdjax.report.results import Results
from pdjax.report.stats import p_below


def measure(results: Results) -> list[Case] | Absent:
    """Compares the sizes of every panel; of ablations with sizes in every variant."""
    every = [("", results)]
    every += [(f"{results.asked_ablations[key].title}: {name}, ", it) for (key, name), it in results.variants.items()]
    cases = [_case(found, panel, prefix + panel) for prefix, found in every for panel in found.panels]
    return cases or Absent("no models of other sizes are trained")


def _case(results: Results, panel: str, name: str) -> Case:
    labels = results.panels[panel]  # in increasing size
    groups = {label: results.best_size(panel, label) for label in labels}
    speeds = {label: group.over().mean() for label, group in groups.items() if group is not None and group.complete}
    if len(speeds) < len(labels) or len(labels) < 2:
        unfinished = ", ".join(label for label in labels if label not in speeds)
        return Case(name, (), "not tested", f"unfinished: {unfinished}" if unfinished else "one size alone")
    extremes, *pairs = (
        measured(f"{large} minus {small}", (speeds[large] - speeds[small]).dropna())
        for small, large in ((labels[0], labels[-1]), *itertools.pairwise(labels))
    )
    case = decided(name, [extremes], shown=pairs if len(pairs) > 1 else (), smallest=SMALLEST_MARGIN)
    lost = [pair.interval for pair in pairs if pair.interval is not None and pair.interval.high < 0]
    if not lost:
        return case
    # Any of the pairs may be the one.
    p = min(1.0, len(pairs) * min(p_below(interval) for interval in lost))
    return dataclasses.replace(case, verdict="fails", p=p)


R6 = Claim(
    name="R6",
    text="Models with more heads (wider MLPs) learn faster, in each way of counting.",
    source="figures 7, 10, 23 and 28",
    rule="How fast a model learns is its held-out accuracy averaged over training, with the learning rate of the "
    "highest mean final accuracy (ties: of the faster). Sizes are paired by seed. The claim holds in a panel if the "
    "95% Student t interval of the largest minus the smallest lies above 0 and no interval of neighbouring sizes lies "
    "below 0; it fails if one lies below 0. So it is about the whole range: neighbours that so few seeds do not tell "
    "apart may come in the other order by their means.",
    smallest=SMALLEST_MARGIN,
    figure="sizes",
    measure=measure,
)
