"""Writing a model as a folder that transformers loads: settings, weights, tokenizer and a model card.

::

    config.json                                 the settings
    model.safetensors                           the weights, in one file whatever its size
    tokenizer.json, tokenizer_config.json       of the source's tokenizer, or of the task's tokens; perhaps others
    README.md                                   the card
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pdjax.errors import require
from pdjax.types import Params
from pdjax.weights.describe import CONFIG, Described, config_of
from pdjax.weights.layouts import weights_of
from pdjax.weights.tokens import copy_tokenizer

_ROLES = {f"[{name.upper()}]": f"{name}_token" for name in ("bos", "eos", "pad", "mask", "unk", "cls", "sep")}
"""What transformers calls tokens of these names."""


def write_model(
    into: Path,
    params: Params,
    described: Described,
    card: str,
    tokens: Sequence[str] | None = None,
    tokenizer: Path | None = None,
) -> Path:
    """Writes a folder that transformers loads, and of which nothing is there before everything is.

    Args:
      into: the folder; it is new or empty.
      params: of the model.
      described: the model's settings, vocabulary and positions.
      card: what ``README.md`` says.
      tokens: the token of every id; None writes no tokenizer.
      tokenizer: a folder whose tokenizer files are copied instead; None: there is none.

    Returns:
      The folder.

    Raises:
      UserError: Hugging Face has no such model, the parameters are of another one, or the folder holds files.
    """
    config = config_of(*described)
    weights = weights_of(params, described.architecture, copies=False)
    with _whole(into) as partial:
        _write_json(partial / CONFIG, config)
        # The library writes memory as it lies, and kernels may be transposed views.
        contiguous = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
        save_file(contiguous, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "README.md").write_text(card)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial)
        elif tokens is not None:
            _write_tokenizer(partial, tokens, described.positions)
    return into


def require_empty(into: Path) -> None:
    """Raises a ``UserError`` unless a folder is new or empty."""
    require(
        not os.path.lexists(into) or (into.is_dir() and not any(into.iterdir())),
        "a new or empty folder",
        f"{into}, which holds files" if into.is_dir() else f"{into}, which is no folder",
        "choose another, or remove it",
    )


@contextlib.contextmanager
def _whole(into: Path) -> Iterator[Path]:
    """Gives a folder to write to, which takes its name at the end."""
    require_empty(into)
    into = into.resolve()
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{into.name}-", dir=into.parent) as around:
        partial = Path(around) / into.name
        partial.mkdir()
        yield partial
        os.replace(partial, into)


def _write_tokenizer(folder: Path, tokens: Sequence[str], positions: int) -> None:
    """Writes a tokenizer of words between spaces, one for each token, which puts [BOS] in front if there is one.

    Other words are errors: none of the tokens stands for them.
    """
    number = {token: i for i, token in enumerate(tokens)}
    special = [token for token in tokens if token in _ROLES]
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number[token], "content": token, **plain, "special": True} for token in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": _begun_by("[BOS]", number["[BOS]"]) if "[BOS]" in number else None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": number, "unk_token": "[UNK]"},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **{_ROLES[token]: token for token in special},
    }
    _write_json(folder / "tokenizer.json", content)
    _write_json(folder / "tokenizer_config.json", config)


def _begun_by(token: str, number: int) -> dict[str, Any]:
    """Returns how the tokenizers library says that a token stands in front of a string."""
    front, string = ({"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}})
    other = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [front, string],
        "pair": [front, string, other],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n")
