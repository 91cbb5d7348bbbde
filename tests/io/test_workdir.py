"""The working directory: one experiment, whose remarks and order may change."""

import dataclasses
import importlib.metadata
import json

import pytest

from pdjax.errors import UserError
from pdjax.io import workdir
from pdjax.io.sealed import read_json
from pdjax.io.surroundings import surroundings
from pdjax.io.workdir import open_workdir, read_experiment


def test_remarks_are_renewed_and_nothing_else_is(tiny, tmp_path):
    open_workdir(dataclasses.replace(tiny, remarks={"R4": "not known"}), tmp_path)
    first = read_json(tmp_path / "config.json")
    assert first["remarks"] == {"R4": "not known"}
    placed = dataclasses.replace(tiny.placement, residency="stacked")
    open_workdir(dataclasses.replace(tiny, remarks={"R4": "shows"}, placement=placed), tmp_path)
    assert read_json(tmp_path / "config.json") == first | {"remarks": {"R4": "shows"}}


def test_the_order_of_strategies_is_renewed(tiny, tmp_path):
    def written():
        return [strategy["name"] for strategy in read_json(tmp_path / "config.json")["strategies"]]

    names = [strategy.name for strategy in tiny.strategies]
    by_name = tuple(sorted(tiny.strategies, key=lambda strategy: strategy.name))
    open_workdir(dataclasses.replace(tiny, strategies=by_name), tmp_path)
    assert written() == sorted(names) != names
    open_workdir(tiny, tmp_path)
    assert written() == names


def test_a_source_tree_that_is_not_installed_has_no_version(tiny, tmp_path, monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package == "pdjax":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    open_workdir(tiny, tmp_path)
    versions = read_json(tmp_path / "environment.json")["versions"]
    assert versions["pdjax"] is None
    assert versions["jax"] == real("jax")


def test_another_experiment_is_refused_and_its_remarks_are_no_difference(tiny, tmp_path):
    open_workdir(tiny, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError) as caught:
        open_workdir(dataclasses.replace(tiny, seed=tiny.seed + 1, remarks={"R4": "shows"}), tmp_path)
    assert "config.seed" in str(caught.value)
    assert "remarks" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_going_on_on_another_device_is_said_too(tiny, tmp_path, monkeypatch, caplog):
    open_workdir(tiny, tmp_path)
    now = surroundings()
    monkeypatch.setattr(workdir, "surroundings", lambda: {**now, "device": "8 x tpu (TPU v5e)", "cores": 96})
    open_workdir(tiny, tmp_path)
    (record,) = caplog.records
    assert (
        f"goes on elsewhere (device {now['device']} -> 8 x tpu (TPU v5e), cores {now['cores']} -> 96)"
        in record.getMessage()
    )
    assert read_json(tmp_path / "environment.json")["later"][0]["device"] == "8 x tpu (TPU v5e)"


@pytest.mark.parametrize("gone", [("config.json",), ("config.json", "environment.json")])
def test_what_a_killed_process_had_not_written_yet_is_written_then(tiny, tmp_path, gone):
    """And a file of the user's own is no obstacle."""
    (tmp_path / "job.log").write_text("started\n")
    open_workdir(tiny, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    for name in gone:
        (tmp_path / name).unlink()
    open_workdir(tiny, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    assert read_experiment(tmp_path) == tiny
    assert (tmp_path / "environment.json").exists()
    assert (tmp_path / "job.log").read_text() == "started\n"


def test_the_remedy_for_a_damaged_configuration(tiny, tmp_path):
    open_workdir(tiny, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(UserError, match=f"found another SHA-256 for it; .* remove {path} and run the same command"):
        open_workdir(tiny, tmp_path)
    path.unlink()
    open_workdir(tiny, tmp_path)
    assert read_experiment(tmp_path) == tiny


def test_going_on_under_other_versions_is_said_and_recorded(tiny, tmp_path, monkeypatch, caplog):
    real = importlib.metadata.version
    open_workdir(tiny, tmp_path)
    began = read_json(tmp_path / "environment.json")
    open_workdir(tiny, tmp_path)
    assert read_json(tmp_path / "environment.json") == began
    assert not caplog.records
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.0" if package == "jax" else real(package))
    for _ in range(2):  # once is enough
        open_workdir(tiny, tmp_path)
    (record,) = caplog.records
    assert f"{tmp_path} goes on elsewhere (jax {real('jax')} -> 99.0): sums may round otherwise" in record.getMessage()
    environment = read_json(tmp_path / "environment.json")
    assert environment["versions"] == began["versions"]
    assert [later["versions"]["jax"] for later in environment["later"]] == ["99.0"]


def test_a_directory_of_an_older_layout_is_one_clear_line(tiny, tmp_path):
    old = {"task": {"kind": "parity", "dimension": 6}, "teacher": {"kind": "mlp", "widths": [16]}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    for read in (read_experiment, lambda directory: open_workdir(tiny, directory)):
        with pytest.raises(UserError, match=r"^expected a configuration of this version in .*; go on with the version"):
            read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
