"""Claim A: progressive distillation in variants of the experiment, and with other schedules and temperatures."""

import itertools
from collections.abc import Iterator

from pdjax.distill.losses import Distillation
from pdjax.experiment import Ablation, Comparison
from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim
from pdjax.report.claims.counts import RULE, compared
from pdjax.report.results import Results
from pdjax.report.variants import Variant, group_in, strategies_by_kind, variants_of


def measure(results: Results) -> list[Case] | Absent:
    """Compares strategies in every ablation's variants, and in comparisons by budget."""
    if results.experiment.task.predicts != "positions":
        return Absent("it is about predictions at the positions of a string, and the task is to classify whole inputs")
    cases = [
        case
        for key, ablation in results.asked_ablations.items()
        for variant in variants_of(results, key)
        if not variant.is_base
        for case in _cases_of_variant(results, ablation, variant)
    ]
    budgets = [comparison for comparison in results.comparisons.values() if comparison.kind == "budgets"]
    cases += [case for comparison in budgets for case in _cases_by_budget(results, comparison)]
    return cases or Absent("no ablation or comparison by budgets has both progressive and one-shot strategies")


def _cases_of_variant(results: Results, ablation: Ablation, variant: Variant) -> Iterator[Case]:
    progressive, one_shot = strategies_by_kind(results, ablation.strategies)
    # Of these the paper says that they can be worse (figure 25), which is the claim `soft`.
    progressive = [key for key in progressive if results.strategies[key].loss != Distillation(temperature=1.0)]
    for key, rate, budget in itertools.product(progressive, results.learning_rates, sorted(ablation.budgets)):
        first = group_in(results, variant, key, rate, budget)
        seconds = {baseline: group_in(results, variant, baseline, rate, budget) for baseline in one_shot}
        if seconds:
            name = f"{ablation.title}: {variant.name}, {results.name(key, rate)}, {budget:,} steps"
            others = {results.labels[baseline]: second for baseline, second in seconds.items()}
            yield compared(results, name, first, others)


def _cases_by_budget(results: Results, comparison: Comparison) -> Iterator[Case]:
    progressive, one_shot = strategies_by_kind(results, comparison.strategies)
    for alike, rate, budget in results.cases(progressive):
        rivals = [key for key in one_shot if results.asks(key, budget)]
        others = {results.labels[rival]: results.finished(rival, rate, budget) for rival in rivals}
        if others:
            name = f"{comparison.title}: {results.joined_name(alike, rate)}, {budget:,} steps"
            yield compared(results, name, results.finished(alike[0], rate, budget), others)


A = Claim(
    name="A",
    text="Progressive distillation reaches higher accuracy than one-shot distillation with other schedules, "
    "temperatures, mask rates, grammars and models too.",
    source="figures 24 to 27, 31 and 32",
    rule="In every other variant of an ablation, and for every progressive strategy that is compared by budgets, "
    "students are paired by seed with those of each one-shot strategy of the same variant (or comparison), learning "
    "rate and budget. The claim holds in a case if the 95% Student t intervals of the difference in final held-out "
    "accuracy all lie above 0, fails if one lies below 0, and is undecided otherwise. Variants’ progressive "
    "strategies at temperature 1 are no cases. Strategies that are the same "
    "students as each other are one case; where they are a one-shot strategy’s too, it is not "
    f"tested. {RULE}",
    smallest=SMALLEST_MARGIN,
    figure="ablation_",
    measure=measure,
)
