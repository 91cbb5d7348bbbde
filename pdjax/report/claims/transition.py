"""Claim R2: from where in the teacher's training the one checkpoint comes that a student needs."""

import itertools
from collections.abc import Mapping

from pdjax.distill.selection import Transition
from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, margin
from pdjax.report.claims.counts import RULE, compared
from pdjax.report.results import Results


def measure(results: Results) -> list[Case] | Absent:
    """Compares the transition's middle with its ends and with one-shot, for every learning rate and budget."""
    by_point = {
        strategy.selection.at[0]: key
        for key, strategy in results.strategies.items()
        if isinstance(strategy.selection, Transition) and len(strategy.selection.at) == 1 and not strategy.is_partial
    }
    if not {"start", "middle", "end"} <= set(by_point):
        return Absent("there are no strategies with one checkpoint from the transition’s start, middle and end each")
    others = {"the start": by_point["start"], "the end": by_point["end"]}
    others |= {results.labels[k]: k for k, s in results.strategies.items() if s.is_one_shot}
    places = itertools.product(results.learning_rates, results.budgets)
    return [_case(results, by_point["middle"], others, *place) for place in places]


def _case(results: Results, key: str, others: Mapping[str, str], rate: float | None, budget: int) -> Case:
    middle = results.finished(key, rate, budget)
    groups = {name: results.finished(other, rate, budget) for name, other in others.items()}
    speed = [margin(f"mean over training, middle minus {name}", middle, group, True) for name, group in groups.items()]
    return compared(results, f"{results.name(key, rate)}, {budget:,} steps", middle, groups, shown=speed)


R2 = Claim(
    name="R2",
    text="(2, T) distillation works with a checkpoint from the transition, not with one from its start or end.",
    source="figures 2, 8, 9 and 13",
    rule="Students of (2, T) strategies that differ only in the checkpoint, and in T and the learning rate where these "
    "were tuned for each, are paired by teacher and seed. The "
    "claim holds if the 95% paired Student t intervals of the difference in final held-out accuracy, the "
    "transition’s middle minus its start, minus its end and minus one-shot, all lie above 0; it fails if one lies "
    "below 0, and is undecided otherwise. The same differences of the accuracy averaged over training are shown for "
    f"comparison and do not decide. {RULE}",
    smallest=SMALLEST_MARGIN,
    figure="training_",
    measure=measure,
)
