"""A working directory that has begun may be asked for more: what it lacks gets runs of its own.

More seeds, learning rates, strategies or budgets change nothing in the runs that are there. Of what is asked for in one
run, some replicas may have one already, which is gone on with under its own name; the others are trained in a new one.
Whoever reads the results finds them joined (``pdjax.io.records``).
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

from pdjax.experiment import digest_of
from pdjax.io.records import RunDescription
from pdjax.io.workdir import another_run
from pdjax.settings import determining


def grown(asked: RunDescription, begun: Mapping[str, RunDescription], root: Path) -> list[RunDescription]:
    """Returns the runs that train what one is asked for: those begun with some of its replicas, one for the others.

    Args:
      asked: the run, with the name that it has where nothing has begun; its identity is of all but its replicas.
      begun: runs by name ...
      root: ... below this directory.

    Raises:
      UserError: replicas of it have been trained otherwise.
    """
    runs, left = [], list(asked.replicas)
    for name, old in begun.items():
        if old.budget != asked.budget or not {*left} & {*old.replicas}:
            continue
        run = _identified(dataclasses.replace(asked, name=name, replicas=old.replicas))
        if run.identity == old.identity:
            runs.append(run)
            left = [replica for replica in left if replica not in old.replicas]
        elif name == asked.name or {*old.strategies} & {*asked.strategies}:
            raise another_run(asked.name, root / name)
    if left:
        further = (f"{asked.name}+{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([asked.name], further) if name not in begun)
        runs.append(_identified(dataclasses.replace(asked, name=name, replicas=tuple(left))))
    return runs


def _identified(run: RunDescription) -> RunDescription:
    """Returns a run whose identity is of its replicas too; before, it is of all else that determines results."""
    replicas = [(one.seed, one.learning_rate, determining(one.loss)) for one in run.replicas]
    return dataclasses.replace(run, identity=digest_of({"run": run.identity, "replicas": replicas}))
