"""What the probes measured on the students of a strategy, and on the final teacher (figures 5 and 22)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pdjax.io.probe_records import StringProbes
from pdjax.report.groups import Group
from pdjax.report.results import Results

Measure = Literal["close", "robust", "nonterminals", "agreement"]


class Feature(NamedTuple):
    """A measure of R models at E checkpoints, at X places: sizes of n-grams, or levels of the grammar."""

    steps: Int[np.ndarray, "E"]
    places: tuple[int, ...]  # n, or the depth of a level; 0 alone for the agreement
    values: Float[np.ndarray, "E R X"]

    @property
    def mean(self) -> Float[np.ndarray, "E R"]:
        """The measure averaged over its places."""
        return self.values.mean(axis=2)


def feature(probes: StringProbes, measure: Measure, replicas: Sequence[int]) -> Feature | None:
    """Returns a measure of some of the models that were probed together; None if it was not measured (yet)."""
    chosen = list(replicas)
    if measure == "nonterminals":
        levels = probes.nonterminals
        return None if levels is None else Feature(levels.steps, levels.levels, levels.accuracy[:, chosen])
    if measure == "agreement":
        shared = probes.agreement
        return None if shared is None else Feature(shared.steps, (0,), shared.top1[:, chosen, None])
    grams = probes.ngrams
    return None if grams is None else Feature(grams.steps, grams.n, grams.median(measure)[:, chosen])


def student_feature(results: Results, group: Group, measure: Measure) -> Feature | None:
    """Returns a measure of a group's students, in the order of their seeds; None if it was not measured (yet)."""
    probes = results.student_probes.get(group.run.description.name)
    return None if probes is None else feature(probes, measure, group.replicas)


def teacher_feature(results: Results, measure: Measure) -> Feature | None:
    """Returns a measure of the teacher that students learn from; None if it was not measured (yet)."""
    return feature(results.teacher_probes, measure, (0,))


def untrained_feature(results: Results, groups: Sequence[Group], measure: Measure) -> Feature | None:
    """Returns a measure of students before training, the same in all groups; None if it was not measured (yet)."""
    for group in groups:
        measured = student_feature(results, group, measure)
        if measured is not None and measured.steps[0] == 0:
            return measured
    return None


def probed_groups(results: Results, learning_rate: float, budget: int) -> list[Group]:
    """Returns the finished groups of strategies whose students are probed, in the order the configuration names them.

    Of strategies whose students are the same the first stands for all.
    """
    groups: list[Group] = []
    for key in results.experiment.probes.students if results.experiment.probes_students_of(budget) else ():
        group = results.finished(key, learning_rate, budget)
        if group is not None and not any(group.is_same(other) for other in groups):
            groups.append(group)
    return groups
