"""The report's page: one static HTML file with inline figures, the point first and what few ask for folded."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from pdjax.io.rules import ORIGINS, digests
from pdjax.report import summary, tables
from pdjax.report.claims.claim import Finding
from pdjax.report.curricula import curriculum_rows, shared_students
from pdjax.report.figures import ReportFigure
from pdjax.report.results import Results
from pdjax.report.searches import turn_name
from pdjax.report.stats import Interval
from pdjax.report.text import effect_text, fraction, interval_text, seconds_text, signed
from pdjax.report.variants import Variant, variants_of
from pdjax.settings import plain

Cells = Mapping[str, str]
"""A row of a table of the page: its cells by the titles of their columns."""


def render_page(
    results: Results,
    findings: Sequence[Finding],
    figures: Sequence[ReportFigure],
    files: Mapping[str, pd.DataFrame],
) -> str:
    """Returns the page as HTML.

    Args:
      results: that it is about.
      findings: what came out of every claim.
      figures: all of them, in order; the main one is put first.
      files: the tables that lie beside it, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fraction": fraction, "seconds": seconds_text, "effect": effect_text}
    main = main_figure(results, figures)
    return environment.get_template("page.html").render(
        results=results,
        summary=summary,
        names=summary.names(results),
        ends=summary.ends(results),
        notes=summary.notes(results, findings),
        main=main,
        figures=[figure for figure in figures if figure is not main],
        lines=[
            (finding, summary.line_of(finding), _figure_of(finding, figures)) for finding in findings if finding.cases
        ],
        absent=[finding.claim for finding in findings if not finding.cases],
        findings=findings,
        intervals=interval_rows,
        students=student_rows(results),
        sizes=size_rows(results),
        curricula=curriculum_rows(results),
        shared=shared_students(results),
        ablations=ablation_rows(results),
        runs=run_rows(results),
        tuned=tuned_rows(results),
        rules=digests(),
        origins=[
            {"Rule": one.rule, "Set on": one.set_on, "Reported seeds seen before": one.seen or "–"} for one in ORIGINS
        ],
        files=files,
        config=json.dumps(plain(results.experiment), indent=2),
        turn=turn_name(results),
        command=shlex.join(results.environment.get("command", [])),
        total_seconds=results.seconds + sum(variant.seconds for variant in results.variants.values()),
    )


def main_figure(results: Results, figures: Sequence[ReportFigure]) -> ReportFigure | None:
    """Returns the figure that is shown first; of several learning rates that of the best, if there is one."""
    asked = results.experiment.report.main_figure
    for prefix in (asked,) if asked else ("accuracy_by_budget", "training_"):
        found = [figure for figure in figures if figure.name.startswith(prefix)]
        if found:
            return min(found, key=lambda figure: not figure.name.endswith("_best"))
    return None


def _figure_of(finding: Finding, figures: Sequence[ReportFigure]) -> str | None:
    """Returns the name of the first figure that shows what a claim is about."""
    prefix = finding.claim.figure
    return next((figure.name for figure in figures if prefix and figure.name.startswith(prefix)), None)


def interval_rows(finding: Finding) -> list[Cells]:
    """Returns every measured quantity of a claim."""
    rows = []
    for case in finding.cases:
        for measurement in case.listed or (None,):
            found = None if measurement is None else measurement.interval
            notes = (case.note, "" if measurement is None else measurement.note)
            rows.append(
                {
                    "Case": case.name,
                    "Verdict": case.verdict,
                    "Quantity": "" if measurement is None else measurement.quantity,
                    "Mean": "–" if found is None else signed(found.mean),
                    "95% interval": "–" if found is None else interval_text(found, sign=True),
                    "Over": "–" if found is None or measurement is None else f"{found.size} {measurement.units}",
                    "Note": "; ".join(dict.fromkeys(note for note in notes if note)),
                }
            )
    return rows if any(row["Note"] for row in rows) else [{k: v for k, v in row.items() if k != "Note"} for row in rows]


def student_rows(results: Results) -> list[Cells]:
    """Returns the finished students of every strategy, learning rate and budget."""
    rows = []
    for row in sorted(tables.students(results), key=lambda row: row["budget"]):
        if "accuracy_mean" in row:
            same = f" (the same students as {row['same']})" if row["same"] else ""
            rows.append(
                {
                    "Strategy": results.name(row["strategy"], row["learning_rate"]) + same,
                    "Steps": f"{row['budget']:,}",
                    **_accuracy(row),
                    **_by_unit(row),
                    "Loss (nats)": fraction(row["loss_mean"]),
                    "Run": seconds_text(row["run_seconds"]),
                }
            )
    return rows


def size_rows(results: Results) -> list[Cells]:
    """Returns the finished models of other sizes."""
    several = results.experiment.sizes is not None and len(results.experiment.sizes.learning_rates) > 1
    return [
        {
            "Panel": row["panel"],
            "Size": row["label"] + (f", learning rate {row['learning_rate']}" if several else ""),
            **_accuracy(row),
            "Accuracy over training": fraction(row["accuracy_over_training"]),
            "Over": f"{row['count']} {row['units']}",
            "Run": seconds_text(row["run_seconds"]),
        }
        for row in tables.sizes(results)
        if "accuracy_mean" in row
    ]


def _accuracy(row: Mapping[str, Any]) -> Cells:
    found = Interval(row["accuracy_mean"], row["accuracy_low"], row["accuracy_high"], row["count"])
    return {"Accuracy": fraction(found.mean), "95% interval": interval_text(found)}


def _by_unit(row: Mapping[str, Any]) -> Cells:
    unit = row["units"].removesuffix("s")
    prefix = f"accuracy_{unit}_"
    values = [f"{key.removeprefix(prefix)}: {fraction(row[key])}" for key in row if key.startswith(prefix)]
    return {f"Accuracy by {unit}": ", ".join(values)}


def tuned_rows(results: Results) -> list[Cells]:
    """Returns what a tuning has chosen for every strategy."""
    return [
        {
            "Strategy": results.labels[one["strategy"]],
            "Learning rate": f"{one['learning_rate']:g}" + (" (at the edge of the grid)" if one["at_the_edge"] else ""),
            "Accuracy": fraction(one["final"]),
            "Accuracy over training": fraction(one["over_training"]),
            "Name": one["strategy"],
        }
        for one in results.tuned.get("chosen", {}).values()
    ]


def run_rows(results: Results) -> list[Cells]:
    """Returns what every run has cost."""
    return [
        {
            "Run": row["run"],
            "State": row["state"],
            "Replicas": "–" if row["replicas"] is None else str(row["replicas"]),
            "Time": seconds_text(row["seconds"]),
            "Peak memory": f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB" if row["peak_memory_bytes"] else "–",
        }
        for row in tables.runs(results)
    ]


def ablation_rows(results: Results) -> list[Mapping[str, Any]]:
    """Returns the ablations, each with what its variants replace, how far they have come and where they lie."""
    return [
        {
            "title": ablation.title,
            "figure": ablation.figure,
            "base": ablation.base,
            "variants": [_variant_row(key, variant) for variant in variants_of(results, key) if not variant.is_base],
        }
        for key, ablation in results.asked_ablations.items()
    ]


def _variant_row(key: str, variant: Variant) -> Cells:
    results, state, teacher = variant.results, "not started", "–"
    if results is not None:
        complete = len(results.states) - len(results.unfinished)
        state = f"{complete} of {len(results.states)} runs complete" if results.unfinished else "complete"
        teacher = fraction(results.teacher_accuracy) + (" (this experiment’s)" if results.shares_teacher else "")
    row = {"Variant": variant.name, "Replaces": variant.replaced, "Teacher’s accuracy": teacher, "State": state}
    return {**row, "Directory": f"ablations/{key}/{variant.name}"}
