"""Audits of folders and of our own trajectories; what an audit finds is tested in tests/weights/test_audit.py."""

import json
import shutil
from contextlib import closing

import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pdjax.errors import UserError
from pdjax.stages.auditing import audit_source
from pdjax.stages.programs import teacher_shape
from pdjax.stages.teacher import open_trajectory


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of a sound series that may be damaged."""
    return shutil.copytree(trained.folder, tmp_path / "series")


def params_in(trained, step):
    with closing(open_trajectory(trained.experiment, trained.workdir)) as store:
        return store.restore(step, teacher_shape(trained.experiment))


def kinds(audit):
    return {(finding.kind, finding.steps) for finding in audit.findings}


def test_a_sound_series(trained):
    audit = audit_source(trained.folder)
    assert audit.is_sound
    assert [row.step for row in audit.rows] == list(trained.steps)
    assert [row.loss for row in audit.rows] == [None] * len(trained.steps)


def test_losses_of_the_source(folder, trained):
    log = [{"step": step, "eval_loss": 1.0 / step} for step in trained.steps]
    state = {"global_step": trained.steps[-1], "log_history": log}
    (folder / f"step{trained.steps[-1]}" / "trainer_state.json").write_text(json.dumps(state))
    assert [row.loss for row in audit_source(folder).rows] == [1.0 / step for step in trained.steps]


def test_late_weights_under_an_early_name(folder, trained):
    first, last = trained.steps[0], trained.steps[-1]
    shutil.copyfile(folder / f"step{last}/model.safetensors", folder / f"step{first}/model.safetensors")
    assert ("duplicates", (first, last)) in kinds(audit_source(folder))


def test_swapped_folders(folder, trained):
    one, other = (folder / f"step{trained.steps[i]}" for i in (2, 6))
    (folder / "between").mkdir()
    one.rename(folder / "between" / "held")
    other.rename(one)
    (folder / "between" / "held").rename(other)
    (folder / "between").rmdir()
    assert kinds(audit_source(folder)) == {("order", (trained.steps[2], trained.steps[6]))}


def test_a_damaged_tokenizer_and_a_partial_download(folder, trained):
    (folder / f"step{trained.steps[1]}" / "vocab.txt").write_text("")
    with (folder / f"step{trained.steps[3]}" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert kinds(audit_source(folder)) == {("unreadable", (trained.steps[1],)), ("unreadable", (trained.steps[3],))}


def test_a_trajectory_of_our_own(trained):
    audit = audit_source(trained.workdir / "teacher" / "trajectory")
    assert audit.is_sound
    assert [row.step for row in audit.rows] == list(trained.steps)
    assert all(row.loss is not None for row in audit.rows)
    vectors = [np.asarray(ravel_pytree(params_in(trained, step))[0], np.float64) for step in trained.steps]
    for row, before, after in zip(audit.rows[1:], vectors[:-1], vectors[1:], strict=True):
        assert row.distance == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)


# Where one array of several cannot be decoded, threads that read the others find Orbax's loop closed.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_and_a_renamed_checkpoint_of_our_own(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "run")
    store = tmp_path / "run" / "teacher" / "trajectory"
    damaged, one, other = (trained.steps[i] for i in (1, 3, 5))
    file = max((store / "checkpoints" / str(damaged)).rglob("d/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(bytes(reversed(file.read_bytes())))
    (store / "checkpoints" / str(one)).rename(store / "held")
    (store / "checkpoints" / str(other)).rename(store / "checkpoints" / str(one))
    (store / "held").rename(store / "checkpoints" / str(other))
    audit = audit_source(store)
    assert kinds(audit) == {("unreadable", (step,)) for step in (damaged, one, other)}
    assert "was moved, copied or renamed" in str(audit.findings[1])


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(UserError, match="found"):
        audit_source(tmp_path)
