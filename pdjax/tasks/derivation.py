"""Derivation trees of a grammar, sampled level by level on the device.

A level is an array of symbols with padding behind the last one. Every symbol draws a rule; a prefix sum
over the rules' lengths gives each symbol the place where its children begin in the next level, and every
place of the next level finds its parent by counting the symbols whose children end before it. All shapes
are fixed by the largest number of symbols a level can hold, so nothing is ever cut off.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from pdjax.tasks.grammar import Grammar


class Derivations(NamedTuple):
    """A batch of derivation trees, seen from the positions of their strings.

    ``terminals`` are the strings' symbols (0 behind the end), ``length`` their lengths. For depth j from the
    root (0) to the terminals, ``ancestors[b, i, j]`` is the symbol above position i and ``indices[b, i, j]``
    counts that symbol among those of its depth, left to right: position i ends the span of its depth-j
    ancestor exactly where the index at i + 1 differs or the string ends. Both are 0 behind the end.
    """

    terminals: Int[Array, "B L"]
    length: Int[Array, "B"]
    ancestors: Int[Array, "B L depth"]
    indices: Int[Array, "B L depth"]


class _Tables(NamedTuple):
    num_rules: Int[np.ndarray, "symbols"]
    rule_length: Int[np.ndarray, "symbols rules"]
    children: Int[np.ndarray, "symbols rules three"]


def _tables(grammar: Grammar) -> _Tables:
    # Symbols index the tables themselves. 0 is none of them: it has no rules, and stands for padding.
    size = max(max(level) for level in grammar.levels) + 1
    most_rules = max(len(sides) for sides in grammar.rules.values())
    longest = max(len(rule) for sides in grammar.rules.values() for rule in sides)
    num_rules = np.zeros(size, np.int32)
    rule_length = np.zeros((size, most_rules), np.int32)
    children = np.zeros((size, most_rules, longest), np.int32)
    for symbol, sides in grammar.rules.items():
        num_rules[symbol] = len(sides)
        for i, rule in enumerate(sides):
            rule_length[symbol, i] = len(rule)
            children[symbol, i, : len(rule)] = rule
    return _Tables(num_rules, rule_length, children)


def sample_derivations(grammar: Grammar, key: PRNGKeyArray, batch_size: int) -> Derivations:
    """Draws derivation trees independently, every rule of a symbol with equal probability."""
    tables = jax.tree.map(jnp.asarray, _tables(grammar))
    widths = grammar.most_symbols()  # of every level, so that all shapes are known when this is traced
    symbols = jnp.full((batch_size, 1), grammar.root, jnp.int32)
    valid = jnp.ones((batch_size, 1), bool)
    levels, parents = [symbols], []
    # One draw for all levels: every call of the generator costs seconds of compilation.
    uniforms = jnp.split(jax.random.uniform(key, (batch_size, sum(widths[:-1]))), np.cumsum(widths[:-2]), axis=1)
    for uniform, width in zip(uniforms, widths[1:], strict=True):
        symbols, valid, parent = _expand(tables, symbols, valid, uniform, width)
        levels.append(symbols)
        parents.append(parent)
    # From the terminals up: the ancestor of a position at one depth is the parent of its ancestor at the next.
    indices = [jnp.broadcast_to(jnp.arange(widths[-1], dtype=jnp.int32), symbols.shape)]
    for parent in reversed(parents):
        indices.append(jnp.take_along_axis(parent, indices[-1], axis=1))
    indices = indices[::-1]
    ancestors = [jnp.take_along_axis(level, index, axis=1) for level, index in zip(levels, indices, strict=True)]
    hide = valid[..., None].astype(jnp.int32)
    return Derivations(
        terminals=symbols,
        length=jnp.sum(valid, axis=1),
        ancestors=jnp.stack(ancestors, axis=-1) * hide,
        indices=jnp.stack(indices, axis=-1) * hide,
    )


def _expand(tables: _Tables, symbols: Array, valid: Array, uniform: Array, width: int) -> tuple[Array, Array, Array]:
    """Rewrites a level of [B, M] symbols into the next one of [B, width]; also each child's parent."""
    # Rounded down, each of a symbol's rules is equally likely. Padding takes rule 0, and is counted as empty below.
    rule = (uniform * tables.num_rules[symbols]).astype(jnp.int32)
    count = jnp.where(valid, tables.rule_length[symbols, rule], 0)
    ends = jnp.cumsum(count, axis=1)  # [B, M]: where each symbol's children end
    position = jnp.arange(width, dtype=jnp.int32)[None]
    # Counting by comparison instead of a binary search: no data-dependent gathers, vectorised on every device.
    parent = jnp.sum(ends[:, None, :] <= position[..., None], axis=-1, dtype=jnp.int32)
    child_valid = position < ends[:, -1:]
    # Behind the last child the count is M, which is no symbol.
    parent = jnp.where(child_valid, parent, 0)

    def of_parent(values: Array) -> Array:
        return jnp.take_along_axis(values, parent, axis=1)

    within = jnp.where(child_valid, position - of_parent(ends - count), 0)  # which of its parent's children
    children = tables.children[of_parent(symbols), of_parent(rule), within]
    return jnp.where(child_valid, children, 0), child_valid, parent


def span_ends(indices: Int[Array, "B L depth"], terminal: Bool[Array, "B L"]) -> Bool[Array, "B L depth"]:
    """Returns where the spans of the ancestors of each depth end: their right boundaries (definition 4.3).

    Args:
      indices: as in ``Derivations``, possibly with other tokens in front or behind.
      terminal: which positions are the strings'.
    """
    # By indices and not by symbols: neighbours may be equal symbols but are different spans.
    following = jnp.pad(indices[:, 1:], ((0, 0), (0, 1), (0, 0)))
    goes_on = jnp.pad(terminal[:, 1:], ((0, 0), (0, 1)))[..., None] & (following == indices)
    return terminal[..., None] & ~goes_on
