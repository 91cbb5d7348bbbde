"""The teacher stage: one training run, some of whose states become the trajectory."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax

from pdjax.errors import UserError, require
from pdjax.experiment import Experiment, digest_of
from pdjax.io.processes import is_first, meet
from pdjax.io.progress import Progress
from pdjax.io.records import RunDescription, read_result
from pdjax.io.sealed import read_json
from pdjax.io.signals import Interrupt
from pdjax.io.store import CheckpointStore, disk_bytes, read_identity
from pdjax.io.teacher_source import Stacked
from pdjax.io.workdir import is_done
from pdjax.models.base import num_parameters
from pdjax.settings import plain
from pdjax.stages.importing import import_series, imported_identity, series_steps
from pdjax.stages.programs import compiled, teacher_program, teacher_shape
from pdjax.stages.recovery import lost_checkpoints, recover
from pdjax.train.loop import ByReplica, Job, Kept, train
from pdjax.train.replicas import Sweep, place_hyperparameters, product_of_replicas
from pdjax.types import Params
from pdjax.weights.checkpoint import is_series

logger = logging.getLogger("pdjax")

AGAIN = "run the experiment that trained this teacher again"
"""What brings a checkpoint of a given trajectory back."""


def train_teacher(experiment: Experiment, workdir: Path, interrupt: Interrupt) -> None:
    """Trains the teacher and keeps its trajectory, unless that is done or a trajectory is given.

    Checkpoints that are gone are computed again.

    Raises:
      Interrupted: a signal asked to stop; the same command continues.
      UserError: a given trajectory is not whole.
    """
    directory, training = workdir / "teacher", experiment.teacher_training
    if training.trajectory is not None and is_series(training.trajectory):
        import_series(experiment, directory, interrupt)
        return
    if training.trajectory is not None:
        # Opening it compares its task and model with these.
        with closing(open_trajectory(experiment, workdir)) as store:
            steps = store.steps()
        logger.info("teacher: %d checkpoints of %s", len(steps), training.trajectory)
        source = Path(training.trajectory).parent
        _copy_curves(source, directory)
        # Earlier versions, and who made a trajectory by hand, have not recorded what there was.
        gone = [step for step in read_json(source / "result.json").get("checkpoints", ()) if step not in steps]
        if gone and is_first():
            logger.warning("teacher: checkpoints %s are gone from %s", gone, training.trajectory)
        return
    description = _describe(experiment)
    done, lost = is_done(directory, description), _lost(experiment, workdir)
    meet("what the teacher has left has been seen")
    if done and not lost:
        return
    sweep = compiled(experiment, teacher_program(experiment))
    count, several = num_parameters(teacher_shape(experiment)), len(training.seeds)
    logger.info("teacher: %d parameters%s", count, f" in each of {several}" if several > 1 else "")
    with ExitStack() as stack:
        # Each teacher has a store of its own, and is read from it as if it had been trained alone.
        trajectories = [
            stack.enter_context(closing(open_trajectory(experiment, workdir, seed))) for seed in training.seeds
        ]
        job = _job(experiment, description, sweep, trajectories)
        if lost:
            recover(job, directory, lost, experiment.loop, interrupt)
        if not done:
            progress = stack.enter_context(closing(Progress("teacher", training.steps)))
            train(job, directory, experiment.loop, interrupt, progress)


def _describe(experiment: Experiment) -> RunDescription:
    training = experiment.teacher_training
    return RunDescription(
        role="teacher",
        name="teacher",
        strategies=(),
        budget=training.steps,
        replicas=product_of_replicas(training.seeds, (training.learning_rate,), (training.loss,)),
        starts=(),
        teacher_steps=(),
        identity=teacher_identity(experiment),
    )


def _job(
    experiment: Experiment, description: RunDescription, sweep: Sweep, trajectories: Sequence[CheckpointStore]
) -> Job:
    training = experiment.teacher_training

    def keep(step: int, params: Params, means: Mapping[str, ByReplica]) -> None:
        for replica, trajectory in enumerate(trajectories):
            replica_params = jax.tree.map(lambda leaf, r=replica: leaf[r], params)
            trajectory.save(step, replica_params, {name: float(values[replica]) for name, values in means.items()})

    return Job(
        description=description,
        sweep=sweep,
        hyperparameters=place_hyperparameters(sweep.mesh, description.replicas),
        # It learns from the labels.
        open_source=lambda: Stacked(sweep, None),
        # Says nothing: batches are not shared, and each teacher draws its own by its own seed.
        data_seed=training.seed,
        evaluation_seed=experiment.seed,
        evaluate_every=experiment.evaluation.every,
        configuration=plain(experiment),
        kept=_kept(experiment),
        keep=keep,
    )


def _kept(experiment: Experiment) -> Kept:
    """Returns which states the teachers' training keeps."""
    keep, grid = experiment.teacher_training.keep, experiment.teacher_training.grid
    if not keep.decides:
        return Kept(keep.sure(grid))
    size = checkpoint_bytes(experiment)

    def decide(steps: Sequence[int], losses: Sequence[ByReplica]) -> Sequence[int]:
        # Students learn from the first teacher, and the others have its steps.
        return keep.kept(grid, steps, [float(loss[0]) for loss in losses], size)

    return Kept(grid, decide)


def _lost(experiment: Experiment, workdir: Path) -> tuple[int, ...]:
    """Returns the steps of checkpoints that the experiment's own teachers have had and any of them lacks."""
    directory = workdir / "teacher"
    if not (directory / "run.json").exists():
        return ()
    with ExitStack() as stack:
        stores = [
            stack.enter_context(closing(open_trajectory(experiment, workdir, seed)))
            for seed in experiment.teacher_training.seeds
        ]
        return lost_checkpoints(directory, _describe(experiment), _kept(experiment), stores)


def require_whole(experiment: Experiment, workdir: Path) -> None:
    """Requires a finished teacher and all checkpoints that it kept; of a given one see ``stored_steps``.

    Raises:
      UserError: it is not finished, or a checkpoint is gone.
    """
    remedy = "run --stage=teacher first"
    require(
        read_result(workdir / "teacher") is not None, "a finished teacher", f"none in {workdir / 'teacher'}", remedy
    )
    lost = () if experiment.teacher_training.trajectory is not None else _lost(experiment, workdir)
    require(
        not lost,
        f"all checkpoints of the teacher in {workdir / 'teacher'}",
        f"none of the steps {list(lost)}",
        f"{remedy}, which computes them again",
    )


def checkpoint_bytes(experiment: Experiment) -> int:
    """Returns the bytes of disk that a checkpoint of a teacher takes."""
    return disk_bytes(teacher_shape(experiment))


def most_kept(experiment: Experiment) -> int:
    """Returns how many checkpoints a trajectory of the experiment's own has at most.

    Raises:
      UserError: a budget is smaller than what is kept in any case.
    """
    training = experiment.teacher_training
    return training.keep.most(training.grid, checkpoint_bytes(experiment))


def teacher_identity(experiment: Experiment) -> str:
    """Digest of all that determines the teachers' results."""
    # The seed and the evaluation are of the held-out examples, whose curves decide about checkpoints.
    return digest_of(experiment.determining("seed", "evaluation", "task", "teacher", "teacher_training"))


def trajectory_identity(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What the trajectory store of one teacher says about itself."""
    fields = experiment.determining("task", "teacher", "teacher_training")
    # A teacher is the same alone as among others.
    training = {key: value for key, value in fields["teacher_training"].items() if key != "extra_seeds"}
    first = experiment.teacher_training.seed
    if experiment.teacher_training.keep.decides and seed != first:
        # But for the steps that are kept, about which another one's training decided.
        training |= {"kept_with_seed": first}
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
    if is_series(given):
        return CheckpointStore(workdir / "teacher" / "trajectory", imported_identity(experiment))
    directory = Path(given)
    # Another teacher's training is welcome; another task or model is not.
    identity |= {"training": read_identity(directory).get("training")}
    return CheckpointStore(directory, identity, again=AGAIN)


def stored_steps(experiment: Experiment, workdir: Path) -> Sequence[int]:
    """Returns the teacher steps that the trajectory is sure to hold, or those that a given one holds.

    Raises:
      UserError: a given trajectory is missing, empty, without the final teacher, or of another task or model; a budget
        of checkpoints is smaller than what is kept in any case.
    """
    given = experiment.teacher_training.trajectory
    if given is None:
        most_kept(experiment)  # refuses such a budget
        return experiment.teacher_training.checkpoints
    if is_series(given):
        return series_steps(experiment, workdir / "teacher")
    with closing(open_trajectory(experiment, workdir)) as store:
        steps = store.steps()
    if not steps:
        raise UserError("checkpoints in teacher_training.trajectory", f"none in {store.directory}", "train it first")
    result = Path(given).parent / "result.json"
    final = read_json(result).get("step", steps[-1]) if result.exists() else steps[-1]
    require(final in steps, f"checkpoint {final}, the final teacher, in {given}", f"checkpoints {steps}", AGAIN)
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
