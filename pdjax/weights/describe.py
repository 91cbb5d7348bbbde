"""What Hugging Face's ``config.json`` says of a model, as settings of ours and back.

Whatever of it would make our model compute something else is refused by name; so is a setting of ours that Hugging
Face's models lack. Keys that only matter to text generation, training or storage are not looked at.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pdjax.errors import UserError, require
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.layers import Activation
from pdjax.models.transformer import Transformer
from pdjax.settings import make

CONFIG = "config.json"

_REMEDY = "choose another model: this one computes something else"

_ACTIVATIONS: dict[str, Activation] = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    # One formula, in several spellings.
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"),
        "gelu_tanh",
    ),
    "relu": "relu",
}
"""Ours by Hugging Face's name; back goes the first."""


class Described(NamedTuple):
    """A model, and the sizes of what it is for."""

    architecture: Transformer
    vocabulary: int
    """tokens, without rows of padding where they are known"""
    positions: int


class _Fields(NamedTuple):
    """How a family's configuration calls what all have."""

    width: str
    num_layers: str
    num_heads: str
    positions: str
    expand: str  # the width of the feed-forward layer
    activation: str
    epsilon: str
    dropouts: tuple[str, ...]
    tied: bool  # where the configuration does not say
    dropout: float  # likewise
    refused: Mapping[str, Any]
    """the only values, where there are others, for which models compute the same"""


_PLAIN = {"quantization_config": None, "auto_map": None, "pruned_heads": {}, "add_cross_attention": False}
"""What other values make another model of, whatever the family."""

_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "intermediate_size")

_FIELDS = {
    "bert": _Fields(
        *_NAMES,
        activation="hidden_act",
        epsilon="layer_norm_eps",
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        tied=True,
        dropout=0.1,
        refused=_PLAIN | {"is_decoder": False, "position_embedding_type": "absolute"},
    ),
    "gpt2": _Fields(
        *("n_embd", "n_layer", "n_head", "n_positions", "n_inner"),
        activation="activation_function",
        epsilon="layer_norm_epsilon",
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        tied=True,
        dropout=0.1,
        refused=_PLAIN | {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    ),
    "gpt_neox": _Fields(
        *_NAMES,
        activation="hidden_act",
        epsilon="layer_norm_eps",
        dropouts=("hidden_dropout", "attention_dropout"),
        tied=False,
        dropout=0.0,
        refused=_PLAIN | {"attention_bias": True},
    ),
}
_CLASSES: dict[str, tuple[type[Transformer], str]] = {
    "bert": (Bert, "BertForMaskedLM"),
    "gpt2": (Gpt2, "GPT2LMHeadModel"),
    "gpt_neox": (GptNeoX, "GPTNeoXForCausalLM"),
}
_ROTARY = {"rope_theta": ("rotary_emb_base", 10_000.0), "partial_rotary_factor": ("rotary_pct", 0.25)}
"""What transformers 5 calls the older names; and what both take where nothing is said."""


def architecture_of(config: Mapping[str, Any], tokens: int | None = None) -> Described:
    """Returns the settings of the model that a ``config.json`` describes, with its vocabulary and positions.

    Args:
      config: the contents of the file.
      tokens: of the tokenizer, where it is known; rows behind them are padding, and none of them is predicted.

    Raises:
      UserError: it is no BERT, GPT-2 or GPT-NeoX, lacks a size, or asks for what these are not here.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in _FIELDS:
        raise UserError(
            f"a model_type of {', '.join(_FIELDS)} in {CONFIG}", repr(family), "no other models can be read"
        )
    names = _FIELDS[family]
    for name, only in names.refused.items():
        value = config.get(name, only)
        # What is null or empty is not there.
        require(value == only or (not value and not only), f"{name} {only!r} in {CONFIG}", repr(value), _REMEDY)
    width, rows = _size(config, names.width), _size(config, "vocab_size")
    tokens = rows if tokens is None else tokens
    require(
        tokens <= rows,
        f"a tokenizer of at most the {rows} tokens of vocab_size in {CONFIG}",
        f"{tokens} tokens",
        "use the tokenizer that the model was trained with",
    )
    cls, _ = _CLASSES[family]
    fields = {
        "num_layers": _size(config, names.num_layers),
        "num_heads": _size(config, names.num_heads),
        "head_dim": None,
        "width": width,
        "feed_forward_multiple": _multiple(config, names, width),
        "dropout": _dropout(config, names),
        "activation": _activation(config, cls, names),
        "epsilon": config.get(names.epsilon, cls.epsilon),
        "tied_head": config.get("tie_word_embeddings", names.tied),
        "vocabulary_rows": None if tokens == rows else rows,
    }
    if family == "bert":
        fields["token_types"] = _size(config, "type_vocab_size") if "type_vocab_size" in config else 2
    if family == "gpt_neox":
        fields |= _rotary(config) | {"parallel_residual": config.get("use_parallel_residual", True)}
    return Described(make(cls, fields, CONFIG), tokens, _size(config, names.positions))


def config_of(architecture: Architecture, vocabulary: int, positions: int) -> dict[str, Any]:
    """Returns the contents of the ``config.json`` of a model whose classes are its tokens.

    The inverse of ``architecture_of``, except that it says nothing of how it computes (``compute``, ``scan_layers``,
    ``rematerialize``), and that a BERT without token types is written as one with two, of zeros.

    Raises:
      UserError: Hugging Face has no such model.
    """
    family = next((name for name, (cls, _) in _CLASSES.items() if type(architecture) is cls), None)
    if family is None:
        classes = ", ".join(cls.__name__ for cls, _ in _CLASSES.values())
        raise UserError(f"one of {classes}", type(architecture).__name__, "Hugging Face's models are these")
    assert isinstance(architecture, Transformer)
    require(
        not architecture.averages_heads,
        "heads that are concatenated, as in Hugging Face's models",
        "heads that are averaged",
        "choose a model with heads 'concatenate'",
    )
    names, of = _FIELDS[family], architecture
    config = {
        "model_type": family,
        "architectures": [_CLASSES[family][1]],
        "vocab_size": of.rows(vocabulary),
        names.width: of.model_width,
        names.num_layers: of.num_layers,
        names.num_heads: of.num_heads,
        names.positions: positions,
        names.expand: of.feed_forward_multiple * of.model_width,
        names.activation: next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == of.activation),
        names.epsilon: of.epsilon,
        **dict.fromkeys(names.dropouts, of.dropout),
        "tie_word_embeddings": of.tied_head,
        "torch_dtype": "float32",
        # Their defaults are tokens of the published models' vocabularies.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if isinstance(of, Bert):
        require(
            of.attend_to_selected,
            "a BERT that attends to selected positions, as Hugging Face's does",
            "attend_to_selected False",
            "set it to True, and hide the positions to predict by the attention_mask",
        )
        config["type_vocab_size"] = of.token_types or 2
    if isinstance(of, GptNeoX):
        config |= {"rotary_pct": of.rotary_share, "rotary_emb_base": of.rotary_base}
        config["use_parallel_residual"] = of.parallel_residual
    return config


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name}, an integer of at least 1, in {CONFIG}", repr(value), "use the file of the model")
    return value


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"{name}, a number, in {CONFIG}", repr(value), "use the file of the model")
    return float(value)


def _multiple(config: Mapping[str, Any], names: _Fields, width: int) -> int:
    """Returns the width of the feed-forward layer in widths of the model; GPT-2's may be left out."""
    if config.get(names.expand) is None and names.expand == "n_inner":
        return 4
    expand = _size(config, names.expand)
    require(
        expand % width == 0,
        f"{names.expand} that is a multiple of {names.width}, {width}, in {CONFIG}",
        expand,
        _REMEDY,
    )
    return expand // width


def _activation(config: Mapping[str, Any], cls: type[Transformer], names: _Fields) -> Activation:
    name = config.get(names.activation)
    if name is None:
        return cls.activation
    require(
        isinstance(name, str) and name in _ACTIVATIONS,
        f"{names.activation} among {', '.join(_ACTIVATIONS)} in {CONFIG}",
        repr(name),
        _REMEDY,
    )
    return _ACTIVATIONS[name]


def _dropout(config: Mapping[str, Any], names: _Fields) -> float:
    rates = {name: _number(name, config.get(name, names.dropout)) for name in names.dropouts}
    require(
        len({*rates.values()}) == 1,
        f"one rate for all dropout in {CONFIG}",
        ", ".join(f"{name} {rate}" for name, rate in rates.items()),
        "write the same rate for all of them: a teacher that is not trained further uses none",
    )
    return next(iter(rates.values()))


def _rotary(config: Mapping[str, Any]) -> dict[str, float]:
    """Returns what GPT-NeoX's rotary positions are; those that are scaled to longer strings are refused."""
    # transformers 4 said how positions are scaled in rope_scaling, and had the rest beside it.
    said: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        of = config.get(name) or {}
        if not isinstance(of, Mapping):
            raise UserError(f"{name}, a JSON object, in {CONFIG}", repr(of), "use the file of the model")
        said |= of
    kind = said.get("rope_type", said.get("type", "default"))
    require(kind == "default", f"rope_type 'default' in {CONFIG}", repr(kind), _REMEDY)
    base, share = (_number(old, said.get(new, config.get(old, default))) for new, (old, default) in _ROTARY.items())
    return {"rotary_share": share, "rotary_base": base}
