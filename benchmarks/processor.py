"""What the processor is that a benchmark ran on: ratios hang on it by a factor of two."""

import importlib.util
import os
import platform
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import alternate

SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""Instruction sets that a product in float32 or bfloat16 may use, as Linux calls them."""

SIZE = 2048


def processor() -> str:
    """Returns its name, cores and instruction sets, and what a large product reaches in XLA and in PyTorch."""
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in product_peaks().items())
    sets = ", ".join(name for name in SETS if name in _flags()) or "instruction sets unknown"
    return f"{_name()}, {os.cpu_count()} cores ({sets}); a product of {SIZE} x {SIZE} in GFLOP/s: {peaks}"


def product_peaks() -> dict[str, float]:
    """Returns the best rate of a large float32 product in GFLOP/s, by library; PyTorch where it is installed."""
    x = jnp.ones((SIZE, SIZE))
    multiply = jax.jit(jnp.matmul)

    def by_xla() -> int:
        jax.block_until_ready(multiply(x, x))
        return 1

    runs: dict[str, Callable[[], int]] = {"XLA": by_xla}
    if importlib.util.find_spec("torch") is not None:
        import torch

        y = torch.ones(SIZE, SIZE)

        def by_torch() -> int:
            torch.mm(y, y)
            return 1

        runs["PyTorch"] = by_torch
    return {name: 2 * SIZE**3 / timing.minimum / 1e6 for name, timing in alternate(runs, 9).items()}


def _info(*keys: str) -> str:
    path = Path("/proc/cpuinfo")  # Linux alone has it
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(keys)), "")


def _name() -> str:
    return _info("model name") or platform.processor() or platform.machine()


def _flags() -> set[str]:
    return set(_info("flags", "Features").split())
