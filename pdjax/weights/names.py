"""Names of weights as they are met in the wild, and what Hugging Face's models call the same weights.

The canonical names are those of the files that ``BertForMaskedLM``, ``GPT2LMHeadModel`` and ``GPTNeoXForCausalLM``
save. Whoever saves a model without its head drops ``bert.``, ``transformer.`` or ``gpt_neox.``; whoever trains it
inside of something else adds names; models converted from TensorFlow say gamma and beta.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pdjax.errors import require
from pdjax.weights.stored import StoredTensor, listed

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts that DataParallel, torch.compile, FSDP and recomputation add, around a model or any part of it."""

_TENSORFLOW = {"gamma": "weight", "beta": "bias"}
_NORM = re.compile(r"(?<=\.)(LayerNorm|ln_[12f]|\w*layer_?norm)\.(gamma|beta)$")

_POSITIONS = "a buffer of positions, counted from 0"
_MASK = "a buffer of causal masking, a constant"
_ROTARY = "a buffer of rotary positions, which the configuration determines"
_POOLER = "the pooler, which predictions of tokens do not use"
_NEXT_SENTENCE = "the next-sentence head, which predictions of tokens do not use"


class _Family(NamedTuple):
    """The canonical names of one kind of model, as patterns."""

    base: str  # what the model without its head is called
    heads: tuple[str, ...]  # how names begin that are not the base's
    weights: tuple[str, ...]
    ignored: Mapping[str, str]  # why, by pattern
    renamed: Mapping[str, str] = {}


_FAMILIES = {
    "bert": _Family(
        base="bert",
        heads=("cls",),
        weights=(
            r"bert\.embeddings\.(word|position|token_type)_embeddings\.weight",
            r"bert\.embeddings\.LayerNorm\.(weight|bias)",
            r"bert\.encoder\.layer\.\d+\.attention\.self\.(query|key|value)\.(weight|bias)",
            r"bert\.encoder\.layer\.\d+\.(attention\.)?output\.(dense|LayerNorm)\.(weight|bias)",
            r"bert\.encoder\.layer\.\d+\.intermediate\.dense\.(weight|bias)",
            r"cls\.predictions\.bias",
            r"cls\.predictions\.decoder\.(weight|bias)",
            r"cls\.predictions\.transform\.(dense|LayerNorm)\.(weight|bias)",
        ),
        ignored={
            r"bert\.embeddings\.position_ids": _POSITIONS,
            r"bert\.embeddings\.token_type_ids": "a buffer of token types, all 0",
            r"bert\.pooler\.dense\.(weight|bias)": _POOLER,
            r"cls\.seq_relationship\.(weight|bias)": _NEXT_SENTENCE,
        },
    ),
    "gpt2": _Family(
        base="transformer",
        heads=("lm_head",),
        weights=(
            r"transformer\.w[tp]e\.weight",
            r"transformer\.h\.\d+\.(ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)",
            r"transformer\.ln_f\.(weight|bias)",
            r"lm_head\.weight",
        ),
        ignored={r"transformer\.h\.\d+\.attn\.(bias|masked_bias)": _MASK},
    ),
    "gpt_neox": _Family(
        base="gpt_neox",
        heads=("embed_out", "lm_head"),
        weights=(
            r"gpt_neox\.embed_in\.weight",
            r"gpt_neox\.layers\.\d+\.(input|post_attention)_layernorm\.(weight|bias)",
            r"gpt_neox\.layers\.\d+\.attention\.(query_key_value|dense)\.(weight|bias)",
            r"gpt_neox\.layers\.\d+\.mlp\.(dense_h_to_4h|dense_4h_to_h)\.(weight|bias)",
            r"gpt_neox\.final_layer_norm\.(weight|bias)",
            r"embed_out\.weight",
        ),
        ignored={
            r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias)": _MASK,
            r"gpt_neox\.(layers\.\d+\.attention\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)": _ROTARY,
        },
        renamed={"lm_head.weight": "embed_out.weight"},  # of models in transformers 5, not of the files they save
    ),
}


def canonical(tensors: Mapping[str, StoredTensor], family: str) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Returns the weights by their canonical names, and why the others are ignored, by their names in the file.

    Which weights there should be, tied ones among them, is not looked at.

    Args:
      tensors: by name in the file.
      family: ``model_type`` of Hugging Face's configuration: bert, gpt2 or gpt_neox.

    Raises:
      UserError: a name is unknown, or two names mean the same weight and their values differ.
    """
    # What a configuration says need not be a string.
    known = isinstance(family, str) and family in _FAMILIES
    require(known, f"a model_type of {', '.join(_FAMILIES)}", family, "no other models can be read")
    names = {name: _canonical(name, _FAMILIES[family]) for name in tensors}
    ignored = {name: reason for name in tensors if (reason := _reason(names[name], _FAMILIES[family])) is not None}
    used = [name for name in tensors if name not in ignored]
    unknown = [name for name in used if not _matches(names[name], _FAMILIES[family].weights)]
    require(
        not unknown,
        f"names of {family}'s weights",
        f"{listed(unknown)}, of {len(tensors)} names in all",
        "check model_type in config.json, or store the language model alone",
    )
    weights: dict[str, StoredTensor] = {}
    # Where two names mean the same weight, the one that is canonical already comes first.
    for name in sorted(used, key=lambda name: name != names[name]):
        first = weights.setdefault(names[name], tensors[name])
        if first is not tensors[name]:
            _check_equal(first, tensors[name], names[name])
            ignored[name] = f"the same values as {first.name}"
    return weights, ignored


def _canonical(name: str, family: _Family) -> str:
    """Returns what a name would be called in a model of this family."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts[:1] == ["model"]:
        del parts[0]
    if parts and parts[0] not in (family.base, *family.heads):
        parts.insert(0, family.base)
    bare = _NORM.sub(lambda match: f"{match[1]}.{_TENSORFLOW[match[2]]}", ".".join(parts))
    return family.renamed.get(bare, bare)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name, re.ASCII) for pattern in patterns)


def _reason(name: str, family: _Family) -> str | None:
    """Returns why a weight is ignored; None if it is not."""
    return next((reason for pattern, reason in family.ignored.items() if re.fullmatch(pattern, name, re.ASCII)), None)


def _check_equal(first: StoredTensor, second: StoredTensor, name: str) -> None:
    # Ones that differ in shape are not read.
    equal = first.shape == second.shape and np.array_equal(first.read(), second.read())
    require(
        equal,
        f"one weight {name}",
        f"{first.name} and {second.name} in {second.file} with different values",
        "remove the one that the model does not use",
    )
