"""The report's page: one static HTML file with inline figures."""

import html
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2

from pdjax.report.claims import ClaimResult
from pdjax.report.figures import ReportFigure
from pdjax.report.results import Results
from pdjax.report.rows import ablation_rows, curriculum_rows, shared_students, size_rows, student_rows
from pdjax.report.searches import turn_name
from pdjax.report.summary import notes, summary
from pdjax.report.tables import Table
from pdjax.report.text import fraction, interval_text, seconds_text, signed
from pdjax.settings import plain


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
        notes=notes(results, claims),
        statements=list(dict.fromkeys(claim.statement for claim in claims)),
        claims=claims,
        figures=[(figure, inline_svg(figure)) for figure in figures],
        students=student_rows(results),
        curricula=curriculum_rows(results),
        shared=shared_students(results),
        sizes=size_rows(results),
        ablations=ablation_rows(results),
        tables=tables,
        config=json.dumps(plain(results.experiment), indent=2),
        turn=turn_name(results),
        command=shlex.join(results.environment.get("command", [])),
        total_seconds=results.seconds + sum(variant.seconds for variant in results.ablations.values()),
    )


def inline_svg(figure: ReportFigure) -> str:
    """Returns the figure as an SVG element whose identifiers no other figure of the page has."""
    text = figure.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="', f' id="{figure.name}-', text)
    text = re.sub(r'href="#', f'href="#{figure.name}-', text)
    text = re.sub(r"url\(#", f"url(#{figure.name}-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"|(<svg [^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(figure.title)}" ', 1)
