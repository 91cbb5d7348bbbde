"""Variants of the experiment: their figure, claim A, table and page."""

import csv
import dataclasses
from typing import Any

import pytest

from pdjax.experiment import Comparison
from pdjax.report import write_report
from pdjax.report.claims.ablations import A
from pdjax.report.claims.sizes import R6
from pdjax.report.figures import all_figures
from pdjax.report.reading import read_results
from pdjax.report.variants import variants_of

VARIANTS = {"15 %": {"task": {"mask_rate": 0.15}}, "5 %": {"task": {"mask_rate": 0.05}}}


def ablated(workdir: Any, **fields: Any) -> None:
    """Writes an ablation of mask rates at 100 steps; in the variant 15 % one-shot wins, 5 % is not begun."""
    workdir.ablation("mask", VARIANTS, [100], **{"strategies": ("one_shot", "two"), "base": "30 %", **fields})
    workdir.start()
    variant = workdir.variant("mask", "15 %")
    variant.teacher({400: (1.0, 0.8)})
    variant.student("one_shot", 100, {100: (0.60, 0.61, 0.62)}, table=((0, 400),))
    variant.student("two", 100, {100: (0.54, 0.55, 0.56)}, table=((0, 200), (50, 400)))


@pytest.mark.parametrize(
    ("base", "names"),
    [("as it is", ["as it is", "5 %", "15 %"]), ("10 %", ["5 %", "10 %", "15 %"]), (None, ["5 %", "15 %"])],
)
def test_variants_are_in_the_order_of_their_numbers(finished: Any, base: str | None, names: list[str]):
    ablated(finished, base=base)
    variants = variants_of(read_results(finished.path), "mask")
    assert [variant.name for variant in variants] == names
    replaced = {variant.name: variant.replaced for variant in variants if not variant.is_base}
    assert replaced == {"5 %": "task.mask_rate = 0.05", "15 %": "task.mask_rate = 0.15"}
    assert {variant.name for variant in variants if variant.results is None} == {"5 %"}


def test_claim_a_has_a_case_for_each_other_variant(finished: Any):
    ablated(finished)
    cases = {case.name: case for case in finished.cases(A)}
    assert list(cases) == ["Mask: 5 %, progressive (2, 50), 100 steps", "Mask: 15 %, progressive (2, 50), 100 steps"]
    not_begun, begun = cases.values()
    assert (not_begun.verdict, not_begun.note) == ("not tested", "unfinished")
    assert begun.verdict == "fails"
    assert begun.measurements[0].interval == pytest.approx((-0.06, -0.06, -0.06, 3))


def test_claim_a_holds_and_is_undecided(finished: Any):
    ablated(finished)
    variant = finished.variant("mask", "5 %")
    variant.student("one_shot", 100, {100: (0.40, 0.41, 0.42)})
    variant.student("two", 100, {100: (0.50, 0.52, 0.51)})
    assert finished.cases(A)[0].verdict == "holds"
    variant.student("two", 100, {100: (0.39, 0.45, 0.41)})
    assert finished.cases(A)[0].verdict == "undecided"


def test_claim_a_covers_comparisons_by_budget(finished: Any):
    splits = Comparison("splits", "Splits", ("one_shot", "two"), "figure 24", kind="budgets")
    finished.change(comparisons=(*finished.experiment.comparisons, splits))
    finished.start()
    results = read_results(finished.path)
    assert "budgets_splits" in [figure.name for figure in all_figures(results)]
    verdicts = {case.name: case.verdict for case in finished.cases(A)}
    assert verdicts == {
        "Splits: progressive (2, 50), 100 steps": "holds",
        "Splits: progressive (2, 50), 200 steps": "undecided",
    }


def test_parities_have_no_claim_a(workdir: Any):
    workdir.parity()
    workdir.ablation("dimension", {"7": {"task": {"dimension": 7}}}, [100])
    workdir.start()
    assert "positions of a string" in workdir.absence(A)


def test_without_variants_and_comparisons_by_budgets_there_is_no_claim_a(finished: Any):
    assert finished.absence(A) == "no ablation or comparison by budgets has both progressive and one-shot strategies"


def test_the_table_has_every_variant(finished: Any):
    ablated(finished)
    report = write_report(finished.path).parent
    rows = list(csv.DictReader((report / "tables" / "ablations.csv").read_text().splitlines()))
    assert [(row["variant"], row["strategy"]) for row in rows] == [
        (variant, key) for variant in ("5 %", "15 %", "30 %") for key in ("one_shot", "two")
    ]
    unbegun, two, base = rows[0], rows[3], rows[5]
    assert [float(base[f"accuracy_seed_{seed}"]) for seed in range(3)] == [0.50, 0.51, 0.55]
    assert unbegun["accuracy_mean"] == unbegun["count"] == ""
    assert two["replaced"] == "task.mask_rate = 0.15"
    assert float(two["relative_gap"]) == pytest.approx(0.55 / 0.61 - 1)
    runs = list(csv.DictReader((report / "tables" / "runs.csv").read_text().splitlines()))
    assert [row["run"] for row in runs if row["run"].startswith("ablations")] == [
        f"ablations/mask/15 %/{run}" for run in ("teacher", "one_shot-100", "two-100")
    ]


def page_of(workdir: Any) -> str:
    """Returns the page's source with single spaces."""
    return " ".join(write_report(workdir.path).read_text().split())


def test_the_page_lists_variants_with_their_directories_and_cost(finished: Any):
    ablated(finished)
    text = page_of(finished)
    assert "Of 2 variants of ablations, 1 are complete." in text
    assert "ablations/mask/15 %" in text
    assert "task.mask_rate = 0.05" in text
    assert "25.0 s" in text  # seven runs of the experiment and three of the variant, of 2.5 s each


def test_a_shared_teacher_is_counted_once(finished: Any):
    ablated(finished)
    variant = finished.path / "ablations" / "mask" / "15 %"
    for path in (variant / "teacher").iterdir():
        path.unlink()
    (variant / "teacher").rmdir()
    (variant / "teacher").symlink_to("../../../teacher", target_is_directory=True)
    results = read_results(finished.path)
    inner = results.variants["mask", "15 %"]
    assert [state.name for state in inner.states] == ["one_shot-100", "two-100"]
    assert inner.teacher_accuracy == results.teacher_accuracy == 0.7
    text = page_of(finished)
    assert "this experiment’s" in text
    assert "22.5 s" in text


def test_sizes_have_a_panel_for_each_variant(workdir: Any):
    model = workdir.experiment.student
    workdir.sizes({"heads": {"1 head": dataclasses.replace(model, num_heads=1), "2 heads": model}})
    workdir.ablation("mask", VARIANTS, [100], base="30 %", sizes=True)
    workdir.start()
    variant = workdir.variant("mask", "15 %")
    for experiment in (workdir, variant):
        for label in ("1 head", "2 heads"):
            more = 0.2 if label == "2 heads" else 0.0
            accuracy = {50: (0.3 + more, 0.31 + more), 100: (0.5 + more, 0.51 + more)}
            experiment.size(f"heads/{label}", accuracy, [(0, 1e-3), (1, 1e-3)])
    results = read_results(workdir.path)
    assert {"sizes", "ablation_mask_sizes"} <= {figure.name for figure in all_figures(results)}
    assert [(case.name, case.verdict) for case in workdir.cases(R6)] == [
        ("heads", "holds"),
        ("Mask: 15 %, heads", "holds"),
    ]
