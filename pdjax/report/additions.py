"""Figures and claims that a configuration adds to those of this package."""

import contextlib
import traceback
from collections.abc import Collection, Iterator

import matplotlib.figure
import pandas as pd

from pdjax.errors import UserError, require
from pdjax.findings import Claim as AddedClaim
from pdjax.findings import Figure as AddedFigure
from pdjax.report.claims.claim import OURS, Absent, Case, Claim, Finding, decided, measured
from pdjax.report.claims.judging import judged
from pdjax.report.figures.drawing import ReportFigure, drawn
from pdjax.report.results import Results
from pdjax.report.style import context

_KEPT = "give it another name; all that was trained is kept"


def added_figures(results: Results, taken: Collection[str]) -> list[ReportFigure]:
    """Draws the figures that have something to draw.

    Args:
      results: whose table they see.
      taken: names of the report's other figures.

    Raises:
      UserError: one fails, or has the name of another.
    """
    figures: list[ReportFigure] = []
    for figure in results.experiment.report.figures:
        with _blaming(figure):
            added = _drawn(figure, results.table.copy())
        if added is not None:
            expected = f"a name that no other figure has, of {type(figure).__name__}"
            require(added.name not in {*taken, *(other.name for other in figures)}, expected, added.name, _KEPT)
            figures.append(added)
    return figures


def _drawn(figure: AddedFigure, table: pd.DataFrame) -> ReportFigure | None:
    with context(salt=figure.name):
        made = figure.draw(table)
    if made is None:
        return None
    expected = f"a matplotlib.figure.Figure, or None, of the figure {figure.name}"
    require(isinstance(made, matplotlib.figure.Figure), expected, type(made).__name__, "correct draw")
    return drawn(figure.name, figure.title, figure.caption, lambda table: made, table)


def added_claims(results: Results, taken: Collection[str]) -> list[Finding]:
    """Returns what came out of the claims.

    Args:
      results: whose table they see.
      taken: names of the report's other claims.

    Raises:
      UserError: one fails, or has the name of another.
    """
    found = []
    for added in results.experiment.report.claims if results.experiment.tuning is None else ():
        require(
            added.name not in taken, f"a name that no other claim has, of {type(added).__name__}", added.name, _KEPT
        )
        with _blaming(added):
            claim = _as_claim(added)
            cases = claim.measure(results)
            found.append(
                Finding(claim, [], cases.reason) if isinstance(cases, Absent) else Finding(claim, judged(cases), "")
            )
    return found


def _as_claim(added: AddedClaim) -> Claim:
    def measure(results: Results) -> list[Case] | Absent:
        return _cases(added, results.table.copy()) or Absent("it is not about this experiment")

    return Claim(added.name, added.text, OURS, added.rule, smallest=0.0, figure="", measure=measure)


def _cases(claim: AddedClaim, table: pd.DataFrame) -> list[Case]:
    cases = []
    for name, quantities in claim.measure(table).items():
        series = {quantity: pd.Series(list(values), dtype=float) for quantity, values in quantities.items()}
        case = decided(name, [measured(quantity, values) for quantity, values in series.items()])
        own = claim.decide(quantities)
        # By a rule of its own it is as certain as that says.
        cases.append(case if own is None else Case(name, case.measurements, own, p=0.0))
    return cases


@contextlib.contextmanager
def _blaming(addition: AddedFigure | AddedClaim) -> Iterator[None]:
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
