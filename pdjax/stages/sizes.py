"""The size stage: models of several sizes trained from the labels, to see which learns faster (figures 7 and 10)."""

import logging
from contextlib import closing
from pathlib import Path

from pdjax.experiment import Experiment, Sizes, digest_of
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_begun
from pdjax.io.signals import Interrupt
from pdjax.io.teacher_source import Stacked
from pdjax.io.workdir import is_done
from pdjax.models.base import Architecture
from pdjax.settings import determining, plain
from pdjax.stages.growing import grown
from pdjax.stages.programs import compiled, size_program
from pdjax.train.loop import Job, train
from pdjax.train.replicas import place_hyperparameters, product_of_replicas

logger = logging.getLogger("pdjax")


def train_sizes(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Trains every model of the sizes with all their seeds and learning rates, skipping those that are done."""
    sizes = experiment.sizes
    if sizes is None:
        return
    root = workdir / "sizes"
    begun = read_begun(root, "*/*")
    runs = [
        (run, model)
        for name, model in sizes.models()
        for run in grown(_describe(experiment, sizes, name, model), begun, root)
    ]
    with closing(Progress("sizes", sizes.steps * len(runs))) as progress:
        for run, model in runs:
            if is_done(root / run.name, run):
                progress.skip(sizes.steps)
            else:
                train(_job(experiment, sizes, run, model), root / run.name, experiment.loop, interrupt, progress)


def _describe(experiment: Experiment, sizes: Sizes, name: str, model: Architecture) -> RunDescription:
    # A model's run is the same whatever other models the panels have, and its replicas whatever others there are.
    others = ("panels", "seeds", "learning_rates")
    training = {key: value for key, value in determining(sizes).items() if key not in others}
    parts = experiment.determining("seed", "task", "evaluation")
    return RunDescription(
        role="size",
        name=name,
        strategies=(name,),
        budget=sizes.steps,
        replicas=product_of_replicas(sizes.seeds, sizes.learning_rates),
        starts=(),
        teacher_steps=(),
        identity=digest_of({**parts, "training": training, "model": determining(model)}),
    )


def _job(experiment: Experiment, sizes: Sizes, description: RunDescription, model: Architecture) -> Job:
    training = size_program(experiment, sizes, model)._replace(num_replicas=len(description.replicas))
    sweep = compiled(experiment, training)
    return Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, description.replicas),
        # Labels are all that they learn from.
        open_source=lambda: Stacked(sweep, None),
        data_seed=experiment.seed,
        evaluation_seed=experiment.seed,
        evaluate_every=experiment.evaluation.every,
        configuration=plain(experiment),
    )
