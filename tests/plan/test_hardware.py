"""Chips, by what their devices call themselves."""

from types import SimpleNamespace

import pytest

from pdjax.plan.hardware import CHIPS, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),  # as libtpu 0.0.41 names the devices of its topologies
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("cpu", None),
    ],
)
def test_a_device_is_known_by_the_name_it_gives_itself(kind, name):
    assert chip_of(SimpleNamespace(device_kind=kind)) is (None if name is None else CHIPS[name])
