"""The models that a comparison is between, and the state of the runs that train them."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from pdjax.distill.losses import Loss
from pdjax.io.records import RunRecord


@dataclasses.dataclass(frozen=True)
class Group:
    """The models that differ in nothing but the seed: one strategy (or size), learning rate and budget."""

    strategy: str
    learning_rate: float
    budget: int  # steps
    run: RunRecord
    replicas: tuple[int, ...]  # which of the run's

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the R replicas."""
        return tuple(self.run.description.replicas[replica].seed for replica in self.replicas)

    @property
    def steps(self) -> Int[np.ndarray, "E"]:
        """The student steps of the held-out evaluations."""
        return self.run.evaluation.steps

    @property
    def accuracy(self) -> Float[np.ndarray, "E R"]:
        """Held-out accuracy, a fraction."""
        return self.run.evaluation.accuracy[:, self.replicas]

    @property
    def loss(self) -> Float[np.ndarray, "E R"]:
        """Held-out loss in nats per selected position, counted token or input."""
        return self.run.evaluation.loss[:, self.replicas]

    @property
    def final_accuracy(self) -> Float[np.ndarray, "R"]:
        """Held-out accuracy after the last step; only of a complete run."""
        return self.accuracy[-1]

    def is_same(self, other: "Group") -> bool:
        """Whether these are the very same students, as those of strategies that differ in nothing are."""
        return self.run is other.run and self.replicas == other.replicas


@dataclasses.dataclass(frozen=True)
class RunState:
    """How far a run that the configuration asks for has come."""

    name: str
    budget: int  # steps
    record: RunRecord | None  # None: not started
    peak_memory_bytes: int

    @property
    def evaluated_step(self) -> int:
        """The last evaluated step."""
        return int(max(self.record.evaluation.steps, default=0)) if self.record is not None else 0

    @property
    def complete(self) -> bool:
        """Whether the run is done."""
        return self.record is not None and self.record.complete

    @property
    def text(self) -> str:
        """The state in words."""
        if self.record is None:
            return "not started"
        step = f"{self.evaluated_step:,} of {self.budget:,}"
        return "complete" if self.complete else f"unfinished: evaluated to step {step}"


def replicas_by_rate(run: RunRecord, loss: Loss) -> dict[float, tuple[int, ...]]:
    """Returns the replicas of a loss, the same in all its fields, by learning rate, in order of their seeds."""
    replicas = run.description.replicas
    rates = dict.fromkeys(replica.learning_rate for replica in replicas)
    of_loss = [index for index, replica in enumerate(replicas) if replica.loss == loss]
    in_order = sorted(of_loss, key=lambda index: replicas[index].seed)
    return {rate: tuple(index for index in in_order if replicas[index].learning_rate == rate) for rate in rates}
