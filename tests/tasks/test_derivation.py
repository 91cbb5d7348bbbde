"""Sampled derivation trees: valid, distributed as the grammar says, and seen rightly from their strings."""

import collections
import functools
import itertools

import jax
import nltk
import numpy as np
import pytest
import scipy.stats

from pdjax.tasks.derivation import Derivations, sample_derivations
from pdjax.tasks.grammar import load_grammar

SMALLEST_P = 1e-3  # of a chi-square test; seeds are fixed, so a test that passes once always does


@functools.cache
def compiled(name, root, batch_size):
    return jax.jit(lambda key: sample_derivations(load_grammar(name, root), key, batch_size))


@functools.cache
def sample(name, root, batch_size, batches=1):
    """Draws strings as numpy arrays; batches behind each other have different keys."""
    draw = compiled(name, root, batch_size)
    parts = [draw(jax.random.fold_in(jax.random.key(0), batch)) for batch in range(batches)]
    return Derivations(
        *(np.concatenate([np.asarray(array) for array in arrays]) for arrays in zip(*parts, strict=True))
    )


def nodes_of(trees, row):
    """Reads a tree off its string: for every depth the symbols, and for every symbol the place of its parent."""
    length = trees.length[row]
    ancestors, indices = trees.ancestors[row, :length], trees.indices[row, :length]
    levels, parents = [], []
    for depth in range(ancestors.shape[1]):
        nodes, first = np.unique(indices[:, depth], return_index=True)
        assert nodes.tolist() == list(range(len(nodes)))
        assert np.all(np.isin(np.diff(indices[:, depth]), (0, 1)))  # left to right, one after the other
        levels.append(ancestors[first, depth])
        np.testing.assert_array_equal(ancestors[:, depth], levels[-1][indices[:, depth]])
        if depth > 0:
            parents.append(indices[first, depth - 1])
            # All positions under a symbol agree about its parent.
            np.testing.assert_array_equal(indices[:, depth - 1], parents[-1][indices[:, depth]])
    return levels, parents


def rules_of(trees, row):
    """Returns (symbol, right-hand side) of all nodes above the terminals, top-down and left to right."""
    levels, parents = nodes_of(trees, row)
    used = []
    for symbols, children, parent in zip(levels[:-1], levels[1:], parents, strict=True):
        sides = [children[start:end] for start, end in itertools.pairwise([*_starts(parent), len(children)])]
        assert len(sides) == len(symbols)
        used += [(int(symbol), tuple(side.tolist())) for symbol, side in zip(symbols, sides, strict=True)]
    return used


def _starts(parent):
    return np.flatnonzero(np.diff(parent, prepend=-1))


def pooled_chi_square(observed, expected):
    """P-value, with neighbouring outcomes pooled until at least ten are expected of each pool."""
    pools = [[0.0, 0.0]]
    for o, e in zip(observed, expected, strict=True):
        if pools[-1][1] >= 10:
            pools.append([0.0, 0.0])
        pools[-1][0] += o
        pools[-1][1] += e
    if pools[-1][1] < 10:
        (o, e) = pools.pop()
        pools[-1][0] += o
        pools[-1][1] += e
    assert len(pools) >= 2
    return scipy.stats.chisquare(*np.array(pools).T).pvalue


@pytest.mark.parametrize(
    ("name", "root", "batch_size", "batches"),
    [
        ("cfg3b", 16, 2048, 4),
        ("cfg3h", 14, 4096, 2),
        ("cfg3g", 13, 4096, 2),
        ("cfg3f", None, 512, 2),
    ],
)
def test_lengths_are_distributed_as_they_should(name, root, batch_size, batches):
    exact = load_grammar(name, root).length_distribution()
    counts = collections.Counter(sample(name, root, batch_size, batches).length.tolist())
    assert set(counts) <= set(exact)
    lengths = sorted(exact)
    total = batch_size * batches
    p = pooled_chi_square([counts[n] for n in lengths], [total * exact[n] for n in lengths])
    assert p > SMALLEST_P


@pytest.mark.parametrize(("name", "root", "rows"), [("cfg3b", 16, 400), ("cfg3h", 14, 1500), ("cfg3f", None, 60)])
def test_rules_are_equally_likely(name, root, rows):
    """And all of them are of the grammar: every group of children is a right-hand side of its parent."""
    batch_size = 512 if root is None else 2048 if root == 16 else 4096
    trees = sample(name, root, batch_size, 4 if root == 16 else 2)
    used = collections.Counter(rule for row in range(rows) for rule in rules_of(trees, row))
    grammar = load_grammar(name, root)
    assert set(used) == {(symbol, side) for symbol, sides in grammar.rules.items() for side in sides}
    statistic = freedom = 0
    for symbol, sides in grammar.rules.items():
        counts = [used[symbol, side] for side in sides]
        assert sum(counts) >= 10 * len(sides)
        statistic += scipy.stats.chisquare(counts).statistic
        freedom += len(sides) - 1
    assert scipy.stats.chi2.sf(statistic, freedom) > SMALLEST_P


def test_every_derivation_is_equally_likely():
    """Independent choices: two rules of the root, two of each of its three children, so 16 trees."""
    trees = sample("cfg3b", 10, 4096)
    counts = collections.Counter(tuple(rules_of(trees, row)) for row in range(4096))
    assert len(counts) == 16
    assert scipy.stats.chisquare(list(counts.values())).pvalue > SMALLEST_P


@pytest.mark.parametrize(("name", "root"), [("cfg3b", 10), ("cfg3b", 13), ("cfg3f", 10), ("cfg3f", 13)])
def test_strings_parse(name, root):
    """By a parser that knows the rules only."""
    rules = load_grammar(name, root).rules
    lines = [f"N{root} -> " + " | ".join(_written(side, rules) for side in rules[root])]
    lines += [
        f"N{s} -> " + " | ".join(_written(side, rules) for side in sides) for s, sides in rules.items() if s != root
    ]
    parser = nltk.ChartParser(nltk.CFG.fromstring("\n".join(lines)))
    trees = sample(name, root, 4096)
    strings = {tuple(trees.terminals[row, : trees.length[row]].tolist()) for row in range(30)}
    assert len(strings) > 10
    for string in strings:
        assert next(iter(parser.parse([str(symbol) for symbol in string])), None) is not None
    shortest = min(strings, key=len)
    assert next(iter(parser.parse([str(symbol) for symbol in shortest[:-1]])), None) is None


def _written(side, rules):
    return " ".join(f"N{symbol}" if symbol in rules else f"'{symbol}'" for symbol in side)


def test_a_tree_by_hand():
    """3 1 2 1 3 2 has one derivation: 10 -> 7 9 8, 7 -> 3 1, 9 -> 2 1, 8 -> 3 2."""
    trees = sample("cfg3b", 10, 4096)
    rows = np.flatnonzero(np.all(trees.terminals == [3, 1, 2, 1, 3, 2, 0, 0, 0], axis=1))
    assert len(rows) > 0
    for row in rows:
        assert trees.length[row] == 6
        assert trees.ancestors[row].tolist() == [
            *([10, 7, 3], [10, 7, 1]),
            *([10, 9, 2], [10, 9, 1]),
            *([10, 8, 3], [10, 8, 2]),
            *[[0, 0, 0]] * 3,
        ]
        assert trees.indices[row].tolist() == [
            *([0, 0, 0], [0, 0, 1]),
            *([0, 1, 2], [0, 1, 3]),
            *([0, 2, 4], [0, 2, 5]),
            *[[0, 0, 0]] * 3,
        ]


@pytest.mark.parametrize(("name", "root"), [("cfg3b", 16), ("cfg3f", None)])
def test_shapes_and_ends(name, root):
    grammar = load_grammar(name, root)
    trees = sample(name, root, *((2048, 4) if root == 16 else (512, 2)))
    most = grammar.most_symbols()[-1]
    assert trees.terminals.shape == (len(trees.length), most)
    assert trees.ancestors.shape == trees.indices.shape == (*trees.terminals.shape, grammar.depth + 1)
    inside = np.arange(most) < trees.length[:, None]
    assert set(np.unique(trees.terminals[inside])) == {1, 2, 3}
    assert not trees.terminals[~inside].any()
    assert not trees.ancestors[~inside].any()
    assert not trees.indices[~inside].any()
    np.testing.assert_array_equal(trees.ancestors[..., 0], np.where(inside, grammar.root, 0))
    np.testing.assert_array_equal(trees.ancestors[..., -1], trees.terminals)
    np.testing.assert_array_equal(trees.indices[..., -1], np.where(inside, np.arange(most), 0))
    for depth, symbols in enumerate(grammar.levels):
        assert set(np.unique(trees.ancestors[..., depth][inside])) <= set(symbols)


def test_right_boundaries_nest():
    """Where a symbol ends, its last child ends too: the boundaries of a depth are among those below it."""
    trees = sample("cfg3b", 16, 2048, 4)
    behind = np.diff(trees.indices, axis=1, append=-1) != 0  # [B, L, depth]
    for row in range(50):
        ends = behind[row, : trees.length[row]]
        ends[-1] = True  # the string's end is the end of everything
        assert np.all(ends[:, 1:] | ~ends[:, :-1])
        levels, _ = nodes_of(trees, row)
        assert ends.sum(axis=0).tolist() == [len(level) for level in levels]


def test_the_longest_string_fits():
    """Root 7 of cfg3b: both strings occur, and the longer one fills the array."""
    trees = sample("cfg3b", 7, 64)
    assert {tuple(row) for row in trees.terminals.tolist()} == {(3, 1, 0), (1, 2, 3)}
    assert trees.ancestors[trees.length == 3][0].tolist() == [[7, 1], [7, 2], [7, 3]]
    assert trees.indices[trees.length == 3][0].tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_key_decides_the_strings():
    draw = compiled("cfg3b", 13, 4096)
    first, again, other = draw(jax.random.key(0)), draw(jax.random.key(0)), draw(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(np.asarray(first.terminals) != np.asarray(other.terminals), axis=1).mean() > 0.9


def test_compiled_is_the_same_as_step_by_step():
    key = jax.random.key(0)
    eager = sample_derivations(load_grammar("cfg3b", 10), key, 4096)
    jax.tree.map(np.testing.assert_array_equal, compiled("cfg3b", 10, 4096)(key), eager)
