"""Every spelling of a weight's name that is met in the wild, by hand."""

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.weights.names import canonical

BERT = [  # canonical, and how else the same name is spelled
    ("bert.embeddings.word_embeddings.weight", ["embeddings.word_embeddings.weight"]),
    ("bert.embeddings.position_embeddings.weight", ["module.bert.embeddings.position_embeddings.weight"]),
    ("bert.embeddings.token_type_embeddings.weight", ["_orig_mod.embeddings.token_type_embeddings.weight"]),
    ("bert.embeddings.LayerNorm.weight", ["bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.gamma"]),
    ("bert.embeddings.LayerNorm.bias", ["bert.embeddings.LayerNorm.beta", "module.embeddings.LayerNorm.beta"]),
    (
        "bert.encoder.layer.11.attention.self.query.weight",
        [
            "encoder.layer.11.attention.self.query.weight",
            "module.encoder.layer.11.attention.self.query.weight",
            "module.module.bert.encoder.layer.11.attention.self.query.weight",
            "model.bert.encoder.layer.11.attention.self.query.weight",
            "model.encoder.layer.11.attention.self.query.weight",
            "_orig_mod.module.bert.encoder.layer.11.attention.self.query.weight",
            "module._orig_mod.model.bert.encoder.layer.11.attention.self.query.weight",
            "model._orig_mod.model.bert.encoder.layer.11.attention.self.query.weight",
            "bert.encoder.layer.11._orig_mod.attention.self.query.weight",
            "_fsdp_wrapped_module.bert.encoder.layer.11._fsdp_wrapped_module.attention.self.query.weight",
            "bert.encoder.layer.11._checkpoint_wrapped_module.attention.self.query.weight",
        ],
    ),
    ("bert.encoder.layer.0.attention.self.key.bias", ["encoder.layer.0.attention.self.key.bias"]),
    ("bert.encoder.layer.0.attention.self.value.bias", ["encoder.layer.0.attention.self.value.bias"]),
    ("bert.encoder.layer.0.attention.output.dense.weight", ["encoder.layer.0.attention.output.dense.weight"]),
    ("bert.encoder.layer.0.attention.output.LayerNorm.bias", ["encoder.layer.0.attention.output.LayerNorm.beta"]),
    ("bert.encoder.layer.0.intermediate.dense.weight", ["encoder.layer.0.intermediate.dense.weight"]),
    ("bert.encoder.layer.0.output.dense.bias", ["encoder.layer.0.output.dense.bias"]),
    ("bert.encoder.layer.0.output.LayerNorm.weight", ["bert.encoder.layer.0.output.LayerNorm.gamma"]),
    ("cls.predictions.bias", ["module.cls.predictions.bias", "model.cls.predictions.bias"]),
    ("cls.predictions.decoder.weight", ["_orig_mod.cls.predictions.decoder.weight"]),
    ("cls.predictions.decoder.bias", []),
    ("cls.predictions.transform.dense.weight", []),
    ("cls.predictions.transform.LayerNorm.weight", ["cls.predictions.transform.LayerNorm.gamma"]),
    ("cls.predictions.transform.LayerNorm.bias", ["module.cls.predictions.transform.LayerNorm.beta"]),
]
GPT2 = [
    ("transformer.wte.weight", ["wte.weight", "module.transformer.wte.weight", "_orig_mod.transformer.wte.weight"]),
    ("transformer.wpe.weight", ["wpe.weight", "model.transformer.wpe.weight"]),
    ("transformer.h.3.ln_1.weight", ["h.3.ln_1.weight", "h.3.ln_1.gamma"]),
    ("transformer.h.3.ln_2.bias", ["h.3.ln_2.bias", "transformer.h.3.ln_2.beta"]),
    ("transformer.h.3.attn.c_attn.weight", ["h.3.attn.c_attn.weight", "transformer._orig_mod.h.3.attn.c_attn.weight"]),
    ("transformer.h.3.attn.c_proj.bias", ["h.3.attn.c_proj.bias", "transformer.h.3.module.attn.c_proj.bias"]),
    ("transformer.h.3.mlp.c_fc.weight", ["h.3.mlp.c_fc.weight"]),
    ("transformer.h.3.mlp.c_proj.weight", ["module._orig_mod.h.3.mlp.c_proj.weight"]),
    ("transformer.ln_f.weight", ["ln_f.weight", "ln_f.gamma"]),
    ("lm_head.weight", ["module.lm_head.weight", "model.lm_head.weight", "_orig_mod.lm_head.weight"]),
]
GPT_NEOX = [
    ("gpt_neox.embed_in.weight", ["embed_in.weight", "module.gpt_neox.embed_in.weight"]),
    ("gpt_neox.layers.5.input_layernorm.weight", ["layers.5.input_layernorm.weight", "layers.5.input_layernorm.gamma"]),
    ("gpt_neox.layers.5.post_attention_layernorm.bias", ["gpt_neox.layers.5.post_attention_layernorm.beta"]),
    ("gpt_neox.layers.5.attention.query_key_value.weight", ["layers.5.attention.query_key_value.weight"]),
    ("gpt_neox.layers.5.attention.dense.bias", ["model.gpt_neox.layers.5.attention.dense.bias"]),
    ("gpt_neox.layers.5.mlp.dense_h_to_4h.weight", ["_orig_mod.layers.5.mlp.dense_h_to_4h.weight"]),
    ("gpt_neox.layers.5.mlp.dense_4h_to_h.bias", ["gpt_neox.layers.5._orig_mod.mlp.dense_4h_to_h.bias"]),
    ("gpt_neox.final_layer_norm.weight", ["final_layer_norm.weight", "final_layer_norm.gamma"]),
    ("embed_out.weight", ["module.embed_out.weight", "lm_head.weight", "model.lm_head.weight"]),
]
SPELLINGS = [
    (family, spelling, name)
    for family, table in {"bert": BERT, "gpt2": GPT2, "gpt_neox": GPT_NEOX}.items()
    for name, spellings in table
    for spelling in (name, *spellings)
]
ONE = np.ones(1)


@pytest.mark.parametrize(("family", "spelling", "name"), SPELLINGS)
def test_spellings(stored, family, spelling, name):
    tensors = stored({spelling: ONE})
    assert canonical(tensors, family) == ({name: tensors[spelling]}, {})


POSITIONS = "a buffer of positions, counted from 0"
MASK = "a buffer of causal masking, a constant"
ROTARY = "a buffer of rotary positions, which the configuration determines"
POOLER = "the pooler, which predictions of tokens do not use"
NEXT_SENTENCE = "the next-sentence head, which predictions of tokens do not use"


@pytest.mark.parametrize(
    ("family", "name", "reason"),
    [
        ("bert", "bert.embeddings.position_ids", POSITIONS),
        ("bert", "embeddings.position_ids", POSITIONS),
        ("bert", "bert.embeddings.token_type_ids", "a buffer of token types, all 0"),
        ("bert", "bert.pooler.dense.weight", POOLER),
        ("bert", "module.pooler.dense.bias", POOLER),
        ("bert", "cls.seq_relationship.weight", NEXT_SENTENCE),
        ("bert", "module.cls.seq_relationship.bias", NEXT_SENTENCE),
        ("gpt2", "transformer.h.0.attn.bias", MASK),
        ("gpt2", "h.11.attn.masked_bias", MASK),
        ("gpt_neox", "gpt_neox.layers.0.attention.bias", MASK),
        ("gpt_neox", "layers.0.attention.masked_bias", MASK),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq", ROTARY),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.cos_cached", ROTARY),
        ("gpt_neox", "module.gpt_neox.rotary_emb.inv_freq", ROTARY),
    ],
)
def test_ignored(stored, family, name, reason):
    """Never read: this one has no finite values."""
    assert canonical(stored({name: ONE * np.nan}), family) == ({}, {name: reason})


UNKNOWN = [
    ("bert", "classifier.weight"),
    ("bert", "bert.encoder.layer.0.attention.self.distance_embedding.weight"),  # relative positions
    ("bert", "bert.encoder.layer.x.output.dense.bias"),
    ("bert", "bert.encoder.layer.0.output.dense.gamma"),  # no norm
    ("bert", "bert.encoder.layer.0.output.dense.weight.extra"),
    ("bert", "bert.cls.predictions.bias"),
    ("bert", "encoder.model.layer.0.output.dense.bias"),
    ("bert", "transformer.wte.weight"),
    ("bert", ""),
    ("bert", "model"),
    ("gpt2", "transformer.h.0.crossattention.c_attn.weight"),
    ("gpt2", "transformer.wtx.weight"),
    ("gpt2", "embed_out.weight"),
    ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.weight"),
    ("gpt_neox", "gpt_neox.embed_out.weight"),
]


@pytest.mark.parametrize(("family", "name"), UNKNOWN)
def test_unknown(stored, family, name):
    with pytest.raises(UserError) as error:
        canonical(stored({name: ONE}), family)
    assert str(error.value) == (
        f"expected names of {family}'s weights; found {name}, of 1 names in all; "
        "check model_type in config.json, or store the language model alone"
    )


def test_all_unknown_names_are_listed(stored):
    names = ["classifier.weight", "wte.weight", "classifier.bias"]
    with pytest.raises(UserError, match=r"found classifier\.weight, classifier\.bias, of 3 names in all"):
        canonical(stored(dict.fromkeys(names, ONE)), "gpt2")
    with pytest.raises(UserError, match="found x0, x1, x2, x3, x4, x5, x6, x7 and 12 more, of 20 names in all"):
        canonical(stored({f"x{i}": ONE for i in range(20)}), "gpt2")


def test_the_same_weight_twice(stored):
    """The canonical name stays, whichever comes first in the file."""
    values = np.arange(6.0).reshape(2, 3)
    for names in (["wte.weight", "transformer.wte.weight"], ["transformer.wte.weight", "wte.weight"]):
        tensors = stored(dict.fromkeys(names, values))
        weights, ignored = canonical(tensors, "gpt2")
        assert weights == {"transformer.wte.weight": tensors["transformer.wte.weight"]}
        assert ignored == {"wte.weight": "the same values as transformer.wte.weight"}


@pytest.mark.parametrize("other", [np.array([0.0, 1, 3]), np.arange(3.0)[:, None], np.arange(4.0)])
def test_two_weights_of_one_name(stored, other):
    tensors = stored({"module.wte.weight": np.arange(3.0), "wte.weight": other})
    with pytest.raises(UserError) as error:
        canonical(tensors, "gpt2")
    assert str(error.value) == (
        "expected one weight transformer.wte.weight; found module.wte.weight and wte.weight in "
        f"{tensors['wte.weight'].file} with different values; remove the one that the model does not use"
    )


def test_tied_weights_are_two(stored):
    """Whether they may differ is not decided by their names."""
    weights, ignored = canonical(stored({"wte.weight": ONE, "lm_head.weight": 2 * ONE}), "gpt2")
    assert (set(weights), ignored) == ({"transformer.wte.weight", "lm_head.weight"}, {})


@pytest.mark.parametrize("family", ["llama", ["gpt2"], None])
def test_other_models(stored, family):
    with pytest.raises(UserError) as error:
        canonical(stored({}), family)
    assert str(error.value) == (
        f"expected a model_type of bert, gpt2, gpt_neox; found {family}; no other models can be read"
    )
