"""The command line: ``python -m pdjax.main --config=configs/pcfg.py``."""

import functools
import gc
import logging
import os
import sys
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from absl import flags

from pdjax.errors import TrainingError, UserError, require
from pdjax.io.command_line import asks_for_help, configuration_file, parse_flags, print_help
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.io.xla import ask_xla, quiet_xla
from pdjax.refusals import refusal
from pdjax.stages import STAGES

_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; runs/<name of the configuration> by default.")
_STAGE = flags.DEFINE_enum("stage", "all", ["all", *STAGES], "Which stage to run; 'all' runs them in order.")

_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "auto", ["auto", "on", "off"],
    "Join several processes: where SLURM, OpenMPI or GKE started them (auto), always (on, as on a Cloud TPU), never.",
)  # fmt: skip
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of the first process, where nothing else says it.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
_CPU_DEVICES = flags.DEFINE_integer("cpu_devices", None, "Virtual devices of each process on CPUs.")
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", None,
    "Directory of compiled programs, which later runs read; 'off' keeps none. By default JAX_COMPILATION_CACHE_DIR or "
    "the user's cache directory.",
)  # fmt: skip
_FLAGS = (_WORKDIR, _STAGE, _COMPILATION_CACHE, _DISTRIBUTED, _COORDINATOR, _PROCESSES, _PROCESS, _CPU_DEVICES)

_PURPOSE = """\
Runs an experiment of progressive distillation, from the teacher to the report. Whatever is done already is not done
again: the same command goes on where an earlier one was stopped."""
_EXAMPLE = "python -m pdjax.main --config=configs/pcfg.py:smoke --workdir=runs/first --config.student.num_heads=2"

logger = logging.getLogger("pdjax")


def main(argv: list[str]) -> int:
    """Runs an experiment, or prints help; returns 0, 1 (it cannot go on), 2 (bad input) or 128 + signal."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    quiet_xla()
    interrupt = Interrupt()
    # Before all that takes long: a signal amid imports or compiling is remembered as well.
    interrupt.install()
    try:
        if asks_for_help(argv):
            print_help(argv, _EXAMPLE, _PURPOSE, [flag.name for flag in _FLAGS])
            return 0
        _run(argv, interrupt)
    except UserError as error:
        logger.error("error: %s", error)
        _end_others(2, error)
        return 2
    except TrainingError as error:
        logger.error("failed: %s", error)
        _end_others(1, error)
        return 1
    except Interrupted as error:
        logger.warning("stopped by %s; the same command continues from there", error)
        # As shells say it; launch/slurm.sbatch puts back a job that SIGTERM has ended so.
        return 128 + error.signal_number
    except Exception as error:
        refused = refusal(error)
        if refused is not None:
            logger.error("failed: %s", refused)
        _end_others(1, refused or error)
        if refused is None:
            raise
        return 1
    return 0


def _end_others(code: int, error: Exception) -> None:
    """Ends all processes of several, if there are any: those that wait for this one would wait for ever."""
    processes = sys.modules.get("pdjax.io.processes")
    if processes is not None:  # else nobody has been joined
        processes.fail(code, error)


def _run(argv: list[str], interrupt: Interrupt) -> None:
    """Runs the stages that the flags ask for."""
    jaxlib = metadata.version("jaxlib")
    # https://github.com/jax-ml/jax/issues/39103: of 32,768 terms and more, the last sum of several can be another's.
    require(jaxlib != "0.10.2", "a jaxlib that sums right on CPUs", jaxlib, "pip install 'jax>=0.10,!=0.10.2,<0.13'")
    given = os.environ.get("XLA_FLAGS", "")
    experiment = parse_flags(argv, functools.partial(_prepare, given, interrupt))
    ask_xla(given, experiment)
    # Tracing makes millions of objects that live on; to look for garbage among them took a sixth of the time.
    gc.set_threshold(100_000, 50, 100)
    # Imports of orbax and all the rest take seconds: whoever mistyped a flag need not wait for them.
    from pdjax.io.processes import is_first
    from pdjax.stages.run import run_experiment

    if not is_first():
        # All processes would say the same.
        logger.setLevel(logging.WARNING)
    asked = str(Path("runs") / experiment.name) if _WORKDIR.value is None else _WORKDIR.value
    require(
        "://" not in asked, "a directory of this machine behind --workdir=", asked, "mount the bucket, and name that"
    )
    workdir = Path(asked).expanduser()
    there = str(workdir.absolute())
    readable = there == there.encode(errors="ignore").decode()
    require(readable, "a directory whose path is UTF-8 behind --workdir=", repr(there), "choose or rename one")
    stages = STAGES if _STAGE.value == "all" else (_STAGE.value,)
    with ExitStack() as stack:
        _keep_compiled(stack)
        run_experiment(experiment, workdir, stages, interrupt, configuration_file())


def _keep_compiled(stack: ExitStack) -> None:
    """Has compiled programs kept where the flag, the environment or nobody says."""
    import jax

    from pdjax.io.compiled import default_directory, keeping_compiled

    asked = _COMPILATION_CACHE.value
    # An empty one would be the directory that the command is started in.
    require(asked != "", "a directory or off behind --compilation_cache=", "nothing", "say one, or leave the flag out")
    if asked == "off":
        jax.config.update("jax_enable_compilation_cache", False)
    elif asked is not None or not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        directory = default_directory() if asked is None else Path(asked).expanduser()
        try:
            stack.enter_context(keeping_compiled(directory))
        except OSError as error:
            # Whoever names a directory wants it; all others lose nothing but time.
            if asked is not None:
                raise UserError("a --compilation_cache that can be written", str(error), "name another one") from None
            logger.warning("compiled programs are not kept: %s", error)


def _prepare(given: str, interrupt: Interrupt) -> None:
    """Does what has to be done before any device is used: what XLA is asked for, and joining other processes."""
    # With jax: who mistyped a flag need not wait.
    from pdjax.io.processes import join
    from pdjax.io.surroundings import fix_jax

    ask_xla(given)
    fix_jax()
    if interrupt.signal_number is not None:  # before waiting for others
        raise Interrupted(interrupt.signal_number, "nothing has begun")
    join(_DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _CPU_DEVICES.value)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
