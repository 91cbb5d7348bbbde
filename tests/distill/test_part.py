"""Parts of teachers against sums over all inputs, closed forms, and each other."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.part import WHOLE, LowDegree, Part, WithoutLowDegree, measure
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.models.mlp import Mlp
from pdjax.settings import determining, find_class, make, plain
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.tasks.pcfg import PcfgTask

DIMENSION = 8
ALL = np.array(list(itertools.product((0, 1), repeat=DIMENSION)))
X = 1 - 2 * ALL
INPUTS = {"tokens": jnp.asarray(ALL), "vector": jnp.asarray(X, jnp.float32)}


class EveryInput(ParityTask):
    """Every input once in each batch: expectations are then exact."""

    def sample(self, key, batch_size):
        assert batch_size == len(ALL)
        return super().sample(key, 1)._replace(inputs=INPUTS)


# Scattered, so that the place of a coordinate in the support is not its number.
TASK = EveryInput(DIMENSION, 4, "random", 3)
SUPPORT = TASK.features[0]
EXACT = {"num_inputs": len(ALL)}


@pytest.fixture(scope="module")
def teacher():
    return Mlp((16,)).build(TASK)


@pytest.fixture(scope="module")
def checkpoints(teacher):
    """Two teachers, sharper than initial ones, stacked."""
    params = [teacher.init(jax.random.key(seed), INPUTS) for seed in (0, 1)]
    return jax.tree.map(lambda *leaves: 4 * np.stack(leaves), *params)


def first_of(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def difference(model, params, inputs=INPUTS):
    """The difference of a model's logits at all inputs, on the host."""
    logits = np.asarray(model.apply(params, inputs)[0], np.float64)
    return logits[:, 0] - logits[:, 1]


@pytest.fixture(scope="module")
def whole(teacher, checkpoints):
    """What the first teacher says."""
    return difference(teacher, first_of(checkpoints))


def coefficient(values, members):
    return np.mean(values * np.prod(X[:, list(members)], axis=1))


def found(part, teacher, checkpoints):
    return measure(TASK, teacher, part.measured(TASK), part.num_inputs, part.seed, first_of(checkpoints))


def shown(part, teacher, checkpoints):
    """What students see of the first teacher; the second is whole."""
    params = part.params(TASK, checkpoints, [found(part, teacher, checkpoints), None])
    return difference(part.model(teacher, TASK), first_of(params))


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_coefficients_are_means_over_all_inputs(teacher, checkpoints, whole, degree):
    part = LowDegree(degree, **EXACT)
    sets = [s for size in range(1, degree + 1) for s in itertools.combinations(SUPPORT, size)]
    assert [*part.measured(TASK).members] == sets
    coefficients, errors = found(part, teacher, checkpoints)
    expected = np.array([coefficient(whole, s) for s in sets])
    np.testing.assert_allclose(coefficients, expected, atol=1e-6)
    deviations = [np.std(whole * np.prod(X[:, list(s)], axis=1)) for s in sets]
    np.testing.assert_allclose(errors, np.array(deviations) / len(ALL) ** 0.5, rtol=1e-5)


def test_coefficients_of_fresh_inputs_are_as_far_off_as_their_errors_say(teacher, checkpoints, whole):
    """Chi square of 15 coefficients for each of 8 seeds: 99.99% of such sums lie between 72 and 188."""
    task, terms = ParityTask(DIMENSION, 4, "random", 3), LowDegree(4).measured(TASK)
    expected = np.array([coefficient(whole, s) for s in terms.members])
    estimates = [measure(task, teacher, terms, 2048, seed, first_of(checkpoints)) for seed in range(8)]
    square = sum(np.sum(((one.coefficients - expected) / one.errors) ** 2) for one in estimates)
    assert 72 < square < 188


@pytest.mark.parametrize("degree", [1, 3])
def test_a_part_and_the_rest_are_the_whole(teacher, checkpoints, whole, degree):
    low = shown(LowDegree(degree, **EXACT), teacher, checkpoints)
    rest = shown(WithoutLowDegree(degree, **EXACT), teacher, checkpoints)
    np.testing.assert_allclose(low + rest, whole, atol=1e-5)
    for size in (1, 2, 3, 4):
        for s in itertools.combinations(SUPPORT, size):
            kept = coefficient(whole, s)
            inside, outside = (kept, 0) if size <= degree else (0, kept)
            assert coefficient(low, s) == pytest.approx(inside, abs=1e-5)
            assert coefficient(rest, s) == pytest.approx(outside, abs=1e-5)


def test_all_degrees_are_what_is_expected_from_the_support_alone(teacher, checkpoints, whole):
    """The sum over all subsets of the support is E[g | x_support], of which E[g] is that of the empty one."""
    rows = [tuple(row) for row in X[:, list(SUPPORT)]]
    given = [np.mean([g for g, row in zip(whole, rows, strict=True) if row == here]) for here in rows]
    low = shown(LowDegree(4, **EXACT), teacher, checkpoints)
    np.testing.assert_allclose(low, np.array(given) - whole.mean(), atol=1e-5)


@pytest.mark.parametrize("signs", ["measured", "permuted", "equal"])
def test_elsewhere_the_sum_is_as_large_and_says_nothing_of_the_support(teacher, checkpoints, signs):
    inside, elsewhere = (LowDegree(2, where, signs, **EXACT) for where in ("support", "elsewhere"))
    here, there = (shown(part, teacher, checkpoints) for part in (inside, elsewhere))
    # Each coordinate has one image, in all of its terms: the values are the same ones, at other inputs.
    np.testing.assert_allclose(np.sort(there), np.sort(here), atol=1e-5)
    images = [s for (s,) in elsewhere.shown(TASK).members[:4]]
    assert {*images}.isdisjoint(SUPPORT)
    assert len({*images}) == 4
    for size in (1, 2, 3, 4):
        for s in itertools.combinations(SUPPORT, size):
            assert coefficient(there, s) == pytest.approx(0, abs=1e-6)
    assert coefficient(there, images[:2]) == pytest.approx(coefficient(here, SUPPORT[:2]), abs=1e-6)


def test_the_seed_draws_where_elsewhere_is():
    wide = ParityTask(50, 5)
    images = {LowDegree(1, "elsewhere", seed=seed).shown(wide).members for seed in range(5)}
    assert len(images) == 5
    assert LowDegree(1, "elsewhere", seed=3).shown(wide) == LowDegree(1, "elsewhere", seed=3).shown(wide)


def test_permuted_signs_are_neither_all_kept_nor_all_turned():
    coefficients = np.array([0.5, -0.25, 1.0, 2.0])
    drawn = {tuple(LowDegree(signs="permuted", seed=seed).weights(TASK, coefficients)) for seed in range(40)}
    # 2 of the 16 are left out. Of 40 draws from 14 some are missed, few.
    assert 10 <= len(drawn) <= 14
    for weights in drawn:
        assert [*map(abs, weights)] == [*map(abs, coefficients)]
        assert {np.sign(w * c) for w, c in zip(weights, coefficients, strict=True)} == {-1, 1}


def test_equal_weights_are_the_root_mean_square_of_their_degree():
    coefficients = np.array([0.5, -0.25, 1.0, 2.0, 0.1, -0.1, 0.1, -0.1, 0.3, 0.0])
    weights = LowDegree(2, signs="equal").weights(TASK, coefficients)
    expected = [np.sqrt(5.3125 / 4)] * 4 + [np.sqrt(0.13 / 6)] * 6
    np.testing.assert_allclose(weights, expected, rtol=2.0**-12)


def test_equal_weights_tie_where_as_many_coordinates_are_for_as_against(teacher, checkpoints):
    """At any temperature: a rounding error would be a class at a temperature near 0."""
    sums = shown(LowDegree(signs="equal", **EXACT), teacher, checkpoints)
    votes = X[:, list(SUPPORT)].sum(axis=1)
    assert np.array_equal(np.sign(sums), np.sign(votes))
    assert np.sum(sums == 0) == 6 * 2**4


@pytest.mark.parametrize(("temperature", "cubic"), [(1e-4, 0.5), (1.0, 0.0)])
def test_a_low_temperature_makes_a_majority_of_the_first_degree(temperature, cubic):
    """Maj(x1, x2, x3) = (x1 + x2 + x3 - x1 x2 x3) / 2 (O'Donnell, Analysis of Boolean Functions, section 1.1)."""
    task = EveryInput(DIMENSION, 3)
    part = LowDegree(**EXACT)
    params = {"membership": part.shown(task).membership(DIMENSION), "coefficients": np.full(3, 0.1, np.float32)}
    model = part.model(Mlp((2,)).build(task), task)
    sums = difference(model, model.init(jax.random.key(0), INPUTS) | params | {"share": np.float32(0)})
    said = np.tanh(sums / temperature / 2)  # the difference of the classes' probabilities
    linear = coefficient(said, (0,))
    assert -coefficient(said, (0, 1, 2)) == pytest.approx(cubic, abs=1e-3)
    assert linear == pytest.approx(0.5 if cubic else 0.05, rel=0.01)


def test_the_final_teacher_is_whole(teacher, checkpoints):
    for part in (LowDegree(2, **EXACT), WithoutLowDegree(**EXACT)):
        params = part.params(TASK, checkpoints, [found(part, teacher, checkpoints), None])
        final, same = (jax.tree.map(lambda leaf: leaf[1], tree) for tree in (params, checkpoints))
        first, second = np.asarray(teacher.apply(same, INPUTS)[0]).T
        # In float32, as the difference is taken: not a bit is lost.
        assert np.array_equal(difference(part.model(teacher, TASK), final), first - second)


def test_vectors_and_tokens_are_the_same_inputs(teacher, checkpoints):
    part = LowDegree(2, **EXACT)
    params = first_of(part.params(TASK, checkpoints, [found(part, teacher, checkpoints), None]))
    model = part.model(teacher, TASK)
    vectors = {"vector": INPUTS["vector"]}
    assert np.array_equal(difference(model, params, vectors), difference(model, params))
    shapes = [jax.tree.map(jnp.shape, model.init(jax.random.key(0), inputs)) for inputs in (INPUTS, vectors)]
    assert shapes == [jax.tree.map(np.shape, params)] * 2


def test_parts_of_as_many_terms_share_their_programs(teacher):
    alike = (LowDegree(), LowDegree(1, "elsewhere", "equal", seed=4), WithoutLowDegree())
    assert len({part.model(teacher, TASK) for part in alike}) == 1
    assert LowDegree(2).model(teacher, TASK) != LowDegree().model(teacher, TASK)
    assert WHOLE.model(teacher, TASK) is teacher


def test_labels_say_the_part():
    parts = {
        "degree ≤ 1 alone": LowDegree(),
        "degree ≤ 2 alone, elsewhere": LowDegree(2, "elsewhere"),
        "degree ≤ 1 alone, signs permuted": LowDegree(signs="permuted"),
        "degree ≤ 1 alone, elsewhere, equal weights": LowDegree(1, "elsewhere", "equal"),
        "without degree ≤ 3": WithoutLowDegree(3),
    }
    assert {part.label: part for part in parts.values()} == parts
    strategy = Strategy("part", schedule=FixedDuration(50), part=LowDegree())
    assert strategy.label == "progressive (1, 50), degree ≤ 1 alone"
    assert dataclasses.replace(strategy, part=WHOLE).label == "progressive (1, 50)"


def test_a_part_is_found_by_its_name_and_the_whole_determines_nothing():
    assert find_class("without_low_degree", Part) is WithoutLowDegree
    part = LowDegree(2, "elsewhere", "equal", 4096, 3)
    strategy = Strategy("part", schedule=FixedDuration(50), part=part)
    assert make(Strategy, plain(strategy)) == strategy
    assert "part" not in determining(dataclasses.replace(strategy, part=WHOLE))
    assert determining(strategy)["part"]["class"] == "pdjax.distill:LowDegree"


@pytest.mark.parametrize(
    ("part", "task", "message"),
    [
        (LowDegree(), PcfgTask(), "a task with features and levels, such as ParityTask; found PcfgTask"),
        (LowDegree(), HierarchicalTask(12, 2, 2), "a task of 2 classes; found HierarchicalTask with 4"),
        (LowDegree(4), ParityTask(8, 3), "a degree up to 3; found 4"),
        (WithoutLowDegree(4), ParityTask(8, 3), "a degree up to 3; found 4"),
        (LowDegree(1, "elsewhere"), ParityTask(7, 4), "4 coordinates outside of the support .*; found 3"),
    ],
)
def test_what_a_part_is_not_for(part, task, message):
    with pytest.raises(UserError, match=message) as caught:
        part.check(task)
    assert "\n" not in str(caught.value)


def test_every_batch_of_inputs_counts_the_same():
    message = re.escape("num_inputs of at most 1024, or a multiple of it; found 1500")
    with pytest.raises(ValueError, match=message):
        WithoutLowDegree(num_inputs=1500)
    assert WithoutLowDegree(num_inputs=100).num_inputs == 100
