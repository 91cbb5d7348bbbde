"""What was run, what came out and what is missing, in sentences that a person in a hurry reads first."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pdjax.distill.losses import Labels
from pdjax.distill.schedules import EqualSplit, FixedDuration, TeacherSplit
from pdjax.findings import Verdict
from pdjax.io.rules import changed
from pdjax.report.claims.claim import Finding, Measurement
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import Interval, interval
from pdjax.report.text import count_text, effect_text, fraction, interval_text, listed, settings_text

_VERDICTS: tuple[Verdict, ...] = ("fails", "holds", "too small to matter", "undecided", "not tested")
"""From the one to know first."""


class Line(NamedTuple):
    """A claim in a line."""

    verdict: Verdict  # of most cases
    counts: str  # of all verdicts: "holds in 7 of 9, undecided in 2"
    case: str  # the first of that verdict that was measured
    leading: Measurement | None  # of its quantities the one with the smallest mean


def line_of(finding: Finding) -> Line:
    """Returns a claim's verdict and effect; it has cases."""
    verdicts: list[Verdict] = [case.verdict for case in finding.cases]
    common: list[Verdict] = sorted(
        set(verdicts), key=lambda v: (v == "not tested", -verdicts.count(v), _VERDICTS.index(v))
    )
    of = f" of {len(verdicts)}"
    counts = ", ".join(f"{v} in {verdicts.count(v)}{of if v == common[0] else ''}" for v in common)
    measured = [(case, m) for case in finding.cases if case.verdict == common[0] for m in case.measurements]
    deciding = [(case, m, m.interval.mean) for case, m in measured if m.interval is not None and not m.note]
    deciding = [row for row in deciding if row[0] == deciding[0][0]]
    if not deciding:
        return Line(common[0], counts, "", None)
    case, leading, _ = min(deciding, key=lambda row: row[2])
    return Line(common[0], counts, case.name, leading)


def verdict_lines(findings: Sequence[Finding]) -> list[str]:
    """Returns a line for each claim, for a terminal: its name, its verdicts over all cases, and its leading effect."""
    lines = {finding.claim.name: line_of(finding) for finding in findings if finding.cases}
    width = max(map(len, lines), default=0)
    widest = max((len(line.counts) for line in lines.values()), default=0)
    return [f"{name:{width}}  {line.counts:{widest}}  {_effect(line)}".rstrip() for name, line in lines.items()]


def _effect(line: Line) -> str:
    if line.leading is None or line.leading.interval is None:
        return ""
    return f"{effect_text(line.leading.interval)} {line.leading.quantity} ({line.case})"


def what_was_run(results: Results) -> str:
    """Says the question, and in plain words what the configuration asks for."""
    experiment, training = results.experiment, results.experiment.student_training
    teacher, reached = settings_text(experiment.teacher, experiment.student), results.teacher_accuracy
    whose, each = "An existing" if experiment.teacher_training.trajectory is not None else "One", ""
    if experiment.further_teachers:
        whose, each = f"{1 + len(experiment.further_teachers) - len(results.left_out)}", "of each teacher "
    first = ", the first" if each else ""
    accurate = "" if reached is None else f" (accuracy {fraction(reached)} after {results.last_teacher_step:,} steps"
    accurate += f"{first})" if accurate else ""
    labels = [results.labels[key] for key in results.prominent]
    compared = count_text(len(labels), "strategy") if len(labels) > 4 else listed(labels)
    budgets, rates = results.budgets, results.learning_rates
    steps = f"{budgets[0]:,}" if len(budgets) == 1 else f"{budgets[0]:,} to {budgets[-1]:,}"
    tried = f" and {len(rates)} learning rates" if len(rates) > 1 else ""
    own = sum(strategy.learning_rate is not None for strategy in experiment.strategies)
    tried = tried or (", at a learning rate of its own," if own else "")
    return (
        f"{experiment.report.question} The task is {settings_text(experiment.task)}. {whose} teacher"
        f"{'s' if each else ''}, {teacher}{accurate}; students, "
        f"{settings_text(experiment.student, experiment.teacher)}, {each}of "
        f"{count_text(len(training.seeds), 'seed')}{tried} for each of {compared}, over {steps} steps."
    ).strip()


def names(results: Results) -> list[tuple[str, str]]:
    """Explains the names of the strategies that there are, and of what the probes measured."""
    strategies = [results.strategies[key] for key in results.prominent]
    schedules = [strategy.schedule for strategy in strategies if strategy.is_progressive]
    divided = any(isinstance(schedule, EqualSplit | TeacherSplit) for schedule in schedules)
    probed = results.table.measure.isin(["M_robust", "M_close"]).any()
    kinds = {
        ("labels only", "the student sees no teacher"): any(isinstance(s.loss, Labels) for s in strategies),
        ("one-shot", "it learns from the final teacher from the first step to the last"): any(
            strategy.is_one_shot for strategy in strategies
        ),
        ("progressive (N, T)", "from N checkpoints of the teacher in turn, T steps from each, the last one as long as "
         "its training goes on"): any(isinstance(schedule, FixedDuration) for schedule in schedules),
        ("progressive (N-shot, κ T0)", "from N checkpoints in turn, for equal parts of κ times the "
         f"{results.last_teacher_step:,} steps of the teacher, T0, then from the final one"): divided,
        ("till … saturates", "it moves on to the next checkpoint when it gains little from this one"): any(
            strategy.is_adaptive for strategy in strategies
        ),
        ("degree ≤ n alone, without degree ≤ n", "of intermediate checkpoints it sees the terms of up to n "
         "coordinates of the support alone, or all but these"): any(
            strategy.is_partial for strategy in strategies
        ),
        ("M_robust, M_close", "how far predictions change without the tokens nearby, and with these alone"): probed,
    }  # fmt: skip
    return [text for text, there in kinds.items() if there]


def what_came_out(results: Results) -> str:
    """Says which strategy is best, by how much, and how much sooner it is there; and what the paper reports."""
    if results.experiment.tuning is not None:
        return "This is a tuning: what it has chosen is below, and is to be compared on other seeds."
    margins = {budget: margin for budget in results.budgets if (margin := _margin(results, budget)) is not None}
    if margins:
        *others, longest = margins
        sentences = [_margin_sentence(margins[longest])]
        listed_margins = [f"{effect_text(margins[budget].found)} at {budget:,} steps" for budget in others]
        sentences += [f"With fewer steps the lead is {listed(listed_margins)}."] if others else []
    else:
        best = [group for budget in results.budgets for group in _finished(results, budget)]
        sentences = [
            f"{_name(results, best[-1])} reaches {_accuracy(best[-1])}; there is nothing finished to compare it with."
            if best
            else "No student run is complete, so nothing came out yet."
        ]
    if results.experiment.report.paper:
        sentences.append(results.experiment.report.paper)
    return " ".join(sentences)


class Margin(NamedTuple):
    """By how much the best progressive strategy is ahead of the best baseline."""

    results: Results
    best: Group
    baseline: Group
    found: Interval


def _finished(results: Results, budget: int) -> list[Group]:
    """Returns the finished students of every strategy at its best learning rate, the most accurate last.

    Of those that are alike to 3 decimals, the one that the configuration names first is last.
    """
    found = [results.finished(key, None, budget) for key in reversed(results.prominent)]
    finished = [group for group in found if group is not None]
    return sorted(finished, key=lambda group: round(float(group.final().mean()), 3))


def _margin(results: Results, budget: int) -> Margin | None:
    finished = _finished(results, budget)
    progressive = [group for group in finished if results.strategies[group.strategy].is_progressive]
    baselines = [group for group in finished if not results.strategies[group.strategy].is_progressive]
    if not progressive or not baselines:
        return None
    best, baseline = progressive[-1], baselines[-1]
    differences = (best.final() - baseline.final()).dropna()
    return Margin(results, best, baseline, interval(differences.to_numpy())) if len(differences) else None


def _margin_sentence(margin: Margin) -> str:
    results, best, baseline, found = margin
    first, second = _name(results, best), _name(results, baseline)
    when = f"After {best.budget:,} steps"
    if found.size < 2:
        return (
            f"{when} {first} has {_accuracy(best)} and the best baseline, {second}, {_accuracy(baseline)}, of one seed."
        )
    if found.low <= 0 <= found.high:
        return (
            f"{when} nothing is clearly best: {first} ({_accuracy(best)}) and the best baseline, {second} "
            f"({_accuracy(baseline)}), differ by {effect_text(found)}."
        )
    if found.high < 0:
        return (
            f"{when} no progressive strategy is best: the baseline {second} has {_accuracy(baseline)}, and the best of "
            f"them, {first}, is {fraction(-found.mean)} lower (margin {effect_text(found)})."
        )
    return (
        f"{when} {first} is best: {_accuracy(best)}, {effect_text(found)} more than the best baseline, {second} "
        f"({_accuracy(baseline)}){_sooner(best, baseline)}.{_equals(results, best)}"
    )


def _sooner(best: Group, baseline: Group) -> str:
    """Says how much earlier the best strategy is where the baseline ends, if that is more than a plateau."""
    curve = baseline.over()
    gained = interval((curve.iloc[-1] - curve.iloc[(len(curve) - 1) // 2]).to_numpy())
    if not gained.low > 0:
        return ", which no longer improved in the second half of its training"
    means = [group.over().mean(axis="columns") for group in (best, baseline)]
    first, second = (_reached(mean, float(means[1].iloc[-1])) for mean in means)
    if first is None or second is None or first >= second:
        return ""
    return f", whose end it reaches {second / first:.1f} times sooner (by step {first:,}, not {second:,})"


def _reached(mean: pd.Series, level: float) -> int | None:
    """Returns the first evaluated step at which a mean is at a level; None: it never is."""
    above = mean.index[mean >= level]
    return int(above[0]) if len(above) else None


NEAR = 0.02
"""Of accuracy: what is nearly as good as the best."""


def ends(results: Results) -> list[dict[str, str]]:
    """Returns a row for each strategy, the best first: how it ends after the most steps, and when it is nearly there.

    The last row is the teacher's, at its own steps. No rows before a strategy is finished.
    """
    budget = max((budget for budget in results.budgets if _finished(results, budget)), default=0)
    finished = _finished(results, budget)[::-1]
    if not finished:
        return []
    baselines = [group for group in finished if not results.strategies[group.strategy].is_progressive]
    level = float(finished[0].final().mean()) - NEAR
    rows = []
    for group in finished:
        over = "–"
        if baselines and group is not baselines[0]:
            found = interval((group.final() - baselines[0].final()).dropna().to_numpy())
            over = effect_text(found)
        row = {"Strategy": _name(results, group), f"Accuracy after {budget:,} steps": _accuracy(group)}
        row |= {f"More than {_name(results, baselines[0])}": over} if baselines else {}
        rows.append(row | {f"Mean at {fraction(level)} by step": _step_text(group.over().mean(axis="columns"), level)})
    curve = results.teacher_curve().set_index("step").value
    if not curve.empty:
        own = dict.fromkeys(rows[0], "–") | {"Strategy": "the teacher, at its own steps"}
        until = curve.loc[:budget]
        # One from elsewhere may have its first checkpoint later than that.
        own |= {} if until.empty else {f"Accuracy after {budget:,} steps": fraction(float(until.iloc[-1]))}
        rows.append(own | {f"Mean at {fraction(level)} by step": _step_text(curve, level)})
    return rows


def _step_text(mean: pd.Series, level: float) -> str:
    step = _reached(mean, level)
    return "not reached" if step is None else f"{step:,}"


def _equals(results: Results, best: Group) -> str:
    """Names the other strategies that the best is not clearly ahead of."""
    others = []
    for group in _finished(results, best.budget):
        found = interval((best.final() - group.final()).dropna().to_numpy())
        if group.strategy != best.strategy and found.low <= 0:
            others.append(_name(results, group))
    if not others:
        return ""
    names = listed(others[::-1]) if len(others) <= 3 else count_text(len(others), "other strategy")
    return f" {names[0].upper()}{names[1:]} {'is' if len(others) == 1 else 'are'} not clearly behind."


def _name(results: Results, group: Group) -> str:
    return results.name(group.strategy, group.learning_rate)


def _accuracy(group: Group) -> str:
    found = interval(group.final().to_numpy()).clipped()
    return fraction(found.mean) if found.size < 2 else f"{fraction(found.mean)} {interval_text(found)}"


def uncertainty(results: Results) -> str:
    """Says what the intervals are and what they do not cover."""
    training, teachers = results.experiment.student_training, results.experiment.teacher_training
    drawn = "saw the same batches" if training.shared_batches else "drew their own batches"
    if results.experiment.further_teachers:
        return (
            "Brackets are 95% Student t intervals over teachers, the students of each counting as their mean; of "
            f"differences, paired by teacher. Students of one teacher began differently and {drawn}; those of another "
            "one have other batches and other held-out examples, so that an interval says how much other teachers, "
            "students and examples would change. The verdicts of one claim are corrected for their number (Holm), "
            "intervals are not."
        )
    others = _other_teachers(results)
    which = f", of seed {teachers.seed}," if teachers.trajectory is None else ""
    return (
        "Brackets are 95% Student t intervals over the students’ seeds; of differences, paired by seed. Students of "
        f"different seeds began differently and {drawn}. A demonstration: all learn from one teacher{which} and are "
        f"evaluated on the same held-out examples: nothing here says how much other teachers would change.{others} "
        "The verdicts of one claim are corrected for their number (Holm), intervals are not."
    )


def _other_teachers(results: Results) -> str:
    others = () if results.teacher is None else results.teacher.evaluation.accuracy[-1:, 1:].ravel()
    if not len(others):
        return ""
    low, high = fraction(float(min(others))), fraction(float(max(others)))
    reach = low if low == high else f"{low} to {high}"
    return f" Teachers of {count_text(len(others), 'other seed')}, from which no student learns, reach {reach}."


def notes(results: Results, findings: Sequence[Finding]) -> list[str]:
    """Returns what a reader must know about missing or surplus records, and remarks on what is not claimed here."""
    claimed = {finding.claim.name for finding in findings}
    remarks = {name: text for name, text in results.experiment.remarks.items() if name not in claimed}
    sentences = [*_unfinished(results), *_teachers(results)]
    sentences += [
        f"The records hold a run {name} that the configuration does not ask for; it is shown nowhere."
        for name in results.strays
    ]
    if results.selection is None:
        sentences.append("No selection of checkpoints is recorded.")
    if not results.environment:
        sentences.append("Versions, device and command are not recorded.")
    if others := changed(results.environment.get("rules", {})):
        sentences.append(
            f"Rules have changed since this began ({', '.join(others)}): verdicts by those of today decide nothing "
            "anew on seeds that have been seen."
        )
    return [*sentences, *(f"Remark on {name}, of which there is no verdict: {text}" for name, text in remarks.items())]


def _unfinished(results: Results) -> list[str]:
    sentences = [f"Teacher {seed} is left out: {reason}." for seed, reason in results.left_out.items()]
    sentences += [f"Not begun: the teachers {', '.join(map(str, results.awaited))}."] if results.awaited else []
    if results.experiment.further_teachers:
        sentences.append(
            f"Curves, phases, selections and curricula of a teacher are here those of the first, of seed "
            f"{results.experiment.teacher_training.seed}; those of others are in results.csv and below teachers/."
        )
    if results.unfinished:
        sentences.append(f"{len(results.unfinished)} of {len(results.states)} runs are not finished.")
    begun = [s for s in results.states if s.record is not None and not s.complete]
    sentences += [f"Run {state.name} is {state.text}." for state in begun]
    absent = [state.name for state in results.states if state.record is None]
    sentences += [f"Not started: {', '.join(absent)}."] if absent else []
    asked = [(key, variant.name) for key, ablation in results.asked_ablations.items() for variant in ablation.variants]
    complete = sum(pair in results.variants and not results.variants[pair].unfinished for pair in asked)
    if complete < len(asked):
        sentences.append(f"Of {count_text(len(asked), 'variant')} of ablations, {complete} are complete.")
    return sentences


def _teachers(results: Results) -> list[str]:
    """Says where the teacher is from, unless it was trained here and is done."""
    trajectory = results.experiment.teacher_training.trajectory
    sentences = []
    if trajectory is not None:
        sentences.append(f"The teacher was not trained here: its checkpoints are those of {trajectory}.")
        if results.teacher is None:
            sentences.append("Its losses are not recorded here.")
        elif len(results.teacher.source.steps):
            sentences.append("Its phases are found by the losses that its source has recorded.")
    elif results.teacher is None:
        sentences.append("No results of the teacher are recorded here.")
    if results.teacher is None:
        return sentences
    if results.teacher_accuracy is None:
        return [*sentences, f"The teacher has not finished its {results.teacher.description.budget:,} steps."]
    return sentences
