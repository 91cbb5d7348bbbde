"""Names of weights, their types and how many rows they have, as they are met in the wild."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from wild.case import Case, Group
from wild.models import BERT, GPT2, GPT_NEOX, MODELS, Model, changed, check, weights, write
from wild.writing import Arrays

Renamed = Callable[[str], str]
Edit = Callable[[dict[str, np.ndarray]], Arrays]

_BASES = {Bert: "bert.", Gpt2: "transformer.", GptNeoX: "gpt_neox."}
TABLES = {
    Bert: "bert.embeddings.word_embeddings.weight",
    Gpt2: "transformer.wte.weight",
    GptNeoX: "gpt_neox.embed_in.weight",
}
HEADS = {Bert: "cls.predictions.decoder.weight", Gpt2: "lm_head.weight", GptNeoX: "embed_out.weight"}
_LAYER = re.compile(r"((?:encoder\.layer|h|layers)\.\d+\.)")

UNTIED_BERT = changed(BERT, tied_head=False)._replace(name="BERT, untied")
UNTIED_GPT2 = changed(GPT2, tied_head=False)._replace(name="GPT-2, untied")
TIED_NEOX = changed(GPT_NEOX, tied_head=True)._replace(name="GPT-NeoX, tied")
PADDED = tuple(changed(model, vocabulary_rows=16) for model in MODELS)


def group() -> Group:
    """Returns all cases."""
    about = (
        "The weights of a tiny model of each family under other names, with others beside them, and in other types. "
        "All that a file holds is used, or named here with the reason."
    )
    return Group("Spellings of names and types", about, [*_renamed(), *_beside(), *_tied(), *_typed(), *_refused()])


def _case(what: str, model: Model, edit: Edit, dtype: Any = np.float32, refused: bool = False) -> Case:
    def act(folder: Path) -> str:
        write(folder, model, edit(weights(model)))
        return check(folder, model, dtype)

    return Case(what, act, refused, model.name)


def _with_names(rename: Renamed) -> Edit:
    return lambda arrays: {rename(name): array for name, array in arrays.items()}


# Names


def _renamed() -> Iterator[Case]:
    for model in MODELS:
        base = _BASES[type(model.architecture)]
        for what, rename in {
            "the names of transformers' own files": lambda name: name,
            "without `bert.`, `transformer.` or `gpt_neox.`": lambda name, base=base: name.removeprefix(base),
            "`module.` in front (DataParallel)": lambda name: f"module.{name}",
            "`module.` in front, without the base's name": lambda name, base=base: f"module.{name.removeprefix(base)}",
            "`_orig_mod.` in front (torch.compile)": lambda name: f"_orig_mod.{name}",
            "`_orig_mod.module.` in front": lambda name: f"_orig_mod.module.{name}",
            "`model.` in front (Lightning and others)": lambda name: f"model.{name}",
            "`_fsdp_wrapped_module.` in front and inside (FSDP)": lambda name: _LAYER.sub(
                r"\1_fsdp_wrapped_module.", f"_fsdp_wrapped_module.{name}"
            ),
            "`_checkpoint_wrapped_module.` inside (recomputation)": lambda name: _LAYER.sub(
                r"\1_checkpoint_wrapped_module.", name
            ),
            "`_orig_mod.` inside (layers compiled alone)": lambda name: _LAYER.sub(r"\1_orig_mod.", name),
            "`gamma` and `beta` of norms (TensorFlow)": _gamma_and_beta,
        }.items():
            yield _case(what, model, _with_names(rename))
    yield _case(
        "`lm_head.` for `embed_out.` (transformers 5 in memory)",
        GPT_NEOX,
        _with_names(_swapped("embed_out", "lm_head")),
    )
    yield _case("names in another order", GPT2, lambda arrays: dict(reversed(arrays.items())))


def _gamma_and_beta(name: str) -> str:
    norm = re.fullmatch(r"(.*(?:LayerNorm|ln_[12f]|layer_?norm))\.(weight|bias)", name)
    return f"{norm[1]}.{ {'weight': 'gamma', 'bias': 'beta'}[norm[2]] }" if norm else name


def _swapped(old: str, new: str) -> Renamed:
    return lambda name: name.replace(old, new)


# Others beside them


def _beside() -> Iterator[Case]:
    mask = np.tril(np.ones((1, 1, 10, 10), bool))
    ids = np.arange(10)[None]
    yield _case("a buffer `position_ids`", BERT, _with({"bert.embeddings.position_ids": ids}))
    yield _case("a buffer `token_type_ids`", BERT, _with({"bert.embeddings.token_type_ids": 0 * ids}))
    pooler = {"bert.pooler.dense.weight": np.ones((8, 8), np.float32), "bert.pooler.dense.bias": np.ones(8, np.float32)}
    sentence = {
        "cls.seq_relationship.weight": np.ones((2, 8), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
    }
    yield _case("the pooler and the next-sentence head (BertForPreTraining)", BERT, _with(pooler | sentence))
    masks = {f"transformer.h.{i}.attn.bias": mask for i in range(2)}
    masked = {f"transformer.h.{i}.attn.masked_bias": np.float32(-1e4) for i in range(2)}
    yield _case("buffers of causal masks", GPT2, _with(masks | masked))
    masks = {f"gpt_neox.layers.{i}.attention.bias": mask for i in range(2)}
    masked = {f"gpt_neox.layers.{i}.attention.masked_bias": np.float32(-1e9) for i in range(2)}
    rotary = {f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": np.ones(1, np.float32) for i in range(2)}
    yield _case("buffers of causal masks and rotary frequencies", GPT_NEOX, _with(masks | masked | rotary))
    nan = {"transformer.h.0.attn.masked_bias": np.float32("nan")}
    yield _case("a buffer that is not finite", GPT2, _with(nan))
    yield _case("one weight under two names, with equal values", GPT2, _again("transformer.wte.weight", "wte.weight"))
    yield _case("one head under two names, with equal values", GPT_NEOX, _again("embed_out.weight", "lm_head.weight"))
    yield Case("more positions than strings of the task reach", _longer, of=GPT2.name)


def _with(others: Mapping[str, Any]) -> Edit:
    return lambda arrays: {**arrays, **{name: np.asarray(array) for name, array in others.items()}}


def _again(name: str, other: str) -> Edit:
    return lambda arrays: {**arrays, other: arrays[name]}


def _longer(folder: Path) -> str:
    arrays, name = weights(GPT2), "transformer.wpe.weight"
    write(folder, GPT2, arrays | {name: np.concatenate([arrays[name], arrays[name]])})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 2 * config["n_positions"]}))
    return check(folder, GPT2)


# Heads


def _tied() -> Iterator[Case]:
    for model in (BERT, GPT2, TIED_NEOX):
        head, table = (names[type(model.architecture)] for names in (HEADS, TABLES))
        yield _case("tied: the decoder is left out", model, _without(head))
        yield _case("tied: the decoder beside the embedding, equal", model, lambda arrays: arrays)
        yield _case("tied: the decoder alone, the embedding left out", model, _without(table))
    bias, decoder = "cls.predictions.bias", "cls.predictions.decoder.bias"
    yield _case("tied: one bias of the decoder, `cls.predictions.bias`", BERT, _without(decoder))
    yield _case("tied: one bias of the decoder, `cls.predictions.decoder.bias`", BERT, _without(bias))
    for model in (UNTIED_BERT, UNTIED_GPT2, GPT_NEOX):
        yield _case("untied: a decoder of its own", model, lambda arrays: arrays)
    yield _case("untied: one bias, `cls.predictions.bias`", UNTIED_BERT, _without(decoder))
    yield _case("untied: one bias, `cls.predictions.decoder.bias`", UNTIED_BERT, _without(bias))
    other = _with({bias: np.ones(7, np.float32)})
    yield _case("untied: two biases that differ", UNTIED_BERT, other)
    for model in PADDED:
        yield Case("rows that pad the vocabulary, with a tokenizer beside them", _padded(model), of=model.name)


def _without(name: str) -> Edit:
    def edit(arrays: dict[str, np.ndarray]) -> Arrays:
        assert name in arrays
        return {other: array for other, array in arrays.items() if other != name}

    return edit


def _padded(model: Model) -> Callable[[Path], str]:
    def act(folder: Path) -> str:
        write(folder, model)
        (folder / "vocab.txt").write_text("\n".join(model.task.tokens or ()))
        return check(folder, model)

    return act


# Types


def _typed() -> Iterator[Case]:
    for model in MODELS:
        for dtype in (ml_dtypes.bfloat16, np.float16, np.float64):
            name = np.dtype(dtype).name
            yield _case(f"{name}", model, _cast(dtype), dtype)
    yield Case("float64, with values between those of float32", _between, of=GPT2.name)
    yield _case("norms in float32, all else in float64", GPT2, _norms_apart)


def _cast(dtype: Any) -> Edit:
    return lambda arrays: {name: array.astype(dtype) for name, array in arrays.items()}


def _norms_apart(arrays: dict[str, np.ndarray]) -> Arrays:
    return {name: array if ".ln_" in name else array.astype(np.float64) for name, array in arrays.items()}


def _between(folder: Path) -> str:
    """Float64 that rounds to the model's float32."""
    write(folder, GPT2, {name: array.astype(float) * (1 + 1e-12) for name, array in weights(GPT2).items()})
    return check(folder, GPT2)


# Refused


def _refused() -> Iterator[Case]:
    def refused(what: str, model: Model, edit: Edit) -> Case:
        return _case(what, model, edit, refused=True)

    yield refused(
        "one weight under two names, with other values", GPT2, _with({"wte.weight": np.ones((7, 8), np.float32)})
    )
    yield refused("one head under two names, with other values", GPT_NEOX, _with({"lm_head.weight": np.ones((7, 8))}))
    for model in MODELS:
        head, table = (names[type(model.architecture)] for names in (HEADS, TABLES))
        if model.architecture.tied_head:
            yield refused("tied: a decoder that differs from the embedding", model, _with({head: np.ones((7, 8))}))
        else:
            yield refused("untied: the decoder is left out", model, _without(head))
            yield refused("untied: the embedding is left out", model, _without(table))
    yield refused("tied: two biases that differ", BERT, _with({"cls.predictions.decoder.bias": np.ones(7, np.float32)}))
    yield refused("the model without its head (BertModel)", BERT, _headless)
    yield refused("a classifier's head", BERT, _with({"classifier.weight": np.ones((2, 8), np.float32)}))
    distances = {"bert.encoder.layer.0.attention.self.distance_embedding.weight": np.ones((3, 4), np.float32)}
    yield refused("relative positions", BERT, _with(distances))
    cross = {"transformer.h.0.crossattention.c_attn.weight": np.ones((8, 16), np.float32)}
    yield refused("cross-attention", GPT2, _with(cross))
    adapters = {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((2, 8), np.float32)}
    yield refused("adapters (LoRA)", GPT2, _with(adapters))
    yield refused("nanoGPT: the same names, kernels transposed", GPT2, _nanogpt)
    yield refused(
        "flattened parameters (FSDP)", GPT2, lambda arrays: {"_fsdp_wrapped_module._flat_param": _flat(arrays)}
    )
    yield refused("names of another family", GPT2, lambda _: weights(GPT_NEOX))
    yield refused("no names that are known", BERT, _with_names(lambda name: f"x.{name}"))


def _headless(arrays: dict[str, np.ndarray]) -> Arrays:
    return {name.removeprefix("bert."): array for name, array in arrays.items() if name.startswith("bert.")}


def _nanogpt(arrays: dict[str, np.ndarray]) -> Arrays:
    kernels = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {n: np.ascontiguousarray(a.T) if n.endswith(kernels) else a for n, a in arrays.items()}


def _flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])
