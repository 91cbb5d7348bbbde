"""The grammars of the paper: exact length distributions against the percentiles stored beside the rules."""

import importlib.resources
import itertools
import json
import math

import numpy as np
import pytest

from pdjax.errors import UserError
from pdjax.tasks.grammar import Grammar, load_grammar

DATA = json.loads(importlib.resources.files("pdjax.tasks").joinpath("pcfg_grammars.json").read_text())
NAMES = ("cfg3b", "cfg3i", "cfg3h", "cfg3g", "cfg3f", "cfg3b_released")


def test_all_grammars_are_here():
    assert sorted([*DATA["grammars"], *DATA["variants"]]) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_levels_and_rules_agree(name):
    grammar = load_grammar(name)
    assert grammar.root == 22
    assert grammar.depth == 6
    assert grammar.terminals == (1, 2, 3)
    assert sorted(grammar.rules) == list(range(7, 23))
    for level, below in itertools.pairwise(grammar.levels):
        for symbol in level:
            for rule in grammar.rules[symbol]:
                assert len(rule) in (2, 3)
                assert set(rule) <= set(below)


def test_rules_of_cfg3b():
    """The published table: two rules for every non-terminal, also for 9, which has one in the released code."""
    grammar = load_grammar("cfg3b")
    assert {len(sides) for sides in grammar.rules.values()} == {2}
    assert grammar.rules[22] == ((21, 20), (20, 19))
    assert grammar.rules[16] == ((15, 13), (13, 15, 14))
    assert grammar.rules[9] == ((3, 2, 1), (2, 1))
    assert load_grammar("cfg3b_released").rules[9] == ((3, 2, 1),)


def percentile(lengths, level):
    """The smallest length whose cumulative probability reaches the level."""
    total = 0.0
    for length in sorted(lengths):
        total += lengths[length]
        if total >= level:
            return length
    raise AssertionError(total)


@pytest.mark.parametrize("name", NAMES)
def test_length_distribution(name):
    lengths = load_grammar(name).length_distribution()
    stored = DATA["length_percentiles"][name]
    assert math.fsum(lengths.values()) == pytest.approx(1, abs=1e-12)
    assert all(p > 0 for p in lengths.values())
    assert [percentile(lengths, level) for level in (0.25, 0.5, 0.75, 0.95)] == stored["exact"]
    assert sum(length * p for length, p in lengths.items()) == pytest.approx(stored["exact_mean"], abs=5e-4)
    assert (min(lengths), max(lengths)) == (stored["min"], stored["max"])


@pytest.mark.parametrize("name", ["cfg3b", "cfg3i", "cfg3h", "cfg3g", "cfg3f"])
def test_percentiles_of_the_paper(name):
    """Appendix D.4 states estimates; the variant's are 19 tokens off, these at most 3."""
    lengths = load_grammar(name).length_distribution()
    percentiles = [percentile(lengths, level) for level in (0.25, 0.5, 0.75, 0.95)]
    np.testing.assert_allclose(percentiles, DATA["length_percentiles"][name]["paper"], atol=3)


def binomial(least, n):
    """Lengths of n symbols of cfg3b's last level, each of two or three terminals."""
    return {least + k: math.comb(n, k) / 2**n for k in range(n + 1)}


def test_length_distribution_by_hand():
    assert load_grammar("cfg3b", 7).length_distribution() == {2: 0.5, 3: 0.5}
    assert load_grammar("cfg3b", 10).length_distribution() == {6: 1 / 8, 7: 3 / 8, 8: 3 / 8, 9: 1 / 8}
    assert load_grammar("cfg3b", 13).length_distribution() == pytest.approx(binomial(12, 6))
    assert load_grammar("cfg3b", 14).length_distribution() == pytest.approx(binomial(18, 9))
    short, long = binomial(30, 15), binomial(48, 24)  # 16 -> 15 13 | 13 15 14
    mixture = {n: (short.get(n, 0) + long.get(n, 0)) / 2 for n in {*short, *long}}
    assert load_grammar("cfg3b", 16).length_distribution() == pytest.approx(mixture)


ALL_16 = ((16, 17, 18), (13, 14, 15), (10, 11, 12), (7, 8, 9), (1, 2, 3))
# For every symbol of cfg3b: the levels below it, the most symbols by depth, the shortest string.
BELOW = {
    22: (((19, 20, 21), *ALL_16), [1, 2, 6, 18, 48, 144, 432], 138),
    21: (ALL_16, [1, 3, 9, 24, 72, 216], 60),
    20: (ALL_16, [1, 3, 9, 24, 72, 216], 78),
    19: (ALL_16, [1, 3, 9, 24, 72, 216], 108),
    18: (ALL_16[1:], [1, 3, 8, 24, 72], 30),
    17: (ALL_16[1:], [1, 3, 8, 24, 72], 48),
    16: (ALL_16[1:], [1, 3, 8, 24, 72], 30),
    15: (ALL_16[2:], [1, 3, 9, 27], 18),
    14: (ALL_16[2:], [1, 3, 9, 27], 18),
    13: (((11, 12), *ALL_16[3:]), [1, 2, 6, 18], 12),
    12: (ALL_16[3:], [1, 3, 9], 6),
    11: (ALL_16[3:], [1, 3, 9], 6),
    10: (ALL_16[3:], [1, 3, 9], 6),
    9: (ALL_16[4:], [1, 3], 2),
    8: (ALL_16[4:], [1, 3], 2),
    7: (ALL_16[4:], [1, 3], 2),
}


@pytest.mark.parametrize("symbol", BELOW)
def test_below_every_symbol(symbol):
    levels, most, shortest = BELOW[symbol]
    grammar = load_grammar("cfg3b")
    part = grammar.below(symbol)
    assert part == load_grammar("cfg3b", symbol)
    assert part.name == "cfg3b"
    assert part.root == symbol
    assert part.levels == ((symbol,), *levels)
    assert part.depth == len(levels)
    assert dict(part.rules) == {s: grammar.rules[s] for level in part.levels[:-1] for s in level}
    assert part.most_symbols() == most
    assert min(part.length_distribution()) == shortest
    assert max(part.length_distribution()) == most[-1]


@pytest.mark.parametrize("symbol", [1, 3, 0, 23, 100])
def test_below_what_is_no_non_terminal(symbol):
    with pytest.raises(UserError, match=rf"non-terminals \[7, 8, .*21, 22\] of cfg3b; found {symbol}; choose one"):
        load_grammar("cfg3b", symbol)


def test_below_what_was_cut_off():
    with pytest.raises(UserError, match=r"non-terminals \[7, 8, 9, 11, 12, 13\] of cfg3b; found 10;"):
        load_grammar("cfg3b", 13).below(10)


def test_unknown_grammar():
    with pytest.raises(
        UserError, match=r"expected grammar among \['cfg3b', 'cfg3b_released', .*\]; found 'cfg3x'; choose"
    ):
        load_grammar("cfg3x")


def derivations(grammar, symbols):
    """Every derivation from a level on, as the numbers of symbols of all levels; every rule choice is one."""
    if set(symbols) <= set(grammar.terminals):
        yield (len(symbols),)
        return
    for rules in itertools.product(*(grammar.rules[s] for s in symbols)):
        for sizes in derivations(grammar, [child for rule in rules for child in rule]):
            yield (len(symbols), *sizes)


@pytest.mark.parametrize(("name", "root"), [("cfg3b", 13), ("cfg3b", 10), ("cfg3f", 12), ("cfg3h", 13), ("cfg3g", 11)])
def test_against_every_derivation(name, root):
    grammar = load_grammar(name, root)
    sizes = np.array(list(derivations(grammar, [root])))
    assert grammar.most_symbols() == sizes.max(axis=0).tolist()
    assert set(grammar.length_distribution()) == set(sizes[:, -1])


def test_rules_of_unequal_numbers_weigh_by_symbol_and_not_by_derivation():
    """Root -> A with one rule, or B with three: the root's rules stay equally likely."""
    rules = {9: ((7, 7), (8, 8)), 7: ((1, 1),), 8: ((1, 2), (2, 1), (1, 1, 1))}
    grammar = Grammar("toy", 9, ((9,), (7, 8), (1, 2)), rules)
    expected = {4: 1 / 2 + 1 / 2 * 4 / 9, 5: 1 / 2 * 4 / 9, 6: 1 / 2 * 1 / 9}
    assert grammar.length_distribution() == pytest.approx(expected)
    assert grammar.most_symbols() == [1, 2, 6]
