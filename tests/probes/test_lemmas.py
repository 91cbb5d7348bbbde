"""Weights and correlations of the network of the theory, against all inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.models.mlp import Mlp
from pdjax.models.symmetric import SymmetricMlp, output_of
from pdjax.probes.base import Subject, rows
from pdjax.probes.lemmas import LemmaProbe, found
from pdjax.settings import make
from pdjax.tasks.base import Task
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import first_rate, off_support_ratio
from pdjax.train.two_stage import population_gradient
from pdjax.types import Batch

PARITY = ParityTask(7, 4, support="random", support_seed=1)
SUPPORT = list(PARITY.features[0])
INPUTS = 1.0 - 2 * ((np.arange(2**7)[:, None] >> np.arange(7)[None]) & 1)
MODEL = SymmetricMlp(12).build(PARITY)


@dataclasses.dataclass(frozen=True)
class Everything(Task):
    """All inputs, of each pair x and -x one: whatever is averaged over its batches is an expectation."""

    features = PARITY.features
    levels = PARITY.levels
    num_classes, vocabulary, num_positions, predicts = 2, 2, 7, "example"

    def sample(self, key, batch_size):
        assert batch_size == 64
        return Batch({"vector": jnp.array(INPUTS[:64])}, jnp.zeros(64, jnp.int32), jnp.ones(64), {})


def teachers(count=3):
    """After an exact first stage, and with output weights of a second."""
    blank = {"vector": jnp.zeros((1, 7))}
    params = jax.vmap(lambda seed: MODEL.init(jax.random.key(seed), blank))(jnp.arange(count))
    gradient = jax.vmap(lambda each: population_gradient(each, PARITY.features[0]))(params)
    params["hidden_0"]["kernel"] = -first_rate(7, 4, 12) * gradient
    return params


def measured(params):
    probe = LemmaProbe(num_inputs=256, batch_size=128)
    return rows(probe.prepare(Subject(Everything(), MODEL, MODEL, None, 0))(params))


def outputs(params, place):
    return np.asarray(output_of(MODEL.apply(jax.tree.map(lambda leaf: leaf[place], params), {"vector": INPUTS})[0]))


@pytest.mark.parametrize("stage", [1, 2])
def test_expectations_are_those_over_all_inputs(stage):
    params = teachers()
    if stage == 2:  # no longer odd
        params["output"]["kernel"] = jax.random.normal(jax.random.key(3), (3, 12, 1))
    y, majority = np.prod(INPUTS[:, SUPPORT], axis=1), np.sign(INPUTS.sum(axis=1))
    evens = [np.prod(INPUTS[:, [a, b]], axis=1) for a in SUPPORT for b in SUPPORT if a < b]
    for place, record in enumerate(measured(params)):
        f = outputs(params, place)
        np.testing.assert_allclose(record["coefficient"], f @ INPUTS / 128, atol=1e-6)
        np.testing.assert_allclose(record["majority_coefficient"], (f * majority) @ INPUTS / 128, atol=1e-6)
        np.testing.assert_allclose(record["even_coefficient"], max(abs(f @ e) for e in evens) / 128, atol=1e-6)
        np.testing.assert_allclose(record["parity_coefficient"], f @ y / 128, atol=1e-6)
        np.testing.assert_allclose(record["square"], f @ f / 128, atol=1e-6)
        np.testing.assert_allclose(record["hinge"], np.maximum(0, 1 - f * y).mean(), atol=1e-6)


def test_a_teacher_after_its_first_stage_is_odd():
    """So that the term of corollary B.6 with the majority, and all even coefficients, are 0 (and not Omega(1/k))."""
    for record in measured(teachers()):
        assert max(np.abs(record["majority_coefficient"])) < 1e-7
        assert record["even_coefficient"] < 1e-7
        assert max(np.abs(record["coefficient"])) > 1e-3


def test_weights_are_compared_with_the_lemma():
    params = teachers()
    kernel = np.array(params["hidden_0"]["kernel"])
    kernel[0, SUPPORT[0], 5] *= 3  # 3/8 where 1/8 is expected
    outside = next(j for j in range(7) if j not in SUPPORT)
    kernel[1, outside, 2] = 1.0
    params["hidden_0"]["kernel"] = jnp.array(kernel)
    first, second, third = measured(params)
    assert third["weight"] == pytest.approx([off_support_ratio(7, 4) / 8, 1 / 8], rel=1e-5)
    assert max(third["largest_weight_error"]) < 1e-6
    assert first["largest_weight_error"] == pytest.approx([0, 0.25], abs=1e-6)
    assert first["weight_error"] == pytest.approx([0, 0.25 / np.sqrt(4 * 12)], abs=1e-6)
    # (k - 1) / (d - k) is 1 here: no weight in the support is above one off it, but that of no neuron is found.
    assert second["found"] == 0


def test_found_asks_every_weight_of_the_support():
    inside = jnp.array([True, False, True, False])
    lengths = jnp.array([[3.0, 2.0, 1.0], [1.0, 1.0, 2.0], [2.0, 1.0, 3.0], [0.5, 0.0, 0.0]])
    assert float(found(lengths, inside)) == pytest.approx(1 / 3)  # 3, 2 > 1, 0.5; not 2, 1 > 1, 0; not 1, 3 > 2, 0


def test_rows_have_their_places():
    record = measured(teachers(1))[0]
    got = list(LemmaProbe().measurements(record, {}, PARITY))
    weights = [row for row in got if row["measure"] == "weight"]
    assert [row["inside"] for row in weights] == [0, 1]
    assert [row["coordinate"] for row in got if row["measure"] == "coefficient"] == list(range(7))
    assert sum(row["measure"] == "hinge" for row in got) == 1


def test_other_models_and_uneven_batches_are_refused():
    with pytest.raises(UserError, match="a SymmetricMlp; found Mlp"):
        LemmaProbe().check(PARITY, Mlp())
    with pytest.raises(UserError, match="an even batch_size that divides num_inputs = 100; found 30"):
        make(LemmaProbe, {"num_inputs": 100, "batch_size": 30})
