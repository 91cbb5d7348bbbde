"""The size stage: models of several sizes trained from the labels, to see which learns faster (figures 7 and 10)."""

import logging
from contextlib import closing
from pathlib import Path

from pdjax.config import Config, ModelConfig, SizesConfig, digest_of
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, product_of_replicas
from pdjax.io.signals import Interrupt
from pdjax.io.teacher_source import Stacked
from pdjax.io.workdir import is_done
from pdjax.stages.programs import compiled, size_program
from pdjax.train.loop import Job, train
from pdjax.train.replicas import place_hyperparameters

logger = logging.getLogger("pdjax")


def train_sizes(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Trains every model of ``config.sizes`` with all its seeds and learning rates, skipping those that are done."""
    sizes = config.sizes
    if sizes is None:
        return
    steps = sizes.steps * sum(len(models) for models in sizes.panels.values())
    with closing(Progress("sizes", steps)) as progress:
        for panel, models in sizes.panels.items():
            for label, model in models.items():
                directory = workdir / "sizes" / panel / label
                description = _describe(config, sizes, f"{panel}/{label}", model)
                if is_done(directory, description):
                    progress.skip(sizes.steps)
                else:
                    train(_job(config, sizes, description, model), directory, config.loop, interrupt, progress)


def _describe(config: Config, sizes: SizesConfig, name: str, model: ModelConfig) -> RunDescription:
    fields = config.as_dict()
    training = {key: value for key, value in fields["sizes"].items() if key != "panels"}
    settings = {key: fields[key] for key in ("seed", "task", "evaluation")}
    return RunDescription(
        role="size",
        name=name,
        strategies=(),
        budget=sizes.steps,
        replicas=product_of_replicas(sizes.seeds, sizes.learning_rates),
        starts=(),
        teacher_steps=(),
        identity=digest_of({**settings, "training": training, "model": model.__dict__}),
    )


def _job(config: Config, sizes: SizesConfig, description: RunDescription, model: ModelConfig) -> Job:
    replicas, sweep = description.replicas, compiled(config, size_program(config, sizes, model))
    return Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(
            sweep.mesh,
            seeds=[replica.seed for replica in replicas],
            learning_rates=[replica.learning_rate for replica in replicas],
            temperatures=[replica.temperature for replica in replicas],
            label_weights=[replica.label_weight for replica in replicas],
        ),
        open_source=lambda: Stacked(sweep, None),
        data_seed=config.seed,
        evaluation_seed=config.seed,
        evaluate_every=config.evaluation.every,
    )
