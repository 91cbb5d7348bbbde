"""Probabilistic context-free grammars whose derivation trees all have the same depth (section D.4).

Symbols are integers; a rule rewrites a symbol of one level into two or three symbols of the next, and every
rule of a symbol is equally likely. The five grammars of the paper come with the package, and the
sub-grammar under any symbol is a smaller instance with the same structure.
"""

import collections
import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping

from pdjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A levelled grammar: ``rules[symbol]`` are the right-hand sides, all equally likely."""

    name: str
    root: int
    levels: tuple[tuple[int, ...], ...]  # symbols by distance from the root; the last level is the terminals
    rules: Mapping[int, tuple[tuple[int, ...], ...]]

    @property
    def depth(self) -> int:
        """Distance from the root to the terminals."""
        return len(self.levels) - 1

    @property
    def terminals(self) -> tuple[int, ...]:
        """The symbols strings are made of."""
        return self.levels[-1]

    def below(self, symbol: int) -> "Grammar":
        """Returns the sub-grammar whose root is one of the symbols.

        Raises:
          UserError: the symbol is not a non-terminal of the grammar.
        """
        if symbol not in self.rules:
            raise UserError(
                f"a root among the non-terminals {sorted(self.rules)} of {self.name}",
                str(symbol),
                "choose one of them, or None for the grammar's own root",
            )
        levels = [{symbol}]
        # All trees have one depth, so a level is of terminals altogether or not at all.
        while not levels[-1] <= set(self.terminals):
            levels.append({child for s in levels[-1] for rule in self.rules[s] for child in rule})
        kept = {s: self.rules[s] for level in levels[:-1] for s in sorted(level)}
        return Grammar(self.name, symbol, tuple(tuple(sorted(level)) for level in levels), kept)

    def length_distribution(self) -> dict[int, float]:
        """Returns the exact probability of every string length, [BOS] not counted."""
        return _length_distribution(self.rules, self.root, {})

    def most_symbols(self) -> list[int]:
        """Returns the largest number of symbols a derivation can have at each depth."""

        @functools.cache
        def most(symbol: int, depth: int) -> int:
            if depth == 0:
                return 1
            return max(sum(most(child, depth - 1) for child in rule) for rule in self.rules[symbol])

        return [most(self.root, depth) for depth in range(self.depth + 1)]


def load_grammar(name: str, root: int | None = None) -> Grammar:
    """Loads one of the package's grammars, or the part of it under a symbol.

    Raises:
      UserError: there is no such grammar or symbol.
    """
    text = importlib.resources.files("pdjax.tasks").joinpath("pcfg_grammars.json").read_text()
    data = json.loads(text)
    grammars = {**data["grammars"], **data["variants"]}
    if name not in grammars:
        raise UserError(f"grammar among {sorted(grammars)}", repr(name), "choose one of them")
    source = grammars[name]
    rules = {int(s): tuple(tuple(rule) for rule in sides) for s, sides in source["rules"].items()}
    levels = tuple(tuple(level) for level in [*source["levels"], source["terminals"]])
    grammar = Grammar(name, source["root"], levels, rules)
    return grammar if root is None else grammar.below(root)


def _length_distribution(
    rules: Mapping[int, tuple[tuple[int, ...], ...]], symbol: int, known: dict[int, dict[int, float]]
) -> dict[int, float]:
    if symbol not in rules:
        return {1: 1.0}
    if symbol not in known:
        total: dict[int, float] = collections.defaultdict(float)
        for rule in rules[symbol]:
            # Children are independent: the distribution of the sum of their lengths is the convolution of theirs.
            lengths = {0: 1.0}
            for child in rule:
                longer: dict[int, float] = collections.defaultdict(float)
                for length, p in lengths.items():
                    for extra, q in _length_distribution(rules, child, known).items():
                        longer[length + extra] += p * q
                lengths = longer
            for length, p in lengths.items():
                total[length] += p / len(rules[symbol])
        known[symbol] = dict(total)
    return known[symbol]
