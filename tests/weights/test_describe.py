"""Hugging Face's config.json as settings and back: published ones, and what is refused."""

import dataclasses

import pytest

from pdjax.errors import UserError
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.weights.describe import architecture_of, config_of

BERT_BASE = {  # as its authors' conversion wrote it, cut to what says something of the model
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}
GPT2_SMALL = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
PYTHIA_70M = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
EXPECTED = {
    "bert": (BERT_BASE, Bert(12, 12, None, 768, 4, 0.1, token_types=2), 30522, 512),
    "gpt2": (GPT2_SMALL, Gpt2(12, 12, None, 768, 4, 0.1, tied_head=True), 50257, 1024),
    "gpt_neox": (PYTHIA_70M, GptNeoX(6, 8, None, 512, 4), 50304, 2048),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_published_models(family):
    config, *expected = EXPECTED[family]
    assert architecture_of(config) == tuple(expected)


def test_the_other_spelling_of_rotary_positions():
    config = {k: v for k, v in PYTHIA_70M.items() if not k.startswith("rotary")}
    config["rope_parameters"] = {"partial_rotary_factor": 0.5, "rope_theta": 500.0, "rope_type": "default"}
    architecture = architecture_of(config).architecture
    assert architecture == GptNeoX(6, 8, None, 512, 4, rotary_share=0.5, rotary_base=500.0)


def test_what_a_configuration_leaves_out_is_what_transformers_takes():
    config = {k: v for k, v in BERT_BASE.items() if k not in ("hidden_act", "layer_norm_eps", "type_vocab_size")}
    assert architecture_of(config) == architecture_of(BERT_BASE)


def test_rows_of_padding_follow_from_the_tokenizer():
    architecture, vocabulary, _ = architecture_of(PYTHIA_70M, tokens=50277)
    assert (vocabulary, architecture.vocabulary_rows) == (50277, 50304)
    assert architecture_of(PYTHIA_70M, tokens=50304) == architecture_of(PYTHIA_70M)
    with pytest.raises(UserError, match=r"at most the 50304 tokens of vocab_size.*; found 50305 tokens"):
        architecture_of(PYTHIA_70M, tokens=50305)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("bert", {"model_type": "roberta"}, r"model_type of bert, gpt2, gpt_neox.*; found 'roberta'"),
        ("bert", {"hidden_act": "silu"}, r"hidden_act among gelu, .*; found 'silu'"),
        ("bert", {"position_embedding_type": "relative_key"}, r"position_embedding_type 'absolute'.*relative_key"),
        ("bert", {"is_decoder": True}, r"is_decoder False"),
        ("bert", {"add_cross_attention": True}, r"add_cross_attention False"),
        ("bert", {"pruned_heads": {"0": [1]}}, r"pruned_heads"),
        ("bert", {"quantization_config": {"bits": 8}}, r"quantization_config None"),
        ("bert", {"auto_map": {"AutoModel": "model.Own"}}, r"auto_map None"),
        (
            "bert",
            {"intermediate_size": 1200},
            r"intermediate_size that is a multiple of hidden_size, 768.*; found 1200",
        ),
        ("bert", {"hidden_dropout_prob": 0.0}, r"one rate.*; found hidden_dropout_prob 0\.0, attention_probs_d.* 0\.1"),
        ("bert", {"num_attention_heads": 7}, r"config\.json: expected a width that 7 heads divide; found width 768"),
        ("bert", {"vocab_size": None}, r"vocab_size, an integer of at least 1"),
        ("bert", {"num_hidden_layers": "12"}, r"num_hidden_layers, an integer of at least 1.*; found '12'"),
        ("bert", {"type_vocab_size": 0}, r"type_vocab_size, an integer of at least 1"),
        ("bert", {"layer_norm_eps": 0.0}, r"epsilon.*more than 0"),
        ("bert", {"tie_word_embeddings": "yes"}, r"tied_head"),
        ("gpt2", {"scale_attn_weights": False}, r"scale_attn_weights True"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx False"),
        ("gpt2", {"n_inner": 1000}, r"n_inner that is a multiple of n_embd"),
        ("gpt_neox", {"attention_bias": False}, r"attention_bias True"),
        ("gpt_neox", {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_type 'default'.*; found 'linear'"),
        ("gpt_neox", {"rotary_pct": 0.05}, r"even number of a head's dimensions.*; found 3 of 64"),
    ],
)
def test_what_our_models_cannot_express_is_refused_by_name(family, fields, message):
    with pytest.raises(UserError, match=message):
        architecture_of(EXPECTED[family][0] | fields)


# The way back


@pytest.mark.parametrize(
    "architecture",
    [
        *(architecture for _, architecture, *_ in EXPECTED.values()),
        Bert(1, 2, None, 16, 3, 0.2, tied_head=False, epsilon=1e-5, activation="relu", token_types=1),
        Gpt2(1, 2, None, 16, 3, 0.2, activation="gelu", epsilon=1e-6, vocabulary_rows=64),
        GptNeoX(1, 2, None, 16, 3, tied_head=True, rotary_share=1.0, rotary_base=99.0, parallel_residual=False),
    ],
    ids=str,
)
def test_there_and_back(architecture):
    assert architecture_of(config_of(architecture, 40, 9), tokens=40) == (architecture, 40, 9)


def test_what_is_said_in_other_words():
    """A width that follows from heads is written; token types that are not there are zeros."""
    described = architecture_of(config_of(Bert(1, 2, 8), 40, 9)).architecture
    assert described == Bert(1, 2, None, 16, token_types=2)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Mlp((4,)), r"one of Bert, Gpt2, GptNeoX; found Mlp"),
        (Gpt2(2, 3, 5, 16, 4, heads="average"), r"found heads that are averaged"),
        (dataclasses.replace(Bert(), attend_to_selected=False), r"found attend_to_selected False; .*attention_mask"),
    ],
)
def test_what_hugging_face_has_not(architecture, message):
    with pytest.raises(UserError, match=message):
        config_of(architecture, 40, 9)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (GPT2_SMALL, {"model_type": ["gpt2"]}, r"a model_type of .*; found \['gpt2'\]"),
        (GPT2_SMALL, {"activation_function": {"a": 1}}, "activation_function among .*; found {'a': 1}"),
        (GPT2_SMALL, {"attn_pdrop": [0.1]}, r"attn_pdrop, a number, .*; found \[0.1\]"),
        (GPT2_SMALL, {"resid_pdrop": None}, "resid_pdrop, a number, .*; found None"),
        (PYTHIA_70M, {"rope_scaling": "linear"}, "rope_scaling, a JSON object, .*; found 'linear'"),
        (PYTHIA_70M, {"rotary_pct": "0.25"}, "rotary_pct, a number, .*; found '0.25'"),
        (PYTHIA_70M, {"rope_parameters": {"rope_theta": None}}, "rotary_emb_base, a number, .*; found None"),
    ],
)
def test_values_of_another_type_are_named(config, fields, message):
    with pytest.raises(UserError, match=message):
        architecture_of(config | fields)
