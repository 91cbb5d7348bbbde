"""Compiled programs on disk."""

import logging

import jax
import pytest

from pdjax.io.compiled import keeping_compiled

NAMES = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def settings_of_jax():
    """Puts back where the tests themselves keep what they compile."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def make(directory, **entries):
    """Lets a process make entries, as JAX names them."""
    with keeping_compiled(directory):
        for name, value in entries.items():
            (part(directory) / f"{name}-cache").write_bytes(value)


def part(directory):
    (only,) = directory.iterdir()
    return only


def names(directory):
    return sorted(path.name for path in part(directory).iterdir())


def test_entries_stay_beside_their_digests(tmp_path):
    make(tmp_path, jit_a=b"machine code")
    assert names(tmp_path) == ["jit_a-cache", "jit_a-sha256"]
    make(tmp_path, jit_b=b"more")
    assert names(tmp_path) == ["jit_a-cache", "jit_a-sha256", "jit_b-cache", "jit_b-sha256"]
    assert jax.config.jax_compilation_cache_dir == str(part(tmp_path))


@pytest.mark.parametrize("damage", [b"machine cod", b"mAchine code", b""])
def test_a_changed_entry_is_dropped_before_jax_reads_it(tmp_path, damage):
    make(tmp_path, jit_a=b"machine code", jit_b=b"more")
    (part(tmp_path) / "jit_a-cache").write_bytes(damage)
    with keeping_compiled(tmp_path):
        assert names(tmp_path) == ["jit_b-cache", "jit_b-sha256"]


def test_what_a_killed_process_left_is_dropped(tmp_path):
    make(tmp_path)
    (part(tmp_path) / "jit_a-cache").write_bytes(b"half of an ent")
    (part(tmp_path) / "jit_a-atime").write_bytes(b"when")
    (part(tmp_path) / "jit_b-sha256").write_bytes(b"\xff")
    make(tmp_path)
    assert names(tmp_path) == []


def test_an_entry_that_another_process_dropped_is_missed_by_nobody(tmp_path):
    with keeping_compiled(tmp_path):
        (part(tmp_path) / "jit_a-cache").write_bytes(b"machine code")
        with keeping_compiled(tmp_path):  # another process begins, and finds one that is not sealed yet
            assert names(tmp_path) == []
    assert names(tmp_path) == []


def test_a_run_that_is_done_does_not_fail_for_its_compiled_programs(tmp_path, monkeypatch, caplog):
    def full(path, value):
        raise OSError(28, "No space left on device")

    logging.getLogger("pdjax").propagate = True
    with caplog.at_level(logging.WARNING, "pdjax"), keeping_compiled(tmp_path):
        (part(tmp_path) / "jit_a-cache").write_bytes(b"machine code")
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert caplog.messages == ["compiled programs are not kept: [Errno 28] No space left on device"]
    monkeypatch.undo()
    make(tmp_path)
    assert names(tmp_path) == []


def test_machines_with_other_cpus_have_other_parts(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.setattr("platform.processor", lambda: "another one")
    make(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_programs_are_kept_where_the_flag_says(call, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pdjax.stages.run.run_experiment", lambda *_: seen.append(jax.config.jax_compilation_cache_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    config = "--config=configs/parity_mlp.py:smoke"
    assert call(config, f"--compilation_cache={tmp_path / 'mine'}")[0] == 0
    assert call(config)[0] == 0
    assert seen == [str(part(tmp_path / "mine")), str(part(tmp_path / "home" / "pdjax" / "compiled"))]


def test_a_directory_that_cannot_be_written_is_an_error_only_where_it_was_named(call, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("pdjax.stages.run.run_experiment", lambda *_: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    config = "--config=configs/parity_mlp.py:smoke"
    code, log = call(config, f"--compilation_cache={tmp_path / 'file'}")
    assert (code, log.count("\n")) == (2, 1)
    assert "expected a --compilation_cache that can be written" in log
    code, log = call(config, "--compilation_cache=")
    assert (code, log.count("\n")) == (2, 1)
    assert "expected a directory or off behind --compilation_cache=; found nothing" in log
    code, log = call(config)
    assert (code, log.count("\n")) == (0, 1)
    assert "compiled programs are not kept" in log
