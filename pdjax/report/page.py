"""The report's page: one static HTML file with inline figures."""

import html
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pdjax.report.claims import ClaimResult
from pdjax.report.curricula import Curriculum, curricula_of, in_words
from pdjax.report.figures import ReportFigure
from pdjax.report.results import Arm, Results
from pdjax.report.stats import Interval, mean_interval
from pdjax.report.tables import Table

MOST_LEGS = 12
"""Of a curriculum that the page lists without folding it."""


def render_page(
    results: Results, claims: Sequence[ClaimResult], figures: Sequence[ReportFigure], tables: Sequence[Table]
) -> str:
    """Returns the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fraction": fraction, "signed": signed, "interval": interval_text, "seconds": seconds_text}
    return environment.get_template("page.html").render(
        results=results,
        summary=summary(results, claims),
        notes=notes(results),
        statements=list(dict.fromkeys(claim.statement for claim in claims)),
        claims=claims,
        figures=[(figure, inline_svg(figure)) for figure in figures],
        students=_student_rows(results),
        curricula=_curriculum_rows(results),
        sizes=_size_rows(results),
        tables=tables,
        config=json.dumps(results.config.as_dict(), indent=2),
        command=shlex.join(results.environment.get("command", [])),
        total_seconds=sum(state.record.seconds for state in results.states if state.record is not None),
    )


def fraction(value: float | None) -> str:
    """Formats an accuracy or a loss with 3 decimals; nothing measured is a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """Formats a margin with its sign and 3 decimals."""
    return f"{value:+.3f}".replace("-", "−")


def interval_text(interval: Interval, sign: bool = False) -> str:
    """Formats the ends of an interval; a dash if one run alone cannot have any."""
    if math.isnan(interval.low):
        return "–"
    write = signed if sign else fraction
    return f"[{write(interval.low)}, {write(interval.high)}]"


def seconds_text(seconds: float) -> str:
    """Formats a duration in seconds, and in minutes where that is easier to read."""
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds:,.0f} s ({seconds / 60:,.1f} min)"


def inline_svg(figure: ReportFigure) -> str:
    """Returns the figure as an SVG element whose identifiers no other figure of the page has."""
    text = figure.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="', f' id="{figure.name}-', text)
    text = re.sub(r'href="#', f'href="#{figure.name}-', text)
    text = re.sub(r"url\(#", f"url(#{figure.name}-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"|(<svg [^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(figure.title)}" ', 1)


def summary(results: Results, claims: Sequence[ClaimResult]) -> str:
    """Says in plain words what was found; every number comes from the records."""
    sentences = [_teacher_sentence(results)]
    for rate in results.learning_rates:
        for budget in results.budgets:
            arms = [results.finished(strategy, rate, budget) for strategy in results.config.strategies]
            finished = [arm for arm in arms if arm is not None]
            if finished:
                sentences.append(_best_sentence(results, finished, len(arms)))
    for statement in dict.fromkeys(claim.statement for claim in claims):
        verdicts = [claim.verdict for claim in claims if claim.statement == statement]
        words = {"holds": "holds", "fails": "fails", "undecided": "is undecided", "not tested": "is not tested"}
        counts = [f"{text} in {verdicts.count(v)}" for v, text in words.items() if v in verdicts]
        cases = "1 case" if len(verdicts) == 1 else f"{len(verdicts)} cases"
        listed = " and ".join([", ".join(counts[:-1]), counts[-1]] if counts[1:] else counts)
        sentences.append(f"Of {cases}, claim {statement.name} {listed}.")
    if results.unfinished:
        sentences.append(f"{len(results.unfinished)} of {len(results.states)} runs are not finished.")
    return " ".join(sentences)


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


def _best_sentence(results: Results, finished: Sequence[Arm], asked: int) -> str:
    best = max(finished, key=lambda arm: float(arm.final_accuracy.mean()))
    accuracy = mean_interval(best.final_accuracy)
    among = "" if len(finished) == asked else f" among the {len(finished)} finished of {asked} strategies"
    spread = "" if accuracy.size < 2 else f" (95% interval {interval_text(accuracy)})"
    seeds = "1 seed" if accuracy.size == 1 else f"{accuracy.size} seeds"
    rate = f" and learning rate {best.learning_rate}" if len(results.learning_rates) > 1 else ""
    return (
        f"With {best.budget:,} steps{rate} the highest mean{among} is {fraction(accuracy.mean)}{spread} over {seeds}, "
        f"by {results.labels[best.strategy]}."
    )


def notes(results: Results) -> list[str]:
    """Returns what a reader must know about missing or surplus records."""
    found = []
    trajectory = results.config.teacher_training.trajectory
    if results.teacher is None and trajectory is not None:
        found.append(f"The teacher is the existing trajectory {trajectory}; its training curve is not recorded here.")
    elif trajectory is not None:
        found.append(f"The teacher is the existing trajectory {trajectory}; its curve is copied from there.")
    found += [f"Run {s.name} is {s.text}." for s in results.states if s.record is not None and not s.complete]
    absent = [state.name for state in results.states if state.record is None]
    found += [f"Not started: {', '.join(absent)}."] if absent else []
    found += [
        f"The records hold a run {name} that the configuration does not ask for; it is shown nowhere."
        for name in results.strays
    ]
    if not results.selection:
        found.append("No selection of checkpoints is recorded.")
    if not results.environment:
        found.append("Versions, device and command are not recorded.")
    return found


def _student_rows(results: Results) -> list[Mapping[str, Any]]:
    rows = []
    for (strategy, rate, budget), arm in results.arms.items():
        if arm.run.complete:
            rows.append(
                {
                    "name": results.name(strategy, rate),
                    "budget": budget,
                    "accuracy": mean_interval(arm.final_accuracy),
                    "seeds": list(zip(arm.seeds, arm.final_accuracy.tolist(), strict=True)),
                    "loss": float(arm.loss[-1].mean()),
                    "seconds": arm.run.seconds,
                }
            )
    return sorted(rows, key=lambda row: row["budget"])


def _curriculum_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns what is to be said about the strategies' checkpoints, once for those that do the same."""
    chosen = results.selection.get("strategies", {})
    names: dict[tuple[str, tuple[tuple[int, tuple[Curriculum, ...]], ...]], list[str]] = {}
    for strategy, label in results.labels.items():
        runs = [(budget, run) for (key, budget), run in results.runs.items() if key == strategy]
        tables = tuple((budget, tuple(curricula_of(run))) for budget, run in runs if run.description.teacher_steps)
        reason = chosen.get(strategy, {}).get("reason", "")
        if tables or reason:
            names.setdefault((reason, tables), []).append(label)
    return [
        {
            "names": labels,
            "reason": reason,
            "tables": [_curriculum_table(results, budget, curricula) for budget, curricula in tables],
        }
        for (reason, tables), labels in names.items()
    ]


def _curriculum_table(results: Results, budget: int, curricula: Sequence[Curriculum]) -> Mapping[str, Any]:
    """Returns a budget's curricula: rows of text and legs, in words where there are any, folded where they are long."""
    several = len(results.learning_rates) > 1
    rows = []
    for replica, legs in curricula:
        rate = f", learning rate {replica.learning_rate}" if replica is not None and several else ""
        rows.append(("" if replica is None else f"seed {replica.seed}{rate}: ", in_words(legs), legs))
    legs = sum(len(legs) for _, legs in curricula)
    own = any(curriculum.replica is not None for curriculum in curricula)
    counts = sorted({len(curriculum.legs) for curriculum in curricula})
    reached = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    summary = f"each student moves on by itself and comes to {reached} checkpoints" if own else rows[0][1]
    return {"budget": budget, "summary": summary, "folded": summary is not None or legs > MOST_LEGS, "rows": rows}


def _size_rows(results: Results) -> list[Mapping[str, Any]]:
    several = results.config.sizes is not None and len(results.config.sizes.learning_rates) > 1
    return [
        {
            "panel": panel,
            "label": f"{label}, learning rate {rate}" if several else label,
            "accuracy": mean_interval(arm.final_accuracy),
            "over_training": float(arm.accuracy.mean()),
            "seconds": arm.run.seconds,
        }
        for (panel, label, rate), arm in results.size_arms.items()
        if arm.run.complete
    ]
