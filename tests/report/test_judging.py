"""How cases become verdicts together, compared with scipy, with closed testing, and on studies whose truth is known."""

import itertools

import numpy as np
import pytest
import scipy.stats

from pdjax.report.claims.claim import Case, Measurement, decided
from pdjax.report.claims.judging import judged
from pdjax.report.stats import Interval, interval, p_above, p_below, p_within, units_needed

LEVEL = 0.025


def case(*samples, smallest=0.0, name="case"):
    """A case of quantities with these values by seed."""
    return decided(name, [Measurement("margin", interval(np.array(one)), "") for one in samples], smallest=smallest)


@pytest.mark.parametrize("threshold", [0.0, 0.03, -0.2])
def test_p_values_are_those_of_students_test(threshold):
    for values in np.random.default_rng(0).normal(0.05, 0.1, (20, 5)):
        found = interval(values)
        for p, side in ((p_above, "greater"), (p_below, "less")):
            expected = scipy.stats.ttest_1samp(values, threshold, alternative=side).pvalue
            assert p(found, threshold) == pytest.approx(expected, rel=1e-9)
        assert (p_above(found, threshold) <= LEVEL) == (found.low >= threshold)
        assert (p_within(found, 0.1) <= LEVEL) == (found.low >= -0.1 and found.high <= 0.1)


def test_equal_runs_are_certain():
    found = interval(np.full(3, 0.125))
    assert (p_above(found), p_below(found), p_above(found, 0.125)) == (0.0, 1.0, 1.0)
    assert np.isnan(p_above(interval(np.array([0.1]))))


def test_so_many_units_decide():
    """With one fewer they would not."""
    found = interval(np.array([0.02, 0.10, -0.05]))
    units, deviation = units_needed(found), np.std([0.02, 0.10, -0.05], ddof=1)

    def reaches(size):
        return scipy.stats.t.ppf(0.975, size - 1) * deviation / np.sqrt(size) < abs(found.mean)

    assert units is not None
    assert reaches(units)
    assert not reaches(units - 1)
    assert units_needed(Interval(1e-6, -0.1, 0.1, 3)) is None
    assert units_needed(Interval(1e-6, -0.1, 0.1, 3), smallest=0.02) is not None  # too small to matter


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([(0.010, 0.012, 0.014)], "too small to matter"),
        ([(-0.010, -0.012, -0.014)], "too small to matter"),
        ([(0.3, 0.31, 0.32), (0.001, 0.002, 0.003)], "too small to matter"),  # over one baseline only
        ([(-0.3, -0.31, -0.32), (0.001, 0.002, 0.003)], "fails"),
        ([(0.01, 0.02, 0.03)], "undecided"),
        ([(0.3, 0.31, 0.32)], "holds"),
    ],
)
def test_effects_within_the_smallest_do_not_matter(samples, verdict):
    (found,) = judged([case(*samples, smallest=0.02)])
    assert found.verdict == verdict


def test_an_undecided_case_says_what_would_decide_it():
    (found,) = judged([case((0.1, 0.3, 0.0))])
    units = units_needed(interval(np.array([0.1, 0.3, 0.0])))
    assert (found.verdict, found.note) == ("undecided", f"about {units} seeds would decide it, if the means stay")
    (lost,) = judged([case((0.1, 0.3, 0.0), (-0.1, -0.3, 0.0))])
    assert lost.note == found.note
    (never,) = judged([case((0.1, -0.1, 0.0001))])
    assert never.note == "more than 1,000 seeds would decide it, if the means stay"


def test_cases_are_corrected_as_closed_testing_does():
    """A case is certain if every set of cases that it is in is, at its smallest p-value times their number."""
    rng = np.random.default_rng(1)
    kept = 0
    for _ in range(100):
        cases = [case(values) for values in rng.normal(rng.uniform(0, 0.15, (4, 1)), 0.08, (4, 5))]
        ps = [p_above(one.measurements[0].interval) for one in cases]
        sets = [chosen for size in range(1, 5) for chosen in itertools.combinations(range(4), size)]
        certain = {chosen: min(ps[i] for i in chosen) <= LEVEL / len(chosen) for chosen in sets}
        expected = [
            one.verdict == "holds" and all(certain[chosen] for chosen in sets if place in chosen)
            for place, one in enumerate(cases)
        ]
        found = judged(cases)
        # A lost case is as much one of them.
        if not any(one.verdict == "fails" for one in cases):
            assert [one.verdict == "holds" for one in found] == expected
            kept += sum(expected)
    assert kept > 50


def test_what_holds_alone_only_says_so():
    weak = (0.05, 0.10, 0.20)  # p = 0.03 on both sides
    alone = case((0.06, 0.10, 0.14))
    assert [one.verdict for one in judged([alone])] == ["holds"]
    first, second = judged([alone, case(weak)])
    assert (first.verdict, second.verdict) == ("undecided", "undecided")
    assert "“holds” by itself, but not certain enough among 2 cases (Holm)" in first.note


def test_untested_cases_do_not_count():
    absent = Case("other", (), "not tested")
    assert [one.verdict for one in judged([case((0.06, 0.10, 0.14)), absent])] == ["holds", "not tested"]


@pytest.mark.parametrize("smallest", [0.0, 0.02])
def test_of_studies_without_an_effect_few_have_one(smallest):
    """Each with three cases against two baselines, of which one is beaten: the claim is wrong in all of them."""
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(1000):
        means = np.array([[0.2, 0.0], [0.0, 0.2], [0.0, 0.0]])
        samples = rng.normal(means, 0.05, (5, 3, 2))
        cases = [case(*samples[:, place].T, smallest=smallest) for place in range(3)]
        wrong += any(one.verdict in ("holds", "fails") for one in judged(cases))
    assert wrong <= 50


def test_an_effect_is_found_where_it_is():
    """Five units, an effect of twice the scatter between them, three cases of two quantities."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(200):
        samples = rng.normal(0.1, 0.05, (5, 3, 2))
        found += any(one.verdict == "holds" for one in judged([case(*samples[:, i].T) for i in range(3)]))
    assert found > 120
