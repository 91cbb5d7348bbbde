"""What the environment says of JAX changes no number."""

import os
import subprocess
import sys

import jax

from pdjax.io.surroundings import changes, fix_jax, surroundings
from pdjax.keys import named_key

NUMBERS = """
import logging, sys
import jax
logging.basicConfig(format="%(message)s")
from pdjax.io.surroundings import fix_jax
fix_jax()
import jax.numpy as jnp
random = jax.random.normal(jax.random.key(3), (5,)).tolist()
print(random, jnp.ones(1).dtype, (jnp.ones((2, 2)) @ jnp.ones((2, 2))).dtype)
"""


OTHER = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
}


def test_settings_of_the_environment_change_nothing_and_are_said():
    undisturbed, found = run({}), run(OTHER)
    assert undisturbed.stderr == ""
    assert found.stdout == undisturbed.stdout
    lines = found.stderr.splitlines()
    assert {line.partition("=")[0] for line in lines} == set(OTHER)
    assert all(line.endswith("is not followed: results would be others under the same name") for line in lines)


def run(environment):
    command = [sys.executable, "-c", NUMBERS]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)


def test_keys_are_the_same_whatever_the_default(monkeypatch):
    expected = jax.random.key_data(named_key(3, "x", 5)).tolist()
    before = jax.config.jax_default_prng_impl
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        assert jax.random.key_data(named_key(3, "x", 5)).tolist() == expected
        fix_jax()
        assert jax.config.jax_default_prng_impl == "threefry2x32"
    finally:
        jax.config.update("jax_default_prng_impl", before)


def test_changes_are_named():
    now = surroundings()
    assert changes(now, now) == []
    assert changes({**now, "device": "8 x tpu (v5e)"}, now) == [f"device 8 x tpu (v5e) -> {now['device']}"]
    older = {**now, "versions": {**now["versions"], "jax": "0.1"}}
    assert changes(older, now) == [f"jax 0.1 -> {now['versions']['jax']}"]
