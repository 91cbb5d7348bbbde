"""Parameters from and to the weights of Hugging Face's models, by their canonical names.

``BertForMaskedLM``, ``GPT2LMHeadModel`` and ``GPTNeoXForCausalLM`` hold the numbers of ``Bert``, ``Gpt2`` and
``GptNeoX`` in another arrangement: kernels of linear layers are transposed (but for GPT-2's), and queries, keys and
values may be one weight. Nothing is computed: what goes in comes out with the same bits. A ``Bert`` without token types
is written with types of 0, and reads no others. Layers that are scanned are stacked, and unstacked.

Rows that pad a vocabulary to a round number (Pythia's to 50,304) stay: they come back with the same bits. Logits have a
column for each token alone (``vocabulary_rows`` of the settings), so that no padding takes part in a softmax.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.errors import UserError, require
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert, BertModule
from pdjax.models.decoder import Decoder, DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.stack import stacked, unstacked
from pdjax.types import Params
from pdjax.weights.stored import StoredTensor

T = TypeVar("T")
_Path = tuple[str, ...]


Weights = Mapping[str, np.ndarray | StoredTensor]
"""By canonical name; those in a file are read when they are needed."""


class Imported(NamedTuple):
    """Parameters, and why weights were ignored, by their names."""

    params: Params
    ignored: dict[str, str]


class _Stored(NamedTuple):
    """The parameters that one weight holds.

    Along its last axis, once it is transposed, ``groups`` runs follow each other, each with a piece of every parameter:
    one for GPT-2's ``[query, key, value]``, and one for each head of GPT-NeoX, ``[q, k, v, q, k, v, ...]``.
    """

    paths: tuple[_Path, ...]
    transposed: bool = False
    groups: int = 1


class _Layout(NamedTuple):
    """What a model's weights hold."""

    stored: dict[str, _Stored]
    copies: dict[str, str]
    """weights that are written too, and read instead where the other is missing: they have to be equal"""
    idle: dict[str, tuple[str, str]]
    """likewise, by name with the reason why the model does not use them: they need not be equal"""
    zeros: dict[str, tuple[int, ...]]
    """weights that a model without them has, as 0"""


def params_of(
    weights: Weights, architecture: Architecture, vocabulary: int, positions: int, headless: bool = False
) -> Imported:
    """Returns the parameters of a model whose classes are its tokens.

    Args:
      weights: all there are, by canonical name.
      architecture: ``Bert``, ``Gpt2`` or ``GptNeoX``.
      vocabulary: tokens; rows of padding behind them are ``architecture.vocabulary_rows``.
      positions: that the model knows; without meaning for ``GptNeoX``.
      headless: whether the weights are of a model without its output layer, as ``BertModel`` saves them. The parameters
        then lack it as well.

    Raises:
      UserError: a weight is missing, surplus, ill-shaped, not finite, or differs from what it is tied to.
    """
    layout = _layout_of(architecture, headless)
    _check_names(weights, architecture, layout)
    shapes = _shapes(architecture, vocabulary, positions)
    params: dict = {}
    ignored: dict[str, str] = {}
    for name, stored in layout.stored.items():
        spellings = [same for same in _spellings(name, layout) if same in weights]
        expected = _stored_shape([shapes[path] for path in stored.paths], stored)
        value, *others = (_read(weights, spelling, expected) for spelling in spellings)
        for spelling, other in zip(spellings[1:], others, strict=True):
            equal = np.array_equal(other, value)
            if not equal and spelling in layout.idle:
                _, ignored[spelling] = layout.idle[spelling]
                continue
            require(
                equal,
                f"{spelling} equal to {name}, which it is tied to",
                "other numbers",
                "set tied_head to False",
            )
        for path, part in zip(stored.paths, _parted(value, stored), strict=True):
            _put(params, path, part)
    if getattr(architecture, "scan_layers", False):
        params = stacked(params)
    for name in layout.zeros.keys() & weights.keys():
        require(
            not _read(weights, name, weights[name].shape).any(),
            f"{name} of zeros, for {type(architecture).__name__} with token_types 0",
            "other numbers",
            f"set token_types to {weights[name].shape[0]}",
        )
    return Imported(params, ignored)


def check_weights(weights: Weights, architecture: Architecture, vocabulary: int, positions: int) -> None:
    """Raises a ``UserError`` for a weight that is missing, surplus or ill-shaped; none is read."""
    layout = _layout_of(architecture, headless=False)
    _check_names(weights, architecture, layout)
    shapes = _shapes(architecture, vocabulary, positions)
    for name, stored in layout.stored.items():
        expected = _stored_shape([shapes[path] for path in stored.paths], stored)
        for spelling in _spellings(name, layout):
            if spelling in weights:
                _check_shape(weights[spelling], spelling, expected)


def weights_of(
    params: Params, architecture: Architecture, headless: bool = False, copies: bool = True
) -> dict[str, np.ndarray]:
    """Returns the weights by canonical name.

    Args:
      params: as the model's ``init`` returns them.
      architecture: ``Bert``, ``Gpt2`` or ``GptNeoX``.
      headless: whether the parameters are without the output layer.
      copies: whether tied weights are there once for each of their names, as models have them in memory, or once, as in
        transformers' files.

    Raises:
      UserError: Hugging Face has no such model, or the parameters are of another architecture.
    """
    layout, leaves = _layout_of(architecture, headless), _flat(unstacked(params))
    stored = {path for entry in layout.stored.values() for path in entry.paths}
    if stored != leaves.keys():
        differing = _listed("/".join(path) for path in stored ^ leaves.keys())
        raise UserError(f"the parameters of {architecture}", f"others: {differing}", "use the settings they are of")
    weights = {
        name: _joined([np.asarray(leaves[p]) for p in entry.paths], entry) for name, entry in layout.stored.items()
    }
    weights |= {copy: weights[name] for copy, name in layout.copies.items() if copies}
    weights |= {copy: weights[name] for copy, (name, _) in layout.idle.items()}
    return weights | {name: np.zeros(shape, np.float32) for name, shape in layout.zeros.items()}


def _layout_of(architecture: Architecture, headless: bool) -> _Layout:
    """Returns where an architecture's parameters are."""
    # Of these very classes: one that is derived from them may have other parameters.
    known: dict[type, tuple[str, Callable[..., _Layout]]] = {
        Bert: ("bert.", _bert),
        Gpt2: ("transformer.", _gpt2),
        GptNeoX: ("gpt_neox.", _gpt_neox),
    }
    if type(architecture) not in known:
        raise UserError(
            f"one of {', '.join(cls.__name__ for cls in known)}",
            type(architecture).__name__,
            "Hugging Face's models are these",
        )
    require(
        not getattr(architecture, "averages_heads", False),
        "heads that are concatenated, as in Hugging Face's models",
        "heads that are averaged",
        "choose a model with heads 'concatenate'",
    )
    base, layout_of = known[type(architecture)]
    layout = layout_of(architecture)
    if not headless:
        return layout

    def without_head(part: dict[str, T]) -> dict[str, T]:
        return {name: entry for name, entry in part.items() if name.startswith(base)}

    stored, copies, idle, zeros = layout
    return _Layout(without_head(stored), without_head(copies), without_head(idle), without_head(zeros))


@functools.cache  # it traces, and a trajectory asks for every checkpoint
def _shapes(architecture: Architecture, vocabulary: int, positions: int) -> dict[_Path, tuple[int, ...]]:
    """Returns the shapes of the parameters of a model whose classes are its tokens, by their paths, layer by layer."""
    assert isinstance(architecture, Bert | Gpt2 | GptNeoX)
    of = dataclasses.replace(architecture, scan_layers=False)
    if isinstance(of, Bert):
        module = BertModule(of, vocabulary, positions)
    else:
        module = DecoderModule(of, vocabulary, vocabulary, positions, last_only=False)
    everywhere = jnp.ones((1, 1), bool)
    inputs = {"tokens": jnp.zeros((1, 1), int), "valid": everywhere, "selected": everywhere}
    params = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    return {path: leaf.shape for path, leaf in _flat(params).items()}


# Reading


def _check_names(weights: Weights, architecture: Architecture, layout: _Layout) -> None:
    """Raises a ``UserError`` for the first weight that is missing, or one too many."""
    of = f"{type(architecture).__name__} with {getattr(architecture, 'num_layers', 0)} layers"
    remedy = "correct the number of layers, tied_head or the architecture, or take the model with its output layer"
    for name in layout.stored:
        if not weights.keys() & set(_spellings(name, layout)):
            raise UserError(f"the weight {name} of a {of}", "no such name", remedy)
    surplus = weights.keys() - layout.stored.keys() - layout.copies.keys() - layout.idle.keys() - layout.zeros.keys()
    if surplus:
        raise UserError(f"the weights of a {of} and no others", _listed(surplus), remedy)


def _spellings(name: str, layout: _Layout) -> list[str]:
    """Returns the names under which a weight may be stored, the one that counts first."""
    copies = [copy for copy, of in layout.copies.items() if of == name]
    return [name, *copies, *(copy for copy, (of, _) in layout.idle.items() if of == name)]


def _read(weights: Weights, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a weight in float32."""
    weight = weights[name]
    _check_shape(weight, name, shape)
    value = np.asarray(weight if isinstance(weight, np.ndarray) else weight.read())
    require(
        np.issubdtype(value.dtype, np.floating),
        f"floating-point numbers in {name}",
        f"the type {value.dtype}",
        "store the weights unquantised",
    )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found below
        value = value.astype(np.float32, copy=False)
    bad = value.size - np.count_nonzero(np.isfinite(value))
    require(bad == 0, f"finite numbers in {name}", f"{bad} of {value.size} that are not", "leave this checkpoint out")
    return value


def _check_shape(weight: np.ndarray | StoredTensor, name: str, shape: tuple[int, ...]) -> None:
    require(
        tuple(weight.shape) == shape,
        f"{name} of the shape {shape}",
        tuple(weight.shape),
        "correct the sizes of the architecture, the vocabulary or the number of positions",
    )


def _stored_shape(shapes: list[tuple[int, ...]], stored: _Stored) -> tuple[int, ...]:
    joined = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    return joined[::-1] if stored.transposed else joined


def _parted(value: np.ndarray, stored: _Stored) -> Iterator[np.ndarray]:
    """Yields the parameters of a weight."""
    value = value.T if stored.transposed else value
    if len(stored.paths) == 1:
        yield value
        return
    # The last axis as runs of pieces: [..., groups, parameters, size].
    runs = value.reshape(*value.shape[:-1], stored.groups, len(stored.paths), -1)
    for i in range(len(stored.paths)):
        yield runs[..., i, :].reshape(*value.shape[:-1], -1)


def _joined(parts: list[np.ndarray], stored: _Stored) -> np.ndarray:
    """Returns the weight of its parameters."""
    runs = [part.reshape(*part.shape[:-1], stored.groups, 1, -1) for part in parts]
    value = np.concatenate(runs, axis=-2).reshape(*parts[0].shape[:-1], -1) if len(parts) > 1 else parts[0]
    return value.T if stored.transposed else value


def _flat(params: Params) -> dict[_Path, Any]:
    """Returns the leaves of parameters by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def _put(params: dict, path: _Path, value: np.ndarray) -> None:
    for key in path[:-1]:
        params = params.setdefault(key, {})
    params[path[-1]] = value


def _listed(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


# Layouts


def _norm(path: _Path, name: str) -> dict[str, _Stored]:
    return {f"{name}.weight": _Stored(((*path, "scale"),)), f"{name}.bias": _Stored(((*path, "bias"),))}


def _dense(paths: tuple[_Path, ...], name: str, transposed: bool, groups: int = 1) -> dict[str, _Stored]:
    return {
        f"{name}.weight": _Stored(tuple((*path, "kernel") for path in paths), transposed, groups),
        f"{name}.bias": _Stored(tuple((*path, "bias") for path in paths), groups=groups),
    }


def _layer(i: int, paths: tuple[_Path, ...]) -> tuple[_Path, ...]:
    return tuple((f"layers_{i}", *path) for path in paths)


_ATTENTION = tuple(("attention", name) for name in ("query", "key", "value"))

_BERT_DENSE = {
    "attention.self.query": ("attention", "query"),
    "attention.self.key": ("attention", "key"),
    "attention.self.value": ("attention", "value"),
    "attention.output.dense": ("attention", "output"),
    "intermediate.dense": ("expand",),
    "output.dense": ("contract",),
}
_BERT_NORMS = {"attention.output.LayerNorm": ("attention_norm",), "output.LayerNorm": ("output_norm",)}


def _bert(of: Bert) -> _Layout:
    table, types = (f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "token_type"))
    head = "cls.predictions"
    stored = {
        table: _Stored((("tokens", "embedding"),)),
        "bert.embeddings.position_embeddings.weight": _Stored((("positions", "embedding"),)),
    }
    if of.token_types > 0:
        stored[types] = _Stored((("token_types", "embedding"),))
    stored |= _norm(("embedding_norm",), "bert.embeddings.LayerNorm")
    for i in range(of.num_layers):
        for name, path in _BERT_DENSE.items():
            # PyTorch's linear layers are stored (out, in).
            stored |= _dense(_layer(i, (path,)), f"bert.encoder.layer.{i}.{name}", transposed=True)
        for name, path in _BERT_NORMS.items():
            stored |= _norm((f"layers_{i}", *path), f"bert.encoder.layer.{i}.{name}")
    stored |= _dense((("transform",),), f"{head}.transform.dense", transposed=True)
    stored |= _norm(("transform_norm",), f"{head}.transform.LayerNorm")
    # Pairs of sentences have tokens of both types: models without any are written with two, as transformers makes them.
    zeros = {types: (2, of.model_width)} if of.token_types == 0 else {}
    bias, decoder_bias = _Stored((("decoder_bias",),)), f"{head}.decoder.bias"
    if of.tied_head:
        copies = {f"{head}.decoder.weight": table, decoder_bias: f"{head}.bias"}
        return _Layout(stored | {f"{head}.bias": bias}, copies, {}, zeros)
    stored |= {f"{head}.decoder.weight": _Stored((("head_kernel",),), transposed=True), decoder_bias: bias}
    # transformers 4 knew one bias with two names, and stored it under either; in 5 an untied model has another one.
    idle = {f"{head}.bias": (decoder_bias, f"an untied model adds {decoder_bias} instead")}
    return _Layout(stored, {}, idle, zeros)


_GPT2_DENSE = {
    "attn.c_attn": _ATTENTION,
    "attn.c_proj": (("attention", "output"),),
    "mlp.c_fc": (("expand",),),
    "mlp.c_proj": (("contract",),),
}
_GPT2_NORMS = {"ln_1": ("attention_norm",), "ln_2": ("feed_forward_norm",)}


def _gpt2(of: Gpt2) -> _Layout:
    stored = {"transformer.wpe.weight": _Stored((("positions", "embedding"),))}
    for i in range(of.num_layers):
        for name, paths in _GPT2_DENSE.items():
            # GPT-2's are stored (in, out), like ours.
            stored |= _dense(_layer(i, paths), f"transformer.h.{i}.{name}", transposed=False)
        for name, path in _GPT2_NORMS.items():
            stored |= _norm((f"layers_{i}", *path), f"transformer.h.{i}.{name}")
    stored |= _norm(("final_norm",), "transformer.ln_f")
    return _with_head(of, stored, "transformer.wte.weight", "lm_head.weight")


_GPT_NEOX_DENSE = {
    "attention.dense": ("attention", "output"),
    "mlp.dense_h_to_4h": ("expand",),
    "mlp.dense_4h_to_h": ("contract",),
}
_GPT_NEOX_NORMS = {"input_layernorm": ("attention_norm",), "post_attention_layernorm": ("feed_forward_norm",)}


def _gpt_neox(of: GptNeoX) -> _Layout:
    stored: dict[str, _Stored] = {}
    for i in range(of.num_layers):
        prefix = f"gpt_neox.layers.{i}."
        fused = f"{prefix}attention.query_key_value"
        # Head by head: a head's query, key and value follow each other.
        stored |= _dense(_layer(i, _ATTENTION), fused, transposed=True, groups=of.num_heads)
        for name, path in _GPT_NEOX_DENSE.items():
            stored |= _dense(_layer(i, (path,)), prefix + name, transposed=True)
        for name, path in _GPT_NEOX_NORMS.items():
            stored |= _norm((f"layers_{i}", *path), prefix + name)
    stored |= _norm(("final_norm",), "gpt_neox.final_layer_norm")
    # Of files; transformers 5 calls it lm_head in memory, and renames it whenever it reads or writes.
    return _with_head(of, stored, "gpt_neox.embed_in.weight", "embed_out.weight")


def _with_head(of: Decoder, stored: dict[str, _Stored], table: str, head: str) -> _Layout:
    """Returns a decoder's layout, its token embedding and output layer with it."""
    stored = {table: _Stored((("tokens", "embedding"),))} | stored
    if of.tied_head:
        return _Layout(stored, {head: table}, {}, {})
    return _Layout(stored | {head: _Stored((("head_kernel",),), transposed=True)}, {}, {}, {})
