"""Claim F1: progressive distillation learns faster."""

from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim
from pdjax.report.claims.counts import RULE, compared
from pdjax.report.results import Results


def measure(results: Results) -> list[Case] | Absent:
    """Compares every progressive strategy that is drawn over training, for each learning rate and budget."""
    drawn = {key: results.strategies[key] for key in results.compared}
    progressive = [key for key, strategy in drawn.items() if strategy.is_progressive and not strategy.is_partial]
    if not progressive:
        where = "comparisons over training" if results.comparisons else "configuration"
        return Absent(f"there is no progressive strategy in the {where}")
    return [_case(results, *case) for case in results.cases(progressive)]


def _case(results: Results, alike: list[str], rate: float | None, budget: int) -> Case:
    strategies = results.strategies
    baselines = [k for k, s in strategies.items() if not s.is_progressive and results.asks(k, budget)]
    groups = {results.labels[baseline]: results.finished(baseline, rate, budget) for baseline in baselines}
    # The claim is about both kinds of baseline.
    kinds = {False: "strategy trained from labels", True: "one-shot strategy"}
    taught = {strategies[key].loss.asks_teacher for key in baselines}
    missing = " and no ".join(text for asks, text in kinds.items() if asks not in taught)
    name = f"{results.joined_name(alike, rate)}, {budget:,} steps"
    reason = f"no {missing} in the configuration" if missing else ""
    return compared(results, name, results.finished(alike[0], rate, budget), groups, reason)


F1 = Claim(
    name="F1",
    text="Progressive distillation reaches higher accuracy than one-shot distillation and than training from labels, "
    "at equal student steps.",
    source="figure 1",
    rule="Students of two strategies that share teacher, seed, budget (the same initialisation and data) and learning "
    "rate, unless each strategy has its own, are paired, and the difference of their final held-out accuracies is "
    "averaged over seeds (of several teachers over these), with a 95% paired Student t confidence interval. The claim "
    "holds in a case if the interval lies above 0 against every baseline (each strategy trained from labels and each "
    "one-shot strategy of that budget), fails if it lies below 0 against any of them, and is undecided otherwise. It "
    "is not tested with fewer than 2 common units, where a baseline is missing or unfinished, or where curriculum and "
    "loss are those of a baseline: then they are the same students. Strategies that are the same students as each "
    "other are one case. Strategies that the report does not draw over training are no cases: those of a search for "
    f"the best checkpoint are judged as one. Nor are those of parts of checkpoints. {RULE}",
    smallest=SMALLEST_MARGIN,
    figure="training_",
    measure=measure,
)
