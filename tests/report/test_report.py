"""The written report: complete, self-contained, reproducible, and honest about what is missing."""

import dataclasses
import html.parser
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Comparison
from pdjax.report import write_report

FIGURES = ("teacher", "accuracy_by_budget", "training_all_100", "training_all_200")
TABLES = ("students", "claims", "teacher", "curricula", "runs")


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
        """Collects text."""
        self.text += data


def snapshot(directory: Path) -> dict[str, bytes]:
    """Returns the content of every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def words(text: str) -> str:
    """Returns a text with single spaces."""
    return " ".join(text.split())


def test_every_figure_is_in_the_page_and_in_both_formats(report: Path):
    assert report.parts[-2:] == ("report", "index.html")
    files = snapshot(report.parent)
    expected = {"index.html"} | {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert set(files) == expected | {f"tables/{name}.csv" for name in TABLES}
    page = Page(report.read_text())
    assert page.tags.count("svg") == len(FIGURES)
    assert set(FIGURES) <= set(page.identifiers)
    assert len(page.identifiers) == len(set(page.identifiers))
    for name in FIGURES:
        assert files[f"figures/{name}.png"].startswith(b"\x89PNG")
        assert xml.etree.ElementTree.fromstring(files[f"figures/{name}.svg"]).tag.endswith("}svg")


def test_the_page_needs_nothing_from_outside_and_its_links_lead_somewhere(report: Path):
    text = report.read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert not re.search(r"@import|url\(['\"]?(?!#)", text)
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.identifiers
        else:
            assert (report.parent / address).is_file()
    for figure in (report.parent / "figures").glob("*.svg"):
        addresses = set(re.findall(r"https?://[^\"'<> ]*", re.sub(r"<!DOCTYPE[^>]*>", "", figure.read_text())))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


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


def test_the_summary_says_what_the_numbers_say(report: Path):
    text = words(Page(report.read_text()).text)
    assert "After 400 steps the teacher reaches a held-out accuracy of 0.700." in text
    assert (
        "With 100 steps the highest mean is 0.520 (95% interval [0.454, 0.586]) over 3 seeds, by progressive (2, 50)."
        in text
    )
    assert "Of 2 cases, claim F1 holds in 1 and is undecided in 1." in text
    assert "margin over labels only +0.100 [+0.075, +0.125] 3" in text
    assert "not corrected for multiple comparisons" in text
    assert "the intervals cover the initialisation only" in text
    assert "pdjax --config 'a b.py'" in text
    assert "jax 0.7.1, python 3.11" in text
    assert "because of two" in text
    assert "17.5 s" in text  # seven runs of 2.5 s
    assert "not finished" not in text.lower()


def test_batches_of_their_own_widen_what_the_intervals_cover(workdir: Any):
    workdir.change(student_training={"shared_batches": False})
    workdir.start()
    text = words(Page(write_report(workdir.path).read_text()).text)
    assert "the intervals cover the initialisation and the draw of the data" in text


def test_unfinished_runs_are_named(finished: Any):
    finished.student("two", 200, {50: (0.1, 0.1, 0.1)}, complete=False)
    for path in (finished.path / "students" / "one_shot-100").iterdir():
        path.unlink()
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "2 of 7 runs are not finished." in text
    assert "Run two-200 is unfinished: evaluated to step 50 of 200." in text
    assert "Not started: one_shot-100." in text
    assert "Not finished and therefore not listed: one_shot-100, two-200." in text
    assert "With 100 steps the highest mean among the 2 finished of 3 strategies is" in text


def test_with_the_teacher_alone(workdir: Any):
    workdir.start()
    workdir.teacher({100: (2.0, 0.3)}, complete=False)
    index = write_report(workdir.path)
    assert [p.name for p in sorted((index.parent / "figures").iterdir())] == ["teacher.png", "teacher.svg"]
    text = words(Page(index.read_text()).text)
    assert "The teacher has not finished its 400 steps." in text
    assert "No student run is complete." in text
    assert "No selection of checkpoints is recorded." in text


def test_with_nothing_but_a_configuration(workdir: Any):
    workdir.configure()
    text = words(Page(write_report(workdir.path).read_text()).text)
    assert "There is nothing to draw yet." in text
    assert "Versions, device and command are not recorded." in text
    assert "No results of the teacher are recorded here." in text


def test_an_existing_trajectory_without_a_curve_is_said(finished: Any):
    finished.change(teacher_training={"trajectory": "somewhere/else"})
    finished.start()
    for path in (finished.path / "teacher").iterdir():
        path.unlink()
    index = write_report(finished.path)
    text = words(Page(index.read_text()).text)
    assert "The teacher is the existing trajectory somewhere/else; its training curve is not recorded here." in text
    assert not (index.parent / "figures" / "teacher.svg").exists()
    assert "not finished" not in text.lower()


def test_one_seed_has_no_intervals_and_tests_nothing(workdir: Any):
    workdir.change(student_training={"seeds": (0,)})
    workdir.start()
    workdir.teacher()
    for (key, budget), final in workdir.FINAL.items():
        workdir.student(key, budget, {budget: final[:1]}, [(0, 1e-3)], workdir.TABLES[key])
    text = words(Page(write_report(workdir.path).read_text()).text)
    assert "needs 2 seeds" in text
    assert "nan" not in text
    assert "the highest mean is 0.500 over 1 seed, by progressive (2, 50)." in text


def test_two_learning_rates_are_apart(workdir: Any):
    workdir.change(student_training={"learning_rates": (0.001, 0.01), "seeds": (0, 1), "budgets": (100,)})
    workdir.start()
    replicas = [(0, 0.001), (0, 0.01), (1, 0.001), (1, 0.01)]
    workdir.student("labels", 100, {100: (0.41, 0.61, 0.43, 0.63)}, replicas)
    text = words(Page(write_report(workdir.path).read_text()).text)
    assert "With 100 steps and learning rate 0.001 the highest mean" in text
    assert "labels only, learning rate 0.001 100 0.420" in text
    assert "labels only, learning rate 0.01 100 0.620" in text


def test_transition_spikes_and_other_teachers_are_explained(finished: Any):
    finished.change(teacher_training={"extra_seeds": (7, 8)})
    finished.start()
    finished.teacher()
    transition = {"start": 1000, "middle": 2000, "end": 3000, "reason": "it rises"}
    finished.select({}, transition=transition, spikes=[{"step": 1500, "reason": "level 0 peaks"}])
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "from step 1,000 over its middle at step 2,000 to step 3,000: it rises" in text
    assert "step 1,500: level 0 peaks" in text
    assert "accuracy of 0.700, and 2 teachers of other seeds reach 0.680 to 0.690." in text
    assert "All students learn from the teacher of seed 0; those of the seeds 7, 8 are" in text


def test_strategies_with_the_same_checkpoints_are_explained_together(finished: Any):
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), name="hot", loss=Distillation(2.0)))
    finished.start()
    finished.student("hot", 100, {100: (0.5, 0.5, 0.5)}, table=finished.TABLES["two"])
    finished.student("hot", 200, {200: (0.5, 0.5, 0.5)}, table=finished.TABLES["two"])
    finished.select({"hot": (200, 400), "two": (200, 400)})
    selection = finished.path / "selection.json"
    selection.write_text(selection.read_text().replace("because of hot", "because of two"))
    text = words(Page(write_report(finished.path).read_text()).text)
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
    assert page.tags.count("details") == 2  # and the configuration


def test_adaptive_students_are_listed_one_by_one(finished: Any):
    starts = [[0], [0, 50, 150], [0, 200]]
    finished.student("two", 200, {200: (0.5, 0.6, 0.7)}, table=((0, 100), (0, 200), (0, 300)), starts=starts)
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "each student moves on by itself and comes to 1 to 3 checkpoints" in text
    assert "seed 1: 0 → 100; 50 → 200; 150 → 300" in text


def test_sizes_have_a_table_of_their_own(workdir: Any):
    workdir.widths(["1000", "300"], [0.1])
    workdir.start()
    for label, final in (("300", (0.6, 0.8)), ("1000", (0.9, 1.0))):
        workdir.size(f"width/{label}", {50: (0.5, 0.5), 100: final}, [(0, 0.1), (1, 0.1)])
    text = words(Page(write_report(workdir.path).read_text()).text)
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
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert hostile in page.text


def test_no_experiment_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"config\.json"):
        write_report(tmp_path)


def test_the_peak_of_m_robust_is_explained(finished: Any):
    finished.select({}, robust_peak={"step": 1500, "reason": "median M_robust peaks"})
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "Peak of the teacher’s M_robust, step 1,500: median M_robust peaks" in text


def test_shared_students_are_named(finished: Any):
    finished.add(Strategy("again"))
    finished.start()
    for budget in (100, 200):
        finished.shared(["one_shot", "again"], budget, {"one_shot": finished.FINAL["one_shot", budget]})
    text = words(Page(write_report(finished.path).read_text()).text)
    assert (
        "They agree by definition and count once: one-shot (one_shot) = one-shot (again): with 100, 200 steps" in text
    )
    assert "one-shot (one_shot)the same students as one-shot (again)" in text
    assert "17.5 s" in text  # seven runs of 2.5 s
    assert "not finished" not in text.lower()


def test_a_margin_over_the_same_students_says_so(finished: Any):
    finished.shared(["one_shot", "two"], 100, {"one_shot": (0.5, 0.6, 0.7)})
    (finished.path / "students" / "two-100" / "run.json").unlink()
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "margin over one-shot (the same students) +0.000 [+0.000, +0.000] 3" in text
    assert (
        "the highest mean is 0.600 (95% interval [0.352, 0.848]) over 3 seeds, by one-shot = progressive (2, 50)."
        in text
    )
    assert "Of 2 cases, claim F1 is undecided in 1 and is not tested in 1." in text


def test_a_claim_of_ours_is_not_put_into_the_papers_mouth(finished: Any):
    finished.add(Strategy("adaptive", schedule=UntilSaturated(window=1, max_steps=100), selection=Equal(4)))
    finished.draw("two", "adaptive")
    finished.start()
    text = words(Page(write_report(finished.path).read_text()).text)
    assert "at equal student steps. Not the paper’s claim but ours. Students of an adaptive strategy" in text
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
    assert "highest mean outside of searches for the first checkpoint is 0.520" in text
    assert "Searches for the first checkpoint: 2 curricula" in text
    assert page.tags.count("details") == 2  # and the configuration


def test_remarks_stand_beside_their_claims_and_none_is_lost(finished: Any):
    plain = Page(write_report(finished.path).read_text())
    finished.change(remarks={"F1": "It shows at twice the size.", "R4": "It shows elsewhere."})
    finished.configure()
    text = words(Page(write_report(finished.path).read_text()).text)
    before, claim = text.split("F1: Progressive distillation")
    assert "It shows at twice the size." in claim
    assert "Remark on R4, of which this report has no verdict: It shows elsewhere." in before
    assert "It shows" not in plain.text.split("Reproduction")[0]
