"""Claim A: progressive distillation in variants of the experiment, and with other schedules and temperatures."""

import itertools

from pdjax.experiment import Ablation, Comparison
from pdjax.report.claims.acceleration import margin_over
from pdjax.report.claims.statement import ClaimResult, Statement, decide, margin
from pdjax.report.results import Results
from pdjax.report.variants import Variant, group_in, strategies_by_kind, variants_of

A = Statement(
    name="A",
    text="Progressive distillation reaches higher accuracy than one-shot distillation with other schedules, "
    "temperatures, mask rates, grammars and models too.",
    source="figures 24 to 27, 31 and 32",
    rule="In every other variant of an ablation, and for every progressive strategy that is compared by budgets, "
    "students are paired by seed with those of each one-shot strategy of the same variant (or comparison), learning "
    "rate and budget. The claim holds in a case if the 95% Student t intervals of the difference in final held-out "
    "accuracy all lie above 0, fails if one lies below 0, and is undecided otherwise. Strategies that are the same "
    "students as each other are one case; where they are a one-shot strategy’s too, it is not tested.",
)


def progressive_wins_in_other_variants(results: Results) -> list[ClaimResult]:
    """Claim A (figures 24 to 27, 31 and 32): for every ablation's variants, and comparisons by budget."""
    if not results.has_strings:
        return []
    cases = []
    for key, ablation in results.asked_ablations.items():
        for variant in variants_of(results, key):
            if not variant.is_base:
                cases += _cases_of_variant(results, ablation, variant)
    for comparison in results.comparisons.values():
        if comparison.kind == "budgets":
            cases += _cases_by_budget(results, comparison)
    return cases


def _cases_of_variant(results: Results, ablation: Ablation, variant: Variant) -> list[ClaimResult]:
    progressive, one_shot = strategies_by_kind(results, ablation.strategies)
    cases = []
    for key, rate, budget in itertools.product(progressive, results.learning_rates, sorted(ablation.budgets)):
        first = group_in(results, variant, key, rate, budget)
        seconds = {baseline: group_in(results, variant, baseline, rate, budget) for baseline in one_shot}
        margins = tuple(margin(f"margin over {results.labels[k]}", first, second) for k, second in seconds.items())
        if margins:
            name = f"{ablation.title}: {variant.name}, {results.name(key, rate)}, {budget:,} steps"
            cases.append(ClaimResult(A, name, margins, *decide(margins)))
    return cases


def _cases_by_budget(results: Results, comparison: Comparison) -> list[ClaimResult]:
    progressive, one_shot = strategies_by_kind(results, comparison.strategies)
    cases = []
    for alike, rate, budget in results.cases(progressive):
        rivals = [key for key in one_shot if results.asks(key, budget)]
        margins = tuple(margin_over(results, alike[0], rival, rate, budget) for rival in rivals)
        if margins:
            name = f"{comparison.title}: {results.joined_name(alike, rate)}, {budget:,} steps"
            cases.append(ClaimResult(A, name, margins, *decide(margins)))
    return cases
