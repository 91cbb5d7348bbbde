"""Claims R2 and H: which checkpoints, and how many, a student needs."""

from collections.abc import Sequence

from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Transition
from pdjax.report.claims.statement import ClaimResult, Statement, decide, margin, measured
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import mean_interval
from pdjax.tasks.parity import HierarchicalTask

R2 = Statement(
    name="R2",
    text="(2, T) distillation works with a checkpoint from the transition, not with one from its start or end.",
    source="figures 2, 8, 9 and 13",
    rule="Students of (2, T) strategies that differ only in the checkpoint are paired by seed and learning rate. The "
    "claim holds if the 95% paired Student t intervals of the difference in final held-out accuracy, the "
    "transition’s middle minus its start, minus its end and minus one-shot, all lie above 0; it fails if one lies "
    "below 0, and is undecided otherwise. The same differences of the accuracy averaged over training are shown for "
    "comparison and do not decide.",
)

H = Statement(
    name="H",
    text="Hierarchical parity: one intermediate checkpoint does not suffice, two inside the transition do.",
    source="figures 15 and 17 to 19",
    rule="A strategy suffices if its students’ final held-out accuracy is within 0.02 of the teacher’s: the mean plus "
    "0.02 minus the teacher’s has a 95% Student t interval above 0. The claim holds if the best strategy with two "
    "intermediate checkpoints suffices and its paired margin over each strategy with one lies above 0; it fails if no "
    "strategy with two suffices by its mean, or a strategy with one suffices; else it is undecided. The best of "
    "several is the best by chance too: its interval is not corrected for that.",
)

TOLERANCE = 0.02
"""Accuracy that a student who has learned the task may still miss."""


def one_checkpoint_of_the_transition(results: Results) -> list[ClaimResult]:
    """Claim R2 (figures 2, 8, 9 and 13): for every learning rate and budget."""
    by_point = {
        strategy.selection.at[0]: key
        for key, strategy in results.strategies.items()
        if isinstance(strategy.selection, Transition) and len(strategy.selection.at) == 1
    }
    if not {"start", "middle", "end"} <= set(by_point):
        return []
    others = {"the start": by_point["start"], "the end": by_point["end"]}
    others |= {results.labels[k]: k for k, s in results.strategies.items() if s.is_one_shot}
    cases = []
    for rate in results.learning_rates:
        for budget in results.budgets:
            middle = results.finished(by_point["middle"], rate, budget)
            groups = {name: results.finished(key, rate, budget) for name, key in others.items()}
            final = [margin(f"final accuracy, middle minus {name}", middle, group) for name, group in groups.items()]
            speed = [
                margin(f"mean over training, middle minus {name}", middle, group, True)
                for name, group in groups.items()
            ]
            verdict, note = decide(final)
            case = f"{results.name(by_point['middle'], rate)}, {budget:,} steps"
            cases.append(ClaimResult(R2, case, (*final, *speed), verdict, note))
    return cases


def two_checkpoints_of_a_hierarchy(results: Results) -> list[ClaimResult]:
    """Claim H (figures 15 and 17 to 19): for every learning rate and budget."""
    if not isinstance(results.experiment.task, HierarchicalTask) or results.teacher_accuracy is None:
        return []
    cases = []
    for rate in results.learning_rates:
        for budget in results.budgets:
            one, two = _by_count(results, rate, budget, 1), _by_count(results, rate, budget, 2)
            case = f"{budget:,} steps" + (f", learning rate {rate}" if len(results.learning_rates) > 1 else "")
            if one is None or two is None:
                note = "needs finished strategies with one and with two intermediate checkpoints"
                cases.append(ClaimResult(H, case, (), "not tested", note))
                continue
            cases.append(_decide_hierarchy(results, case, one, two, results.teacher_accuracy))
    return cases


def _by_count(results: Results, rate: float, budget: int, intermediate: int) -> list[Group] | None:
    """Returns the groups of fixed durations with that many intermediate checkpoints; None if one is not finished."""
    keys = [
        key
        for key, strategy in results.strategies.items()
        if isinstance(strategy.schedule, FixedDuration)
        and len(results.selection.get("strategies", {}).get(key, {}).get("teacher_steps", ())) == intermediate + 1
    ]
    groups = [results.finished(key, rate, budget) for key in keys]
    finished = [group for group in groups if group is not None]
    return finished if finished and len(finished) == len(groups) else None


def _decide_hierarchy(
    results: Results, case: str, one: Sequence[Group], two: Sequence[Group], teacher: float
) -> ClaimResult:
    best = max(two, key=lambda group: float(group.final_accuracy.mean()))
    surplus = {id(group): (group.final_accuracy - teacher + TOLERANCE).tolist() for group in (*one, best)}
    name = results.labels
    suffices = measured(f"{name[best.strategy]}: accuracy over what suffices", surplus[id(best)])
    singles = [measured(f"{name[group.strategy]}: accuracy over what suffices", surplus[id(group)]) for group in one]
    margins = [margin(f"best of two minus {name[group.strategy]}", best, group) for group in one]
    verdict, note = decide((suffices, *margins))
    too_few = mean_interval(best.final_accuracy).mean < teacher - TOLERANCE
    one_does = any(single.interval is not None and single.interval.low > 0 for single in singles)
    if too_few or one_does:
        verdict = "fails"
    return ClaimResult(H, case, (suffices, *singles, *margins), verdict, note)
