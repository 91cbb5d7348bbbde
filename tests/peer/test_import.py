"""Somebody's checkpoints, trained and saved by transformers, as teachers: from a folder to exported students."""

import json

import jax
import numpy as np
import pytest

from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.weights.describe import config_of

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
transformers = pytest.importorskip("transformers", reason=ABSENT)

STEPS, EVERY, BATCH, ROOT = 400, 50, 32, 13
POSITIONS = 32  # more than any string takes
TEACHERS = {
    "bert": Bert(1, 4, None, 32, 2, token_types=2),
    "gpt2": Gpt2(1, 4, None, 32, 2, tied_head=True),
    "gpt_neox": GptNeoX(1, 4, None, 32, 2),
}


def task_of(family):
    return PcfgTask(root=ROOT) if family == "bert" else PcfgLanguageTask(root=ROOT)


def model_of(family, folder):
    """Returns Hugging Face's model of one of the teachers, initialised by transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(TEACHERS[family], 7, POSITIONS)))
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    return cls.from_config(config)


def batches_of(task, count):
    """Returns batches of a task as torch's tensors: tokens, what is no padding, targets and their weights."""
    sample = jax.jit(lambda key: task.sample(key, BATCH))
    for key in jax.random.split(jax.random.key(1), count):
        batch = sample(key)
        arrays = (batch.inputs["tokens"], batch.inputs["valid"], batch.targets, batch.weights)
        yield [torch.from_numpy(np.array(array)) for array in arrays]


def logits_of(model, tokens, valid):
    return model(input_ids=tokens.long(), attention_mask=valid.long()).logits


def train(family, folder):
    """Trains a teacher with torch, and saves every 50 steps as transformers' Trainer does; returns held-out losses."""
    model, task = model_of(family, folder / "new"), task_of(family)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for step, (tokens, valid, targets, weights) in enumerate(batches_of(task, STEPS), 1):
        each = torch.nn.functional.cross_entropy(
            logits_of(model, tokens, valid).transpose(1, 2), targets.long(), reduction="none"
        )
        loss = (each * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            history.append({"step": step, "loss": loss.item()})
            model.save_pretrained(folder / "checkpoints" / f"checkpoint-{step}")
    return history
