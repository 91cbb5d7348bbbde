"""Figures and claims that a configuration adds to those of this package."""

import contextlib
import traceback
from collections.abc import Collection, Iterator

import matplotlib.figure
import pandas as pd

from pdjax.errors import UserError, require
from pdjax.findings import Claim, Figure
from pdjax.report.claims import ClaimResult, Statement
from pdjax.report.claims.statement import OURS, decide, measured
from pdjax.report.figures import ReportFigure
from pdjax.report.figures.drawing import drawn
from pdjax.report.results import Results
from pdjax.report.style import context
from pdjax.report.table_of_results import table_of_results


def added_figures(results: Results, taken: Collection[str]) -> list[ReportFigure]:
    """Draws the figures that have something to draw.

    Args:
      results: what they see.
      taken: names of the report's other figures.

    Raises:
      UserError: one fails, or has the name of another.
    """
    figures: list[ReportFigure] = []
    for figure in results.experiment.report.figures:
        with _blaming(figure):
            added = _drawn(figure, table_of_results(results))
        if added is not None:
            expected = f"a name that no other figure has, of {type(figure).__name__}"
            free = added.name not in {*taken, *(other.name for other in figures)}
            require(free, expected, added.name, "give it another name; all that was trained is kept")
            figures.append(added)
    return figures


def _drawn(figure: Figure, table: pd.DataFrame) -> ReportFigure | None:
    with context(salt=figure.name):
        made = figure.draw(table)
    if made is None:
        return None
    expected = f"a matplotlib.figure.Figure, or None, of the figure {figure.name}"
    require(isinstance(made, matplotlib.figure.Figure), expected, type(made).__name__, "correct draw")
    return drawn(figure.name, figure.title, figure.caption, lambda: made)


def added_claims(results: Results) -> list[ClaimResult]:
    """Returns the verdicts on the claims.

    Raises:
      UserError: one fails.
    """
    decided = []
    for claim in results.experiment.report.claims:
        with _blaming(claim):
            decided += _decided(claim, table_of_results(results))
    return decided


def _decided(claim: Claim, table: pd.DataFrame) -> Iterator[ClaimResult]:
    statement = Statement(claim.name, claim.text, OURS, claim.rule)
    for case, quantities in claim.measure(table).items():
        measurements = tuple(measured(name, list(values)) for name, values in quantities.items())
        verdict, note = decide(measurements)
        yield ClaimResult(statement, case, measurements, claim.decide(quantities) or verdict, note)


@contextlib.contextmanager
def _blaming(addition: Figure | Claim) -> Iterator[None]:
    """Says on one line what failed in somebody's code, and where: the rest of the report is not theirs to mend."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{type(addition).__name__} ({addition.name}) to work on the results",
            f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})",
            "correct it, or remove it from the report; all that was trained is kept",
        ) from error
