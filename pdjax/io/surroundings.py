"""What surrounds a run and has a part in its numbers: recorded, and fixed where it would change them."""

import importlib.metadata
import logging
import os
import platform
import sys
from typing import Any

import jax

logger = logging.getLogger("pdjax")

PACKAGES = ("pdjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")

_FIXED = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,  # every model says its own
    "jax_numpy_dtype_promotion": "standard",
}
"""Settings of JAX by which one configuration would have other numbers, and other random ones."""


def fix_jax() -> None:
    """Sets what changes numbers to what results here are of, whatever the environment says of it.

    To be called before anything is computed.
    """
    for name, value in _FIXED.items():
        found = getattr(jax.config, name)
        if getattr(found, "value", found) != value:  # some are enumerations
            # Said, as whoever sets it means something by it.
            logger.warning("%s=%s is not followed: results would be others under the same name", name.upper(), found)
            jax.config.update(name, value)


def surroundings() -> dict[str, Any]:
    """Returns what bits hang on beside the configuration."""
    packages = {package: _version(package) for package in PACKAGES}
    versions = {"python": platform.python_version()} | packages | {"XLA_FLAGS": os.environ.get("XLA_FLAGS")}
    device = jax.devices()[0]
    kind = f"{len(jax.devices())} x {device.platform} ({device.device_kind})"
    return {"versions": versions, "device": kind, "cores": os.cpu_count()}


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns where two surroundings differ, as ``name old -> new``."""
    old, new = ({**one["versions"], "device": one["device"], "cores": one["cores"]} for one in (before, now))
    return [f"{name} {old.get(name)} -> {new[name]}" for name in new if new[name] != old.get(name)]


def _version(package: str) -> str | None:
    """Returns an installed package's version; None where it runs from its source tree."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory() -> int:
    """Returns the most bytes of memory that this process has taken so far; 0 where the system does not say."""
    try:
        import resource  # of POSIX alone
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB, macOS in bytes
