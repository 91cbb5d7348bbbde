"""BERT, GPT-2 and GPT-NeoX of many settings against Hugging Face's in PyTorch: values, gradients, there and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill import losses
from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert, BertModule
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.weights.describe import architecture_of, config_of
from pdjax.weights.layouts import params_of, weights_of

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

VOCABULARY, LENGTH, BATCH = 7, 20, 4
MODELS = {
    "bert": Bert(2, 4, None, 32, 4, token_types=2),
    "bert, untied and padded": Bert(1, 2, None, 16, 2, token_types=2, tied_head=False, vocabulary_rows=16),
    "bert, other constants": Bert(3, 2, None, 24, 1, token_types=1, epsilon=1e-3, activation="relu"),
    "gpt2": Gpt2(2, 4, None, 32, 4, tied_head=True),
    "gpt2, untied and padded": Gpt2(1, 2, None, 16, 2, vocabulary_rows=16),
    "gpt2, other constants": Gpt2(3, 2, None, 24, 1, tied_head=True, epsilon=1e-3, activation="gelu"),
    "gpt_neox": GptNeoX(2, 4, None, 32, 4),
    "gpt_neox, in turn": GptNeoX(2, 4, None, 32, 2, parallel_residual=False, rotary_share=0.5, rotary_base=300.0),
    "gpt_neox, tied and padded": GptNeoX(1, 2, None, 16, 2, tied_head=True, vocabulary_rows=16, rotary_share=1.0),
    "gpt_neox, other constants": GptNeoX(3, 2, None, 24, 1, epsilon=1e-3, activation="gelu_tanh", rotary_share=0.5),
}
RENAMED = {"lm_head.weight": "embed_out.weight"}
"""GPT-NeoX's head, in memory and in files."""


@pytest.fixture(scope="module", params=MODELS)
def architecture(request):
    return MODELS[request.param]


def make(architecture, folder, seed):
    """Returns Hugging Face's model of our config.json with large random parameters, in evaluation mode."""
    (folder / "config.json").write_text(json.dumps(config_of(architecture, VOCABULARY, LENGTH)))
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = transformers.AutoModelForMaskedLM if isinstance(architecture, Bert) else transformers.AutoModelForCausalLM
    model = cls.from_config(config, attn_implementation="eager").eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
            drawn = rng.normal(around, 0.2, tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn))
    return model


@pytest.fixture(scope="module")
def theirs(architecture, tmp_path_factory):
    return make(architecture, tmp_path_factory.mktemp("model"), seed=0)


def canonical(named, architecture):
    renamed = RENAMED if isinstance(architecture, GptNeoX) else {}
    return {renamed.get(name, name): value.numpy().copy() for name, value in named}


@pytest.fixture(scope="module")
def weights(architecture, theirs):
    return canonical(theirs.state_dict().items(), architecture)


@pytest.fixture(scope="module")
def batch(architecture):
    """Tokens, valid and targets; one sequence is padded at its end and, for decoders, one at its start."""
    rng = np.random.default_rng(1)
    valid = np.ones((BATCH, LENGTH), bool)
    valid[2, 13:] = valid[3, :6] = False
    tokens, targets = (rng.integers(0, VOCABULARY, valid.shape) for _ in range(2))
    return tokens, valid, targets


def ours(architecture, last_only=False):
    if isinstance(architecture, Bert):
        return LinenModel(BertModule(architecture, VOCABULARY, LENGTH))
    return LinenModel(DecoderModule(architecture, VOCABULARY, VOCABULARY, LENGTH, last_only))


def our_inputs(tokens, valid):
    # BERT's positions to predict are visible to all: none has to be named.
    return {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid), "selected": jnp.zeros(valid.shape, bool)}


def theirs_of(model, tokens, valid, targets, counted):
    """Returns logits and hidden states, and the gradients of the mean cross-entropy over the counted places."""
    mask = torch.from_numpy(valid).long()
    out = model(input_ids=torch.from_numpy(tokens), attention_mask=mask, output_hidden_states=True)
    logits, counted = out.logits[..., :VOCABULARY], torch.from_numpy(counted)
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits[counted], torch.from_numpy(targets)[counted]).backward()
    gradients = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return logits.detach().numpy(), [h.detach().numpy() for h in out.hidden_states], gradients


@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_logits_states_and_gradients(architecture, theirs, weights, batch, last_only):
    if last_only and isinstance(architecture, Bert):
        return  # it predicts strings
    tokens, valid, targets = batch
    # In the row that is padded at its end the last position is padding: nothing to compare.
    counted = valid & (np.arange(LENGTH) == LENGTH - 1) if last_only else valid
    expected, states, expected_gradients = theirs_of(theirs, tokens, valid, targets, counted)
    seen = np.s_[:, -1] if last_only else np.s_[:]
    expected, counted_here, targets = expected[seen], counted[seen], targets[seen]
    model, inputs = ours(architecture, last_only), our_inputs(tokens, valid)

    def loss(params):
        logits, intermediates = model.apply(params, inputs)
        values = losses.cross_entropy(logits, jnp.asarray(targets))
        return jnp.sum(jnp.where(counted_here, values, 0.0)) / counted_here.sum(), (logits, intermediates["hidden"])

    params = params_of(weights, architecture, VOCABULARY, LENGTH).params
    gradients, (logits, hidden) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(logits - expected)[counted_here].max() < 1e-5
    # Those of decoders end with the normalised stream, ours with the stream.
    for mine, other in list(zip(hidden, states, strict=True))[: None if isinstance(architecture, Bert) else -1]:
        assert np.abs(mine - other)[valid].max() < 1e-5

    mine = weights_of(gradients, architecture)
    for name, gradient in canonical(expected_gradients, architecture).items():
        if name.endswith("self.key.bias"):  # truly 0: it adds the same to all scores of a query
            assert np.abs(mine[name]).max() < 1e-6, name
        else:
            scale = np.abs(gradient).max()
            assert scale > 1e-4, name
            assert np.abs(mine[name] - gradient).max() < 1e-4 * scale, name


def test_several_documents_in_a_row(architecture, theirs, weights, batch):
    """Theirs get a mask of queries and keys, added to the scores, and positions; ours make both of segments."""
    tokens, causal = batch[0], not isinstance(architecture, Bert)
    segments = np.repeat([[1, 2, 0], [1, 2, 3], [0, 1, 2], [1, 1, 1]], (7, 9, 4), axis=1).astype(np.int32)
    changes = np.diff(segments, prepend=-1) != 0
    positions = np.arange(LENGTH) - np.maximum.accumulate(np.where(changes, np.arange(LENGTH), 0), axis=1)
    visible = segments[:, :, None] == segments[:, None, :]
    visible &= np.tri(LENGTH, dtype=bool) if causal else True
    mask = torch.where(torch.from_numpy(visible)[:, None], 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        out = theirs(torch.from_numpy(tokens), attention_mask=mask, position_ids=torch.from_numpy(positions))
    params = params_of(weights, architecture, VOCABULARY, LENGTH).params
    inputs = our_inputs(tokens, segments > 0) | {"segments": jnp.asarray(segments), "positions": jnp.asarray(positions)}
    logits = ours(architecture).apply(params, inputs)[0]
    assert np.abs(logits - out.logits[..., :VOCABULARY].numpy())[segments > 0].max() < 1e-5


def test_there_and_back(architecture, weights):
    params, ignored = params_of(weights, architecture, VOCABULARY, LENGTH)
    again = weights_of(params, architecture)
    assert again.keys() == weights.keys()
    # In transformers 5 an untied BERT has a bias that it does not add.
    assert ignored.keys() == (
        {"cls.predictions.bias"} if isinstance(architecture, Bert) and not architecture.tied_head else set()
    )
    for name in weights.keys() - ignored.keys():
        np.testing.assert_array_equal(again[name], weights[name], err_msg=name)


def test_transformers_describes_a_model_as_we_do(architecture, theirs, tmp_path):
    """Its own config.json, with every field of it, is read as the settings that ours was written from."""
    theirs.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert architecture_of(config, tokens=VOCABULARY) == (architecture, VOCABULARY, LENGTH)


def test_transformers_loads_a_folder_of_ours(architecture, theirs, weights, batch, tmp_path):
    from safetensors.numpy import save_file

    exported = weights_of(params_of(weights, architecture, VOCABULARY, LENGTH).params, architecture)
    tensors = {name: np.ascontiguousarray(value) for name, value in exported.items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config_of(architecture, VOCABULARY, LENGTH)))
    loaded, report = type(theirs).from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values())
    tokens = torch.from_numpy(batch[0])
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(tokens).logits, theirs(tokens).logits, rtol=0, atol=0)
