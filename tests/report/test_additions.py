"""Figures and claims of users: what is wrong with one is said on a line that names it, and nothing is overwritten."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.figure
import pandas as pd
import pytest

from pdjax.errors import UserError
from pdjax.experiment import Report
from pdjax.findings import Claim, Figure, Verdict
from pdjax.report import write_report
from pdjax.report.additions import added_claims, added_figures
from pdjax.report.reading import read_results
from pdjax.report.results import Results
from pdjax.settings import settings


def fail(value: float, position: int | None) -> str:
    """Formats no tick."""
    raise ValueError(f"no label for {value} at {position}")


@settings
class Empty(Figure):
    """Axes without content."""

    name: ClassVar[str] = "empty"
    title: ClassVar[str] = "Empty"
    caption: ClassVar[str] = "Nothing."

    def draw(self, table: pd.DataFrame) -> matplotlib.figure.Figure | None:
        """Draws them."""
        figure = matplotlib.figure.Figure()
        figure.add_subplot()
        return figure


@settings
class LikeTraining(Empty):
    """Named like a figure of the report."""

    name: ClassVar[str] = "training_all_100"


@settings
class Spaced(Empty):
    """Named like ``Underscored``, when its files are written."""

    name: ClassVar[str] = "of all"


@settings
class Underscored(Empty):
    """Named so that it can be a file."""

    name: ClassVar[str] = "of_all"


@settings
class Unformatted(Empty):
    """Fails when it is written, not when it is made."""

    def draw(self, table: pd.DataFrame) -> matplotlib.figure.Figure | None:
        """Draws axes whose ticks have no text."""
        figure = matplotlib.figure.Figure()
        figure.add_subplot().xaxis.set_major_formatter(fail)
        return figure


@settings
class Uncaptioned(Figure):
    """Has no caption."""

    name: ClassVar[str] = "uncaptioned"
    title: ClassVar[str] = "Uncaptioned"

    def draw(self, table: pd.DataFrame) -> matplotlib.figure.Figure | None:
        """Draws nothing on it."""
        return matplotlib.figure.Figure()


@settings
class Measured(Claim):
    """Measures as much as it is told."""

    name: ClassVar[str] = "measured"
    text: ClassVar[str] = "All quantities are positive."

    quantities: int = 0

    def measure(self, table: pd.DataFrame) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Returns positive values of two seeds."""
        return {"all": {f"quantity {index}": [1.0, 1.1] for index in range(self.quantities)}}


@settings
class Caseless(Measured):
    """Is not about this."""

    def measure(self, table: pd.DataFrame) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Returns nothing."""
        return {}


@settings
class Strict(Measured):
    """Is never content."""

    def decide(self, quantities: Mapping[str, Sequence[float]]) -> Verdict | None:
        """Fails."""
        return "fails"


@settings
class LikeF1(Measured):
    """Named like a claim of the report."""

    name: ClassVar[str] = "F1"


@settings
class Emptying(Empty):
    """Changes the table that it is given."""

    def draw(self, table: pd.DataFrame) -> matplotlib.figure.Figure | None:
        """Draws nothing on empty axes."""
        del table["value"]
        return super().draw(table)


def reporting(results: Results, *figures: Figure, claims: tuple[Claim, ...] = ()) -> Results:
    """Returns results of an experiment that adds figures and claims to its report."""
    return dataclasses.replace(
        results, experiment=dataclasses.replace(results.experiment, report=Report(figures=figures, claims=claims))
    )


@pytest.mark.parametrize(("quantities", "expected"), [(0, ("not tested", "no quantity")), (1, ("holds", ""))])
def test_a_claim_without_quantities_is_not_tested(finished: Any, quantities: int, expected: tuple[str, str]):
    (finding,) = added_claims(reporting(read_results(finished.path), claims=(Measured(quantities),)), ())
    assert [(case.verdict, case.note) for case in finding.cases] == [expected]


def test_a_claim_without_cases_says_that_it_is_not_about_this(finished: Any):
    (finding,) = added_claims(reporting(read_results(finished.path), claims=(Caseless(),)), ())
    assert (finding.cases, finding.absent) == ([], "it is not about this experiment")


def test_a_claim_may_decide_by_a_rule_of_its_own(finished: Any):
    (finding,) = added_claims(reporting(read_results(finished.path), claims=(Strict(1),)), ())
    assert [case.verdict for case in finding.cases] == ["fails"]


def test_a_claim_does_not_take_the_place_of_one_of_the_report(finished: Any, monkeypatch: pytest.MonkeyPatch):
    results = reporting(read_results(finished.path), claims=(LikeF1(),))
    monkeypatch.setattr("pdjax.report.read_results", lambda workdir: results)
    with pytest.raises(UserError, match="a name that no other claim has, of LikeF1; found F1; give it"):
        write_report(finished.path)


def test_additions_see_the_table_and_spoil_nobody_elses(finished: Any):
    results = reporting(read_results(finished.path), Emptying())
    (figure,) = added_figures(results, ())
    assert figure.csv.decode().splitlines()[0].startswith("role,teacher_seed,strategy,")
    assert "value" in results.table


def test_a_figure_without_a_caption_is_named(finished: Any):
    with pytest.raises(UserError, match=r"expected Uncaptioned \(uncaptioned\) to work .* no attribute 'caption'"):
        added_figures(reporting(read_results(finished.path), Uncaptioned()), ())


def test_a_figure_that_fails_when_it_is_written_is_named_with_the_line(report: Path):
    results = read_results(report.parents[1])
    place = rf"test_additions\.py, line {fail.__code__.co_firstlineno + 2}"
    with pytest.raises(UserError, match=rf"expected Unformatted \(empty\) to work .* no label for .*{place}"):
        added_figures(reporting(results, Unformatted()), ())


def test_a_figure_does_not_take_the_place_of_one_of_the_report(finished: Any, monkeypatch: pytest.MonkeyPatch):
    results = reporting(read_results(finished.path), LikeTraining())
    monkeypatch.setattr("pdjax.report.read_results", lambda workdir: results)
    with pytest.raises(
        UserError, match="a name that no other figure has, of LikeTraining; found training_all_100; give it"
    ):
        write_report(finished.path)


def test_figures_whose_files_would_have_one_name_are_refused(finished: Any):
    results = read_results(finished.path)
    assert [figure.name for figure in added_figures(reporting(results, Spaced(), Empty()), ())] == ["of_all", "empty"]
    with pytest.raises(UserError, match="a name that no other figure has, of Underscored; found of_all"):
        added_figures(reporting(results, Spaced(), Underscored()), ())
