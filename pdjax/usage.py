"""What ``--help`` prints: the flags, the configurations at hand, and with ``--helpfull`` every field of one."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from pdjax.config.building import as_written, leaves

ASKING = frozenset({"-h", "-help", "--help", "--helpshort", "-helpfull", "--helpfull"})
"""Arguments that ask for help, wherever they stand and whatever stands beside them."""

_FULL = frozenset({"-helpfull", "--helpfull"})

_CONFIGURATIONS = """\
A configuration file begins with what it shows, its commands, their cost and what to expect; behind a colon stands one
of its variants, such as configs/pcfg.py:smoke. {fields}"""

_WIDTH = 120


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether help is wanted instead of what the flags say."""
    return not ASKING.isdisjoint(argv[1:])


def asks_for_fields(argv: Sequence[str]) -> bool:
    """Whether help with every field of the configuration is wanted."""
    return not _FULL.isdisjoint(argv[1:])


def help_text(command: str, purpose: str, names: Sequence[str], config: ConfigDict | None, directory: Path) -> str:
    """Returns the help of a command.

    Args:
      command: how it is called, with an example of its flags.
      purpose: what it does.
      names: of its flags, in the order in which they are listed.
      config: whose fields are listed as flags; None lists none.
      directory: of the configuration files.
    """
    fields = (
        "--config=FILE --helpfull lists every field of it."
        if config is None
        else "All fields of this one, with their values:"
    )
    parts = [
        flags.text_wrap(purpose, _WIDTH),
        f"Example: {command}",
        "\n".join(["Flags:", *map(_flag, names), "  --config.FIELD=VALUE: replaces one field of the configuration"]),
        "\n".join(["Configurations:", *configurations(directory)]),
        _CONFIGURATIONS.format(fields=fields),
    ]
    if config is not None:
        parts.append("\n".join(f"  --{path}={value}" for path, value in leaves(as_written(config), "config.")))
    return "\n\n".join(parts)


def configurations(directory: Path) -> Iterator[str]:
    """Yields a line for each configuration file of a directory: its name, and the first line of its docstring."""
    for path in sorted(directory.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        yield flags.text_wrap(docstring.partition("\n")[0], _WIDTH, "      ", f"  {path}: ")


def _flag(name: str) -> str:
    flag = flags.FLAGS[name]
    default = "" if flag.default is None else f" (default: {flag.default})"
    return flags.text_wrap(f"{flag.help}{default}", _WIDTH, "      ", f"  --{name}: ")
