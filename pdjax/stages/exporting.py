"""Exporting what an experiment has trained: any teacher, student or model of another size, after any step that is kept.

Nothing is computed, and nothing is written but the folder.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pdjax.distill.losses import Loss
from pdjax.errors import UserError, require
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription, read_description, read_result, read_run
from pdjax.io.sealed import read_json
from pdjax.io.store import IDENTITY, CheckpointStore, read_identity
from pdjax.io.workdir import read_experiment
from pdjax.models.base import Architecture, num_parameters
from pdjax.models.transformer import Transformer
from pdjax.settings import named
from pdjax.stages.importing import TOKENIZER
from pdjax.stages.programs import size_program, student_program, teacher_shape
from pdjax.stages.teacher import open_trajectory
from pdjax.train.state import Program, init_state
from pdjax.types import Params
from pdjax.weights.card import Origin, card_of
from pdjax.weights.describe import Described, config_of
from pdjax.weights.export import require_empty, write_model


class Candidate(NamedTuple):
    """A model that a working directory holds."""

    run: str  # "teacher", "<strategy>-<budget>" or "<panel>/<model>"
    seed: int
    learning_rate: float
    replica: int  # of the run
    directory: Path  # of the run
    description: RunDescription
    architecture: Architecture
    loss: Loss | None  # of a student


def export(
    workdir: Path,
    into: Path,
    run: str | None = None,
    seed: int | None = None,
    learning_rate: float | None = None,
    step: int | None = None,
) -> Path:
    """Writes a model of a working directory as a folder that transformers loads.

    Args:
      workdir: of an experiment, or of a variant of one (``ablations/<ablation>/<variant>``).
      into: a new or empty folder.
      run: ``teacher``, ``<strategy>-<budget>`` or ``<panel>/<model>``; this and what follows may be left out where one
        model is left without it.
      seed: of the model.
      learning_rate: of its training.
      step: after which it is taken; None is the last.

    Returns:
      The folder.

    Raises:
      UserError: there is no such model or step, there are several, Hugging Face has none like it, or the folder holds
        files.
    """
    require((workdir / "config.json").exists(), "a working directory", f"no config.json in {workdir}", "name another")
    experiment = read_experiment(workdir)
    asked = {"run": run, "seed": seed, "learning_rate": learning_rate}
    chosen = _one(list(candidates(experiment, workdir)), workdir, asked)
    described = _described(experiment, chosen.architecture)
    # What may be refused is, before parameters are read.
    config_of(*described)
    require_empty(into)
    step = chosen.description.budget if step is None else step
    params = restore(experiment, workdir, chosen, step)
    tokenizer = next((place for place in _tokenizers(experiment, workdir) if place.is_dir()), None)
    card = card_of(_origin(experiment, workdir, chosen, step, params, tokenizer))
    return write_model(into, params, described, card, experiment.task.tokens, tokenizer)


def candidates(experiment: Experiment, workdir: Path) -> Iterator[Candidate]:
    """Yields all models of which a working directory has records, teachers first."""
    for directory in _runs(workdir, "teacher"):
        description = read_description(directory)
        for i in _teachers(experiment, description):
            yield _candidate("teacher", directory, description, i, experiment.teacher)
    strategies = named(experiment.strategies)
    for directory in _runs(workdir, "students/*"):
        description = read_description(directory)
        for strategy in (strategies[name] for name in description.strategies if name in strategies):
            for i, replica in enumerate(description.replicas):
                # The students of a run's other losses are other strategies'.
                if replica.loss == strategy.loss:
                    name = f"{strategy.name}-{description.budget}"
                    yield _candidate(name, directory, description, i, experiment.student, strategy.loss)
    sizes = {} if experiment.sizes is None else dict(experiment.sizes.models())
    for directory in _runs(workdir, "sizes/*/*"):
        description = read_description(directory)
        for name in {*description.strategies} & {*sizes}:
            for i in range(len(description.replicas)):
                yield _candidate(name, directory, description, i, sizes[name])


def _runs(workdir: Path, pattern: str) -> list[Path]:
    return [path.parent for path in sorted(workdir.glob(f"{pattern}/run.json"))]


def _candidate(
    run: str,
    directory: Path,
    description: RunDescription,
    replica: int,
    architecture: Architecture,
    loss: Loss | None = None,
) -> Candidate:
    of = description.replicas[replica]
    return Candidate(run, of.seed, of.learning_rate, replica, directory, description, architecture, loss)


def _teachers(experiment: Experiment, description: RunDescription) -> Sequence[int]:
    """Returns the replicas of a teacher's run of which there are parameters."""
    given = experiment.teacher_training.trajectory
    if given is None:
        return range(len(description.replicas))
    # Of a given trajectory there is one, whatever others its records are of.
    said = read_identity(Path(given)) if (Path(given) / IDENTITY).exists() else {}
    seed = said.get("training", {}).get("seed")
    return [next((i for i, replica in enumerate(description.replicas) if replica.seed == seed), 0)]


def _one(models: Sequence[Candidate], workdir: Path, asked: Mapping[str, Any]) -> Candidate:
    """Returns the only model with what is asked for."""
    asked = {name: value for name, value in asked.items() if value is not None}
    fitting = [model for model in models if all(getattr(model, name) == value for name, value in asked.items())]
    if len(fitting) == 1:
        return fitting[0]
    kind = " with " + ", ".join(f"{name} {value}" for name, value in asked.items()) if asked else ""
    there = _listed(fitting or models) or "no models"
    raise UserError(
        f"one model{kind} in {workdir}",
        f"{len(fitting)}: {there}" if fitting else f"none; there are {there}",
        "name run, seed and learning_rate as far as it takes" if models else "train one first",
    )


def _listed(models: Iterable[Candidate]) -> str:
    """Returns models by their runs."""
    runs: dict[str, list[Candidate]] = {}
    for model in models:
        runs.setdefault(model.run, []).append(model)
    return ", ".join(
        f"{run} (seed {_values(model.seed for model in members)}, "
        f"learning_rate {_values(model.learning_rate for model in members)})"
        for run, members in runs.items()
    )


def _values(values: Iterable[float]) -> str:
    return " or ".join(f"{value:g}" for value in dict.fromkeys(values))


def _described(experiment: Experiment, architecture: Architecture) -> Described:
    task = experiment.task
    require(
        task.num_classes == task.vocabulary,
        f"a task whose classes are its {task.vocabulary} tokens, as Hugging Face's language models predict",
        f"the {task.num_classes} classes of {type(task).__name__}",
        "this model has no counterpart there",
    )
    return Described(architecture, task.vocabulary, task.num_positions)  # pyright: ignore[reportArgumentType]


def restore(experiment: Experiment, workdir: Path, model: Candidate, step: int) -> Params:
    """Returns a model's parameters after a step.

    Raises:
      UserError: there are none, or they are damaged.
    """
    steps: set[int] = set()
    for open_store, like, part in _places(experiment, workdir, model):
        with closing(open_store()) as store:
            steps |= set(store.steps())
            if step in store.steps():
                return part(store.restore(step, like()))
    finished = read_result(model.directory) is not None
    raise UserError(
        f"{model.run} after step {step} of {model.description.budget}",
        f"the steps {', '.join(map(str, sorted(steps)))}" if steps else "no parameters at all",
        "choose one of them, or finish the run"
        if steps
        else f"its state is gone: {_remedy(model)}"
        if finished
        else "finish the run first",
    )


def _remedy(model: Candidate) -> str:
    return f"remove {model.directory} and run the same command again, which trains it anew"


_Place = tuple[Callable[[], CheckpointStore], Callable[[], Any], Callable[[Any], Params]]
"""How to open a store, what a checkpoint of it looks like, and which part of it is the model's parameters."""


def _places(experiment: Experiment, workdir: Path, model: Candidate) -> Iterator[_Place]:
    """Yields the stores that may hold a model's parameters; those of kept checkpoints are the smaller ones."""
    if model.description.role == "teacher":
        seed = model.seed if experiment.teacher_training.trajectory is None else None
        yield (
            functools.partial(open_trajectory, experiment, workdir, seed),
            functools.partial(teacher_shape, experiment),
            lambda params: params,
        )
        return
    program = _program(experiment, model)
    replicas = jax.ShapeDtypeStruct((len(model.description.replicas),), jnp.int32)
    state = functools.partial(jax.eval_shape, functools.partial(init_state, program), replicas)

    def of_replica(params: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf[model.replica], params)

    identity = {"run": model.description.identity}
    kinds: dict[str, tuple[Callable[[], Any], Callable[[Any], Params]]] = {
        "trajectory": (lambda: program.of_model(state().params), of_replica),
        "state": (state, lambda saved: of_replica(program.of_model(saved.params))),
    }
    for name, (like, part) in kinds.items():
        # To open a store that is not there would make one.
        if (model.directory / name / IDENTITY).exists():
            remedy = None if name == "trajectory" else _remedy(model)  # nothing else asks for a finished run's state
            yield functools.partial(CheckpointStore, model.directory / name, identity, remedy=remedy), like, part


def _program(experiment: Experiment, model: Candidate) -> Program:
    if model.description.role == "student":
        return student_program(experiment, model.description.replicas).program
    assert experiment.sizes is not None
    return size_program(experiment, experiment.sizes, model.architecture).program


def _origin(
    experiment: Experiment, workdir: Path, model: Candidate, step: int, params: Params, tokenizer: Path | None
) -> Origin:
    assert isinstance(model.architecture, Transformer)
    of_task = None if experiment.task.tokens is None else "task"
    environment, teacher = workdir / "environment.json", workdir / "teacher"
    arguments = {"run": model.run, "seed": model.seed, "learning_rate": model.learning_rate}
    arguments |= {} if step == model.description.budget else {"step": step}
    return Origin(
        name=model.run,
        experiment=experiment,
        run=read_run(model.directory),
        replica=model.replica,
        step=step,
        architecture=model.architecture,
        parameters=num_parameters(params),
        loss=model.loss,
        teacher=read_run(teacher) if model.loss is not None and (teacher / "run.json").exists() else None,
        environment=read_json(environment) if environment.exists() else {},
        tokenizer=of_task if tokenizer is None else "teacher",
        export=tuple(f"--{name}={value}" for name, value in arguments.items()),
    )


def _tokenizers(experiment: Experiment, workdir: Path) -> Iterator[Path]:
    """Yields where the files of the teacher's tokenizer may be."""
    yield workdir / "teacher" / TOKENIZER
    if experiment.teacher_training.trajectory is not None:
        yield Path(experiment.teacher_training.trajectory).parent / TOKENIZER
