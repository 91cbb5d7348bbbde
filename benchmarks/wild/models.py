"""Tiny models of each family: their numbers, their files, and whether what is read are these numbers."""

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.tasks.base import Task
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.types import Params
from pdjax.weights.checkpoint import describe, read_params
from pdjax.weights.describe import config_of
from pdjax.weights.layouts import weights_of
from pdjax.weights.stored import shown
from wild.writing import SAFETENSORS, Arrays, write_safetensors

SAME = "the same parameters, bit for bit"
_STEPS = 2**20  # between whole numbers: exact in float32, and rounded by 16 bits


class Model(NamedTuple):
    """A model and the task that it is for."""

    name: str
    architecture: Bert | Gpt2 | GptNeoX
    task: Task


_SIZES = (2, 2, None, 8, 2)  # layers, heads, head_dim, width, multiple
BERT = Model("BERT", Bert(*_SIZES, token_types=2), PcfgTask(root=10))
GPT2 = Model("GPT-2", Gpt2(*_SIZES, tied_head=True), PcfgLanguageTask(root=10))
GPT_NEOX = Model("GPT-NeoX", GptNeoX(*_SIZES, rotary_share=0.5), PcfgLanguageTask(root=10))
MODELS = (BERT, GPT2, GPT_NEOX)


def changed(model: Model, **fields: Any) -> Model:
    """Returns a model with other settings."""
    return model._replace(architecture=dataclasses.replace(model.architecture, **fields))


@functools.cache
def _shapes(model: Model) -> Params:
    inputs = jax.eval_shape(lambda: model.task.sample(jax.random.key(0), 1)).inputs
    return jax.eval_shape(model.architecture.build(model.task).init, jax.random.key(0), inputs)


def draw(model: Model, seed: int = 0) -> Params:
    """Returns parameters drawn from [-2, 2], the same on every machine."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.integers(-2 * _STEPS, 2 * _STEPS, leaf.shape) / _STEPS).astype(np.float32), _shapes(model)
    )


def weights(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a model's weights by their canonical names; a tied head is among them."""
    written = weights_of(draw(model, seed), model.architecture)
    return {name: np.ascontiguousarray(value) for name, value in written.items()}


def config(model: Model) -> dict[str, Any]:
    """Returns what a model's config.json says."""
    return config_of(model.architecture, model.task.vocabulary, model.task.num_positions)


def write_config(folder: Path, model: Model, **fields: Any) -> None:
    """Writes a model's config.json, with other values of some fields."""
    (folder / "config.json").write_text(json.dumps(config(model) | fields))


def write(folder: Path, model: Model, tensors: Arrays | None = None) -> None:
    """Writes a folder of config.json and one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, model)
    write_safetensors(folder / SAFETENSORS, weights(model) if tensors is None else tensors)


def check(folder: Path, model: Model, dtype: Any = np.float32, seed: int = 0) -> str:
    """Reads a folder as an import does, and says that it holds a model's numbers, as a type rounds them.

    Raises:
      AssertionError: it holds others.
      UserError: it is refused.
    """
    imported = read_params(folder, describe(folder, model.task).architecture, model.task)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), draw(model, seed))
    equal = jax.tree.map(_bits_equal, imported.params, expected)
    assert all(jax.tree.leaves(equal)), f"other parameters were read: {equal}"
    rounded = "" if np.dtype(dtype) in (np.float32, np.float64) else f", as {np.dtype(dtype).name} rounds them"
    return SAME + rounded + ignored_text(imported.ignored)


def _bits_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def ignored_text(ignored: Mapping[str, str]) -> str:
    """Returns what is said of weights that are not used."""
    names = defaultdict(list)
    for name, reason in ignored.items():
        names[reason].append(shown(name))
    parts = [
        f"`{first}`{f' and {len(others)} more' if others else ''}: {reason}"
        for reason, (first, *others) in names.items()
    ]
    return f"; not used: {'; '.join(parts)}" if parts else ""
