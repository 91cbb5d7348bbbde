"""The command line: ``python -m pdjax.plan --config=configs/pcfg.py:paper --topology=v5e:2x4``."""

import functools
import json
import logging
import os
import sys

from absl import flags

from pdjax.errors import UserError
from pdjax.io.command_line import asks_for_help, parse_flags, print_help
from pdjax.io.xla import ask_xla
from pdjax.refusals import told

_TOPOLOGY = flags.DEFINE_string("topology", None, "v5e:2x4, h100x8 …; by default the devices of this machine.")
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "What to print.")

_PURPOSE = """\
Plans an experiment without running it: memory, work, hours and disk of every training program, compiled for this
machine or for hardware that is not there."""
_EXAMPLE = "python -m pdjax.plan --config=configs/pcfg.py:paper --topology=v5e:2x4"

logger = logging.getLogger("pdjax")


def main(argv: list[str]) -> int:
    """Prints a plan, or help; returns 0, 1 (it does not fit) or 2 (bad input)."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    try:
        if asks_for_help(argv):
            print_help(argv, _EXAMPLE, _PURPOSE, [_TOPOLOGY.name, _FORMAT.name])
            return 0
        given = os.environ.get("XLA_FLAGS", "")
        experiment = parse_flags(argv, functools.partial(ask_xla, given))
        ask_xla(given, experiment)  # as the run will: its programs are other ones
        # These take seconds to import: whoever mistyped a flag need not wait for them.
        from pdjax.io.surroundings import fix_jax
        from pdjax.plan.experiment import as_json, plan_experiment
        from pdjax.plan.hardware import open_topology
        from pdjax.plan.table import as_text

        fix_jax()  # programs are those of the run
        topology = None if _TOPOLOGY.value is None else open_topology(_TOPOLOGY.value)
        with told():
            plan = plan_experiment(experiment, topology)
    except UserError as error:
        logger.error("error: %s", error)
        return 2
    print(json.dumps(as_json(plan), indent=2) if _FORMAT.value == "json" else as_text(plan))
    return 0 if plan.fits else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
