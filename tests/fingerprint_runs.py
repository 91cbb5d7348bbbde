"""Runs the experiments whose results a change of the code is compared by, and leaves a fingerprint of each.

::

    python tests/fingerprint_runs.py --out=before                # this tree, some of them with --only=NAME,NAME
    python tests/fingerprint_runs.py --out=after --tree=../other
    python tests/fingerprint.py before after                     # nothing: the same bits

Each is a process of its own on CPUs, with XLA's default flags and no compilation cache. A run whose fingerprint is
there is not repeated, one that was stopped begins again. ``pcfg-smoke``, ``streamed`` and ``killed`` are the same
experiment, and have the same fingerprint. The cuts are default configurations with a thirtieth to a tenth of the
steps, and with checkpoints that are given where so short a training shows nothing to choose by.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fingerprint

SMOKES = ("parity_mlp", "parity_transformer", "hierarchical", "pcfg", "pcfg_gpt")


class Run(NamedTuple):
    """What is run: flags of the command line, and where in it the process is killed, to be started again."""

    flags: Sequence[str]
    killed_at: Sequence[tuple[str, int]] = ()  # a run's directory, and the step of the training state it has saved


def _flags(config: str, **values: Any) -> list[str]:
    """Returns the flags of a configuration and of its fields that are replaced, their dots written as ``__``."""
    replaced = [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]
    return [f"--config={config}", *replaced]


def _given(**steps: int) -> dict[str, Any]:
    """Returns the fields by which strategies are given their first checkpoint."""
    return {f"strategies__{name}__selection__kind": f"Steps(steps=({step},))" for name, step in steps.items()}


def _each(names: Iterable[str], field: str, value: Any) -> dict[str, Any]:
    """Returns the fields that give several strategies the same value."""
    return {f"strategies__{name}__{field}": value for name in names}


def _parity_transformer() -> list[str]:
    points = {"start": 20, "middle": 35, "end": 50}
    temperatures = ("progressive", "temperature_1", "temperature_0p1", "temperature_0p01", "temperature_0")
    return _flags(
        "configs/parity_transformer.py",
        teacher_training__steps=75,
        teacher_training__checkpoint_every=5,
        student_training__budgets=(80,),
        sizes__steps=40,
        evaluation__every=10,
        loop__chunk_steps=5,
        loop__save_every=40,
        strategies__adaptive__max_steps=60,
        strategies__timer__duration=60,
        **_given(**points),
        **_each(points, "duration", 20),
        **_each(temperatures, "duration", 5),
    )


def _pcfg() -> list[str]:
    # Two strategies with the same checkpoints are one run, as in the default.
    firsts = dict(first_300_300=30, first_400_300=45, first_500_300=60, first_600_300=75, first_800_300=90)
    choices = dict(robust_peak=105, auto=45)
    return _flags(
        "configs/pcfg.py",
        teacher_training__steps=120,
        teacher_training__checkpoint_every=15,
        student_training__budgets=(60, 80),
        student_training__checkpoint_every=20,
        evaluation__every=15,
        evaluation__num_batches=4,
        loop__chunk_steps=5,
        loop__save_every=20,
        probes__nonterminals__num_train=320,
        **_given(two_shot=45, **choices, **firsts),
        **_each(("two_shot", *choices, *firsts), "duration", 30),
        **_each((*choices, *firsts), "budgets", (60,)),
    )


def _pcfg_gpt() -> list[str]:
    return _flags(
        "configs/pcfg_gpt.py",
        teacher_training__steps=60,
        teacher_training__checkpoint_every=3,
        student_training__budgets=(18, 36),
        student_training__checkpoint_every=18,
        ablations__level__budgets=(36,),
        evaluation__every=9,
        evaluation__num_batches=4,
        loop__chunk_steps=3,
        loop__save_every=12,
        **_given(two_shot=15),
        strategies__two_shot__duration=9,
    )


STRINGS = "configs/pcfg.py:smoke"
RUNS = {
    **{f"{name}-smoke": Run(_flags(f"configs/{name}.py:smoke")) for name in SMOKES},
    "dropout": Run(_flags(STRINGS, teacher__dropout=0.1, student__dropout=0.1)),
    "streamed": Run(_flags(STRINGS, placement__residency="streamed")),
    "devices": Run(["--cpu_devices=4", *_flags(STRINGS, placement__mesh__replica=1, placement__mesh__data=4)]),
    "killed": Run(_flags(STRINGS, loop__save_every=4), killed_at=[("teacher", 4), ("students/progressive-16", 4)]),
    "parity_transformer-cut": Run(_parity_transformer()),
    "pcfg-cut": Run(_pcfg()),
    "pcfg_gpt-cut": Run(_pcfg_gpt()),
    "parity_mlp": Run(_flags("configs/parity_mlp.py")),
    "hierarchical": Run(_flags("configs/hierarchical.py")),
}


def execute(run: Run, tree: Path, workdir: Path) -> None:
    """Runs an experiment of a source tree to its end, killing it on the way where that is asked for.

    Raises:
      RuntimeError: it failed, or ended before it was killed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONPATH": str(tree)}
    # Of ":smoke" too; trees without that module have no such setting.
    optimized = ["--config.loop.optimized=True"] if (tree / "pdjax" / "io" / "xla.py").exists() else []
    command = [sys.executable, "-m", "pdjax.main", f"--workdir={workdir}", *run.flags, *optimized]
    with open(workdir.with_suffix(".log"), "w") as log:
        for directory, step in run.killed_at:
            process = subprocess.Popen(command, cwd=tree, env=environment, stderr=log)
            while not (workdir / directory / "state" / "checkpoints" / str(step)).exists() and process.poll() is None:
                time.sleep(0.01)
            process.kill()
            process.wait()
            if (workdir / directory / "result.json").exists() or not (workdir / directory).exists():
                raise RuntimeError(f"expected to kill {directory} behind step {step}; found none or a finished one")
        code = subprocess.run(command, cwd=tree, env=environment, stderr=log, check=False).returncode
    if code != 0:
        raise RuntimeError(f"expected exit code 0 of {workdir.name}; found {code}, see {log.name}")


def main() -> int:
    """Makes the fingerprints that are not there yet; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the directory of the fingerprints")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parent.parent, help="the code that runs")
    parser.add_argument("--only", default=",".join(RUNS), help="names of runs, with commas between them")
    parser.add_argument("--keep", action="store_true", help="keep the working directories beside the fingerprints")
    arguments = parser.parse_args()
    names, out = arguments.only.split(","), arguments.out.absolute()
    if unknown := set(names) - set(RUNS):
        parser.error(f"expected runs among {', '.join(RUNS)}; found {', '.join(sorted(unknown))}")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        target, workdir = out / f"{name}.txt", out / name
        if target.exists():
            print(f"{name}: there already")
            continue
        shutil.rmtree(workdir, ignore_errors=True)
        began = time.monotonic()
        execute(RUNS[name], arguments.tree.absolute(), workdir)
        seconds = time.monotonic() - began
        lines = [f"{key} = {value}\n" for key, value in fingerprint.read(workdir).items()]
        partial = target.with_suffix(".partial")
        partial.write_text("".join(lines))
        partial.replace(target)
        if not arguments.keep:
            shutil.rmtree(workdir)
        print(f"{name}: {seconds:.0f} s, {len(lines)} lines", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
