"""How exact matrix products are, by name instead of by the hardware's default.

Left alone, XLA rounds the operands of float32 products on accelerators: to TF32 (10 bits of mantissa) on GPUs, to
bfloat16 (7 bits) on TPUs. Then "float32" would mean another model on every machine, and a temperature of 1e-20, which
amplifies the smallest difference of two logits, another teacher. Here a product says what it is. CPUs compute all of
them exactly.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

Compute = Literal["float32", "tf32", "bfloat16"]
"""The type in which a model computes; its parameters are kept and updated in float32 always.

``float32``: activations and products. ``tf32``: activations are float32, products have operands of 10 bits of mantissa
on GPUs and of three bfloat16 passes on TPUs. ``bfloat16``: activations and operands are rounded to it, sums are
float32; on GPUs a program that is compiled anew may then give other bits (``pdjax.io.xla``).
"""

_NAMES_IN_JAX = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


def products_in(compute: Compute) -> AbstractContextManager[None]:
    """Returns the context in which traced products, and their gradients', are of a type."""
    return jax.default_matmul_precision(_NAMES_IN_JAX[compute])


def with_float32_products(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function to be traced with exact products, but for those of models that say otherwise."""

    @functools.wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> T:
        with products_in("float32"):
            return function(*args, **kwargs)

    return exact


def current() -> str | None:
    """Returns jax's name of how exact products are where this is called, for those that are traced elsewhere."""
    return jax.config.values["jax_default_matmul_precision"]
