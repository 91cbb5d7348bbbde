"""Factors of logits: multiplied out, they are the logits of the model that gives all at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.head import Factored, dense
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import VOCABULARY, PcfgLanguageTask, PcfgTask

STRINGS, LANGUAGE, PARITY = PcfgTask(root=10), PcfgLanguageTask(root=10), ParityTask(5, 2)
CASES = {
    "bert": (Bert(1, 1, 8), STRINGS),
    "bert with padding rows": (Bert(1, 1, 8, vocabulary_rows=VOCABULARY + 3, tied_head=False), STRINGS),
    "gpt2": (Gpt2(1, 1, 8), LANGUAGE),
    "gpt2 with padding rows": (Gpt2(1, 1, 8, vocabulary_rows=VOCABULARY + 3, tied_head=True), LANGUAGE),
    "gpt2 of one class": (Gpt2(1, 1, 8), PARITY),
    "gpt_neox": (GptNeoX(1, 1, 8), LANGUAGE),
}


def logits_of(settings, task, **changes):
    """Of random parameters, biases too; the parameters do not depend on the changes."""
    model = dataclasses.replace(settings, **changes).build(task)
    inputs = task.sample(jax.random.key(0), 4).inputs
    params = model.init(jax.random.key(1), inputs)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    drawn = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model.apply(jax.tree.unflatten(tree, drawn), inputs)[0]


@pytest.mark.parametrize("name", CASES)
def test_factors_are_those_of_the_logits(name):
    settings, task = CASES[name]
    factored = logits_of(settings, task, vocabulary_block=2)
    logits = logits_of(settings, task)
    assert isinstance(factored, Factored)
    assert factored.shape == logits.shape == (*task.sample(jax.random.key(0), 4).targets.shape, task.num_classes)
    assert len(factored.head) == task.num_classes  # rows that pad it are of no class
    np.testing.assert_allclose(dense(factored), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0, 2])
def test_some_classes(start):
    factored = logits_of(*CASES["bert"], vocabulary_block=2)
    some = np.moveaxis(np.asarray(dense(factored)), -1, 0).reshape(VOCABULARY, -1)[start : start + 3]
    np.testing.assert_allclose(factored.logits(start, 3), some, rtol=1e-5, atol=1e-6)


def test_products_of_factors_are_as_exact_as_the_models():
    """Operands of bfloat16 and sums of float32, and TF32 where the model asks for it, outside of the model too."""
    settings, task = CASES["bert"]
    precisions = {kind: logits_of(settings, task, vocabulary_block=2, compute=kind) for kind in ("float32", "tf32")}
    assert [part.precision for part in precisions.values()] == ["float32", "tensorfloat32"]
    rounded = logits_of(settings, task, vocabulary_block=2, compute="bfloat16")
    assert {part.dtype for part in (rounded.states, rounded.head)} == {jnp.dtype("bfloat16")}
    logits = dense(rounded)
    assert logits.dtype == jnp.float32
    exact = dense(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded))
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)  # not rounded to bfloat16 once more
