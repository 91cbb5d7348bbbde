"""The launchers' scripts, with stand-ins for the commands of clusters that are not here."""

import os
import shutil
import subprocess

import pytest
import yaml

SCRIPTS = ("slurm.sbatch", "slurm_sweep.sbatch", "tpu_vm.sh")


@pytest.fixture
def run(root, tmp_path):
    """Runs a script with commands that write down how they were called, and end with a given status."""

    def run(script, *arguments, commands=(), status=0, **environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        for name in commands:
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {calls}\nexit {status}\n')
            path.chmod(0o755)
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        result = subprocess.run(
            ["bash", str(root / "launch" / script), *arguments],
            env=os.environ | paths | environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
        )
        return result, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_sound(root, script):
    path = root / "launch" / script
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: apt install shellcheck)")
    subprocess.run(["shellcheck", str(path)], check=True)


def test_slurm_starts_all_processes_with_the_flags_it_was_given(run):
    variables = {"SLURM_SUBMIT_DIR": ".", "SLURM_JOB_ID": "7", "PYTHON": "python3"}
    result, calls = run("slurm.sbatch", "--config=c", "--workdir=w", commands=("srun", "scontrol"), **variables)
    assert result.returncode == 0
    assert calls == ["srun --kill-on-bad-exit=1 python3 -m pdjax.main --config=c --workdir=w"]


def test_slurm_puts_a_job_back_that_was_stopped_and_saved(run):
    variables = {"SLURM_SUBMIT_DIR": ".", "SLURM_JOB_ID": "7"}
    result, calls = run("slurm.sbatch", "--config=c", commands=("srun", "scontrol"), status=143, **variables)
    assert result.returncode == 143
    assert calls[1:] == ["scontrol requeue 7"]
    result, calls = run("slurm.sbatch", "--config=c", commands=("srun", "scontrol"), status=2, **variables)
    assert result.returncode == 2
    assert len(calls) == 1  # bad input does not get better in the queue


def test_a_sweep_takes_the_line_of_its_task(run, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("--config=a --workdir=x\n--config=b --workdir=y\n")
    variables = {"SLURM_SUBMIT_DIR": ".", "SLURM_ARRAY_TASK_ID": "2", "PYTHON": str(tmp_path / "python")}
    result, calls = run("slurm_sweep.sbatch", str(sweep), commands=("python",), **variables)
    assert result.returncode == 0, result.stderr
    assert calls == ["python -m pdjax.main --distributed=off --config=b --workdir=y"]
    result, _ = run("slurm_sweep.sbatch", str(sweep), **variables | {"SLURM_ARRAY_TASK_ID": "3"})
    assert result.returncode == 2
    assert "expected a line 3" in result.stderr


def test_quotes_in_a_sweep_are_those_of_a_shell_and_nothing_is_run(run, tmp_path):
    sweep = tmp_path / "sweep.txt"
    lines = ["--config=a --workdir='runs/a b' --config.seeds=\"(0, 1)\" '--x=$(touch ran)' --y=*", "--workdir='open"]
    sweep.write_text("\n".join(lines) + "\n")
    python = tmp_path / "each"
    python.write_text(f'#!/bin/sh\nprintf "<%s>" "$@" > {tmp_path}/given\n')
    python.chmod(0o755)
    variables = {"SLURM_SUBMIT_DIR": ".", "PYTHON": str(python)}
    result, _ = run("slurm_sweep.sbatch", str(sweep), SLURM_ARRAY_TASK_ID="1", **variables)
    assert result.returncode == 0, result.stderr
    expected = ["-m", "pdjax.main", "--distributed=off"]
    expected += ["--config=a", "--workdir=runs/a b", "--config.seeds=(0, 1)", "--x=$(touch ran)", "--y=*"]
    assert (tmp_path / "given").read_text() == "".join(f"<{flag}>" for flag in expected)
    result, _ = run("slurm_sweep.sbatch", str(sweep), SLURM_ARRAY_TASK_ID="2", **variables)
    assert result.returncode == 2
    assert "expected flags with closed quotes; found --workdir='open" in result.stderr


TPU = {"NAME": "pdjax", "ZONE": "z", "TYPE": "v5litepod-8", "BUCKET": "b"}


def test_a_tpu_is_created_installed_run_and_brought_back(run):
    def calls_of(*arguments, **more):
        result, calls = run("tpu_vm.sh", *arguments, commands=("gcloud", "git"), **TPU, **more)
        assert result.returncode == 0, result.stderr
        return "\n".join(calls)

    create = calls_of("create")
    assert "tpus tpu-vm create pdjax --zone=z --accelerator-type=v5litepod-8" in create
    assert create.endswith("--spot")
    assert "--spot" not in calls_of("create", ON_DEMAND="1")
    installed = calls_of("install")
    assert ".[tpu]" in installed
    assert "uv venv --quiet --allow-existing --python 3.12 .venv" in installed  # machines have 3.10
    assert "--rename-dir-limit=" in installed
    started = calls_of("run", "--config=c", "--workdir=runs/a b")
    assert "--worker=all" in started
    assert r"pdjax.main --distributed=on --config=c --workdir=runs/a\ b" in started
    resumed = calls_of("resume", "--config=c")
    assert [resumed.index(word) for word in ("delete", "create", ".[tpu]", "pdjax.main")] == sorted(
        resumed.index(word) for word in ("delete", "create", ".[tpu]", "pdjax.main")
    )


def test_a_tpu_needs_to_know_where(run):
    result, _ = run("tpu_vm.sh", "create", commands=("gcloud",), **TPU | {"ZONE": ""})
    assert result.returncode == 2
    assert "expected the environment variable ZONE; found none" in result.stderr
    result, _ = run("tpu_vm.sh", "fly", commands=("gcloud",), **TPU)
    assert result.returncode == 2


def test_the_jobset_is_one_program_on_all_hosts(root):
    jobset = yaml.safe_load((root / "launch" / "gke_jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "pdjax.main"]
    assert "--distributed=on" in container["args"]
    chips = container["resources"]["limits"]["google.com/tpu"] * spec["parallelism"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert chips == int(rows) * int(columns)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
