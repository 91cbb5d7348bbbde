"""What was found and what is missing, in sentences."""

from collections.abc import Sequence

from pdjax.report.claims import ClaimResult, Statement
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import mean_interval
from pdjax.report.text import fraction, interval_text


def summary(results: Results, claims: Sequence[ClaimResult]) -> str:
    """Says in plain words what was found; every number comes from the records."""
    sentences = [_teacher_sentence(results)]
    for rate in results.learning_rates:
        for budget in results.budgets:
            asked = [strategy for strategy in results.prominent if results.asks(strategy, budget)]
            groups = [results.finished(strategy, rate, budget) for strategy in asked]
            finished = [group for group in groups if group is not None]
            if finished:
                sentences.append(_best_sentence(results, finished, len(groups)))
    for statement in dict.fromkeys(claim.statement for claim in claims):
        cases, counts = _counts(statement, claims)
        listed = " and ".join([", ".join(counts[:-1]), counts[-1]] if counts[1:] else counts)
        sentences.append(f"Of {cases}, claim {statement.name} {listed}.")
    if results.unfinished:
        sentences.append(f"{len(results.unfinished)} of {len(results.states)} runs are not finished.")
    variants = [
        (key, variant.name) for key, ablation in results.asked_ablations.items() for variant in ablation.variants
    ]
    if variants:
        begun = [results.ablations[pair] for pair in variants if pair in results.ablations]
        complete = sum(not experiment.unfinished for experiment in begun)
        count = len(results.asked_ablations)
        ablations = "the ablation" if count == 1 else f"the {count} ablations"
        sentences.append(f"Of the {len(variants)} variants of {ablations}, {complete} are complete.")
    return " ".join(sentences)


def verdict_lines(claims: Sequence[ClaimResult]) -> list[str]:
    """Returns a line for each claim, for a terminal: its name and its verdicts over all cases."""
    statements = list(dict.fromkeys(claim.statement for claim in claims))
    width = max((len(statement.name) for statement in statements), default=0)
    lines = []
    for statement in statements:
        cases, counts = _counts(statement, claims)
        lines.append(f"{statement.name:{width}}  of {cases}: {', '.join(counts)}")
    return lines


def _counts(statement: Statement, claims: Sequence[ClaimResult]) -> tuple[str, list[str]]:
    """Returns the number of a claim's cases, and of those with each verdict, in words."""
    verdicts = [claim.verdict for claim in claims if claim.statement == statement]
    words = {"holds": "holds", "fails": "fails", "undecided": "is undecided", "not tested": "is not tested"}
    counts = [f"{text} in {verdicts.count(v)}" for v, text in words.items() if v in verdicts]
    return "1 case" if len(verdicts) == 1 else f"{len(verdicts)} cases", counts


def _teacher_sentence(results: Results) -> str:
    if results.teacher is None:
        return "No results of the teacher are recorded here."
    steps = results.teacher.description.budget
    if results.teacher_accuracy is None:
        return f"The teacher has not finished its {steps:,} steps."
    sentence = f"After {steps:,} steps the teacher reaches a held-out accuracy of {fraction(results.teacher_accuracy)}"
    others = results.teacher.evaluation.accuracy[-1, 1:]
    if not others.size:
        return f"{sentence}."
    low, high = fraction(float(others.min())), fraction(float(others.max()))
    seeds = "a teacher of another seed" if others.size == 1 else f"{others.size} teachers of other seeds"
    return (
        f"{sentence}, and {seeds} reach{'es' if others.size == 1 else ''} {low if low == high else f'{low} to {high}'}."
    )


def _best_sentence(results: Results, finished: Sequence[Group], asked: int) -> str:
    best = max(finished, key=lambda group: float(group.final_accuracy.mean()))
    accuracy = mean_interval(best.final_accuracy)
    among = "" if len(finished) == asked else f" among the {len(finished)} finished of {asked} strategies"
    among += "" if len(results.prominent) == len(results.labels) else " outside of searches for the first checkpoint"
    spread = "" if accuracy.size < 2 else f" (95% interval {interval_text(accuracy)})"
    seeds = "1 seed" if accuracy.size == 1 else f"{accuracy.size} seeds"
    rate = f" and learning rate {best.learning_rate}" if len(results.learning_rates) > 1 else ""
    names = [results.labels[key] for key in results.alike(best.strategy, best.learning_rate, best.budget)]
    return (
        f"With {best.budget:,} steps{rate} the highest mean{among} is {fraction(accuracy.mean)}{spread} over {seeds}, "
        f"by {' = '.join(names)}."
    )


def notes(results: Results, claims: Sequence[ClaimResult]) -> list[str]:
    """Returns what a reader must know about missing or surplus records, and remarks on what is not claimed here."""
    claimed = {claim.statement.name for claim in claims}
    remarks = {name: text for name, text in results.experiment.remarks.items() if name not in claimed}
    sentences = [f"Remark on {name}, of which this report has no verdict: {text}" for name, text in remarks.items()]
    trajectory = results.experiment.teacher_training.trajectory
    if results.teacher is None and trajectory is not None:
        sentences.append(
            f"The teacher is the existing trajectory {trajectory}; its training curve is not recorded here."
        )
    elif trajectory is not None:
        sentences.append(f"The teacher is the existing trajectory {trajectory}; its curve is copied from there.")
    sentences += [f"Run {s.name} is {s.text}." for s in results.states if s.record is not None and not s.complete]
    absent = [state.name for state in results.states if state.record is None]
    sentences += [f"Not started: {', '.join(absent)}."] if absent else []
    sentences += [
        f"The records hold a run {name} that the configuration does not ask for; it is shown nowhere."
        for name in results.strays
    ]
    if not results.selection:
        sentences.append("No selection of checkpoints is recorded.")
    if not results.environment:
        sentences.append("Versions, device and command are not recorded.")
    return sentences
