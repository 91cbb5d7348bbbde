"""Tables of what the probes measured."""

from collections.abc import Iterator
from typing import NamedTuple

from pdjax.io.probe_records import MEASURES, StringProbes
from pdjax.report.results import Results
from pdjax.report.tables.table import Cell, Table


def correlations_table(results: Results) -> Table:
    """Correlations of the teachers' predictions by seed, step, group and degree: mean and deviation over monomials.

    Group -1 is off the support; the others are features, 0 the only one or the tree's root.
    """
    rows: list[tuple[Cell, ...]] = []
    record = results.monomials
    if record is not None:
        pairs = sorted(set(zip(record.groups.tolist(), record.degrees.tolist(), strict=True)))
        for teacher, seed in enumerate(record.seeds):
            for group, degree in pairs:
                values = record.values[:, teacher, record.chosen(degree, group)]
                means, deviations = values.mean(axis=1).tolist(), values.std(axis=1).tolist()
                for step, mean, deviation in zip(record.steps.tolist(), means, deviations, strict=True):
                    rows.append((seed, step, group, degree, values.shape[1], mean, deviation))
    columns = ("seed", "step", "group", "degree", "monomials", "correlation_mean", "correlation_deviation")
    return Table("correlations", columns, rows)


def attention_table(results: Results) -> Table:
    """Attention of the teachers' last position, summed over heads: to the support, and on average to a position off it.

    Both are medians over inputs; the second is empty where the support is not recorded.
    """
    rows: list[tuple[Cell, ...]] = []
    record = results.attention
    if record is not None:
        support = results.support
        off = [p for p in range(record.positions.shape[2]) if support is not None and p not in support]
        for teacher, seed in enumerate(record.seeds):
            for at, step in enumerate(record.steps.tolist()):
                others = float(record.positions[at, teacher, off].mean()) if off else None
                rows.append((seed, step, float(record.support[at, teacher]), others))
    return Table("attention", ("seed", "step", "support", "other_position_mean"), rows)


class _Model(NamedTuple):
    """A probed model."""

    name: tuple[Cell, ...]  # whose, strategy, budget, learning rate, seed
    probes: StringProbes
    replica: int  # in the records


_MODEL = ("who", "strategy", "budget", "learning_rate", "seed")


def _models(results: Results) -> Iterator[_Model]:
    """Yields all teachers of strings, and the finished students of the probed strategies."""
    seeds = results.experiment.teacher_training.seeds
    for replica, seed in enumerate(seeds):
        yield _Model(("teacher", None, None, None, seed), results.teacher_probes, replica)
    for (strategy, rate, budget), group in results.groups.items():
        probes = results.student_probes.get(group.run.description.name)
        if strategy in results.experiment.probes.students and probes is not None:
            for replica, seed in zip(group.replicas, group.seeds, strict=True):
                yield _Model(("student", strategy, budget, rate, seed), probes, replica)


def ngrams_table(results: Results) -> Table:
    """M_robust and M_close (total variation) of every probed model by step and n: percentiles over places."""
    rows: list[tuple[Cell, ...]] = []
    for name, probes, replica in _models(results):
        record = probes.ngrams
        if record is None:
            continue
        for at, step in enumerate(record.steps.tolist()):
            for measure, by_n in zip(MEASURES, record.values[at, replica].tolist(), strict=True):
                for n, values in zip(record.n, by_n, strict=True):
                    pairs = zip(record.percentiles, values, strict=True)
                    rows += [(*name, step, measure, n, percentile, value) for percentile, value in pairs]
    return Table("ngrams", (*_MODEL, "step", "measure", "n", "percentile", "value"), rows)


def nonterminals_table(results: Results) -> Table:
    """Accuracy of the probes for the non-terminals of each level (the root is 0) of every probed model by step."""
    rows: list[tuple[Cell, ...]] = []
    for name, probes, replica in _models(results):
        record = probes.nonterminals
        if record is not None:
            for at, step in enumerate(record.steps.tolist()):
                pairs = zip(record.levels, record.accuracy[at, replica].tolist(), strict=True)
                rows += [(*name, step, level, accuracy) for level, accuracy in pairs]
    return Table("nonterminals", (*_MODEL, "step", "level", "accuracy"), rows)


def agreement_table(results: Results) -> Table:
    """Agreement (a share) and divergence (nats) of every probed model with the final teacher by step."""
    rows: list[tuple[Cell, ...]] = []
    for name, probes, replica in _models(results):
        record = probes.agreement
        if record is not None:
            columns = (record.steps.tolist(), record.top1[:, replica].tolist(), record.divergence[:, replica].tolist())
            rows += [(*name, *row) for row in zip(*columns, strict=True)]
    return Table("agreement", (*_MODEL, "step", "top1", "divergence"), rows)
