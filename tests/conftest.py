"""What all tests share: eight virtual devices, strict numerics, and a tiny experiment."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of jax
# Tests compile many small programs and run them briefly: without optimisation by LLVM they take half the time.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes take minutes: they come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if "start" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(scope="module")
def start(root, tmp_path_factory):
    """Starts pdjax in a process; those of a file share compiled programs, so that only the first one compiles."""
    cache = tmp_path_factory.mktemp("compiled")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }

    def run(*arguments):
        command = [sys.executable, "-m", "pdjax.main", *arguments]
        return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)

    return run


@pytest.fixture(scope="module")
def finish(start):
    """Runs pdjax in a process to its end; returns the exit code and what it logged."""

    def run(*arguments):
        process = start(*arguments)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    return run
