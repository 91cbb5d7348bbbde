"""Weights from and to state dicts of Hugging Face's models, as numpy arrays by name."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pdjax.errors import UserError, require
from pdjax.types import Params

_Path = tuple[str, ...]


class _Stored(NamedTuple):
    """The parameters that one Hugging Face weight holds, side by side along its last axis."""

    paths: tuple[_Path, ...]
    transposed: bool = False


_Layout = dict[str, _Stored]
"""What each Hugging Face name stores."""


def _norm(path: _Path, name: str) -> _Layout:
    return {f"{name}.weight": _Stored(((*path, "scale"),)), f"{name}.bias": _Stored(((*path, "bias"),))}


def _dense(paths: tuple[_Path, ...], name: str, transposed: bool) -> _Layout:
    return {
        f"{name}.weight": _Stored(tuple((*path, "kernel") for path in paths), transposed),
        f"{name}.bias": _Stored(tuple((*path, "bias") for path in paths)),
    }


def _read(weights: Mapping[str, np.ndarray], layout: _Layout) -> dict:
    """Returns the parameters of a layout; ``UserError`` for a weight that is missing."""
    params: dict = {}
    for name, (paths, transposed) in layout.items():
        if name not in weights:
            raise UserError(f"the weight {name}", "no such name", "check the number of layers and the architecture")
        # Hugging Face keeps GPT-2's query, key and value in one weight, beside each other along its last axis.
        value = np.asarray(weights[name])
        for path, part in zip(paths, np.split(value.T if transposed else value, len(paths), axis=-1), strict=True):
            node = params
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = part
    return params


def _write(params: Params, layout: _Layout) -> dict[str, np.ndarray]:
    """Returns the weights of a layout by their Hugging Face names."""

    def leaf(path: _Path) -> np.ndarray:
        node = params
        for key in path:
            node = node[key]
        return np.asarray(node)

    weights = {}
    for name, (paths, transposed) in layout.items():
        value = np.concatenate([leaf(path) for path in paths], axis=-1)
        weights[name] = value.T if transposed else value
    return weights


# BERT

_BERT_DENSE = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("expand",): "intermediate.dense",
    ("contract",): "output.dense",
}
_BERT_NORMS = {("attention_norm",): "attention.output.LayerNorm", ("output_norm",): "output.LayerNorm"}
_BERT_HEAD = "cls.predictions"


def _bert_layout(num_layers: int) -> _Layout:
    layout = {
        "bert.embeddings.word_embeddings.weight": _Stored((("tokens", "embedding"),)),
        "bert.embeddings.position_embeddings.weight": _Stored((("positions", "embedding"),)),
        f"{_BERT_HEAD}.bias": _Stored((("decoder_bias",),)),
    }
    layout |= _norm(("embedding_norm",), "bert.embeddings.LayerNorm")
    layout |= _dense((("transform",),), f"{_BERT_HEAD}.transform.dense", transposed=True)
    layout |= _norm(("transform_norm",), f"{_BERT_HEAD}.transform.LayerNorm")
    for i in range(num_layers):
        prefix = f"bert.encoder.layer.{i}."
        for path, name in _BERT_DENSE.items():
            # PyTorch's linear layers are stored (out, in).
            layout |= _dense(((f"layers_{i}", *path),), prefix + name, transposed=True)
        for path, name in _BERT_NORMS.items():
            layout |= _norm((f"layers_{i}", *path), prefix + name)
    return layout


def bert_from_hf(weights: Mapping[str, np.ndarray], num_layers: int) -> Params:
    """Returns the parameters of ``Bert`` for a ``BertForMaskedLM`` state dict.

    The embedding of token type 0, which Hugging Face adds at every position, goes into the position
    embeddings.

    Raises:
      UserError: a weight is missing.
    """
    params = _read(weights, _bert_layout(num_layers))
    types = weights.get("bert.embeddings.token_type_embeddings.weight")
    # The task has no second segment: every token is of type 0, whose embedding is a constant.
    if types is not None:
        params["positions"]["embedding"] = params["positions"]["embedding"] + np.asarray(types)[0]
    return params


def bert_to_hf(params: Params, num_layers: int) -> dict[str, np.ndarray]:
    """Returns a ``BertForMaskedLM`` state dict; its token-type embeddings (2 rows) are zero."""
    weights = _write(params, _bert_layout(num_layers))
    width = weights["bert.embeddings.word_embeddings.weight"].shape[1]
    # Part of the positions' embeddings already.
    weights["bert.embeddings.token_type_embeddings.weight"] = np.zeros((2, width), np.float32)
    # A state dict names tied weights once for each place.
    weights[f"{_BERT_HEAD}.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights[f"{_BERT_HEAD}.decoder.bias"] = weights[f"{_BERT_HEAD}.bias"]
    return weights


# GPT-2

_GPT2_DENSE = {
    "attn.c_attn": (("attention", "query"), ("attention", "key"), ("attention", "value")),
    "attn.c_proj": (("attention", "output"),),
    "mlp.c_fc": (("expand",),),
    "mlp.c_proj": (("contract",),),
}
_GPT2_NORMS = {"ln_1": ("attention_norm",), "ln_2": ("feed_forward_norm",)}
_GPT2_TABLE, _GPT2_HEAD = "transformer.wte.weight", "lm_head.weight"


def _gpt2_layout(num_layers: int, tied_head: bool) -> _Layout:
    layout = {
        _GPT2_TABLE: _Stored((("tokens", "embedding"),)),
        "transformer.wpe.weight": _Stored((("positions", "embedding"),)),
    }
    layout |= _norm(("final_norm",), "transformer.ln_f")
    if not tied_head:
        layout[_GPT2_HEAD] = _Stored((("head_kernel",),), transposed=True)
    for i in range(num_layers):
        prefix = f"transformer.h.{i}."
        for name, paths in _GPT2_DENSE.items():
            # GPT-2's are stored (in, out), like ours.
            layout |= _dense(tuple((f"layers_{i}", *path) for path in paths), prefix + name, transposed=False)
        for name, path in _GPT2_NORMS.items():
            layout |= _norm((f"layers_{i}", *path), prefix + name)
    return layout


def gpt2_from_hf(weights: Mapping[str, np.ndarray], num_layers: int, tied_head: bool) -> Params:
    """Returns the parameters of ``Gpt2`` for a ``GPT2LMHeadModel`` state dict.

    Raises:
      UserError: a weight is missing, or a head that should be tied differs from the token embedding.
    """
    # A file of a tied model may leave the head out. One that has another head is no tied model, and would lose it
    # silently.
    head = weights.get(_GPT2_HEAD)
    require(
        not tied_head or head is None or np.array_equal(head, weights.get(_GPT2_TABLE, head)),
        f"{_GPT2_HEAD} equal to {_GPT2_TABLE} with a tied head",
        "another one",
        "set tied_head to False",
    )
    return _read(weights, _gpt2_layout(num_layers, tied_head))


def gpt2_to_hf(params: Params, num_layers: int) -> dict[str, np.ndarray]:
    """Returns a ``GPT2LMHeadModel`` state dict; a tied head repeats the token embedding."""
    tied_head = "head_kernel" not in params
    weights = _write(params, _gpt2_layout(num_layers, tied_head))
    if tied_head:
        weights[_GPT2_HEAD] = weights[_GPT2_TABLE]
    return weights
