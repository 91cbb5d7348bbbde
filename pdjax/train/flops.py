"""Floating-point operations of a program's matrix products, counted from its jaxpr.

XLA's own count takes a loop's body once. Here a ``scan`` counts as often as it runs, and of a ``cond`` the dearest
branch. Products are what accelerators are rated by; everything else is left out, so this is a lower bound.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from pdjax.types import TEACHER


def count_products(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Returns the operations of all matrix products of a function, by part: ``teacher`` or ``student``.

    A product of [M, K] and [K, N] counts 2 M K N.

    Args:
      function: traced, not run.
      *arguments: arrays or ShapeDtypeStructs.

    Raises:
      ValueError: a loop whose length is not known holds a matrix product.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    return _count(closed.jaxpr, False)


def _count(jaxpr: core.Jaxpr, taught: bool) -> Counter[str]:
    total: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        # Equations of an inner jaxpr need not name the scopes around it: what is known there is passed down.
        inside = taught or re.search(rf"\b{TEACHER}\b", str(equation.source_info.name_stack)) is not None
        if equation.primitive.name == "dot_general":
            total["teacher" if inside else "student"] += _product(equation)
            continue
        inner = [_count(part, inside) for part in _parts(equation)]
        if not inner:
            continue
        if equation.primitive.name == "cond":
            total.update(max(inner, key=lambda part: sum(part.values())))
        # Loops without products, as random generators have them, count nothing.
        elif equation.primitive.name == "while" and any(inner):
            raise ValueError(f"a loop of unknown length with matrix products: {equation.source_info.name_stack}")
        else:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for part in inner:
                total.update({name: times * value for name, value in part.items()})
    return total


def _parts(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """Returns the jaxprs inside an equation."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, core.ClosedJaxpr))
    # Newer versions of jax know one class of both names, hence one test after the other.
    closed = (leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in leaves)
    return [leaf for leaf in closed if isinstance(leaf, core.Jaxpr)]


def _product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    operands: list[Any] = [variable.aval for variable in (equation.invars[0], equation.outvars[0])]
    lhs, out = (operand.shape for operand in operands)
    # For every element of the result a multiplication and an addition for each contracted one.
    return 2 * math.prod(out) * math.prod(lhs[axis] for axis in contracted)
