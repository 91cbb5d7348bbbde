"""Everything that is worth knowing of one accelerator, by one command.

    python benchmarks/accelerator.py [--parts checks,speed,runs,peer,profile] [--seconds 480] [--out build/accelerator]

Parts:
    checks: products, attention, gradients and strings, against the CPU in float64.
    speed: training steps of BERT and GPT-2 (labels and distillation, 1 to 64 replicas, float32, TF32, bfloat16), the
        batch-1 MLP of figure 1 left, switching teachers, sampling, and what the card itself does.
    runs: every configuration's ``:smoke`` to its report, killed and resumed, and compiled anew: the same bits.
    peer: the same training steps in PyTorch with Hugging Face's models, eager and compiled.
    profile: the kernels of the slowest step.

Each part is a process of its own, so that one that crashes or hangs takes no other with it, and has its share of the
time; what it leaves goes to the next. Results are written as they come, to ``results.jsonl``, and as tables to
``tables.md``. Interrupt it whenever you like: the same command measures what is missing. ``--tiny`` is a dry run for a
CPU. From a source tree, where pdjax is not installed: ``PYTHONPATH=. python benchmarks/accelerator.py``.

Ends with 0, with 1 if a check or a run failed, with 2 for bad input.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from card.records import LEFT_OUT, Records, as_tables, card, machine

SHARES = {"checks": 3, "speed": 6, "runs": 5, "peer": 3, "profile": 1}
"""The parts in their order, with their shares of the time."""

CONFIGS = ("parity_mlp", "pcfg", "pcfg_gpt", "hierarchical", "parity_transformer")
PROCESS_CASE = "the whole part"
GRACE = 10.0
"""Seconds that a part may take beyond its time before it is ended: a case that began goes on to its end."""


def main() -> int:
    """Runs the parts, one after the other; returns 0, 1 (something does not work), 2 or 128 + signal."""
    options = _options()
    until = options.until if options.until is not None else time.time() + options.seconds
    records = Records(options.out / "results.jsonl", until, options.tiny, options.cases)
    if options.child is not None:
        _run(options.child, records, options.configs)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    complaint = _begin(records, machine(options.tiny))
    if complaint is not None:
        print(f"error: {complaint}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the running part as Ctrl-C does
    try:
        waiting = [part for part in SHARES if part in options.parts]
        for i, part in enumerate(waiting):
            if time.time() >= until:
                records.write(part, LEFT_OUT, count=None, first=None)
                continue
            share = SHARES[part] / sum(SHARES[other] for other in waiting[i:])
            _part(part, options, time.time() + share * (until - time.time()), records)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        tables = as_tables(records.lines())
        (options.out / "tables.md").write_text(tables)
        print(f"\n{tables}\n{options.out / 'tables.md'}")
    last = {(line["part"], line["case"]): line for line in records.lines()}  # a part that failed may have gone on
    failed = [case for (_, case), line in last.items() if line.get("ok") is False]
    print(f"does not work: {'; '.join(failed)}" if failed else "all that was checked works")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=_parts, default=",".join(SHARES), help="which to run, with commas")
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything, compiling included")
    parser.add_argument("--out", type=Path, default=Path("build") / "accelerator", help="where the results go")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny sizes")
    parser.add_argument("--cases", type=_words, default=[], help="words, with commas: only cases that hold one of them")
    smokes = ",".join(f"configs/{name}.py:smoke" for name in CONFIGS)
    parser.add_argument("--configs", default=smokes, type=_words, help="what part 'runs' runs")
    parser.add_argument("--child", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    unknown = set(text.split(",")) - set(SHARES)
    if unknown:
        raise argparse.ArgumentTypeError(f"expected parts among {','.join(SHARES)}; found {','.join(sorted(unknown))}")
    return text.split(",")


def _words(text: str) -> list[str]:
    return text.split(",")


def _begin(records: Records, here: dict[str, Any]) -> str | None:
    """Writes what machine this is, or complains about results of another one."""
    before = [line for line in records.lines() if line["part"] == "machine"]
    if not before:
        records.write("machine", here["card"], **here)
        return None
    there = {key: value for key, value in before[0].items() if key not in ("part", "case")}
    different = [f"{key} {there.get(key)}" for key in here if here[key] != there.get(key)]
    if not different:
        return None
    return f"expected results of this machine in {records.path}; found {', '.join(different)}; give another --out"


def _part(part: str, options: argparse.Namespace, until: float, records: Records) -> None:
    """Runs a part in a process of its own, until it ends or its time does."""
    if part == "peer" and machine(options.tiny)["torch"] is None:
        records.write(part, "PyTorch", installed=False)
        return
    command = [sys.executable, __file__, f"--child={part}", f"--until={until}", f"--out={options.out}"]
    command += ["--tiny"] * options.tiny + [f"--configs={','.join(options.configs)}"]
    command += [f"--cases={','.join(options.cases)}"] * bool(options.cases)
    environment = {key: value for key, value in os.environ.items() if key != "XLA_PYTHON_CLIENT_MEM_FRACTION"}
    environment |= {"XLA_CLIENT_MEM_FRACTION": "0.92"}
    if card() is not None:
        environment |= {"JAX_PLATFORMS": "cuda,cpu"}  # without it jax would go on on the processor, were the card lost
    if part in ("speed", "profile"):  # what is profiled was compiled to be timed
        compiled = options.out.absolute() / "compiled"
        if part == "speed":
            shutil.rmtree(compiled, ignore_errors=True)  # reading a program takes less than compiling it
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    records.current.unlink(missing_ok=True)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(max(1.0, until - time.time()) + GRACE)
        records.write(part, PROCESS_CASE, ok=code == 0, error=None if code == 0 else f"its process ended with {code}")
        if code != 0 and records.current.exists():
            at_work = json.loads(records.current.read_text())
            if not records.has(**at_work):  # so that a later call goes on behind it
                records.write(**at_work, ok=False, error=f"its process ended with {code}")
    except subprocess.TimeoutExpired:
        records.write(part, PROCESS_CASE, cut=f"after its time and {GRACE:.0f} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it started
        process.wait()


def _run(part: str, records: Records, configs: list[str]) -> None:
    """Runs a part in this process."""
    module = importlib.import_module(f"card.{part}")
    module.run(records, *([configs] if part == "runs" else []))


if __name__ == "__main__":
    sys.exit(main())
