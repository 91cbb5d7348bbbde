"""Flags of the command lines: ``--config``, complaints about them, and what ``--help`` and ``--helpfull`` print."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from pdjax.config.building import as_written, leaves
from pdjax.errors import UserError

ASKING = frozenset({"-h", "-help", "--help", "--helpshort", "-helpfull", "--helpfull"})
"""Arguments that ask for help, wherever they stand and whatever stands beside them."""

_FULL = frozenset({"-helpfull", "--helpfull"})

_CONFIGURATIONS = """\
A configuration file begins with what it shows, its commands, their cost and what to expect; behind a colon stands one
of its variants, such as configs/pcfg.py:smoke. {fields}"""

_WIDTH = 120

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/pcfg.py or configs/pcfg.py:smoke.")


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether help is wanted instead of what the flags say."""
    return not ASKING.isdisjoint(argv[1:])


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
