"""Claims of section D.2: how much of the teacher's length a student should spend on its checkpoints."""

import itertools
from collections.abc import Iterator

from pdjax.distill.schedules import TeacherSplit
from pdjax.report.claims.claim import (
    SAME_STUDENTS,
    SMALLEST_MARGIN,
    Absent,
    Case,
    Claim,
    Measurement,
    decided,
    margin,
    measured,
)
from pdjax.report.results import Results
from pdjax.report.variants import strategies_by_kind


def measure_kappa(results: Results) -> list[Case] | Absent:
    """Compares strategies that differ in κ alone, for every learning rate and budget."""
    cases = [
        case
        for rate, budget in itertools.product(results.learning_rates, results.budgets)
        for less, more in _pairs(results)
        if results.asks(less, budget) and results.asks(more, budget)
        for case in [_of_kappas(results, less, more, rate, budget)]
    ]
    return cases or Absent("no two strategies differ in κ alone")


def _pairs(results: Results) -> Iterator[tuple[str, str]]:
    """Yields strategies that differ in κ alone, the one with less of it first."""
    split = {
        key: (strategy.schedule.kappa, strategy.loss, strategy.selection, strategy.part)
        for key, strategy in results.strategies.items()
        if isinstance(strategy.schedule, TeacherSplit)
    }
    for one, other in itertools.permutations(split, 2):
        if split[one][0] < split[other][0] and split[one][1:] == split[other][1:]:
            yield one, other


def _of_kappas(results: Results, less: str, more: str, rate: float | None, budget: int) -> Case:
    shorter = budget < results.last_teacher_step
    ahead, behind = (less, more) if shorter else (more, less)
    first, second = (results.finished(key, rate, budget) for key in (ahead, behind))
    names = results.labels[ahead], results.labels[behind]
    what = margin(f"{names[0]} minus {names[1]}", first, second)
    name = f"{budget:,} steps, {'fewer than the teacher’s' if shorter else 'no fewer than the teacher’s'}"
    name += f": {results.name(less, rate)}, {results.name(more, rate)}"
    return decided(name, [what], smallest=SMALLEST_MARGIN)


KAPPA = Claim(
    name="kappa",
    text="A student shorter than its teacher learns more from checkpoints over half of the teacher’s length, one that "
    "is as long or longer over the whole of it.",
    source="figure 24 and section D.2",
    rule="Strategies that differ in κ alone, the share of the teacher’s length over which checkpoints are divided. "
    "Students are paired by seed. The claim holds in a case if the 95% Student t interval of the difference in final "
    "held-out accuracy lies above 0: with fewer steps than the teacher’s that of less κ minus more, with as many or "
    "more that of more κ minus less. It fails if it lies below 0, and is undecided otherwise.",
    smallest=SMALLEST_MARGIN,
    figure="accuracy_by_budget",
    measure=measure_kappa,
)


def measure_gap(results: Results) -> list[Case] | Absent:
    """Compares the gap to one-shot distillation after the fewest steps with that after the most."""
    if results.experiment.task.predicts != "positions":
        return Absent("it is about predictions at the positions of a string, and the task is to classify whole inputs")
    if hasattr(results.experiment.task, "level"):
        return Absent("R7 says it of next tokens")
    progressive, one_shot = strategies_by_kind(results, results.compared)
    cases = []
    for key, rate in itertools.product(progressive, results.learning_rates):
        budgets = [budget for budget in results.budgets if results.asks(key, budget)]
        rivals = [rival for rival in one_shot if all(results.asks(rival, budget) for budget in budgets)]
        if len(budgets) > 1 and rivals:
            gaps = [_shrinking(results, key, rival, rate, budgets[0], budgets[-1]) for rival in rivals]
            cases.append(decided(results.name(key, rate), gaps, smallest=SMALLEST_MARGIN))
    return cases or Absent("no progressive strategy has several budgets beside a one-shot strategy")


def _shrinking(results: Results, key: str, rival: str, rate: float | None, fewest: int, most: int) -> Measurement:
    name = f"gap to {results.labels[rival]} after {fewest:,} steps minus that after {most:,}"
    pairs = [[results.finished(one, rate, budget) for one in (key, rival)] for budget in (fewest, most)]
    gaps = []
    for first, second in pairs:
        if first is None or second is None:
            return Measurement(name, None, "unfinished")
        if first.is_same(second):
            return Measurement(name, None, SAME_STUDENTS)
        gaps.append(first.final() - second.final())
    return measured(name, (gaps[0] - gaps[1]).dropna())


GAP = Claim(
    name="gap",
    text="What progressive distillation gains over one-shot distillation diminishes as students train for longer.",
    source="section D.2",
    rule="The gap is the final held-out accuracy of a progressive strategy’s students minus that of a one-shot "
    "strategy’s, paired by seed. The claim holds for a progressive strategy if the 95% Student t intervals of the gap "
    "at the shortest budget minus that at the longest lie above 0 for every one-shot strategy; it fails if one lies "
    "below 0, and is undecided otherwise.",
    smallest=SMALLEST_MARGIN,
    figure="accuracy_by_budget",
    measure=measure_gap,
)
