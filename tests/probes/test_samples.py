"""Searches for the smallest batch of a first stage, against the same samples one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.keys import named_key
from pdjax.models.mlp import Mlp
from pdjax.models.symmetric import SymmetricMlp, output_of
from pdjax.probes.base import Subject, rows
from pdjax.probes.samples import LARGE, SMALL, SamplesProbe, first_layers, search, sizes
from pdjax.settings import make
from pdjax.tasks.parity import ParityTask

PARITY = ParityTask(7, 2, support="random", support_seed=2)
INSIDE = np.isin(np.arange(7), PARITY.features[0])
PROBE = SamplesProbe(width=6, num_students=2, num_label_students=3, share=0.6, max_samples=128, max_label_samples=4096)
TEACHER = Mlp((5,)).build(PARITY)


def teachers():
    return jax.vmap(lambda seed: TEACHER.init(jax.random.key(seed), {"vector": jnp.zeros((1, 7))}))(jnp.arange(2))


def samples_of(student, most):
    """Returns so many inputs of a student, in the order of the grid's blocks."""
    blocks, size = [], 0
    for next_size, block in sizes(most):
        for number in range(size // block, next_size // block):
            key = jax.random.fold_in(named_key(0, f"samples by {block}", number), student)
            blocks.append(np.asarray(PARITY.sample(key, block).inputs["vector"]))
        size = next_size
    return np.concatenate(blocks)


def by_hand(student, most, output):
    """Returns the first size of the grid that is enough, or None, from all samples in float64."""
    x = samples_of(student, most)
    w = np.asarray(first_layers(PARITY, PROBE, 0, student + 1)[student], np.float64)  # [D, W]
    terms = np.einsum("n,nd,nw->ndw", output(x), x, x @ w > 0)
    for size, _ in sizes(most):
        lengths = np.abs(terms[:size].sum(axis=0))
        if np.mean(lengths[INSIDE].min(axis=0) > lengths[~INSIDE].max(axis=0)) >= PROBE.share:
            return size
    return None


def test_search_from_teachers_is_that_by_hand():
    params, found = teachers(), search(PROBE, PARITY, 0, 2, PROBE.max_samples, TEACHER, teachers())
    for teacher, student in itertools.product(range(2), range(2)):
        one = jax.tree.map(lambda leaf, place=teacher: leaf[place], params)
        expected = by_hand(student, PROBE.max_samples, lambda x, one=one: outputs(one, x))
        assert bool(found.enough[teacher, student]) == (expected is not None)
        assert found.samples[teacher, student] == (expected or PROBE.max_samples)


def outputs(params, x):
    return np.asarray(output_of(TEACHER.apply(params, {"vector": x})[0]), np.float64)


def test_search_from_labels_is_that_by_hand():
    found = search(PROBE, PARITY, 0, 3, PROBE.max_label_samples)
    expected = [by_hand(student, PROBE.max_label_samples, parity) for student in range(3)]
    assert found.samples.tolist() == [expected]  # of all it is found: k = 2 shows zeta_1
    assert found.enough.tolist() == [[1, 1, 1]]


def parity(x):
    return np.prod(x[:, INSIDE], axis=1)


def test_grid_grows_by_its_step_in_whole_blocks():
    grid = list(sizes(2**16))
    assert all(size % block == 0 for size, block in grid)
    assert {block for _, block in grid} == {SMALL, LARGE}
    ratios = [after / before for (before, _), (after, _) in itertools.pairwise(grid) if before >= 16 * LARGE]
    np.testing.assert_allclose(ratios, 2**0.25, rtol=0.04)
    assert grid[-2][0] < 2**16 <= grid[-1][0]
    # Where large blocks begin, small ones have filled a whole number of them.
    last_small = max(size for size, block in grid if block == SMALL)
    assert last_small % LARGE == 0


def test_columns_hold_every_teacher_and_labels_beside_each():
    first, second = rows(PROBE.prepare(Subject(PARITY, TEACHER, TEACHER, None, 0))(teachers()))
    assert len(first["samples"]) == 2
    assert first["label_samples"] == second["label_samples"]
    got = list(PROBE.measurements(first, {}, PARITY))
    assert [(row["measure"], row["student"]) for row in got] == [
        *(("samples", student) for student in range(2)),
        *(("label_samples", student) for student in range(3)),
    ]
    assert [row["enough"] for row in got[2:]] == [1, 1, 1]


def test_teachers_may_be_any_model_but_not_the_task():
    PROBE.check(PARITY, Mlp())
    with pytest.raises(UserError, match="an even width; found 33"):
        make(SamplesProbe, {"width": 33})
    with pytest.raises(UserError, match="an odd dimension d"):
        PROBE.check(ParityTask(8, 2), SymmetricMlp())
