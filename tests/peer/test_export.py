"""Exported models in transformers: loaded by its Auto classes, they give our logits, and their tokenizer our ids."""

import jax
import numpy as np
import pytest

from pdjax.models.base import num_parameters
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.tasks.pcfg import TOKENS, PcfgLanguageTask, PcfgTask
from pdjax.weights.describe import Described, architecture_of
from pdjax.weights.export import write_model
from pdjax.weights.files import open_weights, unique_json
from pdjax.weights.layouts import params_of
from pdjax.weights.names import canonical

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

MODELS = {
    "bert": Bert(2, 2, None, 16),
    "bert, untied": Bert(1, 2, None, 16, tied_head=False, token_types=2, vocabulary_rows=8),
    "gpt2": Gpt2(2, 2, None, 16, tied_head=True),
    "gpt2, untied": Gpt2(1, 2, None, 16, vocabulary_rows=8),
    "gpt_neox": GptNeoX(2, 2, None, 16),
    "gpt_neox, tied": GptNeoX(1, 2, None, 16, tied_head=True, parallel_residual=False, vocabulary_rows=8),
}


@pytest.fixture(scope="module", params=MODELS)
def architecture(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def task(architecture):
    return PcfgTask(root=10) if isinstance(architecture, Bert) else PcfgLanguageTask(root=10)


@pytest.fixture(scope="module")
def batch(task):
    """Strings of several lengths, as the task draws them."""
    batch = task.sample(jax.random.key(0), 16)
    assert len(set(np.asarray(batch.inputs["valid"]).sum(axis=1).tolist())) > 1
    return batch


@pytest.fixture(scope="module")
def params(architecture, task, batch):
    """Random parameters of a size that makes logits differ."""
    params = architecture.build(task).init(jax.random.key(1), batch.inputs)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.2 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def folder(architecture, task, params, tmp_path_factory):
    described = Described(architecture, task.vocabulary, task.num_positions)
    return write_model(tmp_path_factory.mktemp("export") / "model", params, described, "# A model\n", task.tokens)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_logits(architecture, task, batch, params, folder):
    kind = transformers.AutoModelForMaskedLM if isinstance(architecture, Bert) else transformers.AutoModelForCausalLM
    theirs, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    tokens, valid = (torch.from_numpy(np.array(batch.inputs[name])).long() for name in ("tokens", "valid"))
    with torch.no_grad():
        logits = theirs.eval()(input_ids=tokens, attention_mask=valid).logits[..., : task.vocabulary].numpy()
    ours = np.asarray(architecture.build(task).apply(params, batch.inputs)[0])
    counted = np.asarray(batch.inputs["valid"])
    assert np.abs(ours - logits)[counted].max() < 1e-5
    assert np.abs(ours[counted]).std() > 0.1
    stored = sum(np.prod(tensor.shape, dtype=int) for tensor in open_weights(folder).values())
    types = 2 * architecture.model_width if getattr(architecture, "token_types", 1) == 0 else 0
    idle = architecture.rows(7) if isinstance(architecture, Bert) and not architecture.tied_head else 0
    assert stored == num_parameters(params) + types + idle  # tied weights once


def test_our_own_reading(architecture, task, params, folder):
    """The same bits, of the model that the folder says it is."""
    config = unique_json((folder / "config.json").read_bytes(), "config")
    described = architecture_of(config, task.vocabulary)
    weights, ignored = canonical(open_weights(folder), config["model_type"])
    assert ignored == {}
    read = params_of(weights, architecture, task.vocabulary, task.num_positions)
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    assert params_of(weights, *described).ignored == {}
    assert (described.vocabulary, described.positions) == (task.vocabulary, task.num_positions)


def test_tokens(tokenizer):
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer.convert_ids_to_tokens(range(len(TOKENS))) == list(TOKENS)
    roles = {role: getattr(tokenizer, f"{role}_token") for role in ("bos", "eos", "pad", "mask", "unk")}
    assert roles == {"bos": "[BOS]", "eos": "[EOS]", "pad": "[PAD]", "mask": "[MASK]", "unk": None}


def test_strings(task, batch, tokenizer):
    """A batch of strings, without their [BOS], becomes the tokens and the mask of the batch."""
    tokens, valid = (np.asarray(batch.inputs[name]) for name in ("tokens", "valid"))
    strings = [" ".join(TOKENS[i] for i in row[mask][1:]) for row, mask in zip(tokens, valid, strict=True)]
    encoded = tokenizer(strings, padding="max_length", return_tensors="np")
    np.testing.assert_array_equal(encoded["input_ids"], tokens)
    np.testing.assert_array_equal(encoded["attention_mask"], valid)
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=False).split() == [
        TOKENS[i] for i in tokens[0]
    ]


def test_other_words_are_errors(tokenizer):
    with pytest.raises(Exception, match="UNK"):
        tokenizer("1 2 4")
