"""The command line of weights: import, audit and export."""

import logging
import shutil
import signal

import pytest
from absl import flags

from pdjax.io.sealed import read_json
from pdjax.weights.__main__ import main


@pytest.fixture
def call(capsys):
    """Calls the command; returns its exit code, what it printed and what it logged."""
    logger, root = logging.getLogger("pdjax"), logging.getLogger()
    before = logger.propagate, logger.level, root.handlers[:], root.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def call(*arguments):
        logger.propagate = True
        flags.FLAGS.unparse_flags()
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
    logger.propagate, logger.level, root.handlers[:], root.level = before
    for number, handler in handlers.items():
        signal.signal(number, handler)


def config_for(folder):
    return f"--config=configs/checkpoints.py:{folder}"


def test_a_sound_series(trained, call, tmp_path):
    code, out, _ = call("audit", trained.folder, "--into", tmp_path / "found")
    assert code == 0
    assert out.splitlines()[-1] == "Nothing was found."
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"audit.csv", "audit.png"}


def test_findings_have_an_exit_code(trained, call, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "series")
    shutil.copyfile(folder / "step200/model.safetensors", folder / "step20/model.safetensors")
    code, out, _ = call("audit", folder)
    assert code == 1
    assert out.splitlines()[-1].startswith("duplicates: steps 20, 200 hold the same weights")


def test_an_audit_with_a_configuration_measures_losses(trained, call):
    code, out, _ = call("audit", trained.folder, config_for(trained.folder), "--config.task.root=10")
    assert code == 0
    first, *_, last = (float(line.split()[2]) for line in out.splitlines()[1:11])
    assert last < first


def test_a_trajectory_has_its_losses(trained, call):
    store = trained.workdir / "teacher" / "trajectory"
    assert call("audit", store)[0] == 0
    code, _, err = call("audit", store, config_for(store))
    assert code == 2
    assert "whose losses are recorded; leave it out" in err


def test_an_imported_folder_is_a_trajectory_for_the_same_configuration(trained, call, tmp_path):
    arguments = (config_for(trained.folder), "--config.task.root=10")
    code, _, err = call("import", trained.folder, tmp_path / "imported", *arguments)
    assert code == 0
    command = f"--config=configs/checkpoints.py:{tmp_path}/imported/trajectory --config.task.root=10"
    assert err.splitlines()[-1].endswith(command)
    assert read_json(tmp_path / "imported" / "result.json")["checkpoints"] == list(trained.steps)
    assert call("audit", tmp_path / "imported" / "trajectory")[0] == 0


def test_no_checkpoints_are_one_line(call, tmp_path):
    code, _, err = call("audit", tmp_path / "nowhere")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: expected a folder of checkpoints, or a pattern; found")


def test_an_unknown_flag_is_refused(trained, call):
    code, _, err = call("audit", trained.folder, "--sample=3")
    assert code == 2
    assert "flags that exist; found --sample" in err


def test_a_model_is_exported(trained, call, tmp_path):
    code, _, err = call("export", trained.workdir, tmp_path / "exported", "--run=teacher", "--step=40")
    assert code == 0, err
    written = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= written
    assert call("audit", tmp_path / "exported")[0] == 2  # its name has no step
    assert call("export", trained.workdir, tmp_path / "other", "--runs=teacher")[0] == 2


def test_a_trajectory_is_not_imported(trained, call, tmp_path):
    store = trained.workdir / "teacher" / "trajectory"
    code, _, err = call("import", store, tmp_path / "imported", config_for(store))
    assert code == 2
    assert f"it need not be imported: write --config=configs/checkpoints.py:{store}" in err
    code, _, err = call("audit", trained.workdir)
    assert code == 2
    assert f"write {store}" in err


def test_a_task_for_other_models_is_refused(trained, call, tmp_path):
    code, _, err = call("import", trained.folder, tmp_path / "imported", "--config=configs/pcfg.py:smoke")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "found Gpt2, which sees those before them" in err


def test_what_cannot_be_written_is_one_line(trained, call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("audit", trained.folder, "--into", tmp_path / "file")
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
