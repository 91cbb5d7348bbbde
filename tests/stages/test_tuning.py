"""Tuning: the grid of learning rates grows while a best one is at its edge, and what is chosen is recorded."""

import dataclasses

import numpy as np
import pytest

from pdjax.configuration import experiment_of
from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Steps
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Tuning
from pdjax.io.records import read_run
from pdjax.io.sealed import read_json
from pdjax.io.signals import Interrupt
from pdjax.report.claims import evaluate_claims
from pdjax.report.page import tuned_rows
from pdjax.report.reading import read_results
from pdjax.report.summary import what_came_out
from pdjax.report.tables import tuning
from pdjax.stages.run import run_experiment
from pdjax.stages.tuning import Tried, families
from tests.minimal import get_config

STRATEGIES = (
    Strategy("labels", Labels()),
    Strategy("early", schedule=FixedDuration(8), selection=Steps((16,))),
    Strategy("late", schedule=FixedDuration(16), selection=Steps((16,))),
)


@pytest.fixture(scope="module")
def config():
    """All rates of the first grid are far too low to learn in 32 steps, and so is the least that is not tried."""
    small = experiment_of(get_config("few"))
    return dataclasses.replace(
        small,
        strategies=STRATEGIES,
        comparisons=(),
        tuning=Tuning(factor=10.0, lowest=1e-5, highest=0.05),
        student_training=dataclasses.replace(small.student_training, seeds=(0, 1), learning_rates=(1e-4, 1e-3)),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "work"
    run_experiment(config, path, ("teacher", "students"), Interrupt())
    return path


def test_strategies_that_differ_in_t_alone_are_one_family(config):
    others = (Strategy("other", schedule=FixedDuration(8), selection=Steps((32,))),
              Strategy("soft", Distillation(1.0), FixedDuration(8), Steps((16,))))  # fmt: skip
    grown = dataclasses.replace(config, strategies=(*STRATEGIES, *others))
    assert families(grown) == {
        "labels": ["labels"], "early": ["early", "late"], "other": ["other"], "soft": ["soft"]
    }  # fmt: skip


def test_strategies_that_differ_in_more_than_numbers_are_families_of_their_own(config):
    adaptive = [
        Strategy(name, schedule=UntilSaturated(name, 1, 0.01, 16), selection=Steps((16,)))
        for name in ("accuracy", "agreement")
    ]
    assert len(families(dataclasses.replace(config, strategies=tuple(adaptive)))) == 2


def test_the_grid_grows_as_far_as_it_may_and_what_is_chosen_is_the_best(config, workdir):
    tuned = read_json(workdir / "tuned.json")
    curves: dict[tuple[str, float], list[np.ndarray]] = {}
    for path in (workdir / "students").iterdir():
        run = read_run(path)
        for place, replica in enumerate(run.description.replicas):
            for strategy in run.description.strategies:
                curves.setdefault((strategy, replica.learning_rate), []).append(run.evaluation.accuracy[:, place])
    rates = tuned["learning_rates"]
    assert {1e-4, 1e-3} < {*rates} <= {1e-4 / 10, 1e-4, 1e-3, 1e-3 * 10}  # beyond these are no rates that may be tried
    assert {*curves} == {(strategy.name, rate) for strategy in STRATEGIES for rate in rates}
    assert {len(of) for of in curves.values()} == {2}
    merits = {key: Tried(*key, np.mean([c[-1] for c in of]), np.mean(of)).merit for key, of in curves.items()}
    for members in (["labels"], ["early", "late"]):
        chosen = tuned["chosen"][members[0]]
        best = max(merit for (name, _), merit in merits.items() if name in members)
        assert merits[chosen["strategy"], chosen["learning_rate"]] == pytest.approx(best)
        assert chosen["at_the_edge"] == (chosen["learning_rate"] in (rates[0], rates[-1]))
    # It ended because no best one is at an edge beyond which it may go on.
    best = [one["learning_rate"] for one in tuned["chosen"].values()]
    assert max(best) < rates[-1] or rates[-1] * 10 > 0.05
    assert min(best) > rates[0] or rates[0] / 10 < 1e-5


def test_a_rate_at_which_students_diverge_ends_the_grid(config, tmp_path):
    """At a rate of 1e8 the losses of parities overflow; those at 1e-1 are the best until then."""
    growing = dataclasses.replace(
        config,
        strategies=STRATEGIES[:1],
        tuning=Tuning(factor=1e9, lowest=1e-5, highest=1e9),
        student_training=dataclasses.replace(config.student_training, learning_rates=(1e-3, 1e-1)),
    )
    for _ in range(2):  # the same again where it is done
        run_experiment(growing, tmp_path / "work", ("teacher", "students"), Interrupt())
        tuned = read_json(tmp_path / "work" / "tuned.json")
        assert tuned["learning_rates"] == [1e-3, 1e-1]
        assert "not finite" in tuned["ends"]["above"]
    assert read_results(tmp_path / "work").finished("labels", 1e-1, 32) is not None


def test_the_same_command_finds_all_done_and_goes_on_from_the_grown_grid(config, workdir):
    before = {path: path.read_bytes() for path in (workdir / "students").rglob("*.json")}
    run_experiment(config, workdir, ("teacher", "students"), Interrupt())
    assert {path: path.read_bytes() for path in (workdir / "students").rglob("*.json")} == before
    assert read_json(workdir / "config.json")["student_training"]["learning_rates"] == list(
        read_json(workdir / "tuned.json")["learning_rates"]
    )


def test_the_report_lists_what_was_tried_and_what_was_chosen(workdir):
    results = read_results(workdir)
    rows = tuning(results)
    assert len(rows) == 3 * len(results.tuned["learning_rates"])
    assert sum(row["chosen"] for row in rows) == 2
    assert [row["Name"] for row in tuned_rows(results)] == [one["strategy"] for one in results.tuned["chosen"].values()]
    assert what_came_out(results).startswith("This is a tuning")


def test_no_claim_is_decided_by_what_chose(workdir):
    findings = evaluate_claims(read_results(workdir))
    assert {(len(finding.cases), finding.absent.partition(":")[0]) for finding in findings} == {
        (0, "a tuning decides nothing")
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategies": (dataclasses.replace(STRATEGIES[0], budgets=(16,)),)}, "trained equally long"),
        ({"further_teachers": (1,)}, "by one teacher"),
        ({"strategies": (dataclasses.replace(STRATEGIES[0], learning_rate=1e-2),)}, "without a learning_rate"),
    ],
)
def test_what_no_fair_choice_can_be_made_of_is_refused(config, changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(config, **changes)


@pytest.mark.parametrize("wrong", [{"factor": 1.0}, {"lowest": 1.0, "highest": 1.0}])
def test_a_grid_that_could_not_grow_is_refused(wrong):
    with pytest.raises(ValueError, match=r"factor above 1|lowest below highest"):
        Tuning(**wrong)
