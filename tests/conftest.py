"""What all tests share: four virtual devices, strict numerics, and a tiny experiment."""

import importlib.util
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of jax

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent


def _load_config_file(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def load_config_file():
    """Loads a file of configs/ by name, as a module with ``get_config``."""
    return _load_config_file


@pytest.fixture(scope="session")
def tiny():
    """The smoke configuration of PCFG, with strings of at most 10 tokens and models of one layer."""
    from pdjax.config import from_config_dict

    config = _load_config_file("pcfg").get_config("smoke")
    with config.unlocked():
        config.task.root = 10
        config.teacher.num_layers = config.student.num_layers = 1
    return from_config_dict(config)
