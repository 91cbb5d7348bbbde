"""Claims of section D.2: how much of the teacher's length a student should spend on its checkpoints."""

import dataclasses
import itertools
from collections.abc import Iterator

from pdjax.distill.schedules import TeacherSplit
from pdjax.experiment import Ablation
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
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.variants import group_in, strategies_by_kind, variants_of


def measure_kappa(results: Results) -> list[Case] | Absent:
    """Compares κ = 1/2 with κ = 1, for every learning rate and budget, and in variants of ablations."""
    if results.experiment.task.learned is not None:
        return Absent("the task is learned or not, and accuracies are compared")
    cases = []
    for half, whole in _pairs(results):
        for rate, budget in itertools.product(results.learning_rates, results.budgets):
            if results.asks(half, budget) and results.asks(whole, budget):
                groups = (results.finished(half, rate, budget), results.finished(whole, rate, budget))
                cases.append(_of_kappas(results, half, whole, rate, budget, groups))
        for key, ablation in results.asked_ablations.items():
            if {half, whole} <= {*ablation.strategies}:
                cases += list(_of_variants(results, key, ablation, half, whole))
    return cases or Absent("no two strategies differ in κ alone, the one having 1/2 and the other 1")


def _pairs(results: Results) -> Iterator[tuple[str, str]]:
    """Yields strategies that differ in κ alone, which is 1/2 of the first and 1 of the second."""
    for half, whole in itertools.permutations(results.strategies, 2):
        one, other = results.strategies[half], results.strategies[whole]
        alike = dataclasses.replace(one, name=whole, schedule=other.schedule, budgets=other.budgets) == other
        if alike and (one.schedule, other.schedule) == (TeacherSplit(0.5), TeacherSplit(1.0)):
            yield half, whole


def _of_variants(results: Results, key: str, ablation: Ablation, half: str, whole: str) -> Iterator[Case]:
    variants = [variant for variant in variants_of(results, key) if not variant.is_base]
    for variant, rate, budget in itertools.product(variants, results.learning_rates, sorted(ablation.budgets)):
        groups = tuple(group_in(results, variant, strategy, rate, budget) for strategy in (half, whole))
        yield _of_kappas(results, half, whole, rate, budget, groups, f"{ablation.title}: {variant.name}, ")


def _of_kappas(
    results: Results,
    half: str,
    whole: str,
    rate: float | None,
    budget: int,
    groups: tuple[Group | None, ...],
    where: str = "",
) -> Case:
    shorter = budget < results.last_teacher_step
    names = [results.labels[key] for key in (half, whole)]
    (ahead, first), (behind, second) = list(zip(names, groups, strict=True))[:: 1 if shorter else -1]
    what = margin(f"{ahead} minus {behind}", first, second)
    name = f"{where}{budget:,} steps, {'fewer than the teacher’s' if shorter else 'no fewer than the teacher’s'}"
    name += f": {results.name(half, rate)}, {results.name(whole, rate)}"
    return decided(name, [what], smallest=SMALLEST_MARGIN)


KAPPA = Claim(
    name="kappa",
    text="A student shorter than its teacher learns more from checkpoints over half of the teacher’s length, one that "
    "is as long or longer over the whole of it.",
    source="figure 24 and section D.2",
    rule="Strategies that differ in κ alone, the share of the teacher’s length over which checkpoints are divided, 1/2 "
    "and 1. Students are paired by seed. The claim holds in a case if the 95% Student t interval of the "
    "difference in final held-out accuracy lies above 0: with fewer steps than the teacher’s that of 1/2 minus 1, with "
    "as many or more that of 1 minus 1/2. It fails if it lies below 0, and is undecided otherwise.",
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
            gaps = [m for rival in rivals for m in _shrinking(results, key, rival, rate, budgets[0], budgets[-1])]
            cases.append(decided(results.name(key, rate), gaps, smallest=SMALLEST_MARGIN))
    return cases or Absent("no progressive strategy has several budgets beside a one-shot strategy")


def _shrinking(
    results: Results, key: str, rival: str, rate: float | None, fewest: int, most: int
) -> tuple[Measurement, Measurement]:
    """Returns the gap after the fewest steps, without which nothing shrinks, and how much more it is than the last."""
    first = f"gap to {results.labels[rival]} after {fewest:,} steps"
    names = (first, f"{first} minus that after {most:,}")
    gaps = []
    for budget in (fewest, most):
        groups = [results.finished(one, rate, budget) for one in (key, rival)]
        if groups[0] is None or groups[1] is None:
            return tuple(Measurement(name, None, "unfinished") for name in names)  # pyright: ignore
        if groups[0].is_same(groups[1]):
            return tuple(Measurement(name, None, SAME_STUDENTS) for name in names)  # pyright: ignore
        gaps.append((groups[0].final() - groups[1].final()).dropna())
    return measured(names[0], gaps[0]), measured(names[1], (gaps[0] - gaps[1]).dropna())


GAP = Claim(
    name="gap",
    text="What progressive distillation gains over one-shot distillation diminishes as students train for longer.",
    source="section D.2",
    rule="The gap is the final held-out accuracy of a progressive strategy’s students minus that of a one-shot "
    "strategy’s, paired by seed. The claim holds for a progressive strategy if the 95% Student t intervals of the gap "
    "at the shortest budget, and of this minus that at the longest, lie above 0 for every one-shot strategy; it fails "
    "if one lies below 0, and is undecided otherwise.",
    smallest=SMALLEST_MARGIN,
    figure="accuracy_by_budget",
    measure=measure_gap,
)
