"""How the records of probes become rows of the table of results."""

import jax
import jax.numpy as jnp
import pytest

from pdjax.models.gpt2 import Gpt2
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.base import Subject, spread
from pdjax.probes.monomials import MonomialProbe
from pdjax.probes.ngrams import NgramProbe
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask


def test_every_number_has_its_places():
    rows = spread("distance", [[1, 2, 3], [4, 5, 6]], n=(2, 4), percentile=(5, 50, 95))
    assert {(row["n"], row["percentile"]): row["value"] for row in rows} == {
        (2, 5): 1.0,
        (2, 50): 2.0,
        (2, 95): 3.0,
        (4, 5): 4.0,
        (4, 50): 5.0,
        (4, 95): 6.0,
    }


def test_a_single_number_is_one_row():
    assert list(spread("agreement", 0.5)) == [{"measure": "agreement", "value": 0.5}]


@pytest.mark.parametrize("axes", [{}, {"n": (2, 4), "level": (0, 1)}])
def test_numbers_without_names_for_their_places_are_refused(axes):
    with pytest.raises(ValueError, match="argument"):
        list(spread("distance", [1, 2], **axes))


@pytest.mark.parametrize(
    ("probe", "task"),
    [
        (AgreementProbe(1, 4), PcfgTask(root=10)),
        (NgramProbe((2,), 4, 1, batch_size=4), PcfgLanguageTask(root=10)),
        (MonomialProbe(1, off_support=2, num_inputs=64, batch_size=64), ParityTask(6, 2)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_probes_multiply_factors_of_logits_out(probe, task):
    """Traced alone: the products are compared where models are."""
    measured = []
    for block in (None, 2):
        model = Gpt2(1, 1, 8, vocabulary_block=block).build(task)
        params = jax.eval_shape(
            lambda model=model: model.init(jax.random.key(0), task.sample(jax.random.key(0), 4).inputs)
        )
        stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), params)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
        measured.append(jax.eval_shape(probe.prepare(Subject(task, model, model, blank, 0)), stacked))
    assert measured[0] == measured[1]
