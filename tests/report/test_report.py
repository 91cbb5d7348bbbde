"""The written report: complete, self-contained, reproducible, and honest about what is missing."""

import dataclasses
import html.parser
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any, ClassVar

import pytest
from matplotlib.figure import Figure

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Comparison, Report
from pdjax.findings import Claim
from pdjax.io.rules import digests
from pdjax.io.sealed import read_json, write_json
from pdjax.report import interactive, write_report
from pdjax.report.additions import added_claims
from pdjax.report.claims import evaluate_claims
from pdjax.report.figures import ReportFigure
from pdjax.report.page import main_figure, render_page
from pdjax.report.reading import read_results
from pdjax.settings import settings

FIGURES = ("training_all_100", "training_all_200")
"""Two of those of the complete experiment, the main one first."""

TABLES = ("students", "claims", "curricula", "runs")


class Page(html.parser.HTMLParser):
    """Collects a page's text, identifiers, and the addresses it refers to."""

    VOID = ("meta", "br", "link", "img", "hr", "input")

    def __init__(self, text: str):
        """Parses the page."""
        super().__init__()
        self.text, self.tags, self.identifiers, self.addresses, self._open = "", [], [], [], []
        self.feed(text)
        assert self._open == []  # every element is closed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        """Notes an element's identifier and addresses."""
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.identifiers.append(value)
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.addresses.append(value)
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]):
        """Notes an element without content."""
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str):
        """Checks that elements close in order."""
        assert self._open.pop() == tag
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str):
        """Collects text that is shown."""
        self.text += "" if self._open[-1:] in (["script"], ["style"]) else data


def snapshot(directory: Path) -> dict[str, bytes]:
    """Returns the content of every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def words(text: str) -> str:
    """Returns a text with single spaces."""
    return " ".join(text.split())


def read(workdir: Any) -> str:
    """Writes the report, and returns the text of its page."""
    return words(Page(write_report(workdir.path).read_text()).text)


def test_every_figure_is_in_the_page_and_in_all_formats(report: Path):
    assert report.parts[-2:] == ("report", "index.html")
    files = snapshot(report.parent)
    figures = {Path(name).stem for name in files if name.startswith("figures/")}
    assert set(FIGURES) <= figures
    expected = {"index.html", "results.csv"} | {f"tables/{name}.csv" for name in TABLES}
    expected |= {f"figures/{name}.{kind}" for name in figures for kind in ("svg", "png", "csv")}
    assert set(files) - {"results.parquet"} == expected
    page = Page(report.read_text())
    assert page.tags.count("svg") == len(figures)
    assert figures <= set(page.identifiers)
    assert len(page.identifiers) == len(set(page.identifiers))
    assert {f"figures/{name}.{kind}" for name in figures for kind in ("svg", "png", "csv")} <= set(page.addresses)
    for name in figures:
        assert files[f"figures/{name}.png"].startswith(b"\x89PNG")
        assert xml.etree.ElementTree.fromstring(files[f"figures/{name}.svg"]).tag.endswith("}svg")


def test_the_page_needs_nothing_from_outside_and_its_links_lead_somewhere(report: Path):
    text = report.read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert not re.search(r"@import|url\(['\"]?(?!#)", text)
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.identifiers
        else:
            assert (report.parent / address).is_file()
    for source in (report, *(report.parent / "figures").glob("*.svg")):
        addresses = set(re.findall(r"https?://[^\"'<> ]*", re.sub(r"<!DOCTYPE[^>]*>", "", source.read_text())))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_curves_have_values_to_hover_over_and_names_to_toggle(finished: Any, report: Path):
    text = report.read_text()
    figure = text[text.index('<figure id="training_all_100">') :]
    figure = figure[: figure.index("</figure>")]
    buttons = dict(re.findall(r'data-series="(\d+)"><i [^>]*></i>([^<]*)</button>', figure))
    assert list(buttons.values()) == ["labels only", "one-shot", "progressive (2, 50)", "teacher"]
    groups = re.findall(r'<g class="points" data-series="(\d+)">(.*?)</g>', figure)
    for index, circles in groups[:3]:
        assert f"<title>{buttons[index]}, step 50: " in circles
        assert f"<title>{buttons[index]}, step 100: " in circles
    last = finished.FINAL["two", 100]
    assert f"progressive (2, 50), step 100: {sum(last) / 3:.4g}</title>" in figure
    drawn = figure[: figure.index('<g class="points"')]
    assert set(buttons) == set(re.findall(r'data-series="(\d+)"', drawn))
    places = [float(x) for _, circles in groups[:3] for x in re.findall(r'cx="([\d.]+)"', circles)]
    assert sorted(set(places)) == [
        min(places),
        max(places),
    ]  # all curves have the same two steps, in the middle and last
    saved = (report.parent / "figures" / "training_all_100.svg").read_text()
    assert "series-" not in saved
    assert "circle" not in saved


def test_a_circle_lies_on_its_point():
    figure = Figure(figsize=(4, 2), dpi=100)
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
    axes.set(xlim=(0, 10), ylim=(0, 1), xlabel="steps")
    (line,) = axes.plot([0, 5, 10], [0, 0.5, 1], color="#123456", label="mean")
    figure.legend(handles=[line])
    series = interactive.name_series(figure)
    assert [(one.label, one.color) for one in series] == [("mean", "#123456")]
    element = interactive.opened("name", "a title", b"<svg ></svg>", figure, series)
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)".*?<title>(.*?)</title>', element)
    # 4 by 2 inches of 72 points: the axes from 72 to 216 across, and from 108 up to 36.
    expected = [("72.0", "108.0"), ("144.0", "72.0"), ("216.0", "36.0")]
    said = ["mean, step 0: 0", "mean, step 5: 0.5", "mean, step 10: 1"]
    assert circles == [(*place, words) for place, words in zip(expected, said, strict=True)]


def test_the_same_records_give_the_same_bytes(finished: Any, report: Path):
    assert snapshot(write_report(finished.path).parent) == snapshot(report.parent)


def test_a_new_report_replaces_the_old_one_entirely(workdir: Any):
    workdir.start()
    old = workdir.path / "report"
    (old / "figures").mkdir(parents=True)
    (old / "figures" / "training_999.svg").write_text("old")
    (old / "index.html").write_text("old")
    (workdir.path / "report.partial").mkdir()  # left by a process that was killed
    index = write_report(workdir.path)
    assert index.read_text() != "old"
    assert not (old / "figures" / "training_999.svg").exists()
    assert [p.name for p in workdir.path.iterdir() if p.name.startswith("report")] == ["report"]


def test_a_title_with_quotes_and_a_name_with_slashes_break_nothing(finished: Any):
    title = 'a "quoted" <title> & more'
    finished.change(comparisons=(Comparison("a/b c", title, ("labels",), "figure 0"),))
    finished.start()
    index = write_report(finished.path)
    page = Page(index.read_text())
    assert title in page.text
    assert (index.parent / "figures" / "training_a_b_c_100.svg").is_file()
    assert "training_a_b_c_100" in page.identifiers


def test_a_failing_report_leaves_the_old_one(workdir: Any):
    workdir.start()
    index = write_report(workdir.path)
    before = snapshot(index.parent)
    workdir.student("labels", 200, {100: (0.4, 0.4, 0.4)})
    with pytest.raises(UserError):
        write_report(workdir.path)
    assert snapshot(index.parent) == before


def test_the_page_opens_with_what_was_run_and_what_came_out(report: Path):
    text = words(Page(report.read_text()).text)
    first, second = text.index("The task is PCFG (grammar cfg3b, mask rate 0.3)"), text.index("After 200 steps")
    assert first < second < text.index("Accuracy by budget") < text.index("Claims") < text.index("All, 100 steps")
    assert (
        "One teacher, BERT (accuracy 0.700 after 400 steps); students, BERT, of 3 seeds for each of labels only" in text
    )
    assert "over 100 to 200 steps." in text
    assert (
        "After 200 steps nothing is clearly best: progressive (2, 50) (0.557 [0.445, 0.669]) and the best baseline, "
        "labels only (0.550 [0.426, 0.674]), differ by +0.007 [−0.008, +0.021]. With fewer steps the lead is +0.100 "
        "[+0.075, +0.125] at 100 steps." in text
    )
    assert "Students of different seeds began differently and saw the same batches." in text
    assert "A demonstration: all learn from one teacher" in text
    assert "The verdicts of one claim are corrected for their number (Holm)" in text
    assert "margin over labels only" in text
    assert "pdjax --config 'a b.py'" in text
    assert "jax 0.7.1, python 3.11" in text
    assert "because of two" in text
    assert "17.5 s" in text  # seven runs of 2.5 s
    assert "not finished" not in text.lower()


def test_a_claim_is_a_line_with_its_leading_effect(report: Path):
    text = words(Page(report.read_text()).text)
    line = text[text.index("F1 Progressive") :]
    assert line.index("holds in 1 of 2, undecided in 1") < 250
    assert "+0.100 [+0.075, +0.125] margin over labels only; progressive (2, 50), 100 steps show" in line
    assert '<a href="#training_all_100">show</a>' in report.read_text()


def test_an_effect_below_the_smallest_of_interest_is_called_small(finished: Any):
    for key, shift in (("labels", 0.0), ("one_shot", 0.0), ("two", 0.004)):
        for budget in (100, 200):
            final = [0.5 + shift, 0.6 + shift, 0.55 + shift + (0.001 if shift else 0)]
            finished.student(key, budget, {budget: final}, table=finished.TABLES[key])
    text = read(finished)
    assert "too small to matter in 2 of 2 +0.004 [+0.003, +0.006]" in text
    assert "The smallest effect of interest is 0.02." in text


def finish(workdir: Any, **finals: dict[int, tuple[float, ...]]) -> str:
    """Records students of the longest budget by their curves, and returns the text of the report."""
    for key, curve in finals.items():
        workdir.student(key, 200, curve, table=workdir.TABLES[key])
    return read(workdir)


def test_who_is_best_and_how_much_sooner(finished: Any):
    text = finish(
        finished,
        labels={50: (0.2, 0.1, 0.2), 200: (0.3, 0.3, 0.3)},
        one_shot={50: (0.2, 0.2, 0.2), 100: (0.3, 0.3, 0.3), 200: (0.50, 0.51, 0.52)},
        two={50: (0.51, 0.51, 0.51), 200: (0.9, 0.91, 0.92)},
    )
    assert (
        "After 200 steps progressive (2, 50) is best: 0.910 [0.885, 0.935], +0.400 [+0.400, +0.400] more than" in text
    )
    assert "one-shot (0.510 [0.485, 0.535]), whose end it reaches 4.0 times sooner (by step 50, not 200)." in text


def test_every_strategy_has_a_row_with_when_it_is_nearly_the_best(finished: Any):
    text = finish(
        finished,
        labels={50: (0.2, 0.1, 0.2), 200: (0.3, 0.3, 0.3)},
        one_shot={100: (0.85, 0.85, 0.85), 200: (0.895, 0.895, 0.895)},
        two={50: (0.89, 0.89, 0.89), 200: (0.9, 0.91, 0.92)},
    )
    assert "Strategy Accuracy after 200 steps More than one-shot Mean at 0.890 by step" in text
    assert "progressive (2, 50) 0.910 [0.885, 0.935] +0.015 [−0.010, +0.040] 50" in text
    assert "one-shot 0.895 [0.895, 0.895] – 200" in text
    assert "labels only 0.300 [0.300, 0.300] −0.595 [−0.595, −0.595] not reached" in text
    assert "the teacher, at its own steps 0.400 – not reached" in text


def test_a_teacher_whose_first_checkpoint_is_later_than_all_students(finished: Any):
    finished.teacher({5000: (1.0, 0.9)})
    text = finish(finished, labels={200: (0.3, 0.3, 0.3)}, one_shot={200: (0.5, 0.5, 0.5)})
    assert "the teacher, at its own steps – – 5,000" in text


def test_nothing_is_sooner_than_what_learns_nothing(finished: Any):
    flat = {50: (0.5, 0.52, 0.48), 200: (0.51, 0.5, 0.49)}
    text = finish(finished, labels=flat, one_shot=flat, two={50: (0.5, 0.5, 0.5), 200: (0.9, 0.91, 0.92)})
    assert "which no longer improved in the second half of its training." in text
    assert "sooner" not in text.partition("Claims")[0]


def test_a_baseline_that_is_ahead_is_said(finished: Any):
    text = finish(finished, one_shot={200: (0.9, 0.91, 0.92)}, two={200: (0.5, 0.51, 0.52)})
    assert "no progressive strategy is best: the baseline one-shot has 0.910" in text


def test_what_the_configuration_says_of_the_page(finished: Any):
    report = {
        "question": "Is it faster?",
        "paper": "The paper finds it twice as fast.",
        "main_figure": "training_all_2",
    }
    report |= {"paper_figures": {"training_": "figure 7", "training_all_2": "figure 8"}}
    finished.change(report=report)
    finished.start()
    text = read(finished)
    assert (
        text.index("Is it faster? The task is") < text.index("The paper finds it twice as fast.") < text.index("Claims")
    )
    assert text.index("All, 200 steps") < text.index("Claims") < text.index("All, 100 steps")
    assert text.index("Corresponds to figure 8 of the paper.") < text.index("Corresponds to figure 7 of the paper.")
    assert "decides nothing" not in text


def test_a_page_that_decides_nothing_says_so_first(finished: Any):
    finished.change(report={"decides": False})
    finished.start()
    text = read(finished)
    assert text.index("It decides nothing") < text.index("The task is")


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("", "accuracy_by_budget_best"),
        ("training_", "training_y_best"),
        ("training_x", "training_x"),
        ("sizes", None),
    ],
)
def test_the_main_figure_is_that_of_the_best_learning_rates(workdir: Any, asked: str, first: str | None):
    workdir.change(report={"main_figure": asked})
    workdir.configure()
    names = ("training_x", "accuracy_by_budget_lr0.1", "accuracy_by_budget_best", "training_y_best")
    figures = [ReportFigure(name, "", "", b"", b"", b"", (), "") for name in names]
    chosen = main_figure(read_results(workdir.path), figures)
    assert (None if chosen is None else chosen.name) == first


def test_batches_of_their_own_widen_what_the_intervals_cover(workdir: Any):
    workdir.change(student_training={"shared_batches": False})
    workdir.start()
    for key in ("labels", "one_shot", "two"):
        workdir.student(key, 100, {100: (0.4, 0.5, 0.6)})
    assert "Students of different seeds began differently and drew their own batches." in read(workdir)


def test_unfinished_runs_are_named(finished: Any):
    finished.student("two", 200, {50: (0.1, 0.1, 0.1)}, complete=False)
    for path in (finished.path / "students" / "one_shot-100").iterdir():
        path.unlink()
    text = read(finished)
    assert "2 of 7 runs are not finished." in text
    assert "Run two-200 is unfinished: evaluated to step 50 of 200." in text
    assert "Not started: one_shot-100." in text
    assert "Not finished and therefore not listed: one_shot-100, two-200." in text
    assert "After 100 steps progressive (2, 50) is best" in text  # against what there is


def test_rules_that_have_changed_since_are_said(finished: Any):
    record, now = finished.path / "environment.json", digests()
    environment = read_json(record)
    text = read(finished)
    assert f"Decisions{now['decisions']}; when this began they were not recorded" in text
    assert "Rules have changed" not in text
    write_json(record, environment | {"rules": now})
    text = read(finished)
    assert f"Decisions{now['decisions']}, as when this began" in text
    assert "Rules have changed" not in text
    write_json(record, environment | {"rules": now | {"decisions": "0123"}})
    text = read(finished)
    assert f"Decisions{now['decisions']}; when this began 0123" in text
    assert "Rules have changed since this began (decisions)" in text
    assert "transition of the accuracy: UNRISEN, RISEN the seeds 100 to 104 of parity_mlp.py 0 to 4" in text


def test_a_run_that_nobody_asked_for_is_said(finished: Any):
    finished.student("old", 100, {100: (0.9, 0.9, 0.9)})
    assert "a run old-100 that the configuration does not ask for" in read(finished)


def test_with_the_teacher_alone(workdir: Any):
    workdir.start()
    workdir.teacher({100: (2.0, 0.3)}, complete=False)
    text = read(workdir)
    assert not (workdir.path / "report" / "figures" / "training_all_100.svg").exists()
    assert "The teacher has not finished its 400 steps." in text
    assert "No student run is complete, so nothing came out yet." in text
    assert "No selection of checkpoints is recorded." in text


def test_with_nothing_but_a_configuration(workdir: Any):
    workdir.configure()
    text = read(workdir)
    assert "There is nothing to draw yet." in text
    assert "Versions, device and command are not recorded." in text
    assert "No results of the teacher are recorded here." in text


def test_an_existing_trajectory_without_a_curve_is_said(finished: Any):
    finished.change(teacher_training={"trajectory": "somewhere/else"})
    finished.start()
    for path in (finished.path / "teacher").iterdir():
        path.unlink()
    text = read(finished)
    assert "its checkpoints are those of somewhere/else. Its losses are not recorded here." in text
    assert "not finished" not in text.lower()


def test_one_seed_has_no_intervals_and_tests_nothing(workdir: Any):
    workdir.change(student_training={"seeds": (0,)})
    workdir.start()
    workdir.teacher()
    for (key, budget), final in workdir.FINAL.items():
        workdir.student(key, budget, {budget: final[:1]}, [(0, 1e-3)], workdir.TABLES[key])
    text = read(workdir)
    assert "needs 2 seeds" in text
    assert "nan" not in text
    assert "progressive (2, 50) has 0.510 and the best baseline, one-shot, 0.520, of one seed." in text


def test_every_strategy_is_compared_at_its_best_learning_rate(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "seeds": (0, 1), "budgets": (100,)})
    workdir.start()
    replicas = [(0, 0.001), (0, 0.01), (1, 0.001), (1, 0.01)]
    workdir.student("labels", 100, {100: (0.41, 0.61, 0.43, 0.63)}, replicas)
    workdir.student("two", 100, {100: (0.81, 0.21, 0.83, 0.23)}, replicas, workdir.TABLES["two"])
    text = read(workdir)
    assert "progressive (2, 50), learning rate 0.001 is best: 0.820" in text
    assert "+0.200 [+0.200, +0.200] more than the best baseline, labels only, learning rate 0.01 (0.620" in text
    assert "labels only, learning rate 0.001 100 0.420" in text
    assert "labels only, learning rate 0.01 100 0.620" in text


def test_transition_spikes_and_other_teachers_are_explained(finished: Any):
    finished.change(teacher_training={"extra_seeds": (7, 8)})
    finished.start()
    finished.teacher()
    transition = {"start": 1000, "middle": 2000, "end": 3000, "reason": "it rises"}
    finished.select({}, transition=transition, spikes=[{"step": 1500, "reason": "level 0 peaks"}])
    text = read(finished)
    assert "from step 1,000 over its middle at step 2,000 to step 3,000: it rises" in text
    assert "step 1,500: level 0 peaks" in text
    assert "A demonstration: all learn from one teacher, of seed 0," in text
    assert "Teachers of 2 other seeds, from which no student learns, reach 0.680 to 0.690." in text


def test_strategies_with_the_same_checkpoints_are_explained_together(finished: Any):
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), name="hot", loss=Distillation(2.0)))
    finished.start()
    finished.student("hot", 100, {100: (0.5, 0.5, 0.5)}, table=finished.TABLES["two"])
    finished.student("hot", 200, {200: (0.5, 0.5, 0.5)}, table=finished.TABLES["two"])
    finished.select({"hot": (200, 400), "two": (200, 400)})
    finished.replace("selection.json", "because of hot", "because of two")
    text = read(finished)
    assert "progressive (2, 50) · progressive (2, 50), temperature 2 because of two" in text
    assert text.count("because of two") == 1


def test_a_long_curriculum_is_said_in_words_and_folded(finished: Any):
    table = [(2 * i, 50 * (i + 1)) for i in range(100)]
    finished.student("two", 200, {200: (0.5, 0.5, 0.5)}, table=table)
    page = Page(write_report(finished.path).read_text())
    assert "100 checkpoints, of teacher steps 50 to 5,000 every 50; the student moves on every 2 steps" in words(
        page.text
    )
    assert "198 → 5,000" in page.text
    assert '<details class="legs">' in (finished.path / "report" / "index.html").read_text()


def test_adaptive_students_are_listed_one_by_one(finished: Any):
    starts = [[0], [0, 50, 150], [0, 200]]
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=((0, 100), (0, 200), (0, 300)), starts=starts)
    text = read(finished)
    assert "each student moves on by itself and comes to 1 to 3 checkpoints" in text
    assert "seed 1: 0 → 100; 50 → 200; 150 → 300" in text


def test_what_made_adaptive_students_move_on_is_said(finished: Any):
    finished.add(Strategy("two", schedule=UntilSaturated(window=1, max_steps=100), selection=Equal(3)))
    finished.configure()
    starts = [[0], [0, 50, 150], [0, 100]]
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=((0, 100), (0, 200), (0, 300)), starts=starts)
    assert "2 of 3 moves came at the limit of 100 steps, the others by what was learned" in read(finished)


def test_sizes_have_a_table_of_their_own(workdir: Any):
    workdir.widths(["1000", "300"], [0.1])
    workdir.start()
    for label, final in (("300", (0.6, 0.8)), ("1000", (0.9, 1.0))):
        workdir.size(f"width/{label}", {50: (0.5, 0.5), 100: final}, [(0, 0.1), (1, 0.1)])
    text = read(workdir)
    assert text.index("width 300 0.700") < text.index("width 1000 0.950")
    assert "a share of the" not in text  # no student is complete
    assert "nats per selected position" not in text


def test_hostile_text_stays_text(finished: Any, monkeypatch: pytest.MonkeyPatch):
    hostile = "<script>alert('x')</script> & \"quotes\""
    monkeypatch.setattr(FixedDuration, "label", hostile)
    finished.change(name=hostile, remarks={"F1": "</pre><img src=x>"})
    finished.start()
    text = write_report(finished.path).read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert hostile in page.text


def test_no_experiment_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"config\.json"):
        write_report(tmp_path)


def test_the_peak_of_m_robust_is_explained(finished: Any):
    finished.select({}, robust_peak={"step": 1500, "peaked": True, "reason": "median M_robust peaks"})
    text = read(finished)
    assert "Peak of the teacher’s M_robust, step 1,500: median M_robust peaks" in text


def test_shared_students_are_named(finished: Any):
    finished.add(Strategy("again"))
    finished.start()
    for budget in (100, 200):
        finished.shared(["one_shot", "again"], budget, {"one_shot": finished.FINAL["one_shot", budget]})
    text = read(finished)
    assert (
        "They agree by definition and count once: one-shot (one_shot) = one-shot (again): with 100, 200 steps" in text
    )
    assert "one-shot (one_shot) (the same students as one-shot (again)) 100 0.420" in text
    assert "17.5 s" in text  # seven runs of 2.5 s
    assert "not finished" not in text.lower()


def test_a_margin_over_the_same_students_says_so(finished: Any):
    finished.shared(["one_shot", "two"], 100, {"one_shot": (0.5, 0.6, 0.7)})
    for name in ("run.json", "result.json"):
        (finished.path / "students" / "two-100" / name).unlink()
    text = read(finished)
    assert "margin over one-shot +0.000 [+0.000, +0.000] 3 seeds the same students" in text
    assert "undecided in 1 of 2, not tested in 1" in text


def test_a_claim_that_says_nothing_says_why(finished: Any):
    finished.draw("labels", "one_shot")
    finished.start()
    text = read(finished)
    assert "Not here: there is no progressive strategy in the comparisons over training." in text
    assert "holds" not in text.split("Figures")[0]


@settings
class Ours(Claim):
    """A claim of a user."""

    name: ClassVar[str] = "ours"
    text: ClassVar[str] = "Something is positive."

    def measure(self, table: Any) -> Any:
        """Measures one quantity."""
        return {"always": {"quantity": [1.0, 1.1]}}


def test_a_claim_of_ours_is_not_put_into_the_papers_mouth(finished: Any):
    results = read_results(finished.path)
    experiment = dataclasses.replace(results.experiment, report=Report(claims=(Ours(),)))
    (finding,) = added_claims(dataclasses.replace(results, experiment=experiment), ())
    text = words(Page(render_page(results, [*evaluate_claims(results), finding], [], {})).text)
    assert "ours: Something is positive. Not the paper’s claim but ours. Each case holds if" in text
    assert "From the paper’s figure 1." in text
    assert "paper’s ours" not in text


def test_strategies_of_a_search_are_folded_and_not_called_the_best(finished: Any):
    finished.search((100, 200), (25,))
    finished.start()
    chosen = {key: [step for _, step in table] for key, table in finished.TABLES.items()}
    finished.select({**chosen, "c100_25": (100, 400), "c200_25": (200, 400)})
    for first in (100, 200):
        finished.student(f"c{first}_25", 100, {100: (0.9, 0.9, 0.9)}, table=((0, first), (25, 400)))
    page = Page(write_report(finished.path).read_text())
    text = words(page.text)
    assert "[+0.075, +0.125] at 100 steps" in text  # of progressive (2, 50): students of the search are better
    assert "Searches for the first checkpoint: 2 curricula" in text


def test_remarks_stand_beside_their_claims_and_none_is_lost(finished: Any):
    before = read(finished)
    finished.change(remarks={"F1": "It shows at twice the size.", "unknown": "It shows elsewhere."})
    finished.configure()
    text = read(finished)
    notes, claims = text.split("F1 Progressive distillation")
    assert "It shows at twice the size." in claims.split("holds in 1 of 2")[0]
    assert "Remark on unknown, of which there is no verdict: It shows elsewhere." in notes
    assert "It shows" not in before


def test_teachers_alone_have_a_report(workdir: Any):
    """An experiment without strategies, such as a variant that is there for what probes measure."""
    workdir.change(strategies=(), comparisons=())
    workdir.start()
    workdir.teacher()
    page = write_report(workdir.path).read_text()
    assert "No student run is complete" in page
    assert "0.700" in page  # the teacher's accuracy
