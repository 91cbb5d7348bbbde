"""The one table that figures and claims of users see; ``pdjax.findings`` says what is in it."""

from collections.abc import Iterator

import pandas as pd

from pdjax.findings import COLUMNS
from pdjax.io.records import RunRecord
from pdjax.report.results import Results


def table_of_results(results: Results) -> pd.DataFrame:
    """Returns everything that was measured on held-out examples, finished or not, a number a row."""
    rows = [] if results.teacher is None else list(_rows("teacher", "", results.teacher))
    for (strategy, _, _), group in results.groups.items():
        rows += _rows("student", strategy, group.run, group.replicas)
    for (panel, label, _), group in results.size_groups.items():
        rows += _rows("size", f"{panel}/{label}", group.run, group.replicas)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _rows(role: str, strategy: str, run: RunRecord, replicas: tuple[int, ...] | None = None) -> Iterator[tuple]:
    curves, budget = run.evaluation, run.description.budget
    for index in range(len(run.description.replicas)) if replicas is None else replicas:
        replica = run.description.replicas[index]
        who = (role, strategy, replica.seed, replica.learning_rate, budget)
        for measure, values in (("loss", curves.loss), ("accuracy", curves.accuracy)):
            yield from (
                (*who, int(step), measure, float(v)) for step, v in zip(curves.steps, values[:, index], strict=True)
            )
