import shutil

import pytest

from pdjax.errors import UserError
from pdjax.interrupt import Interrupt
from pdjax.stages.teacher import train_teacher


def test_teacher_is_refused_without_the_disk_it_needs(tiny, tmp_path, monkeypatch, caplog):
    """The need is said before any training, and nothing is trained when it is not there."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(UserError, match=r"MB of free disk .* 0\.0 MB free"), caplog.at_level("INFO", "pdjax"):
        train_teacher(tiny, tmp_path, Interrupt())
    assert "trajectory of 8 checkpoints takes" in caplog.text
    assert not (tmp_path / "teacher").exists()
