"""bfloat16 on the way through the models, float32 parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Adam
from pdjax.train.replicas import Replica, build_sweep, place_hyperparameters
from pdjax.train.state import Program

PARITY = ParityTask(8, 2)
MODELS = {
    "bert": Bert(1, 2, 8, None, 4),
    "gpt2": Gpt2(1, 2, 8, None, 4),
    "gpt_neox": GptNeoX(2, 2, 8, None, 4, scan_layers=True),
    "mlp": Mlp((64, 32)),
}


@pytest.fixture(params=MODELS)
def case(request, tiny):
    """A task, and a model for it with float32 and with bfloat16 activations."""
    task = tiny.task if request.param == "bert" else PARITY
    config = MODELS[request.param]
    return task, *(dataclasses.replace(config, compute=kind).build(task) for kind in ("float32", "bfloat16"))


def test_logits_are_rounded_and_parameters_are_not(case):
    task, exact, rounded = case
    inputs = task.sample(jax.random.key(0), 16).inputs
    params = jax.tree.map(lambda leaf: 3 * leaf, exact.init(jax.random.key(1), inputs))
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded.init(jax.random.key(1), inputs))} == {jnp.dtype("float32")}
    logits, (again, intermediates) = exact.apply(params, inputs)[0], rounded.apply(params, inputs)
    assert again.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(intermediates["hidden"])} == {jnp.dtype("bfloat16")}
    scale = float(jnp.std(logits))
    np.testing.assert_allclose(again, logits, atol=0.1 * scale)
    assert not np.array_equal(again, logits)


def test_training_updates_float32_parameters(case, tiny):
    task, _, rounded = case
    program = Program(task, rounded, None, Adam("constant", 0.0), 16, True, "d")
    sweep = build_sweep(program, 20, 2, tiny.evaluation)
    members = place_hyperparameters(sweep.mesh, (Replica(0, 1e-3), Replica(1, 1e-3)))
    begun = sweep.init(members.seed)
    before = jax.tree.map(np.asarray, begun.params)  # the chunk reuses the memory of the state
    state, metrics = sweep.chunk(begun, members, None, np.int32(0), np.int32(20))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert np.isfinite(metrics.loss.sum).all()
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), state.params, before)
    assert min(jax.tree.leaves(moved)) > 0
