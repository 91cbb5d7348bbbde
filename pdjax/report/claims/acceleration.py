"""Claim F1: progressive distillation learns faster."""

from pdjax.report.claims.statement import ClaimResult, Measurement, Statement, decide, margin
from pdjax.report.results import Results

F1 = Statement(
    name="F1",
    text="Progressive distillation reaches higher accuracy than one-shot distillation and than training from labels, "
    "at equal student steps.",
    source="figure 1",
    rule="Students of two strategies that share seed, learning rate and budget (the same initialisation and data) are "
    "paired, and the difference of their final held-out accuracies is averaged over seeds, with a 95% paired "
    "Student t confidence interval. The claim holds in a case if the interval lies above 0 against every baseline "
    "(each strategy trained from labels and each one-shot strategy of that budget), fails if it lies below 0 against "
    "any of them, and is undecided otherwise. It is not tested with fewer than 2 common seeds, where a baseline is "
    "missing or unfinished, or where curriculum and loss are those of a baseline: then they are the same students. "
    "Strategies that are the same students as each other are one case. Strategies that the report does not draw over "
    "training are no cases: those of a search for the best checkpoint are judged as one.",
)


def progressive_beats_baselines(results: Results) -> list[ClaimResult]:
    """Claim F1 (figure 1): for every progressive strategy that is drawn over training, learning rate and budget."""
    progressive = [key for key in results.compared if results.strategies[key].is_progressive]
    if not progressive:
        where = "comparisons over training" if results.comparisons else "configuration"
        return [ClaimResult(F1, "all", (), "not tested", f"no progressive strategy in the {where}")]
    return [_case(results, *case) for case in results.cases(progressive)]


def _case(results: Results, alike: list[str], rate: float, budget: int) -> ClaimResult:
    strategies = results.strategies
    baselines = [k for k, s in strategies.items() if not s.is_progressive and results.asks(k, budget)]
    measurements = tuple(margin_over(results, alike[0], baseline, rate, budget) for baseline in baselines)
    verdict, note = decide(measurements, _missing_kinds(results, baselines))
    case = f"{results.joined_name(alike, rate)}, {budget:,} steps"
    return ClaimResult(F1, case, measurements, verdict, note)


def margin_over(results: Results, key: str, baseline: str, rate: float, budget: int) -> Measurement:
    """Returns by how much a strategy's students are more accurate in the end than a baseline's."""
    first, second = (results.finished(strategy, rate, budget) for strategy in (key, baseline))
    missing = f"{results.labels[key if first is None else baseline]} unfinished"
    return margin(f"margin over {results.labels[baseline]}", first, second, missing=missing)


def _missing_kinds(results: Results, baselines: list[str]) -> str:
    """Says which of the two kinds of baseline there is none of; the claim is about both."""
    kinds = {False: "strategy trained from labels", True: "one-shot strategy"}
    taught = {results.strategies[key].loss.asks_teacher for key in baselines}
    missing = [text for asks, text in kinds.items() if asks not in taught]
    return f"no {' and no '.join(missing)} in the configuration" if missing else ""
