"""Damages of config.json, and models that it may ask for and that are none of ours."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wild.case import Case, Group
from wild.models import BERT, GPT2, GPT_NEOX, Model, check, config, write

_GONE = object()
"""In place of a value: the field is left out."""

_READ: list[tuple[str, Model, dict[str, Any]]] = [
    ("fields of generation and training", GPT2, {"use_cache": True, "torch_dtype": "bfloat16"}),
    ("`pruned_heads` empty, `quantization_config` null", BERT, {"pruned_heads": {}, "quantization_config": None}),
    ("dropout of another rate", BERT, {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}),
    ("rotary positions as transformers 5 says them", GPT_NEOX, {
        "rotary_pct": _GONE, "rotary_emb_base": _GONE,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    }),
]  # fmt: skip
_REFUSED: list[tuple[Model, dict[str, Any]]] = [
    *((GPT2, {"model_type": value}) for value in (_GONE, None, "llama", "GPT2", 3, ["gpt2"], {"a": 1})),
    *((GPT2, {"n_embd": value}) for value in (_GONE, None, 0, -8, "8", 8.0, True, [8], 9, 10**30)),
    *((GPT2, {"n_layer": value}) for value in (_GONE, "2", 0, 2.5)),
    *((GPT2, {"n_head": value}) for value in (_GONE, 3, 0, 16)),
    *((GPT2, {"n_positions": value}) for value in (_GONE, 0, 12, "10")),
    *((GPT2, {"n_inner": value}) for value in (12, 8, "16", 0)),
    *((GPT2, {"vocab_size": value}) for value in (_GONE, 6, 8, "7")),
    *((GPT2, {"activation_function": value}) for value in ("swish", 3, ["gelu"], {"gelu": 1})),
    *((GPT2, {"layer_norm_epsilon": value}) for value in ("1e-5", None, 0, -1e-5, float("nan"), float("inf"), [1e-5])),
    *((GPT2, {"resid_pdrop": value}) for value in (0.2, "0.1", None, [0.1])),
    *((GPT2, dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), value)) for value in ("x", None, [0.1], 2.0)),
    *((GPT2, {"tie_word_embeddings": value}) for value in ("true", None, 1, [])),
    (GPT2, {"scale_attn_by_inverse_layer_idx": True}),
    (GPT2, {"scale_attn_weights": False}),
    (GPT2, {"add_cross_attention": True}),
    (GPT2, {"quantization_config": {"bits": 4}}),
    (GPT2, {"auto_map": {"AutoModel": "modeling.Model"}}),
    (BERT, {"is_decoder": True}),
    (BERT, {"position_embedding_type": "relative_key"}),
    (BERT, {"pruned_heads": {"0": [1]}}),
    *((BERT, {"type_vocab_size": value}) for value in (3, 0, "2", None)),
    (BERT, {"layer_norm_eps": "1e-12"}),
    (GPT_NEOX, {"attention_bias": False}),
    (GPT_NEOX, {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    *((GPT_NEOX, {"rope_scaling": value}) for value in ("linear", [2.0], {"type": ["linear"]})),
    *((GPT_NEOX, {"rope_parameters": value}) for value in ("default", {"rope_type": "yarn"}, {"rope_theta": None})),
    *((GPT_NEOX, {"rotary_pct": value}) for value in (None, "0.5", 2.0, -0.5, 0, [0.5], float("nan"))),
    *((GPT_NEOX, {"rotary_emb_base": value}) for value in (None, "10000", 0, -1, float("inf"))),
    *((GPT_NEOX, {"use_parallel_residual": value}) for value in ("yes", None, 1)),
]
_TEXTS: dict[str, bytes | None] = {
    "no file": None,
    "empty": b"",
    "`{`": b"{",
    "a list": b"[]",
    "null": b"null",
    "text": b"model_type: gpt2",
    "a comment": b'{"model_type": "gpt2", // layers\n"n_layer": 2}',
    "one name twice": b'{"n_layer": 2, "n_layer": 3}',
    "brackets nested 100,000 deep": b"[" * 100_000,
    "a number of 10,000 digits": b'{"model_type": "gpt2", "n_layer": ' + b"9" * 10_000 + b"}",
    "bytes that are no text": b'{"model_type": "\xff\xfe"}',
    "zeros": bytes(200),
    "a pointer of git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 42\n",
    "a web page": b"<!DOCTYPE html>\n<html></html>",
}


def group() -> Group:
    """Returns all cases."""
    about = "Each beside whole weights. Other values of one field are written `field` value."
    return Group("Damages of config.json, and other models", about, [*_read(), *_changed(), *_damaged()])


def _read() -> Iterator[Case]:
    for what, model, fields in _READ:
        yield _case(what, model, fields, refused=False)

    def with_mark(folder: Path) -> str:
        write(folder, GPT2)
        file = folder / "config.json"
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        return check(folder, GPT2)

    def above(folder: Path) -> str:
        write(folder / "step_5", GPT2)
        (folder / "step_5" / "config.json").rename(folder / "config.json")
        return check(folder / "step_5", GPT2)

    yield Case("a mark of byte order in front", with_mark, of=GPT2.name)
    yield Case("one config.json in the folder above", above, of=GPT2.name)


def _changed() -> Iterator[Case]:
    for model, fields in _REFUSED:
        values = [f"`{name}` {'left out' if value is _GONE else json.dumps(value)}" for name, value in fields.items()]
        yield _case(", ".join(values), model, fields, refused=True)


def _case(what: str, model: Model, fields: dict[str, Any], refused: bool) -> Case:
    def act(folder: Path) -> str:
        write(folder, model)
        whole = {name: value for name, value in (config(model) | fields).items() if value is not _GONE}
        (folder / "config.json").write_text(json.dumps(whole))
        return check(folder, model)

    return Case(what, act, refused, model.name)


def _damaged() -> Iterator[Case]:
    for what, text in _TEXTS.items():

        def act(folder: Path, text: bytes | None = text) -> str:
            write(folder, GPT2)
            (folder / "config.json").unlink()
            if text is not None:
                (folder / "config.json").write_bytes(text)
            return check(folder, GPT2)

        yield Case(f"{what} in place of config.json", act, refused=True)

    def directory(folder: Path) -> str:
        write(folder, GPT2)
        (folder / "config.json").unlink()
        (folder / "config.json").mkdir()
        return check(folder, GPT2)

    def broken(folder: Path) -> str:
        write(folder, GPT2)
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to("../blobs/5")
        return check(folder, GPT2)

    def cut(folder: Path) -> str:
        write(folder, GPT2)
        file = folder / "config.json"
        file.write_bytes(file.read_bytes()[:100])
        return check(folder, GPT2)

    yield Case("a folder in place of config.json", directory, refused=True)
    yield Case("a link that leads nowhere in place of config.json", broken, refused=True)
    yield Case("config.json truncated", cut, refused=True)
