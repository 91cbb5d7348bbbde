"""Claim C: what of an intermediate checkpoint helps students of sparse parity."""

import dataclasses
from collections.abc import Iterator

from pdjax.distill.part import LowDegree, Whole, WithoutLowDegree
from pdjax.distill.strategy import Strategy
from pdjax.report.claims.claim import OURS, Absent, Case, Claim, Measurement, decide, decided, margin, measured
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.stats import Interval, p_above, p_below

SMALLEST = 0.05
"""Of accuracy, averaged over training: a part that is enough gives at least so much, and one elsewhere less."""


def measure(results: Results) -> list[Case] | Absent:
    """Looks at every strategy of a low-degree part in the support, for each learning rate and budget.

    In the experiment and in the variants of its ablations, such as other teachers.
    """
    if not any(strategy.is_partial for strategy in results.strategies.values()):
        return Absent("no strategy shows its students parts of checkpoints")
    every = [("", results)]
    every += [(f"{results.asked_ablations[key].title}: {name}, ", one) for (key, name), one in results.variants.items()]
    cases = [case for prefix, one in every for case in _of_one(prefix, one)]
    return cases or Absent("no low-degree part in the support stands beside the whole checkpoint and one-shot")


def _of_one(prefix: str, results: Results) -> Iterator[Case]:
    low = [key for key, strategy in results.strategies.items() if _degree(strategy, "support") is not None]
    for key in low:
        for _, rate, budget in results.cases([key]):
            for case in _cases(results, key, rate, budget):
                yield dataclasses.replace(case, name=prefix + case.name)


def _degree(strategy: Strategy, monomials: str) -> int | None:
    """Returns the degree of a low-degree part there, with coefficients as measured; None of other strategies."""
    part = strategy.part
    if not strategy.is_partial or not isinstance(part, LowDegree):
        return None
    return part.degree if (part.monomials, part.signs) == (monomials, "measured") else None


def _cases(results: Results, key: str, rate: float | None, budget: int) -> Iterator[Case]:
    """Yields whether a part is enough, whether it is needed, and whether it has to be that of the support."""
    strategy, degree = results.strategies[key], _degree(results.strategies[key], "support")
    asked = {k: s for k, s in results.strategies.items() if s.loss == strategy.loss and results.asks(k, budget)}
    alike = {k: s for k, s in asked.items() if (s.schedule, s.selection) == (strategy.schedule, strategy.selection)}
    wholes = [k for k, s in alike.items() if isinstance(s.part, Whole)]
    baselines = [k for k, s in asked.items() if s.is_one_shot]
    if not wholes or not baselines:
        return
    whole, one_shot = wholes[0], baselines[0]
    without = [k for k, s in alike.items() if isinstance(s.part, WithoutLowDegree) and s.part.degree == degree]
    elsewhere = [k for k, s in alike.items() if _degree(s, "elsewhere") == degree]

    def minus(first: str, second: str) -> Measurement:
        groups = [results.finished(k, rate, budget) for k in (first, second)]
        missing = f"{results.labels[first if groups[0] is None else second]} unfinished"
        quantity = f"{results.labels[first]} minus {results.labels[second]}"
        return margin(quantity, *groups, over_training=True, missing=missing)

    name = f"{results.name(key, rate)}, {budget:,} steps"
    groups = [results.finished(k, rate, budget) for k in (key, whole, one_shot)]
    yield _enough(f"{name}: enough", minus(key, one_shot), (minus(whole, one_shot), _share(*groups)))
    if without:
        yield decided(f"{name}: needed", [minus(whole, k) for k in without])
    if elsewhere:
        controls = [_room(minus(one_shot, k), results.labels[k], results.labels[one_shot]) for k in elsewhere]
        yield decided(f"{name}: in the support", [*(minus(key, k) for k in elsewhere), *controls])


def _enough(name: str, gain: Measurement, shown: tuple[Measurement, ...]) -> Case:
    """Returns the case of a gain that is to be as large as the smallest effect, beside what is shown."""
    verdict, note = decide([gain])
    p = None
    if verdict != "not tested" and gain.interval is not None:
        large = gain.interval.low > 0 and gain.interval.mean >= SMALLEST
        verdict = "holds" if large else "fails" if gain.interval.high < SMALLEST else "undecided"
        p = {"holds": p_above(gain.interval), "fails": p_below(gain.interval, SMALLEST), "undecided": 1.0}[verdict]
    return Case(name, (gain,), verdict, note, shown, p=p)


def _room(lost: Measurement, control: str, one_shot: str) -> Measurement:
    """Returns what a control's gain over one-shot lacks to the smallest effect, from what it loses to one-shot."""
    room = None
    if lost.interval is not None:
        mean, low, high, size = lost.interval
        room = Interval(mean + SMALLEST, low + SMALLEST, high + SMALLEST, size)
    return Measurement(f"{SMALLEST} minus ({control} minus {one_shot})", room, lost.note)


def _share(part: Group | None, whole: Group | None, one_shot: Group | None) -> Measurement:
    """Returns a part's gain over one-shot by unit, as a share of the mean gain of the whole checkpoint."""
    name = "share of the gain of the whole checkpoint"
    if part is None or whole is None or one_shot is None:
        return Measurement(name, None, "unfinished")
    of_part, of_whole, baseline = (group.over().mean() for group in (part, whole, one_shot))
    gain = float((of_whole - baseline).mean())
    if not gain > 0:
        return Measurement(name, None, "the whole checkpoint gains nothing")
    return measured(name, (of_part - baseline).dropna() / gain)


C = Claim(
    name="C",
    text="What an intermediate teacher gives a student of sparse parity is its low-degree part in the support.",
    source=OURS,
    rule="Accuracy is averaged over training. Students are paired by seed, and strategies compared that have the same "
    "loss, schedule, selection and degree. There are three cases for each low-degree part in the support with the "
    "coefficients that were measured, which stands beside the whole checkpoint and one-shot. It is enough if its "
    "margin over one-shot is at least 0.05 with a 95% Student t interval above 0, and not if the interval lies below "
    "0.05. It is needed if the whole checkpoint’s margin over the checkpoint without it lies above 0, and not if it "
    "lies below. It has to be in the support if its margin over the same part elsewhere lies above 0 and the margin of "
    "that over one-shot below 0.05, and need not if one of them lies on the other side. All else is undecided. The "
    "share of the gain is the part’s margin over one-shot divided by the whole checkpoint’s mean one, whose own "
    "uncertainty its interval leaves out; it is shown and does not decide.",
    smallest=SMALLEST,
    figure="training_",
    measure=measure,
)
