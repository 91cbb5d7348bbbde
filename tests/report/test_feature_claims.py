"""Claim R5 from hand-made numbers, and the tables of what probes measured."""

import csv
from typing import Any

import pytest

from pdjax.report.claims import ClaimResult, evaluate_claims
from pdjax.report.reading import read_results
from pdjax.report.tables import all_tables


def probed(
    workdir: Any, two: dict[str, tuple[float, ...]], untrained: float | None = None, leave_out: tuple[str, ...] = ()
) -> dict[str, ClaimResult]:
    """Returns the verdicts on progressive at 100 steps; one-shot has M_robust 0.4, M_close 0.3 and probes at 0.5.

    The seeds of one-shot lie 0.01 apart. The measures of ``two`` are given by seed, for every n and level alike.
    Probes are at ``untrained`` in all students at step 0; None: they were not probed there.
    """
    base = {"robust": (0.39, 0.40, 0.41), "close": (0.29, 0.30, 0.31), "levels": (0.49, 0.50, 0.51)}
    workdir.strings(students=["one_shot", "two"])
    workdir.change(student_training={"budgets": (100,)})
    measured = tuple(probe for probe in workdir.experiment.probes.measured if probe.name not in leave_out)
    workdir.change(probes={"measured": measured})
    workdir.start()
    workdir.teacher()
    before = {} if untrained is None else {0: [[untrained, untrained]] * 3}
    for key, values in (("one_shot", base), ("two", {**base, **two})):
        workdir.student(key, 100, {100: (0.5, 0.5, 0.5)})
        pairs = list(zip(values["robust"], values["close"], strict=True))
        workdir.measure(
            f"{key}-100",
            # n = 2 and n = 4: what counts is their mean
            ngrams={s: [[[[r - 0.1], [r + 0.1]], [[c], [c]]] for r, c in pairs] for s in (50, 100)},
            nonterminals=before | {s: [[a - 0.2, a + 0.2] for a in values["levels"]] for s in (50, 100)},
        )
    return verdicts(workdir)


def verdicts(workdir: Any) -> dict[str, ClaimResult]:
    """Returns the cases of R5 by their names."""
    return {c.case: c for c in evaluate_claims(read_results(workdir.path)) if c.statement.name == "R5"}


BETTER = {"robust": (0.29, 0.31, 0.30), "close": (0.19, 0.21, 0.20), "levels": (0.59, 0.61, 0.60)}
CLOSE, ROBUST, LEVELS = (
    f"progressive (2, 50), 100 steps: {measure}"
    for measure in ("M_close", "M_robust", "accuracy of probes for non-terminals")
)


def test_r5_holds_for_every_measure_that_is_better(workdir: Any):
    results = probed(workdir, BETTER)
    assert {case: result.verdict for case, result in results.items()} == dict.fromkeys((CLOSE, ROBUST, LEVELS), "holds")
    means = {m.quantity: m.interval.mean for c in results.values() for m in c.measurements if m.interval is not None}
    assert means == pytest.approx(
        {
            "M_close, against one-shot": 0.1,
            "M_robust, against one-shot": 0.1,
            "accuracy of probes for non-terminals, against one-shot": 0.1,
        }
    )


def test_r5_is_decided_for_each_measure_alone(workdir: Any):
    results = probed(workdir, {**BETTER, "close": (0.39, 0.41, 0.40), "levels": (0.52, 0.49, 0.50)})
    assert [results[case].verdict for case in (CLOSE, ROBUST, LEVELS)] == ["fails", "holds", "undecided"]


def test_r5_is_about_what_is_probed(workdir: Any):
    assert set(probed(workdir, BETTER, leave_out=("nonterminals",))) == {CLOSE, ROBUST}


def test_r5_is_about_the_students_that_are_probed(workdir: Any):
    probed(workdir, BETTER)
    workdir.change(student_training={"budgets": (100, 200)}, probes={"longest_alone": True})
    workdir.configure()
    assert {case.rpartition(":")[0] for case in verdicts(workdir)} == {"progressive (2, 50), 200 steps"}


def test_r5_waits_for_the_probes(workdir: Any):
    probed(workdir, BETTER)
    (workdir.path / "students" / "two-100" / "probes" / "result.json").unlink()
    assert {(c.verdict, c.note) for c in verdicts(workdir).values()} == {("not tested", "not measured yet")}


def test_r5_says_what_untrained_students_show(workdir: Any):
    results = probed(workdir, BETTER, untrained=0.47)
    assert results[LEVELS].note == "0.470 in these students before training, 0.600 in the last checkpoint"
    assert (results[LEVELS].verdict, results[CLOSE].note) == ("holds", "")


def test_tables_name_model_step_and_place(workdir: Any):
    probed(workdir, BETTER)
    workdir.measure(
        None,
        ngrams={400: [[[[0.1], [0.2]], [[0.3], [0.4]]]]},
        nonterminals={400: [[0.6, 0.7]]},
        agreement={400: [(1.0, 0.0)]},
    )
    results = read_results(workdir.path)
    tables = {table.name: list(csv.reader(table.csv().splitlines())) for table in all_tables(results, ())}
    head, *rows = tables["ngrams"]
    assert head == ["who", "strategy", "budget", "learning_rate", "seed", "step", "measure", "n", "percentile", "value"]
    assert rows[:2] == [
        ["teacher", "", "", "", "0", "400", "robust", "2", "50", "0.1"],
        ["teacher", "", "", "", "0", "400", "robust", "4", "50", "0.2"],
    ]
    assert len(rows) == 4 + 2 * 3 * 2 * 4  # two strategies, three seeds, two steps
    assert ["student", "two", "100", "0.001", "1", "100", "close", "4", "50", "0.21"] in rows
    assert tables["nonterminals"][1:3] == [
        ["teacher", "", "", "", "0", "400", "1", "0.6"],
        ["teacher", "", "", "", "0", "400", "2", "0.7"],
    ]
    assert tables["agreement"][1:] == [["teacher", "", "", "", "0", "400", "1.0", "0.0"]]
