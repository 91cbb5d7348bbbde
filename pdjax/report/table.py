"""The one table of everything that was measured; ``pdjax.findings`` says what is in it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from pdjax.distill.losses import Labels, Loss
from pdjax.findings import COLUMNS
from pdjax.io.records import RunRecord
from pdjax.probes.base import Probe
from pdjax.tasks.base import Task

_OF_MODELS = [name for name in COLUMNS if name not in ("step", "measure", "value")]


def table_of(models: Iterable[pd.DataFrame], values: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Returns the table of models and of what was measured on them; a model that two strategies share has rows of both.

    Args:
      models: frames of ``models_of``.
      values: frames of ``values_of`` and ``probed_values``.
    """
    frames = [frame for frame in values if not frame.empty]
    known = [frame for frame in models if not frame.empty] or [pd.DataFrame(columns=pd.Index(_OF_MODELS))]
    heads = pd.concat(known, ignore_index=True)  # an empty one would decide the types of columns
    if not frames:
        return heads.reindex(columns=list(COLUMNS))
    whole = heads.merge(pd.concat(frames, ignore_index=True), on="model", sort=False)
    return whole[[*COLUMNS, *(name for name in whole if name not in COLUMNS)]]


def models_of(
    role: str,
    name: str,
    run: RunRecord,
    teacher_seed: int | None = None,
    strategy: str = "",
    loss: Loss | None = None,
    rates: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Returns the models of a run, those of a strategy's loss and learning rates alone if there is one.

    Args:
      role: of the models.
      name: of the run's directory.
      run: that trained them.
      teacher_seed: of the teacher that they learn from; None: of themselves.
      strategy: that asks for them; of a model of another size its panel and label.
      loss: of the strategy.
      rates: of its students.
    """
    rows = [
        {
            "role": role,
            "teacher_seed": replica.seed if teacher_seed is None else teacher_seed,
            "strategy": strategy,
            "loss": _loss_text(replica.loss),
            "seed": replica.seed,
            "learning_rate": replica.learning_rate,
            "budget": run.description.budget,
            "model": f"{name}/{index}",
            "complete": run.complete,
        }
        for index, replica in enumerate(run.description.replicas)
        if (loss is None or replica.loss == loss) and (rates is None or replica.learning_rate in rates)
    ]
    return pd.DataFrame(rows, columns=pd.Index(_OF_MODELS)).sort_values("seed", kind="stable")


def values_of(name: str, run: RunRecord) -> pd.DataFrame:
    """Returns the held-out accuracy and loss of a run's models at every evaluation."""
    curves = run.evaluation
    models = [f"{name}/{index}" for index in range(len(run.description.replicas))]
    frames = [
        pd.DataFrame(values, pd.Index(curves.steps, name="step"), pd.Index(models, name="model"))
        .melt(ignore_index=False, value_name="value")
        .reset_index()
        .assign(measure=measure)
        for measure, values in (("accuracy", curves.accuracy), ("loss", curves.loss))
    ]
    return pd.concat(frames, ignore_index=True)


def probed_values(
    name: str, names: Sequence[Any], probe: Probe, records: Sequence[dict[str, Any]], listing: Any, task: Task
) -> pd.DataFrame:
    """Returns what a probe measured on a run's models.

    Args:
      name: of the run's directory.
      names: what the records call the models, in their order.
      probe: that measured.
      records: its lines.
      listing: what its numbers belong to.
      task: of the experiment.
    """
    return pd.DataFrame(
        {"model": f"{name}/{names.index(model)}", "step": step, **row}
        for model, step, record in _opened(records)
        for row in probe.measurements(record, listing, task)
    )


def _opened(records: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, int, dict[str, Any]]]:
    """Yields the model, the step and what was measured of each line."""
    for record in records:
        rest = {name: value for name, value in record.items() if name not in ("seed", "replica", "step")}
        yield record.get("seed", record.get("replica")), record["step"], rest


def _loss_text(loss: Loss) -> str:
    """Names a loss with its numbers: ``Distillation(temperature=1e-20, label_weight=0)``."""
    if isinstance(loss, Labels):
        return "Labels"
    numbers = (
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in loss.numbers.items()
    )
    return f"{type(loss).__name__}({', '.join(numbers)})"
