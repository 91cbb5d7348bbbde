"""The command line: ``python -m pdjax.text DIRECTORY --source NAME=PATH ...`` prepares a corpus of natural language."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pdjax.errors import UserError, require
from pdjax.refusals import told

_PURPOSE = """\
Prepares a corpus once: reads documents, turns them into WordPiece tokens, packs these into rows of one length, and
keeps some documents apart from training. Then it is read in any order. The same command on a finished corpus does
nothing."""

logger = logging.getLogger("pdjax")


def main(arguments: Sequence[str]) -> int:
    """Prepares a corpus and prints a report; returns 0, 2 (bad input) or 130 (interrupted)."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    asked = _parser().parse_args(arguments)
    try:
        with told():
            return _prepare(asked)
    except (UserError, OSError) as error:  # one without a number too
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.warning("stopped; the same command starts again")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pdjax.text", description=_PURPOSE, allow_abbrev=False)
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="of the corpus; new, empty, or finished")
    parser.add_argument(
        "--source",
        metavar="[NAME=]PATH",
        action="append",
        required=True,
        help="a file or folder of .txt or .jsonl, also .gz or .zst, or a TFDS data set in array_record (the directory "
        "with its dataset_info.json); repeat it for more. NAME is the last part of PATH by default",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="SIZE|FILE",
        required=True,
        help="how many tokens to learn from the training documents, or a vocab.txt of BERT's kind",
    )
    parser.add_argument("--length", metavar="N", type=int, required=True, help="places of a row")
    parser.add_argument("--held_out", metavar="SHARE", type=float, help="of the documents, 0.05 by default")
    parser.add_argument("--seed", metavar="N", type=int, help="of the choice of these, 0 by default")
    parser.add_argument(
        "--documents",
        metavar="[NAME=]file|blank",
        action="append",
        default=[],
        help="what a document of .txt is: a file (the default), or what stands between blank lines; of all sources, or "
        "of one by its name",
    )
    parser.add_argument(
        "--field",
        metavar="[NAME=]FIELD",
        action="append",
        default=[],
        help="what holds the text in .jsonl and TFDS: 'text' by default; of all sources, or of one by its name",
    )
    parser.add_argument(
        "--lowercase",
        action=argparse.BooleanOptionalAction,
        help="lowercase the text and drop accents, as for uncased BERT (the default)",
    )
    parser.add_argument("--longest", metavar="N", type=int, help="characters of a document, 8,000,000 by default")
    return parser


def _prepare(asked: argparse.Namespace) -> int:
    from pdjax.settings import make
    from pdjax.text.corpus import RECORD, check_installed

    check_installed()
    from pdjax.text.prepare import Preparation, prepare
    from pdjax.text.report import report

    fields = {"sources": _sources(asked), "length": asked.length}
    fields["vocabulary"] = int(asked.vocabulary) if asked.vocabulary.isdecimal() else asked.vocabulary
    for name in ("held_out", "seed", "lowercase", "longest"):
        if getattr(asked, name) is not None:
            fields[name] = getattr(asked, name)
    was_there = (asked.directory / RECORD).exists()
    corpus = prepare(asked.directory, make(Preparation, fields))
    if was_there:
        logger.info(
            "%s is prepared already, of the same sources with the same settings: nothing was done", asked.directory
        )
    print(report(corpus))
    return 0


def _sources(asked: argparse.Namespace) -> list[dict[str, str]]:
    """Returns the fields of the sources."""
    sources = []
    for given in asked.source:
        # A path may have = in it as well: a name has none of the characters that paths begin with.
        found = re.fullmatch("(?:([a-z][a-z0-9_]*)=)?(.*)", given)
        assert found is not None
        name = found[1] or re.sub("[^a-z0-9]+", "_", Path(found[2]).resolve().name.split(".")[0].lower()).strip("_")
        sources.append({"name": name, "path": found[2]})
    for option in ("documents", "field"):
        # What is said of all comes before what is said of one.
        for given in sorted(getattr(asked, option), key=lambda given: "=" in given):
            name, _, value = given.rpartition("=")
            chosen = [source for source in sources if name in ("", source["name"])]
            known = ", ".join(source["name"] for source in sources)
            require(len(chosen) > 0, f"--{option} of {known}", given, "correct the name")
            for source in chosen:
                source[option] = value
    return sources


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
