"""Weights from and to Hugging Face's ``BertForMaskedLM`` state dicts, as numpy arrays by name."""

from collections.abc import Mapping

import numpy as np

from pdjax.errors import UserError
from pdjax.types import Params

_DENSE = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("expand",): "intermediate.dense",
    ("contract",): "output.dense",
}
_NORMS = {("attention_norm",): "attention.output.LayerNorm", ("output_norm",): "output.LayerNorm"}
_HEAD = "cls.predictions"


def _layout(num_layers: int) -> dict[tuple[str, ...], tuple[str, bool]]:
    """Maps each parameter's path to its Hugging Face name and whether it is stored transposed."""
    layout = {
        ("tokens", "embedding"): ("bert.embeddings.word_embeddings.weight", False),
        ("positions", "embedding"): ("bert.embeddings.position_embeddings.weight", False),
        ("decoder_bias",): (f"{_HEAD}.bias", False),
    }
    dense = {("transform",): f"{_HEAD}.transform.dense"}
    norms = {("embedding_norm",): "bert.embeddings.LayerNorm", ("transform_norm",): f"{_HEAD}.transform.LayerNorm"}
    for i in range(num_layers):
        prefix = f"bert.encoder.layer.{i}."
        dense |= {(f"layers_{i}", *path): prefix + name for path, name in _DENSE.items()}
        norms |= {(f"layers_{i}", *path): prefix + name for path, name in _NORMS.items()}
    for path, name in dense.items():
        layout[*path, "kernel"] = (f"{name}.weight", True)
        layout[*path, "bias"] = (f"{name}.bias", False)
    for path, name in norms.items():
        layout[*path, "scale"] = (f"{name}.weight", False)
        layout[*path, "bias"] = (f"{name}.bias", False)
    return layout


def bert_from_hf(weights: Mapping[str, np.ndarray], num_layers: int) -> Params:
    """Returns the parameters of ``Bert`` for a ``BertForMaskedLM`` state dict.

    The embedding of token type 0, which Hugging Face adds at every position, goes into the position
    embeddings.

    Raises:
      UserError: a weight is missing.
    """
    params: dict = {}
    for path, (name, transposed) in _layout(num_layers).items():
        if name not in weights:
            raise UserError(f"the weight {name}", "no such name", "check the number of layers and the architecture")
        value = np.asarray(weights[name])
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value.T if transposed else value
    types = weights.get("bert.embeddings.token_type_embeddings.weight")
    if types is not None:
        params["positions"]["embedding"] = params["positions"]["embedding"] + np.asarray(types)[0]
    return params


def bert_to_hf(params: Params, num_layers: int) -> dict[str, np.ndarray]:
    """Returns a ``BertForMaskedLM`` state dict; its token-type embeddings (2 rows) are zero."""
    weights = {}
    for path, (name, transposed) in _layout(num_layers).items():
        node = params
        for part in path:
            node = node[part]
        value = np.asarray(node)
        weights[name] = value.T if transposed else value
    width = weights["bert.embeddings.word_embeddings.weight"].shape[1]
    weights["bert.embeddings.token_type_embeddings.weight"] = np.zeros((2, width), np.float32)
    weights[f"{_HEAD}.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights[f"{_HEAD}.decoder.bias"] = weights[f"{_HEAD}.bias"]
    return weights
