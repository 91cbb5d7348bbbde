"""The command line: ``python -m pdjax.report WORKDIR...`` writes reports again, also while runs are going on."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pdjax.errors import UserError
from pdjax.refusals import told
from pdjax.report import write_report

_PURPOSE = """\
Writes the report of working directories again, from what they hold so far: without training, and also while an
experiment is running."""

logger = logging.getLogger("pdjax")


def main(arguments: Sequence[str]) -> int:
    """Writes the reports of some working directories; returns 0, or 2 (bad input, or a refusal of the system)."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    parser = argparse.ArgumentParser("python -m pdjax.report", description=_PURPOSE)
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="of an experiment")
    try:
        for workdir in parser.parse_args(arguments).workdirs:
            with told():
                write_report(workdir)
    except UserError as error:
        logger.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
