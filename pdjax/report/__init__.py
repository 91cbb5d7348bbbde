"""Figures, tables, verdicts on the paper's claims and one static page, from recorded files alone."""

import logging
import os
import shutil
from pathlib import Path

from pdjax.report.additions import added_claims, added_figures
from pdjax.report.claims import evaluate_claims
from pdjax.report.figures import all_figures
from pdjax.report.page import render_page
from pdjax.report.reading import read_results
from pdjax.report.summary import verdict_lines
from pdjax.report.tables import all_tables

logger = logging.getLogger("pdjax")


def write_report(workdir: Path) -> Path:
    """Writes ``<workdir>/report/`` from what the experiment has recorded so far, and returns its index.html.

    The log says where it is, and the verdict on every claim.

    The old report stays complete until the new one is; files of earlier reports do not survive. The same records
    give the same bytes.

    Raises:
      UserError: the directory is no experiment's, its records contradict each other, a user's figure or claim
        fails, or a figure has the name of another.
    """
    results = read_results(workdir)
    claims = [*evaluate_claims(results), *added_claims(results)]
    figures, tables = all_figures(results), all_tables(results, claims)
    figures += added_figures(results, {figure.name for figure in figures})
    files = {"index.html": render_page(results, claims, figures, tables).encode()}
    files |= {f"figures/{figure.name}.svg": figure.svg for figure in figures}
    files |= {f"figures/{figure.name}.png": figure.png for figure in figures}
    files |= {f"tables/{table.name}.csv": table.csv().encode() for table in tables}
    report, partial, old = (workdir / name for name in ("report", "report.partial", "report.old"))
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    for name, content in files.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if report.exists():
        os.replace(report, old)
    os.replace(partial, report)
    if old.exists():
        shutil.rmtree(old)
    page = report / "index.html"
    logger.info("%s", "\n  ".join([f"report: {page}", *verdict_lines(claims)]))
    return page
