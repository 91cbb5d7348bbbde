"""The faults of ``seeded_faults`` fit the code of today."""

import runpy
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(TREE / "tests" / "seeded_faults.py"))


@pytest.mark.parametrize("fault", SCRIPT["FAULTS"], ids=lambda fault: fault.name)
def test_every_patch_applies_and_compiles(fault):
    assert fault.new in SCRIPT["patched"](fault, TREE)
    assert [name for name in fault.nearest if not (TREE / name).exists()] == []
