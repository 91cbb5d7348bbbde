"""Claim R5 from hand-made numbers."""

import dataclasses
from typing import Any

import pytest

from pdjax.report.claims import Case
from pdjax.report.claims.features import R5


def probed(
    workdir: Any, two: dict[str, tuple[float, ...]], untrained: float | None = None, leave_out: tuple[str, ...] = ()
) -> dict[str, Case]:
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


def verdicts(workdir: Any) -> dict[str, Case]:
    """Returns the cases of R5 by their names."""
    return {case.name: case for case in workdir.cases(R5)}


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


def test_r5_is_about_probes_of_strings(finished: Any):
    assert finished.absence(R5) == "no probes of n-grams or non-terminals have measured anything (yet)"


def test_r5_counts_the_medians_alone(workdir: Any):
    probed(workdir, BETTER)
    ngrams = dataclasses.replace(workdir.experiment.probes["ngrams"], percentiles=(25, 50))
    workdir.change(probes={"measured": (ngrams,)})
    workdir.configure()
    for key, more in (("one_shot", 0.1), ("two", 0.0)):
        worse_below = [[[[0.0 if more else 0.9, 0.3 + more + seed / 100]] * 2] * 2 for seed in (1, 2, 3)]
        workdir.measure(f"{key}-100", ngrams={100: worse_below})
    assert {case: result.verdict for case, result in verdicts(workdir).items()} == {CLOSE: "holds", ROBUST: "holds"}


def test_r5_says_what_untrained_students_show(workdir: Any):
    results = probed(workdir, BETTER, untrained=0.47)
    assert results[LEVELS].note == "0.470 in these students before training, 0.600 in the last checkpoint"
    assert (results[LEVELS].verdict, results[CLOSE].note) == ("holds", "")
