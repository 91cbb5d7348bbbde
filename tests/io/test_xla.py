"""What XLA is asked for on GPUs; none is here, so that this is all there is to see (docs/results/accelerator)."""

import dataclasses
import os
import subprocess
import sys

import pytest

from pdjax.io.xla import QUICK, ask_xla

ASKED = "--xla_gpu_deterministic_ops=true"
REFUSED = "--xla_gpu_deterministic_ops=false"


@pytest.fixture
def optimized(tiny):
    """An experiment whose programs XLA makes as fast as it can."""
    return with_loop(tiny, True)


def with_loop(experiment, optimized):
    return dataclasses.replace(experiment, loop=dataclasses.replace(experiment.loop, optimized=optimized))


@pytest.mark.parametrize(("given", "expected"), [("", ASKED), ("--xla_x=1", f"--xla_x=1 {ASKED}"), (REFUSED, REFUSED)])
@pytest.mark.parametrize("known", [False, True])
def test_the_same_kernels_are_asked_for_unless_the_user_decides(optimized, monkeypatch, given, expected, known):
    monkeypatch.setenv("XLA_FLAGS", given)
    ask_xla(given, optimized if known else None)
    assert os.environ["XLA_FLAGS"] == expected


def test_a_student_in_bfloat16_is_left_to_the_default(optimized, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_x=1")
    ask_xla("--xla_x=1")
    student = dataclasses.replace(optimized.student, compute="bfloat16")
    ask_xla("--xla_x=1", dataclasses.replace(optimized, student=student))
    assert os.environ["XLA_FLAGS"] == "--xla_x=1"


@pytest.mark.parametrize(
    ("platforms", "given", "expected"), [("cpu", None, "3"), ("cpu", "0", "0"), ("cuda,cpu", None, "None")]
)
def test_xla_logs_nothing_of_its_own_on_cpus_unless_the_user_decides(root, platforms, given, expected):
    """Before jax is there, which reads it once."""
    script = (
        "import os, sys\nimport pdjax.main\nassert 'jax' not in sys.modules\npdjax.main.main(['pdjax', '--help'])\n"
        "print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"JAX_PLATFORMS": platforms} | ({} if given is None else {"TF_CPP_MIN_LOG_LEVEL": given})
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize("platforms", ["cpu", "cuda,cpu"])
def test_runs_of_seconds_are_compiled_quickly_for_cpus_alone(tiny, monkeypatch, platforms):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    ask_xla("--xla_x=1", with_loop(tiny, False))
    quickly = platforms == "cpu"
    assert os.environ["XLA_FLAGS"] == " ".join(["--xla_x=1", ASKED, *(QUICK if quickly else [])])
    ask_xla("", with_loop(tiny, True))
    assert os.environ["XLA_FLAGS"] == ASKED


@pytest.mark.parametrize("accelerator", [False, True])
def test_an_accelerator_is_looked_for_where_nobody_names_a_platform(tiny, monkeypatch, accelerator):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ["cuda"] if accelerator else [])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ask_xla("", with_loop(tiny, False))
    assert (QUICK[0] in os.environ["XLA_FLAGS"]) == (not accelerator)
