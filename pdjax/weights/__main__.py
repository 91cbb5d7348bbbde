"""The command line: ``python -m pdjax.weights import|export|audit``, weights of others in and our own out."""

import argparse
import dataclasses
import functools
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdjax.errors import UserError, require
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.refusals import told

if TYPE_CHECKING:  # with jax: whoever mistyped an argument need not wait
    from pdjax.experiment import Experiment

_PURPOSE = """\
Weights of BERT, GPT-2 and GPT-NeoX in Hugging Face's format: a folder of somebody's checkpoints becomes the trajectory
of a teacher, students become folders that transformers loads, and checkpoints are looked over before anything learns
from them."""
_CHECKPOINTS = "a folder that holds checkpoints, one of the hub's cache, or a pattern of folders"

logger = logging.getLogger("pdjax")


def main(arguments: Sequence[str]) -> int:
    """Runs one of the commands; returns 0, 1 (an audit found something), 2 (bad input) or 128 + signal."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    interrupt = Interrupt()
    interrupt.install()
    asked, rest = _parser().parse_known_args(arguments)
    try:
        with told():
            return asked.run_command(asked, rest, interrupt)
    except (UserError, OSError) as error:  # one without a number too
        logger.error("error: %s", error)
        return 2
    except Interrupted as error:
        logger.warning("stopped by %s; the same command continues from there", error)
        return 128 + error.signal_number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pdjax.weights", description=_PURPOSE)
    commands = parser.add_subparsers(required=True)
    importing = commands.add_parser(
        "import",
        help="convert a folder of checkpoints into a trajectory",
        description="Converts checkpoints into a trajectory, and measures their losses on the held-out examples of a "
        "configuration, whose teacher they are taken for. Then --config=configs/checkpoints.py:DIRECTORY/trajectory, "
        "or teacher_training.trajectory of any configuration with the same task and teacher, learns from them.",
        epilog="--config=FILE, which says the task, and --config.FIELD=VALUE are those of python -m pdjax.main.",
        allow_abbrev=False,
    )
    importing.add_argument("source", metavar="SOURCE", help=_CHECKPOINTS)
    importing.add_argument("directory", metavar="DIRECTORY", type=Path, help="of the trajectory; may not exist yet")
    importing.set_defaults(run_command=_import)
    exporting = commands.add_parser(
        "export",
        help="write a trained model as a folder that transformers loads",
        description="Writes config.json, model.safetensors, a tokenizer and a model card that says how the model was "
        "made. What is left out need not be said where one model is left without it.",
        allow_abbrev=False,
    )
    exporting.add_argument("workdir", metavar="WORKDIR", type=Path, help="of an experiment, or of a variant of one")
    exporting.add_argument("folder", metavar="FOLDER", type=Path, help="to write; new or empty")
    exporting.add_argument("--run", metavar="NAME", help="teacher, <strategy>-<budget> or <panel>/<model>")
    exporting.add_argument("--seed", metavar="N", type=int, help="of the model")
    exporting.add_argument("--learning_rate", metavar="RATE", type=float, help="of its training")
    exporting.add_argument("--step", metavar="N", type=int, help="of its training; by default the last one")
    exporting.set_defaults(run_command=_export)
    auditing = commands.add_parser(
        "audit",
        help="say what is wrong with checkpoints",
        description="Reads checkpoints, and says which are the same, out of order, of another run, mixed, incomplete "
        "or missing, and whose losses jump. Losses are those of trainer_state.json, of a trajectory those recorded, "
        "and with a configuration those on its held-out examples.",
        epilog="--config=FILE and --config.FIELD=VALUE are those of python -m pdjax.main.",
        allow_abbrev=False,
    )
    auditing.add_argument("source", metavar="SOURCE", help=f"{_CHECKPOINTS}, or a trajectory of ours")
    auditing.add_argument("--into", metavar="DIRECTORY", type=Path, help="for audit.csv and audit.png")
    auditing.set_defaults(run_command=_audit)
    return parser


def _import(asked: argparse.Namespace, flags: Sequence[str], interrupt: Interrupt) -> int:
    from pdjax.stages.importing import import_series
    from pdjax.weights.checkpoint import is_series

    require(
        is_series(asked.source),
        "checkpoints of others",
        f"a trajectory of ours in {asked.source}",
        f"it need not be imported: write --config=configs/checkpoints.py:{asked.source}",
    )
    experiment = _experiment(flags, asked.source)
    import_series(experiment, asked.directory, interrupt)
    overrides = [shlex.quote(flag) for flag in flags if flag.lstrip("-").startswith("config.")]
    command = ["python -m pdjax.main", f"--config=configs/checkpoints.py:{asked.directory / 'trajectory'}", *overrides]
    logger.info("now: %s", " ".join(command))
    return 0


def _export(asked: argparse.Namespace, rest: Sequence[str], interrupt: Interrupt) -> int:
    require(not rest, "arguments of export", " ".join(rest), "see --help")
    from pdjax.stages.exporting import export

    folder = export(asked.workdir, asked.folder, asked.run, asked.seed, asked.learning_rate, asked.step)
    logger.info("%s: load it with transformers; README.md says how it was made", folder)
    return 0


def _audit(asked: argparse.Namespace, flags: Sequence[str], interrupt: Interrupt) -> int:
    from pdjax.stages.auditing import audit_source, write_audit
    from pdjax.weights.audit import table

    losses = None
    if flags:
        from pdjax.stages.importing import measured_losses
        from pdjax.weights.checkpoint import is_series

        require(
            is_series(asked.source),
            "--config for checkpoints of others alone",
            f"it for {asked.source}, whose losses are recorded",
            "leave it out",
        )
        losses = measured_losses(_experiment(flags, asked.source))
    found = audit_source(asked.source, losses)
    print(table(found))
    if asked.into is not None:
        write_audit(found, asked.into)
    return 0 if found.is_sound else 1


def _experiment(flags: Sequence[str], source: str) -> "Experiment":
    """Returns the experiment that the flags ask for, with the model of a series as its teacher."""
    from pdjax.io.command_line import parse_flags
    from pdjax.io.surroundings import fix_jax
    from pdjax.io.xla import ask_xla

    given = os.environ.get("XLA_FLAGS", "")
    experiment = parse_flags(["pdjax.weights", *flags], functools.partial(ask_xla, given))
    ask_xla(given, experiment)
    fix_jax()  # losses are measured
    import pydantic

    from pdjax.settings import complaint
    from pdjax.weights.checkpoint import teacher_of

    training = dataclasses.replace(experiment.teacher_training, trajectory=source)
    teacher = teacher_of(source, experiment.task)
    try:
        return dataclasses.replace(experiment, teacher=teacher, teacher_training=training)
    except pydantic.ValidationError as error:
        raise complaint(error, "config").within(f"the configuration with {type(teacher).__name__}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
