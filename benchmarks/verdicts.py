"""How often verdicts of a study would be wrong, and how often right, by simulated studies of its own shape.

    python benchmarks/verdicts.py WORKDIR [--studies 1000] [--effects 0.02 0.05 0.1] [--json PATH]

Takes a study's records (``:study``): its teachers, students and strategies, and all that was measured on them. In a
simulated study which students are whose is shuffled: strategies lose what they differ in on average, within each
teacher those of equal budgets exchange their students, and the steps at which correlations were measured exchange
theirs. So nothing that F1, R1, R2, R4, R7, A, H, kappa, gap and adaptive say is true, while accuracies scatter over
teachers as they did. Whatever ``holds`` then does so by chance; a claim is counted once however many of its cases do.
Not so what ``fails``: a correlation that peaks nowhere contradicts R1. Of the other claims an exchange makes some true,
as that two temperatures are alike, and leaves some as they are.

F1 is as untrue where progressive students are only as good as those of one rival and far better than all others', which
is harder to tell: such studies are counted beside. For R4 the step at which M_robust rises fastest stands in for its
peak in teachers that have none. For ``auto``, of which an exchange alone makes true that no checkpoint is better, one
that was not chosen is made better by the smallest effect with each teacher.

For the power, progressive strategies are made more accurate by an effect after that, and the cases of F1 that hold are
counted. Where a task is learned or not, students of a strategy are sooner than those of one rival in a share of pairs;
its case is to hold by itself, and as the only one among as many as the study has (Holm).
"""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from pdjax.distill.selection import Steps
from pdjax.io.selection import SelectionRecord
from pdjax.report.claims import AUTO, F1, Absent, Case, evaluate_claims
from pdjax.report.claims.claim import SMALLEST_MARGIN
from pdjax.report.claims.counts import Contest
from pdjax.report.claims.judging import judged
from pdjax.report.reading import read_results
from pdjax.report.results import Results
from pdjax.report.searches import automatic_strategies, chosen_steps
from pdjax.report.stats import LEVEL

_FAR = 5.0
"""Accuracy by which students are better beyond all doubt."""

UNTRUE = ("F1", "R1", "R2", "R4", "R7", "A", "H", "kappa", "gap", "adaptive")
"""Claims of which nothing is true where students are exchanged."""


def main() -> None:
    """Prints a table of wrong verdicts, and one of right ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--effects", type=float, nargs="*", default=[0.02, 0.05, 0.1])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results, rng = leveled(slim(read_results(asked.workdir))), np.random.default_rng(0)
    wrong = wrong_verdicts(results, asked.studies, rng)
    print(
        *(f"{claim}: holds by chance in {share:.1%} of {asked.studies} studies" for claim, share in wrong.items()),
        sep="\n",
    )
    power = dict(powers(results, asked.effects, max(1, asked.studies // 5), rng))
    for what, share in power.items():
        print(f"{what} with a probability of {share:.0%}")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"studies": asked.studies, "wrong": wrong, "power": power}, indent=1) + "\n")


def wrong_verdicts(results: Results, studies: int, rng: np.random.Generator) -> dict[str, float]:
    """Returns by claim in which share of the shuffled studies that test it it holds in a case."""
    held: Counter[str] = Counter()
    tested: Counter[str] = Counter()

    def count(claim: str, cases: Sequence[Case]) -> None:
        verdicts = {case.verdict for case in cases}
        tested[claim] += bool(verdicts - {"not tested"})
        held[claim] += "holds" in verdicts

    rivals = [key for key, strategy in results.strategies.items() if not strategy.is_progressive]
    for _ in range(studies):
        for finding in evaluate_claims(shuffled(results, rng)):
            if finding.claim.name in UNTRUE:
                count(finding.claim.name, finding.cases)
        if results.experiment.task.learned is not None:
            continue
        rival = str(rng.choice(rivals))
        equal = F1.measure(shuffled(results, rng, _FAR, lambda one, rival=rival: [*progressive(one), rival]))
        count("F1 with one equal rival", [] if isinstance(equal, Absent) else judged(equal))
        choice = AUTO.measure(shuffled(results, rng, SMALLEST_MARGIN, lambda one: unchosen(one, rng)))
        count("auto", [] if isinstance(choice, Absent) else judged(choice))
    return {claim: held[claim] / number for claim, number in tested.items() if number}


def powers(
    results: Results, effects: list[float], studies: int, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """Yields how often F1 and ``auto`` hold by what is true."""
    if results.experiment.task.learned is not None:
        found = F1.measure(results)
        assert isinstance(found, list)
        units, cases = len(results.with_students), sum(case.verdict != "not tested" for case in found)
        tested = [(count, Contest(count, units - count, 0).p_sooner) for count in range(units + 1)]
        for share in (0.8, 0.9, 0.95):
            for among in (1, cases):
                enough = [count for count, p in tested if p <= LEVEL / among]
                certain = float(scipy.stats.binom.sf(min(enough) - 1, units, share)) if enough else 0.0
                yield f"{share:.0%} of {units} sooner than one rival's, among {among} cases: F1 holds", certain
        return
    for effect in effects:
        cases = []
        for _ in range(studies):
            found = F1.measure(shuffled(results, rng, effect))
            assert isinstance(found, list)
            cases += [case.verdict == "holds" for case in judged(found)]
        yield f"{effect:g} more accurate: F1 holds", float(np.mean(cases))
    choices = [AUTO.measure(shuffled(results, rng)) for _ in range(studies)]
    if not any(isinstance(cases, Absent) for cases in choices):
        held = [case.verdict == "holds" for cases in choices if isinstance(cases, list) for case in judged(cases)]
        yield "no first checkpoint better than another: auto holds", float(np.mean(held))


def slim(results: Results) -> Results:
    """Returns results without what no verdict looks at: losses, and the single monomials of a degree."""

    def of(one: Results) -> Results:
        table = one.table[one.table.measure != "loss"]
        single = table.measure == "correlation"
        if single.any():
            places = ["role", "teacher_seed", "seed", "model", "step", "measure", "feature", "degree", "complete"]
            means = table[single].groupby(places).value.mean().reset_index()
            table = pd.concat([table[~single], means], ignore_index=True)
        return _with(one, table=table)

    return _with(results, by_teacher={seed: of(one) for seed, one in results.by_teacher.items()})


def leveled(results: Results) -> Results:
    """Returns results whose strategies of equal budgets are equally accurate on average over teachers and students.

    Where a task is learned or not they are left as they are: averages of that would be neither.
    """
    if results.experiment.task.learned is not None:
        return results
    measured = pd.concat({seed: one.table for seed, one in results.by_teacher.items()}, names=["of"])
    measured = measured[(measured.role == "student") & (measured.measure == "accuracy")]
    by_teacher = measured.groupby(["budget", "step", "strategy", "of"]).value.mean()
    differing = by_teacher - by_teacher.groupby(["budget", "step", "of"]).transform("mean")
    average = differing.groupby(["budget", "step", "strategy"]).transform("mean")
    # Of what strategies differ in with a teacher the average is a part, without which it would scatter less.
    count = len(results.by_teacher)
    taken = differing - (differing - average) * (count / (count - 1)) ** 0.5

    def of(seed: int, one: Results) -> Results:
        table = one.table.copy()
        rows = table[(table.role == "student") & (table.measure == "accuracy")]
        places = pd.MultiIndex.from_frame(rows[["budget", "step", "strategy"]].assign(of=seed))
        table.loc[rows.index, "value"] = rows.value.to_numpy() - taken.loc[places].to_numpy()
        return _with(one, table=table)

    return _with(results, by_teacher={seed: of(seed, one) for seed, one in results.by_teacher.items()})


def progressive(results: Results) -> Collection[str]:
    """Returns the strategies with intermediate checkpoints."""
    return [key for key, strategy in results.strategies.items() if strategy.is_progressive]


def unchosen(results: Results, rng: np.random.Generator) -> Collection[str]:
    """Returns a strategy of a search whose first checkpoint is not what was chosen automatically."""
    chosen = {chosen_steps(results, key) for key in automatic_strategies(results)}
    searched = {
        key for one in results.comparisons.values() if one.kind == "first_checkpoints" for key in one.strategies
    }
    given = [key for key in sorted(searched) if isinstance(results.strategies[key].selection, Steps)]
    others = [key for key in given if chosen_steps(results, key) not in chosen]
    return [str(rng.choice(others))] if others else []


def shuffled(
    results: Results,
    rng: np.random.Generator,
    effect: float = 0.0,
    better: Callable[[Results], Collection[str]] = progressive,
) -> Results:
    """Returns results of which strategies have exchanged their students within each teacher.

    Args:
      results: of a study.
      rng: of the exchange.
      effect: by which students are more accurate, after the exchange.
      better: which strategies' are, by the results of a teacher.
    """
    by_teacher, tables = {}, []
    for seed, one in results.by_teacher.items():
        table = one.table.copy()
        students = table.role == "student"
        names = _exchanged(results, rng)
        table.loc[students, "strategy"] = table[students].strategy.map(names)
        # Strategies that shared students have their own: what becomes of them is told apart.
        table.loc[students, "model"] = table[students].strategy + "/" + table[students].model
        rates = {key: results.experiment.rates(strategy)[0] for key, strategy in results.strategies.items()}
        table.loc[students, "learning_rate"] = table[students].strategy.map(rates)
        table.loc[students & table.strategy.isin(better(one)) & (table.measure == "accuracy"), "value"] += effect
        correlations = table.measure == "correlation"
        steps = table[correlations].step.unique()
        table.loc[correlations, "step"] = table[correlations].step.map(
            dict(zip(steps, rng.permutation(steps), strict=True))
        )
        by_teacher[seed] = _with(one, table=table, selection=_with_peak(one.selection))
        tables.append(table.assign(model=f"{seed}/" + table.model))
    return _with(results, table=pd.concat(tables, ignore_index=True), by_teacher=by_teacher)


def _with_peak(found: SelectionRecord | None) -> SelectionRecord | None:
    """Returns what was found in a teacher's training as if M_robust fell after its fastest rise."""
    if found is None or found.robust_peak is None:
        return found
    return dataclasses.replace(found, robust_peak=dataclasses.replace(found.robust_peak, peaked=True))


def _exchanged(results: Results, rng: np.random.Generator) -> dict[str, str]:
    """Returns another name for each strategy, of one with the same budgets."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for key in results.strategies:
        alike.setdefault(tuple(budget for budget in results.budgets if results.asks(key, budget)), []).append(key)
    return {key: str(other) for keys in alike.values() for key, other in zip(keys, rng.permutation(keys), strict=True)}


def _with(results: Results, **known: object) -> Results:
    """Returns results of which some properties, which are found from records otherwise, are known."""
    changed = dataclasses.replace(results)
    changed.__dict__.update(known)
    return changed


if __name__ == "__main__":
    main()
