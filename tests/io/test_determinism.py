"""What XLA is asked for on GPUs; none is here, so that this is all there is to see (docs/results/accelerator)."""

import dataclasses
import os

import pytest

from pdjax.io.determinism import ask_for_the_same_bits

ASKED = "--xla_gpu_deterministic_ops=true"
REFUSED = "--xla_gpu_deterministic_ops=false"


@pytest.mark.parametrize(("given", "expected"), [("", ASKED), ("--xla_x=1", f"--xla_x=1 {ASKED}"), (REFUSED, REFUSED)])
@pytest.mark.parametrize("known", [False, True])
def test_the_same_kernels_are_asked_for_unless_the_user_decides(tiny, monkeypatch, given, expected, known):
    monkeypatch.setenv("XLA_FLAGS", given)
    ask_for_the_same_bits(given, tiny if known else None)
    assert os.environ["XLA_FLAGS"] == expected


def test_a_student_in_bfloat16_is_left_to_the_default(tiny, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_x=1")
    ask_for_the_same_bits("--xla_x=1")
    student = dataclasses.replace(tiny.student, compute="bfloat16")
    ask_for_the_same_bits("--xla_x=1", dataclasses.replace(tiny, student=student))
    assert os.environ["XLA_FLAGS"] == "--xla_x=1"
