"""A folder in Hugging Face's format as a model of ours: settings by its ``config.json``, parameters by its files."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pdjax.errors import UserError, require
from pdjax.io.sealed import read_json
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.transformer import Transformer
from pdjax.settings import opened, plain
from pdjax.tasks.base import Task
from pdjax.weights.describe import CONFIG, Described, architecture_of
from pdjax.weights.files import check_is_there, open_weights, unique_json
from pdjax.weights.layouts import Imported, params_of
from pdjax.weights.names import canonical
from pdjax.weights.series import series_of
from pdjax.weights.stored import StoredTensor
from pdjax.weights.tokens import check_tokens, tokens_of

STORE = "store.json"
"""The file by which a trajectory store is known."""

_POSITIONS = {"bert": "bert.embeddings.position_embeddings.weight", "gpt2": "transformer.wpe.weight"}
"""The weight with a row for each position, by family; GPT-NeoX has none."""

_FREE = ("compute", "dropout", "rematerialize", "scan_layers", "vocabulary_block")
"""Settings in which a teacher may differ from what its folder says: it is not trained any more."""


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the ``config.json`` of a folder, or that of the folder above, which several checkpoints may share.

    Raises:
      UserError: there is none, or it is damaged.
    """
    for place in (folder, folder.parent):
        if os.path.lexists(place / CONFIG):
            check_is_there(place / CONFIG)
            return unique_json((place / CONFIG).read_bytes(), str(place / CONFIG))
    raise UserError(f"{CONFIG} in {folder}, or in the folder above", "none", "copy it from the trained model")


def describe(folder: Path, task: Task) -> Described:
    """Returns what model a folder holds, as one for a task's tokens.

    Without tokenizer files it is not known what its tokens mean: then their number alone has to be the task's.

    Raises:
      UserError: the model cannot be built here, or has other tokens than the task.
    """
    config, theirs = read_config(folder), tokens_of(folder)
    if theirs is not None and task.tokens is not None:
        check_tokens(theirs, task.tokens, f"the tokenizer of {folder}")
    described = architecture_of(config, None if theirs is None else len(theirs))
    require(
        described.vocabulary == task.vocabulary,
        f"the {task.vocabulary} tokens of {type(task).__name__} in {folder}",
        f"{described.vocabulary}",
        "use the task that it was trained for; where rows of the embedding are padding, put its tokenizer files there",
    )
    return described


def check_is(architecture: Transformer, folder: Path, task: Task) -> None:
    """Raises a ``UserError`` unless a folder holds the model that the settings say, and one for the task."""
    described = describe(folder, task)
    require(
        read_config(folder)["model_type"] not in _POSITIONS or described.positions >= task.num_positions,
        f"a model that knows the {task.num_positions} positions of {type(task).__name__} in {folder}",
        f"{described.positions}",
        "use a task of shorter strings",
    )
    asked, stored = _sizes(architecture), _sizes(described.architecture)
    differing = [name for name in {**stored, **asked} if stored.get(name) != asked.get(name)]
    require(
        not differing,
        f"the teacher of {folder}, {_shown(stored, differing)}",
        _shown(asked, differing),
        "write teacher=teacher_of(that folder, task) in the configuration (see pdjax.weights.checkpoint)",
    )


def read_params(folder: Path, architecture: Transformer, task: Task) -> Imported:
    """Reads the parameters of the model in a folder.

    Rows of positions that the task's strings never reach are left out, and named among what is ignored.

    Raises:
      UserError: files are damaged, or hold another model than the settings say.
    """
    config = read_config(folder)
    weights, ignored = canonical(open_weights(folder), config["model_type"])
    name = _POSITIONS.get(config["model_type"])
    if name in weights and len(weights[name].shape) == 2:
        rows, count, said = weights[name].shape[0], task.num_positions, architecture_of(config).positions
        require(rows == said, f"{name} of the {said} positions in {CONFIG}", rows, "use the file of the model")
        if rows > count:
            weights[name] = _first_rows(weights[name], count)
            ignored |= {f"{name}[{count}:{rows}]": f"positions that no string of {type(task).__name__} reaches"}
    imported = params_of(weights, architecture, task.vocabulary, task.num_positions)
    return imported._replace(ignored=ignored | imported.ignored)


def is_series(source: Path | str) -> bool:
    """Whether a source is no trajectory store of ours, but checkpoints that others have trained.

    Raises:
      UserError: it is a directory that holds one of our stores.
    """
    if (Path(source) / STORE).exists():
        return False
    for inner in ("trajectory", "teacher/trajectory"):
        require(
            not (Path(source) / inner / STORE).exists(),
            "a trajectory store, or a folder of checkpoints",
            f"{source}, which holds the store {inner}",
            f"write {Path(source) / inner}",
        )
    return True


def teacher_of(source: Path | str, task: Task) -> Architecture:
    """Returns the teacher that a series of checkpoints is of, or a trajectory store, for configurations.

    Raises:
      UserError: there are no checkpoints, or none that fit the task.
    """
    if not is_series(source):
        return opened(Architecture, read_json(Path(source) / STORE)["model"])
    return describe(series_of(source)[-1].folder, task).architecture


def student_of(teacher: Architecture) -> Transformer:
    """Returns the same model with half of its heads, of the same dimensions, and thus of half the width.

    Raises:
      UserError: the teacher is of another family than those that are read from folders.
    """
    if not isinstance(teacher, Bert | Gpt2 | GptNeoX):
        raise UserError("a BERT, GPT-2 or GPT-NeoX as the teacher", type(teacher).__name__, "write its student by hand")
    return dataclasses.replace(
        teacher,
        num_heads=max(1, teacher.num_heads // 2),
        head_dim=teacher.dimensions_per_head,
        width=None,
        dropout=0.0,
        vocabulary_rows=None,
    )


def _sizes(model: Transformer) -> dict[str, Any]:
    """Returns what decides about a model's parameters and outputs, however its width was written."""
    fields = {name: value for name, value in plain(model).items() if name not in _FREE}
    return fields | {"width": model.model_width, "head_dim": model.dimensions_per_head}


def _shown(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {fields.get(name)}" for name in names)


def _first_rows(weight: StoredTensor, count: int) -> StoredTensor:
    return weight._replace(shape=(count, *weight.shape[1:]), read=lambda: weight.read()[:count])
