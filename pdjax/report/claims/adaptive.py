"""Our claim about adaptive schedules."""

from pdjax.report.claims.claim import OURS, SMALLEST_MARGIN, Absent, Case, Claim
from pdjax.report.claims.counts import RULE, compared
from pdjax.report.results import Results


def measure(results: Results) -> list[Case] | Absent:
    """Compares every adaptive strategy with the fixed ones beside it, for each learning rate and budget."""
    adaptive = [key for key, strategy in results.strategies.items() if strategy.is_adaptive]
    if not adaptive:
        return Absent("there is no adaptive strategy in the configuration")
    cases = []
    for alike, rate, budget in results.cases(adaptive):
        rivals = [rival for rival in _drawn_with(results, alike[0]) if results.asks(rival, budget)]
        groups = {results.labels[rival]: results.finished(rival, rate, budget) for rival in rivals}
        if groups:
            name = f"{results.joined_name(alike, rate)}, {budget:,} steps"
            cases.append(compared(results, name, results.finished(alike[0], rate, budget), groups))
    return cases or Absent("no comparison has a fixed progressive strategy beside an adaptive one")


def _drawn_with(results: Results, key: str) -> list[str]:
    """Returns the fixed progressive strategies of the comparisons that a strategy is drawn in."""
    drawn = [c.strategies for c in results.comparisons.values() if key in c.strategies]
    together = {other for strategies in drawn for other in strategies}
    strategies = results.strategies
    fixed = [k for k, s in strategies.items() if s.is_progressive and not s.is_adaptive and not s.is_partial]
    return [k for k in fixed if k in together]


ADAPTIVE = Claim(
    name="adaptive",
    text="Students that move on by what they have learned reach higher accuracy than students with a fixed progressive "
    "schedule, at equal student steps.",
    source=OURS,
    rule="Students of an adaptive strategy are paired by seed, learning rate and budget with those of each fixed "
    "progressive strategy that a comparison draws together with it. The claim holds in a case if the 95% Student t "
    "intervals of the difference in final held-out accuracy all lie above 0, fails if one lies below 0, and is "
    f"undecided otherwise. {RULE}",
    smallest=SMALLEST_MARGIN,
    figure="training_",
    measure=measure,
)
