"""The blocks of propositions C.1 and C.3 on all inputs, and what their statements need, each against a closed form."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.tasks.parity import ParityTask
from pdjax.theory.constructions import (
    Block,
    Layer,
    apply,
    attention_selection,
    interpolate,
    interpolate_1d,
    no_selection,
    norms,
    separation,
    smallest_score,
)

run = jax.jit(apply)
GENERATOR = np.random.default_rng(0)
RANDOM = [tuple(GENERATOR.choice(d, k, replace=False).tolist()) for d, k in ((13, 5), (16, 7))]
SUPPORTS = [
    *((1, (0,)), (6, (5,)), (8, (6,)), (8, (7, 0, 3)), (5, (0, 1, 2, 3, 4)), (11, (0, 1, 2, 3))),
    *((16, (0, 3, 4, 9, 11, 14)), (16, (2, 3, 7, 8, 12, 15)), (13, RANDOM[0]), (16, RANDOM[1])),
]
"""With and without the last position, of odd and of even degrees."""


def all_inputs(dimension):
    return np.array(list(itertools.product((0, 1), repeat=dimension)))


def parity(tokens, support):
    return np.prod(1 - 2 * tokens[:, list(support)], axis=1)


def worst_inputs(dimension, support):
    """Every number of ones in the support, with all others 0 and with all others 1."""
    rows = []
    for ones, others in itertools.product(range(len(support) + 1), (0, 1)):
        row = np.full(dimension, others)
        row[list(support)] = np.arange(len(support)) < ones
        rows.append(row)
    return np.array(rows)


def output(block, tokens):
    return np.asarray(run(block, tokens)[0])[:, 0]


def network(mlp, x):
    """Runs an MLP in float64, apart from the block."""
    for i, layer in enumerate(mlp):
        x = x @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias, np.float64)
        x = np.maximum(x, 0) if i < len(mlp) - 1 else x
    return x


def test_a_block_is_causal_attention_and_an_mlp_as_section_c21_writes_them():
    generator = np.random.default_rng(0)
    embeddings, query, key, value = (generator.normal(size=shape) for shape in ((2, 5, 4), (4, 3), (4, 3), (4, 2)))
    shapes = ((2, 6), (6, 3), (3, 2))
    mlp = tuple(Layer(generator.normal(size=shape), generator.normal(size=shape[1])) for shape in shapes)
    tokens = all_inputs(5)
    found, attention = run(Block(embeddings, query, key, value, mlp), tokens)
    for row, z in enumerate(tokens):
        x = np.array([embeddings[token, place] for place, token in enumerate(z)])
        weights = np.tril(np.exp(x @ query @ key.T @ x.T))  # all positions, each looking back
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(attention[row], weights[-1], atol=1e-5)
        np.testing.assert_allclose(found[row], network(mlp, weights @ x @ value)[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [attention_selection, no_selection])
@pytest.mark.parametrize(("dimension", "support"), SUPPORTS)
def test_both_blocks_compute_the_parity_of_every_input(build, dimension, support):
    tokens = all_inputs(dimension)
    # Not the sign alone: in float32 the output is +1 or -1 itself.
    np.testing.assert_allclose(output(build(dimension, support), tokens), parity(tokens, support), atol=1e-5)


@pytest.mark.parametrize(("dimension", "support"), [case for case in SUPPORTS if case[0] <= 8])
def test_an_mlp_may_interpolate_on_whole_inputs(dimension, support):
    tokens = all_inputs(dimension)
    block = no_selection(dimension, support, reads="all")
    np.testing.assert_allclose(output(block, tokens), parity(tokens, support), atol=1e-5)


@pytest.mark.parametrize("build", [attention_selection, no_selection])
def test_both_blocks_compute_the_papers_parity_on_the_tasks_inputs(build):
    task = ParityTask(dimension=100, degree=6, support="random")
    (support,) = task.features
    batch = task.sample(jax.random.key(0), 100_000)
    block = build(100, support)
    np.testing.assert_allclose(output(block, batch.inputs["tokens"]), 1 - 2 * np.asarray(batch.targets), atol=1e-5)
    # Among random inputs none is as hard for inexact attention.
    worst = worst_inputs(100, support)
    np.testing.assert_allclose(output(block, worst), parity(worst, support), atol=1e-5)


def test_attention_selects_half_of_the_positions():
    support = tuple(range(0, 100, 2))
    tokens = worst_inputs(100, support)
    # A sum of 204 units of up to 202 each: what is left of it has lost some digits.
    np.testing.assert_allclose(output(attention_selection(100, support), tokens), parity(tokens, support), atol=1e-3)


@pytest.mark.parametrize("support", [(0, 2, 3), (1, 6)])
def test_attention_is_what_the_propositions_say_whatever_the_tokens(support):
    tokens = all_inputs(7)
    inside = np.isin(np.arange(7), support)
    weights = np.exp(1.5 * inside)
    selected = np.asarray(run(attention_selection(7, support, score=1.5), tokens)[1])
    np.testing.assert_allclose(selected, np.tile(weights / weights.sum(), (len(tokens), 1)), rtol=1e-5)
    np.testing.assert_allclose(run(no_selection(7, support), tokens)[1], np.full(tokens.shape, 1 / 7), rtol=1e-6)


def test_the_printed_matrices_select_only_if_the_last_position_is_in_the_support():
    c = 3.0
    printed = jnp.array([[0, 0, c, 0], [0, 0, 0, 0]]).T
    tokens = all_inputs(9)

    within = attention_selection(9, (1, 5, 8))._replace(query=printed, key=printed)
    found, attention = run(within, tokens)
    np.testing.assert_allclose(found[:, 0], parity(tokens, (1, 5, 8)), atol=1e-5)
    np.testing.assert_allclose(attention[:, 1] / attention[:, 0], math.exp(c**2), rtol=1e-5)  # the score is no c

    outside = attention_selection(9, (1, 5, 7))._replace(query=printed, key=printed)
    found, attention = run(outside, tokens)
    np.testing.assert_allclose(attention, 1 / 9, rtol=1e-6)
    same = [[0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1]]  # one 1, in the support and off it
    left, right = output(outside, np.array(same))
    assert left == right
    np.testing.assert_allclose(output(attention_selection(9, (1, 5, 7)), np.array(same)), [-1, 1], atol=1e-5)


@pytest.mark.parametrize(("dimension", "degree"), [(9, 1), (10, 4), (14, 3), (100, 6), (100, 7)])
def test_the_smallest_score_is_where_the_worst_input_leaves_the_lemmas_interval(dimension, degree):
    support = tuple(range(1, degree + 1))
    others = dimension - degree
    tokens = worst_inputs(dimension, support)
    parities = parity(tokens, support)
    worst = np.isin(tokens.sum(axis=1), (degree, others)) & (tokens[:, 1] != tokens[:, 0])
    assert worst.sum() == 2  # ones in the support alone, and off it alone

    def factors(off):
        """Returns the outputs, by their parities, where so much of the attention is off the support."""
        score = math.log(others * (1 / off - 1) / degree)
        return output(attention_selection(dimension, support, score), tokens) * parities

    quarter = 1 / (4 * degree)
    off = others * math.exp(-smallest_score(dimension, degree))
    assert off / (degree + off) == pytest.approx(quarter)
    np.testing.assert_allclose(factors(quarter), 1, atol=1e-4)
    for parts in (1.2, 1.6, 2.0, 2.4, 2.8):
        found = factors(parts * quarter)
        np.testing.assert_allclose(found[worst], max(2 - parts, -1), atol=1e-4)
        assert found.min() > max(2 - parts, -1) - 1e-4  # the others are no worse
    assert np.abs(factors(2 * quarter)[worst]).max() < 1e-4  # no parity at all, and below that the wrong one


@pytest.mark.parametrize("width", [1, 3, 8])
def test_added_embeddings_leave_uniform_attention_the_number_of_ones_alone(width):
    """So that no MLP, whatever its size, computes a parity of a part of the inputs."""
    generator = np.random.default_rng(width)
    block = no_selection(8, (0, 1, 2))

    def reads(embeddings):
        """Returns what the MLP reads of every input; whole numbers and eighths are exact in float32."""
        size = embeddings.shape[-1]
        identity = (Layer(jnp.eye(width), jnp.zeros(width)),)
        value = jnp.array(generator.integers(-9, 10, (size, width)), jnp.float32)
        unread = jnp.zeros((size, 1))
        return np.asarray(
            run(block._replace(embeddings=embeddings, query=unread, key=unread, value=value, mlp=identity), tokens)[0]
        )

    tokens = all_inputs(8)
    counts = tokens.sum(axis=1)
    sums = generator.integers(-9, 10, (2, 1, 5)) + generator.integers(-9, 10, (1, 8, 5))
    added = reads(jnp.array(sums, jnp.float32))
    for count in range(9):
        assert len(np.unique(added[counts == count], axis=0)) == 1
    parities = parity(tokens, (0, 1, 2))
    assert all(set(parities[counts == count]) == {-1, 1} for count in range(1, 8))
    # The joint embeddings of the construction, read in the same way, tell inputs of the same count apart.
    joint = reads(block.embeddings)
    assert len(np.unique(joint[counts == 4], axis=0)) > 1


def test_the_value_matrix_is_scaled_or_the_points_are_as_near_as_one_part_in_d():
    tokens = all_inputs(10)
    support = (2, 4, 9)
    block = no_selection(10, support)
    unscaled = block._replace(value=block.value / 10)
    # All inputs are within a tenth of the corner 0, whose parity is +1.
    np.testing.assert_allclose(output(unscaled, tokens), 1, atol=1e-5)
    corners = all_inputs(3)
    values = parity(corners, range(3))[:, None]
    first, *rest = interpolate(corners / 10, values)
    kernel = np.zeros(block.mlp[0].kernel.shape, np.float32)
    kernel[list(support)] = first.kernel
    near = unscaled._replace(mlp=(first._replace(kernel=kernel), *rest))
    np.testing.assert_allclose(output(near, tokens), parity(tokens, support), atol=1e-5)
    assert norms((first, *rest), corners / 10, values)[0].entry == 40 > 2 ** (3 + 2)


def test_mlps_are_as_wide_as_the_lemmas_say_and_wider_than_proposition_c3():
    def widths(block):
        return [layer.bias.size for layer in block.mlp]

    for degree in range(1, 9):
        support = tuple(range(degree))
        assert widths(attention_selection(9, support)) == [4 * (degree + 1), 1]
        assert widths(no_selection(9, support)) == [8 * degree, 2**degree, 1]
        assert (max(widths(no_selection(9, support))) == 2**degree) == (degree >= 6)
        assert widths(no_selection(9, support, reads="all")) == [72, 512, 1]


def noise(generator, shape, gap):
    """Returns shifts of each coordinate by up to a quarter of the gap, with all signs at the full quarter."""
    full = gap / 4 * (2 * all_inputs(shape[-1]) - 1.0)
    return np.concatenate([np.zeros((1, shape[-1])), full, generator.uniform(-gap / 4, gap / 4, shape)])


def test_an_mlp_of_two_layers_has_the_values_of_points_that_are_off_by_a_quarter_of_the_gap():
    generator = np.random.default_rng(0)
    points = np.array([0.25, -1.5, 2.0, -0.5, 2.75])
    values = generator.normal(size=(5, 3))
    mlp = interpolate_1d(points, values)
    gap = separation(points[:, None])
    assert gap == 0.75
    for point, value in zip(points, values, strict=True):
        found = network(mlp, point + noise(generator, (50, 1), gap))
        np.testing.assert_allclose(found, np.tile(value, (len(found), 1)), atol=1e-6)
    # No further: half of it is left three eighths away, and nothing in the middle.
    np.testing.assert_allclose(network(mlp, np.array([[-1.5 + 0.75 * 3 / 8]])), values[[1]] / 2, atol=1e-6)
    np.testing.assert_allclose(network(mlp, np.array([[2.375]])), np.zeros((1, 3)), atol=1e-6)


def test_an_mlp_of_three_layers_tolerates_a_quarter_of_the_gap_in_every_coordinate_at_once():
    generator = np.random.default_rng(1)
    points = np.array([[0, 0, 1.5], [1, 0.125, 0], [-0.0625, 1, 0], [1.25, 1.125, 0], [-1.5, -1, -1]])
    values = generator.normal(size=(5, 2))
    mlp = interpolate(points, values)
    gap = separation(points)
    assert gap == 1  # 0 and -1/16 are two values of a coordinate: points differ by the gap in another one
    assert [layer.bias.size for layer in mlp] == [4 * (5 + 5 + 3), 5, 2]
    for point, value in zip(points, values, strict=True):
        found = network(mlp, point[None] + noise(generator, (50, 3), gap))
        np.testing.assert_allclose(found, np.tile(value, (len(found), 1)), atol=1e-6)
        beyond = network(mlp, point[None] - np.array([[0.5], [0.75], [1.0]]) * (1 / 3) * gap / 4 - gap / 4)
        np.testing.assert_allclose(beyond, np.array([[0.5], [0.25], [0.0]]) * value[None], atol=1e-6)


def test_the_lemmas_bounds_hold_for_the_largest_entries():
    generator = np.random.default_rng(2)
    points = generator.normal(size=(9, 3))
    values = generator.normal(size=(9, 2))
    for mlp, x in ((interpolate(points, values), points), (interpolate_1d(points[:, 0], values), points[:, :1])):
        measured = norms(mlp, x, values)
        assert all(layer.entry <= layer.bound * (1 + 1e-6) for layer in measured)
        assert all(layer.bias <= layer.bias_bound * (1 + 1e-6) for layer in measured)
        assert measured[0].entry == pytest.approx(measured[0].bound)  # and some are reached
        assert measured[-1].entry == pytest.approx(measured[-1].bound)
        # As norms of operators the last two would be far above.
        assert all(layer.induced > 2 * layer.bound for layer in measured[1:])
        assert measured[-1].induced == pytest.approx(np.abs(values).sum(axis=0).max() * (4 if len(mlp) == 2 else 1))


@pytest.mark.parametrize("degree", range(1, 9))
def test_the_propositions_norm_bounds_hold_in_either_sense_but_not_for_all_layers_together(degree):
    counts = np.arange(degree + 1)
    selecting = norms(
        attention_selection(12, tuple(range(degree))).mlp, counts[:, None] / degree, (-1.0) ** counts[:, None]
    )
    corners = all_inputs(degree)
    copying = norms(no_selection(12, tuple(range(degree))).mlp, corners, parity(corners, range(degree))[:, None])
    for measured, bound in ((selecting, 4 * degree * (degree + 1)), (copying, 2 ** (degree + 2))):
        assert max(max(layer.entry, layer.induced, layer.bias) for layer in measured) <= bound
        assert math.prod(layer.induced for layer in measured) > bound
    expected = [(4 * degree, 4 * degree, 4 * degree + 2), (1, 4 * (degree + 1), 0)]
    assert [(layer.entry, layer.induced, layer.bias) for layer in selecting] == expected
    expected = [(4, 4, 6), (1, 4 * degree, degree - 1), (1, 2**degree, 0)]
    assert [(layer.entry, layer.induced, layer.bias) for layer in copying] == expected


def test_reading_all_coordinates_the_norm_of_the_operator_grows_beyond_proposition_c3():
    corners = all_inputs(8)
    values = parity(corners, (3, 7))[:, None]
    measured = norms(no_selection(8, (3, 7), reads="all").mlp, corners, values)
    assert max(max(layer.entry, layer.bias) for layer in measured) <= 2**4
    assert measured[1].induced == 32 > 2**4
    assert measured[2].induced == 256 > 2**4


@pytest.mark.parametrize("build", [attention_selection, no_selection])
@pytest.mark.parametrize("support", [(), (0, 0), (-1,), (2, 8)])
def test_what_is_no_support_is_refused(build, support):
    with pytest.raises(UserError, match=r"^expected a support of different positions from 0 to 7, .*; found \(.*\); "):
        build(8, support)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (functools.partial(attention_selection, 8, (0,), -1.0), "a score of at least 0, .*; found -1.0; "),
        (functools.partial(no_selection, 8, (0,), "most"), r"reads among \['support', 'all'\]; found 'most'; "),
        (
            functools.partial(no_selection, 13, (0,), "all"),
            "at most 12 .*; found 13, reads='all'; read the support alone",
        ),
        (functools.partial(no_selection, 20, tuple(range(13))), "at most 12 .*; found 13, .*; lower the degree"),
        (functools.partial(interpolate_1d, np.ones(1), np.ones((1, 1))), "at least two points .*; found 1; "),
        (functools.partial(interpolate, np.array([[1, 2], [0, 2], [1, 2]]), np.ones((3, 1))), "points that differ; "),
    ],
)
def test_what_cannot_be_built_is_refused(build, said):
    with pytest.raises(UserError, match=f"^expected {said}"):
        build()
