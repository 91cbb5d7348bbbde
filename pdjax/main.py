"""The command line: ``python -m pdjax.main --config=configs/pcfg.py``."""

import logging
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from pdjax.config import Config, from_config_dict
from pdjax.errors import TrainingError, UserError, require
from pdjax.interrupt import Interrupt, Interrupted
from pdjax.stages import STAGES
from pdjax.usage import ASKING, asks_for_fields, asks_for_help, help_text

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/pcfg.py or configs/pcfg.py:smoke.")
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
_FLAGS = (_WORKDIR, _STAGE, _DISTRIBUTED, _COORDINATOR, _PROCESSES, _PROCESS, _CPU_DEVICES)

_PURPOSE = """\
Runs an experiment of progressive distillation, from the teacher to the report. Whatever is done already is not done
again: the same command goes on where an earlier one was stopped."""
_EXAMPLE = "python -m pdjax.main --config=configs/pcfg.py:smoke --workdir=runs/first --config.student.num_heads=2"

logger = logging.getLogger("pdjax")


def main(argv: list[str]) -> int:
    """Runs an experiment, or prints help; returns 0, 1 (training failed), 2 (bad input) or 128 + signal."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    interrupt = Interrupt()
    interrupt.install()
    try:
        if asks_for_help(argv):
            print_help(argv, _EXAMPLE, _PURPOSE, [flag.name for flag in _FLAGS])
            return 0
        _run(from_config_dict(parse_flags(argv)), interrupt)
    except UserError as error:
        logger.error("error: %s", error)
        return 2
    except TrainingError as error:
        logger.error("failed: %s", error)
        return 1
    except Interrupted as error:
        logger.warning("stopped by %s; the same command continues from there", error)
        return 128 + error.signal_number
    return 0


def _run(config: Config, interrupt: Interrupt) -> None:
    """Runs the stages that the flags ask for."""
    jaxlib = metadata.version("jaxlib")
    # https://github.com/jax-ml/jax/issues/39103: of 32,768 terms and more, the last sum of several can be another's.
    require(jaxlib != "0.10.2", "a jaxlib that sums right on CPUs", jaxlib, "pip install 'jax>=0.10,!=0.10.2,<0.13'")
    # Imports of jax, orbax and all the rest take seconds: whoever mistyped a flag need not wait for them.
    from pdjax.experiment import run_experiment
    from pdjax.processes import is_first, join

    join(_DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _CPU_DEVICES.value)
    if not is_first():
        logger.setLevel(logging.WARNING)
    workdir = Path(_WORKDIR.value) if _WORKDIR.value is not None else Path("runs") / config.name
    run_experiment(config, workdir, STAGES if _STAGE.value == "all" else (_STAGE.value,), interrupt)


def print_help(argv: list[str], example: str, purpose: str, names: Sequence[str]) -> None:
    """Prints the help of a command with ``--config`` and flags of its own; with ``--helpfull`` the config's fields too.

    Raises:
      UserError: the fields are wanted, and the flags beside ``--helpfull`` are not valid.
    """
    rest = [argument for argument in argv if argument not in ASKING]
    config = _parse(rest) if asks_for_fields(argv) else None
    print(help_text(example, purpose, ["config", *names], config, Path("configs")))


def parse_flags(argv: list[str]) -> ConfigDict:
    """Parses the flags and returns the config; turns every complaint about them into a ``UserError``."""
    config = _parse(argv)
    if config is None:
        raise UserError("--config", "none", "try --config=configs/pcfg.py")
    return config


def _parse(argv: list[str]) -> ConfigDict | None:
    """Parses the flags and returns the config; None where there is no ``--config``."""
    try:
        rest = flags.FLAGS(argv)
        hasattr(_CONFIG.value, "to_dict")  # a file that could not be loaded complains only when it is used
    # config_flags reports a bad override as any of these, depending on where it notices.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError("flags and overrides that exist", _essence(str(error)), "see configs/ and --help") from error
    if len(rest) > 1:
        raise UserError("only flags", f"the arguments {rest[1:]}", "write --flag=value")
    return _CONFIG.value


def _essence(message: str) -> str:
    """Returns a complaint on one line; of a traceback in it, the error and the place it came from."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Traceback (most recent call last)" not in message:
        return " ".join(lines)
    frames = [line for line in lines if line.startswith("File ")]
    return f"{lines[-1]} ({frames[-1]})" if frames else lines[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
