"""Writes bert.npz: weights, inputs, logits and gradients of Hugging Face's BERT, for tests without PyTorch.

    python tests/golden/make_bert.py

Needs the peer extra. The same versions give the same file; ``tests/peer`` compares the committed file with a
fresh one. Parameters are drawn much larger than at initialisation, so that attention is far from uniform and
every one of them matters.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from torch.nn import functional

PATH = Path(__file__).parent / "bert.npz"
VOCABULARY, PAD, MASK = 7, 5, 6
SHAPE = {"num_layers": 2, "num_heads": 4, "width": 32, "multiple": 2, "length": 20}
BATCH = 4
VARIANTS = {"on": True, "off": False}
"""Whether selected positions are visible as keys."""


def build(num_layers, num_heads, width, multiple, length, seed):
    """Returns a BertForMaskedLM with large random parameters, in evaluation mode."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=multiple * width,
        max_position_embeddings=length,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    model = transformers.BertForMaskedLM(config).eval()
    rng = np.random.default_rng(seed)
    spread = 0.3 * min(1.0, (32 / width) ** 0.5)  # wider sums of larger logits would only lose digits
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            drawn = rng.normal(around, spread, tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn))
    return model


def draw_batch(length, seed, batch=BATCH):
    """Returns tokens, valid, selected and targets; one sequence has no padding, the others have some."""
    rng = np.random.default_rng(seed)
    lengths = np.array([length, *rng.integers(length // 2, length, batch - 1)])
    valid = np.arange(length) < lengths[:, None]
    selected = valid & (rng.random((batch, length)) < 0.3)
    selected[:, 0], selected[:, 1] = False, True  # something to see and something to predict, always
    targets = np.where(valid, rng.integers(0, 3, (batch, length)), PAD).astype(np.int32)
    replaced = np.where(rng.random((batch, length)) < 0.8, MASK, targets)
    tokens = np.where(selected, replaced, targets).astype(np.int32)
    return {"tokens": tokens, "valid": valid, "selected": selected, "targets": targets}


def logits_of(model, batch, attend_to_selected):
    """Returns the model's logits, a torch tensor."""
    visible = batch["valid"] if attend_to_selected else batch["valid"] & ~batch["selected"]
    tokens, mask = torch.from_numpy(batch["tokens"]).long(), torch.from_numpy(visible).long()
    return model(input_ids=tokens, attention_mask=mask).logits


def gradients_of(model, batch, attend_to_selected):
    """Returns the logits and the gradients of the mean cross-entropy at the selected positions, by name."""
    model.zero_grad()
    logits = logits_of(model, batch, attend_to_selected)
    selected = torch.from_numpy(batch["selected"])
    functional.cross_entropy(logits[selected], torch.from_numpy(batch["targets"]).long()[selected]).backward()
    gradients = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
    return logits.detach().numpy(), gradients


def weights_of(model):
    """Returns the parameters by name as numpy arrays; tied ones once."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def make():
    """Returns the contents of the file."""
    model, batch = build(**SHAPE, seed=0), draw_batch(SHAPE["length"], seed=1)
    arrays = {f"weights/{name}": value for name, value in weights_of(model).items()}
    arrays |= {f"batch/{name}": value for name, value in batch.items()}
    for variant, attend_to_selected in VARIANTS.items():
        logits, gradients = gradients_of(model, batch, attend_to_selected)
        arrays[f"{variant}/logits"] = logits
        arrays |= {f"{variant}/gradients/{name}": value for name, value in gradients.items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(PATH, **make())
    print(f"{PATH.name}: {PATH.stat().st_size} bytes")
