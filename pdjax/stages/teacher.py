"""The teacher stage: one training run, whose states at regular steps become the trajectory."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pdjax.errors import UserError
from pdjax.experiment import Experiment, digest_of
from pdjax.io.processes import is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_json
from pdjax.io.signals import Interrupt
from pdjax.io.store import SAFETY, CheckpointStore, require_space, tree_bytes
from pdjax.io.teacher_source import Stacked
from pdjax.io.workdir import is_done
from pdjax.models.base import num_parameters
from pdjax.stages.programs import compiled, teacher_program
from pdjax.train.loop import KEPT_STATES, ByReplica, Job, train
from pdjax.train.replicas import Sweep, place_hyperparameters, product_of_replicas
from pdjax.types import Params

logger = logging.getLogger("pdjax")


def train_teacher(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Trains the teacher and keeps its trajectory, unless that is done or a trajectory is given."""
    directory, training = workdir / "teacher", experiment.teacher_training
    if training.trajectory is not None:
        # Opening it compares its task and model with these.
        store = open_trajectory(experiment, workdir)
        logger.info("teacher: %d checkpoints of %s", len(store.steps()), training.trajectory)
        _copy_curves(Path(training.trajectory).parent, directory)
        store.close()
        return
    description = RunDescription(
        role="teacher",
        name="teacher",
        strategies=(),
        budget=training.steps,
        replicas=product_of_replicas(training.seeds, (training.learning_rate,)),
        starts=(),
        teacher_steps=(),
        identity=teacher_identity(experiment),
    )
    if is_done(directory, description):
        return
    sweep = compiled(experiment, teacher_program(experiment))
    _announce_disk(experiment, workdir, sweep)
    # Each teacher has a store of its own, and is read from it as if it had been trained alone.
    trajectories = [open_trajectory(experiment, workdir, seed) for seed in training.seeds]

    def keep(step: int, params: Params, means: Mapping[str, ByReplica]) -> None:
        for replica, trajectory in enumerate(trajectories):
            replica_params = jax.tree.map(lambda leaf, r=replica: leaf[r], params)
            trajectory.save(step, replica_params, {name: float(values[replica]) for name, values in means.items()})

    job = Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, description.replicas),
        # It learns from the labels.
        open_source=lambda: Stacked(sweep, None),
        # Says nothing: batches are not shared, and each teacher draws its own by its own seed.
        data_seed=training.seed,
        evaluation_seed=experiment.seed,
        evaluate_every=experiment.evaluation.every,
        keep_every=training.checkpoint_every,
        keep=keep,
    )
    try:
        with closing(Progress("teacher", training.steps)) as progress:
            train(job, directory, experiment.loop, interrupt, progress)
    finally:
        for trajectory in trajectories:
            trajectory.close()


def teacher_identity(experiment: Experiment) -> str:
    """Digest of all that determines the teachers' results."""
    # The seed and the evaluation are of the held-out examples, whose curves decide about checkpoints.
    return digest_of(experiment.determining("seed", "evaluation", "task", "teacher", "teacher_training"))


def trajectory_identity(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What the trajectory store of one teacher says about itself."""
    fields = experiment.determining("task", "teacher", "teacher_training")
    # A teacher is the same alone as among others.
    training = {key: value for key, value in fields["teacher_training"].items() if key != "extra_seeds"}
    return {"task": fields["task"], "model": fields["teacher"], "training": training | {"seed": seed}}


def open_trajectory(experiment: Experiment, workdir: Path, seed: int | None = None) -> CheckpointStore:
    """Opens a teacher's trajectory: the experiment's own, or the given one of the same task and model.

    ``seed`` is one of ``teacher_training.seeds``; None means the teacher that students learn from.
    """
    given, first = experiment.teacher_training.trajectory, experiment.teacher_training.seed
    seed = first if seed is None else seed
    identity = trajectory_identity(experiment, seed)
    if given is None:
        name = "trajectory" if seed == first else f"trajectory-seed{seed}"
        return CheckpointStore(workdir / "teacher" / name, identity)
    directory = Path(given)
    if not (directory / "store.json").exists():
        raise UserError(
            "a trajectory store in teacher_training.trajectory",
            f"no store.json in {directory}",
            "name the directory <workdir>/teacher/trajectory of another experiment",
        )
    # Another teacher's training is welcome; another task or model is not.
    return CheckpointStore(directory, identity | {"training": read_json(directory / "store.json").get("training")})


def teacher_shape(experiment: Experiment) -> Params:
    """Returns a teacher's parameters as shapes."""
    inputs = jax.eval_shape(lambda: experiment.task.sample(jax.random.key(0), 1)).inputs
    return jax.eval_shape(experiment.teacher.build(experiment.task).init, jax.random.key(0), inputs)


def stored_steps(experiment: Experiment, workdir: Path) -> Sequence[int]:
    """Returns the teacher steps that the trajectory will hold, or those that a given one holds.

    Raises:
      UserError: a given trajectory is missing, empty, or of another task or model.
    """
    if experiment.teacher_training.trajectory is None:
        return experiment.teacher_training.checkpoints
    store = open_trajectory(experiment, workdir)
    steps = store.steps()
    store.close()
    if not steps:
        raise UserError("checkpoints in teacher_training.trajectory", f"none in {store.directory}", "train it first")
    return steps


def _copy_curves(source: Path, directory: Path) -> None:
    """Copies a given trajectory's recorded training, which the report draws and the selection reads.

    Of several processes the first copies, and the others wait: they read the copy. All of them refuse what is missing.
    """
    names = ("run.json", "metrics.jsonl", "result.json")
    for name in names:
        if not (source / name).exists():
            raise UserError(
                f"the teacher's {name} beside its trajectory", f"none in {source}", "give a complete teacher directory"
            )
    if is_first():
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, directory / name)
    meet("the given teacher's curves are copied")


def _announce_disk(experiment: Experiment, workdir: Path, sweep: Sweep) -> None:
    """Says how much disk the trajectory and training states take, and refuses when it is not there."""
    state = jax.eval_shape(sweep.init, jnp.zeros(len(experiment.teacher_training.seeds), jnp.int32))
    checkpoints = len(experiment.teacher_training.checkpoints)
    trajectory = int(SAFETY * checkpoints * tree_bytes(state.params))
    states = int(SAFETY * (KEPT_STATES + 1) * tree_bytes(state))  # one more while the next one is written
    count = len(experiment.teacher_training.seeds)
    several = f" in {count} of them" if count > 1 else ""
    logger.info(
        "teacher: %d parameters%s; the trajectory of %d checkpoints takes %.1f MB on disk, training states %.1f MB",
        num_parameters(state.params), several, checkpoints, trajectory / 1e6, states / 1e6,
    )  # fmt: skip
    require_space(workdir, trajectory + states, "the teacher's trajectory and training states")
