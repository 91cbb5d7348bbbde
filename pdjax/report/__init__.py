"""Figures, tables, verdicts on the paper's claims and one static page, from recorded files alone."""

import importlib.util
import io
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import pandas as pd

from pdjax.report.additions import added_claims, added_figures
from pdjax.report.claims import CLAIMS, evaluate_claims
from pdjax.report.figures import all_figures
from pdjax.report.page import render_page
from pdjax.report.reading import read_results
from pdjax.report.summary import verdict_lines
from pdjax.report.tables import all_tables

logger = logging.getLogger("pdjax")


def results(*workdirs: str | Path) -> pd.DataFrame:
    """Returns everything that was measured in working directories, finished or not: see ``pdjax.findings``.

    A column ``workdir`` says which, and ``variant`` which variant of an ablation; empty is the experiment itself. The
    mean final accuracy of every strategy, by the teacher's seed of each experiment::

        table = results(*Path("runs").glob("parity_mlp_seed*"))
        ends = table[(table.role == "student") & (table.measure == "accuracy") & (table.step == table.budget)]
        ends.groupby(["teacher_seed", "strategy"]).value.mean().unstack()

    Raises:
      UserError: a directory is no experiment's, or its records contradict each other.
    """
    tables = [read_results(Path(workdir)).table_with_variants.assign(workdir=str(workdir)) for workdir in workdirs]
    joined = pd.concat([table for table in tables if not table.empty] or tables[:1], ignore_index=True)
    return joined[["workdir", *(name for name in joined if name != "workdir")]]


def write_report(workdir: Path) -> Path:
    """Writes ``<workdir>/report/`` from what the experiment has recorded so far, and returns its index.html.

    The log says where it is, and the verdict on every claim.

    The old report stays complete until the new one is; files of earlier reports do not survive. The same records
    give the same bytes.

    Raises:
      UserError: the directory is no experiment's, its records contradict each other, a user's figure or claim
        fails, or has the name of another.
    """
    recorded = read_results(workdir)
    findings = [*evaluate_claims(recorded), *added_claims(recorded, {claim.name for claim in CLAIMS})]
    figures, tables = all_figures(recorded), all_tables(recorded, findings)
    figures += added_figures(recorded, {figure.name for figure in figures})
    files = {"index.html": render_page(recorded, findings, figures, tables).encode()}
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": getattr(figure, kind) for kind in ("svg", "png", "csv")}
    files |= {f"tables/{name}.csv": _csv(table) for name, table in tables.items()}
    files |= _whole(recorded.table_with_variants)
    page = _replace(workdir, files)
    logger.info("%s", "\n  ".join([f"report: {page}", *verdict_lines(findings)]))
    return page


def _whole(table: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
    """Yields the files of the table of results."""
    yield "results.csv", _csv(table)
    if importlib.util.find_spec("pyarrow") is not None:
        file = io.BytesIO()
        table.to_parquet(file, index=False)
        yield "results.parquet", file.getvalue()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _replace(workdir: Path, files: dict[str, bytes]) -> Path:
    """Writes the files of a report in place of the old one, and returns its page."""
    report, partial, old = (workdir / name for name in ("report", "report.partial", "report.old"))
    # A run may end while somebody looks at what it has so far: one after the other.
    with filelock.FileLock(workdir / ".report-lock"):
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
    return report / "index.html"
