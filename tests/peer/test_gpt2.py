"""Live comparison with Hugging Face's GPT-2 in PyTorch: values, gradients, the last position, conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill import losses
from pdjax.models.base import LinenModel
from pdjax.models.decoder import DecoderModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.hf import gpt2_from_hf, gpt2_to_hf

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

LAYERS, HEADS, WIDTH, MULTIPLE, LENGTH, BATCH = 2, 4, 32, 4, 20, 4
VARIANTS = [  # vocabulary, classes, tied head
    (7, 7, True),
    (2, 2, False),
    (7, 5, False),
]


def build(vocabulary, classes, tied_head, seed):
    """Returns a GPT2LMHeadModel with large random parameters, in evaluation mode."""
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=MULTIPLE * WIDTH,
        tie_word_embeddings=tied_head,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    if classes != vocabulary:
        model.lm_head = torch.nn.Linear(WIDTH, classes, bias=False)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            drawn = rng.normal(around, 0.2, tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn))
    return model


def draw_batch(vocabulary, classes, seed):
    """Returns tokens, valid and targets; one sequence is padded at its end and one at its start."""
    rng = np.random.default_rng(seed)
    valid = np.ones((BATCH, LENGTH), bool)
    valid[2, 13:] = valid[3, :6] = False
    tokens, targets = (rng.integers(0, high, valid.shape) for high in (vocabulary, classes))
    return tokens, valid, targets


def theirs_of(model, tokens, valid, targets, counted):
    """Returns logits, and the gradients of the mean cross-entropy over the counted places."""
    logits = model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(valid).long()).logits
    counted = torch.from_numpy(counted)
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits[counted], torch.from_numpy(targets)[counted]).backward()
    gradients = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
    return logits.detach().numpy(), gradients


@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_logits_and_gradients(variant, last_only):
    vocabulary, classes, tied_head = variant
    theirs, (tokens, valid, targets) = build(*variant, seed=0), draw_batch(vocabulary, classes, seed=1)
    # In the row that is padded at its end the last position is padding: nothing to compare.
    counted = valid & (np.arange(LENGTH) == LENGTH - 1) if last_only else valid
    expected, expected_gradients = theirs_of(theirs, tokens, valid, targets, counted)
    if last_only:
        expected, counted, targets = expected[:, -1], counted[:, -1], targets[:, -1]

    config = Gpt2(LAYERS, HEADS, None, WIDTH, MULTIPLE, tied_head=tied_head)
    model = LinenModel(DecoderModule(config, vocabulary, classes, LENGTH, last_only))
    inputs = {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid)}

    def loss(params):
        logits = model.apply(params, inputs)[0]
        values = losses.cross_entropy(logits, jnp.asarray(targets))
        return jnp.sum(jnp.where(counted, values, 0.0)) / counted.sum(), logits

    weights = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    params = gpt2_from_hf(weights, LAYERS, tied_head)
    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(logits - expected)[counted].max() < 1e-5
    ours = gpt2_to_hf(gradients, LAYERS)
    assert set(expected_gradients) == set(ours) - ({"lm_head.weight"} if tied_head else set())
    for name, gradient in expected_gradients.items():
        scale = np.abs(gradient).max()
        assert scale > 1e-3, name
        assert np.abs(ours[name] - gradient).max() < 1e-4 * scale, name


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_export(variant):
    vocabulary, classes, tied_head = variant
    source, theirs = build(*variant, seed=2), build(*variant, seed=3)
    weights = {name: value.numpy().copy() for name, value in source.state_dict().items()}
    exported = gpt2_to_hf(gpt2_from_hf(weights, LAYERS, tied_head), LAYERS)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in exported.items()}, strict=True)
    tokens = torch.from_numpy(draw_batch(vocabulary, classes, seed=4)[0])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, source(tokens).logits, rtol=0, atol=0)
