"""Claim F1: progressive distillation learns faster."""

from pdjax.report.claims.statement import ClaimResult, Measurement, Statement, decide, paired_margin
from pdjax.report.results import Results

F1 = Statement(
    name="F1",
    text="Progressive distillation reaches higher accuracy than one-shot distillation and than training from labels, "
    "at equal student steps.",
    source="figure 1",
    rule="Students of two strategies that share seed, learning rate and budget (the same initialisation and data) are "
    "paired, and the difference of their final held-out accuracies is averaged over seeds, with a 95% paired "
    "Student t confidence interval. The claim holds in a case if the interval lies above 0 against every baseline "
    "(each strategy trained from labels and each one-shot strategy), fails if it lies below 0 against any of them, "
    "and is undecided otherwise. It is not tested with fewer than 2 common seeds, or where a baseline is missing or "
    "unfinished.",
)


def progressive_beats_baselines(results: Results) -> list[ClaimResult]:
    """Claim F1 (figure 1): for every progressive strategy, learning rate and budget."""
    strategies = results.config.strategies
    progressive = [key for key, strategy in strategies.items() if strategy.is_progressive]
    baselines = [key for key, strategy in strategies.items() if not strategy.is_progressive]
    if not progressive:
        return [ClaimResult(F1, "all", (), "not tested", "no progressive strategy in the configuration")]
    cases = []
    for key in progressive:
        for rate in results.learning_rates:
            for budget in results.budgets:
                measurements = tuple(_margin(results, key, baseline, rate, budget) for baseline in baselines)
                verdict, note = decide(measurements, _missing_kinds(results))
                case = f"{results.name(key, rate)}, {budget:,} steps"
                cases.append(ClaimResult(F1, case, measurements, verdict, note))
    return cases


def _margin(results: Results, key: str, baseline: str, rate: float, budget: int) -> Measurement:
    quantity = f"margin over {results.labels[baseline]}"
    first, second = (results.finished(strategy, rate, budget) for strategy in (key, baseline))
    if first is None or second is None:
        return Measurement(quantity, None, f"{results.labels[key if first is None else baseline]} unfinished")
    interval = paired_margin(first, second)
    return Measurement(quantity, interval, "needs 2 seeds" if interval is None or interval.size < 2 else "")


def _missing_kinds(results: Results) -> str:
    """Says which of the two kinds of baseline the configuration lacks; the claim is about both."""
    kinds = {"labels": "strategy trained from labels", "one_shot": "one-shot strategy"}
    schedules = {strategy.schedule for strategy in results.config.strategies.values()}
    missing = [text for schedule, text in kinds.items() if schedule not in schedules]
    return f"no {' and no '.join(missing)} in the configuration" if missing else ""
