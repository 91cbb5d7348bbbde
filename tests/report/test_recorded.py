"""What five trials recorded gives the same numbers as ever, and verdicts that follow from the old ones.

``recorded.zip`` holds the records of every configuration's ``:smoke`` and, in ``tables``, what the report made of them
before it had one table of results. Accuracies' intervals have been cut to [0, 1] since, claims that say nothing
about an experiment have no verdict, and the cases of a claim are judged together.
"""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pdjax.io.sealed import write_json, write_lines
from pdjax.report.claims import evaluate_claims
from pdjax.report.claims.claim import Case, Measurement
from pdjax.report.claims.schedules import GAP, KAPPA
from pdjax.report.claims.teachers import ATTENTION, EARLY, SPIKES
from pdjax.report.claims.temperatures import ARGMAX, SOFT
from pdjax.report.reading import read_results
from pdjax.report.results import Results
from pdjax.report.stats import interval

CONFIGS = ("hierarchical", "parity_mlp", "parity_transformer", "pcfg", "pcfg_gpt")


@pytest.fixture(scope="module", params=CONFIGS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """A trial's results, and the directory of the tables that were made of them."""
    directory = tmp_path_factory.mktemp("recorded")
    with zipfile.ZipFile(Path(__file__).with_name("recorded.zip")) as file:
        file.extractall(directory, [name for name in file.namelist() if name.startswith(f"{request.param}/")])
    seal(directory / request.param)
    return read_results(directory / request.param), directory / request.param / "tables"


def seal(workdir: Path) -> None:
    """Writes what was recorded before there were digests with them, and before sizes said which they are."""
    seals = {}
    for path in workdir.rglob("*.jsonl"):
        seals[path] = write_lines(path, [json.loads(line) for line in path.read_text().splitlines()])
    for path in workdir.rglob("*.json"):
        value = json.loads(path.read_text())
        if path.name == "result.json":
            beside = {other.stem: of for other, of in seals.items() if other.parent == path.parent}
            value["records"] = beside if path.parent.name == "probes" else beside["metrics"]
        if path.name == "run.json" and value["role"] == "size":
            value["strategies"] = [value["name"]]
        write_json(path, value)


def old(directory: Path, name: str) -> pd.DataFrame:
    """Returns an old table; one that was not written has no rows."""
    path = directory / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def indexed(table: pd.DataFrame, columns: list[str], value: str = "value") -> pd.Series:
    """Returns a column by others, which tell all rows apart."""
    series = table.set_index(columns)[value].sort_index().astype(float)
    assert series.index.is_unique
    return series


def equal(new: pd.Series, expected: pd.Series) -> None:
    """Requires the same index and, to rounding, the same values."""
    pd.testing.assert_series_equal(new, expected, check_names=False, rtol=1e-12, atol=1e-12, check_index_type=False)


def test_the_teachers_curves_are_the_same(recorded: tuple[Results, Path]):
    results, tables = recorded
    rows = results.table[results.table.role == "teacher"]
    for measure in ("loss", "accuracy"):
        new = indexed(rows[rows.measure == measure], ["seed", "step"])
        equal(new, indexed(old(tables, "teacher"), ["seed", "step"], measure))


def test_the_students_are_the_same(recorded: tuple[Results, Path]):
    results, tables = recorded
    table = old(tables, "students")
    assert len(table) == len(results.groups) > 0
    for row in table.to_dict("records"):
        group = results.groups[row["strategy"], row["learning_rate"], row["budget"]]
        by_seed = {int(str(name).removeprefix("accuracy_seed_")): v for name, v in row.items() if "_seed_" in str(name)}
        assert dict(zip(group.final().index.get_level_values("seed"), group.final(), strict=True)) == by_seed
        found = interval(group.final().to_numpy())
        values = (found.mean, *found.clipped()[1:3], group.final("loss").mean())
        low, high = max(row["accuracy_low"], 0), min(row["accuracy_high"], 1)
        assert values == pytest.approx((row["accuracy_mean"], low, high, row["loss_mean"]), rel=1e-12, abs=1e-12)


def test_the_sizes_are_the_same(recorded: tuple[Results, Path]):
    results, tables = recorded
    table = old(tables, "sizes")
    assert len(table) == len(results.size_groups)
    for row in table.to_dict("records"):
        group = results.size_groups[row["panel"], str(row["label"]), row["learning_rate"]]
        assert interval(group.final().to_numpy()).mean == pytest.approx(row["accuracy_mean"], rel=1e-12)
        assert group.over().to_numpy().mean() == pytest.approx(row["accuracy_over_training"], rel=1e-12)


def test_the_correlations_are_the_same(recorded: tuple[Results, Path]):
    results, tables = recorded
    table = old(tables, "correlations")
    rows = results.table[results.table.measure == "correlation"]
    assert rows.empty == table.empty
    if table.empty:
        return
    by_degree = rows.groupby(["seed", "step", "feature", "degree"]).value
    keys = ["seed", "step", "group", "degree"]
    equal(by_degree.mean().rename_axis(keys).sort_index(), indexed(table, keys, "correlation_mean"))
    equal(by_degree.std(ddof=0).rename_axis(keys).sort_index(), indexed(table, keys, "correlation_deviation"))


def test_the_attention_is_the_same(recorded: tuple[Results, Path]):
    results, tables = recorded
    table = old(tables, "attention")
    rows = results.table[results.table.measure.str.startswith("attention")]
    assert rows.empty == table.empty
    if table.empty:
        return
    support = rows[rows.measure == "attention to the support"]
    equal(indexed(support, ["seed", "step"]), indexed(table, ["seed", "step"], "support"))
    others = rows[(rows.measure == "attention") & (rows.feature == -1)].groupby(["seed", "step"]).value.mean()
    equal(others, indexed(table, ["seed", "step"], "other_position_mean"))


PROBES: dict[str, tuple[list[str], dict[str, str]]] = {
    "ngrams": (["n", "percentile"], {"M_robust": "value", "M_close": "value"}),
    "nonterminals": (["level"], {"non-terminals": "accuracy"}),
    "agreement": ([], {"agreement": "top1", "divergence": "divergence"}),
}
"""The columns of the probes of strings, and what the old tables called their measures."""


@pytest.mark.parametrize("name", PROBES)
def test_the_probes_of_strings_are_the_same(recorded: tuple[Results, Path], name: str):
    results, tables = recorded
    (own, measures), table = PROBES[name], old(tables, name)
    for measure, column in measures.items():
        rows = results.table[results.table.measure == measure]
        expected = table[table.measure == measure.removeprefix("M_")] if "measure" in table else table
        assert rows.empty == expected.empty
        # Probed students are those of ``probes.students``, and other strategies' that are the same students.
        asked = rows.role.eq("teacher") | rows.strategy.isin(results.experiment.probes.students)
        keys = ["role", "strategy", "budget", "seed", "step", *own]
        if not rows.empty:
            expected = expected.rename(columns={"who": "role"}).fillna({"strategy": "", "budget": rows.budget.max()})
            teachers = rows.role.eq("teacher")
            new = rows.assign(budget=rows.budget.where(~teachers, rows.budget.max()))[asked]
            equal(indexed(new, keys), indexed(expected, keys, column))


def _may_follow(was: str, case: Case) -> bool:
    """Whether a verdict is the old one, or what small effects and the number of a claim's cases make of it."""
    if case.verdict == "too small to matter":
        return was in ("holds", "undecided") and case.smallest > 0
    return case.verdict == was or (case.verdict == "undecided" and f"“{was}” by itself" in case.note)


def _as_then(case: Case) -> list[Measurement]:
    """Returns what is measured without what decides since.

    That is who learned sooner, for parities, and the gap itself, where it is said to shrink.
    """
    shrinks = case.name.endswith(("gap by budget", "gap by l"))
    return [
        measurement
        for measurement in case.listed
        if not measurement.quantity.startswith("learned sooner") and (not shrinks or " minus " in measurement.quantity)
    ]


SINCE = (KAPPA, GAP, ARGMAX, SOFT, EARLY, ATTENTION, SPIKES)
"""Claims that nothing tested then."""


def test_the_verdicts_follow_from_the_same_numbers(recorded: tuple[Results, Path]):
    results, tables = recorded
    expected = old(tables, "claims")
    expected = expected[~(expected.case.eq("all") & expected.claim.eq("F1"))]  # now absent, with the same reason
    new = [
        (finding.claim.name, case.name, measured, case)
        for finding in evaluate_claims(results)
        for case in finding.cases
        for measured in _as_then(case) or (None,)
        if finding.claim not in SINCE
    ]
    assert [(claim, name) for claim, name, _, _ in new] == list(
        expected[["claim", "case"]].itertuples(index=False, name=None)
    )
    for (_, _, measured, case), row in zip(new, expected.to_dict("records"), strict=True):
        counted = any(measurement.quantity.startswith("learned sooner") for measurement in case.listed)
        also_a_gap = not counted and _as_then(case) != list(case.listed)
        # A gap that has to be there as well can but lose a case that held.
        assert counted or _may_follow(row["verdict"], case) or (also_a_gap and case.verdict != "holds"), (row, case)
        if (row["claim"], case.verdict) == ("R4", "not tested"):
            continue  # there is no peak: the fastest rise, with which it was compared, stands in no more
        found: Any = (None,) * 4 if measured is None or measured.interval is None else measured.interval
        assert counted or ("" if measured is None else measured.quantity) == (
            row["quantity"] if row["quantity"] == row["quantity"] else ""
        )
        values = [math.nan if value is None else value for value in found]
        was = [row[column] for column in ("mean", "low", "high", "seeds")]
        assert values == pytest.approx(was, rel=1e-9, abs=1e-12, nan_ok=True)
