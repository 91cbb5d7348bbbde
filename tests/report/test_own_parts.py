"""Parts of an experiment that the package does not know, in its figures."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax.numpy as jnp

from pdjax.distill.losses import Loss, Number
from pdjax.models.base import Architecture
from pdjax.report.figures.ablations import ablation_figures
from pdjax.report.figures.budgets import budget_figures
from pdjax.report.figures.sizes import size_figures
from pdjax.report.figures.training import training_figures
from pdjax.report.reading import read_results
from pdjax.settings import settings
from pdjax.tasks.base import Task
from pdjax.types import Batch


@settings
class OwnTask(Task):
    """A task that the package does not know."""

    predicts: ClassVar[Literal["positions", "example"]] = "example"
    num_classes: ClassVar[int] = 2  # pyright: ignore
    vocabulary: ClassVar[int] = 2  # pyright: ignore
    num_positions: ClassVar[int] = 3  # pyright: ignore

    def sample(self, key: Any, batch_size: int) -> Batch:
        """Draws nothing but zeros."""
        places = jnp.zeros(batch_size, int)
        return Batch({"own": places}, places, jnp.ones(batch_size), {})


@settings
class OwnModel(Architecture):
    """A model that the package does not know."""

    reads: ClassVar[tuple[str, ...]] = ("own",)
    power: int = 1

    def build(self, task: Task) -> Any:
        """Builds none: figures need no model."""
        raise NotImplementedError


@settings
class OwnLoss(Loss):
    """A loss that the package does not know, without a temperature."""

    margin: Number = 0.5

    def values(self, student: Any, teacher: Any, batch: Batch, numbers: Any, params: Any) -> Any:
        """Returns nothing: figures need no values."""
        raise NotImplementedError


def test_an_experiment_of_ones_own_parts_has_the_same_figures(finished: Any, drawings: Any):
    finished.change(task=OwnTask(), teacher=OwnModel(), student=OwnModel(), comparisons=())
    finished.sizes({"power": {"two": OwnModel(power=2), "one": OwnModel()}})
    finished.add(dataclasses.replace(finished.experiment.strategy("two"), loss=OwnLoss()))
    finished.ablation("margin", {"power 3": {"student": {"power": 3}}}, [100], strategies=("one_shot", "two"))
    finished.start()
    for budget in (100, 200):
        finished.student("two", budget, {budget // 2: (0.4,) * 3, budget: finished.FINAL["two", budget]})
    variant = finished.variant("margin", "power 3")
    for key in ("one_shot", "two"):
        variant.student(key, 100, {100: (0.4, 0.5, 0.6)})
    for label in ("one", "two"):
        finished.size(f"power/{label}", {100: (0.5, 0.6)}, [(0, 1e-3), (1, 1e-3)])
    results = read_results(finished.path)
    generators = (budget_figures, training_figures, size_figures, ablation_figures)
    drawn = drawings(figure for generator in generators for figure in generator(results))
    names = ["accuracy_by_budget", "training_all_100", "training_all_200", "sizes", "ablation_margin"]
    assert list(drawn) == names
    legend = [text.get_text() for text in drawn["training_all_100"].legends[0].get_texts()]
    assert "progressive (2, 50), OwnLoss" in legend
