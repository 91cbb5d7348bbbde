"""Flags of the command lines: ``--config``, ``--strategies``, complaints about them, and what help prints."""

import ast
import difflib
import keyword
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from pdjax.errors import UserError, require

if TYPE_CHECKING:  # with jax: who asks for help need not wait
    from pdjax.experiment import Experiment

ASKING = frozenset({"-h", "-help", "--help", "--helpshort", "-helpfull", "--helpfull"})
"""Arguments that ask for help, wherever they stand and whatever stands beside them."""

FIELDS = frozenset({"-helpfull", "--helpfull", "-print_config", "--print_config"})
"""Arguments that ask for every field of the configuration."""

_CONFIGURATIONS = """\
A configuration file begins with what it shows, its commands, their cost and what to expect; behind a colon stands one
of its variants, such as configs/pcfg.py:smoke. --config=FILE --print_config lists every field of it, with its type, its
value and what it means."""

_WIDTH = 120

_CONFIG = flags.DEFINE_string("config", None, "Experiment, e.g. configs/pcfg.py or configs/pcfg.py:smoke.")
_STRATEGIES = flags.DEFINE_string(
    "strategies", None, "Strategies of the configuration to keep, and copies of some: labels,two_shot,long=two_shot."
)
_PRINT = flags.DEFINE_bool("print_config", False, "Print every field of the configuration, and run nothing.")

SHARED = ("config", "strategies", "print_config")
"""Names of the flags that every command has."""


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether help is wanted instead of what the flags say."""
    return not (ASKING | FIELDS).isdisjoint(argv[1:])


def print_help(argv: Sequence[str], example: str, purpose: str, names: Sequence[str]) -> None:
    """Prints the help of a command with flags of its own; with ``--print_config`` the configuration's fields instead.

    Raises:
      UserError: the fields are wanted, and the other flags are not valid.
    """
    if FIELDS.isdisjoint(argv[1:]):
        print(help_text(example, purpose, [*SHARED, *names], Path("configs")))
        return
    experiment = parse_flags([argument for argument in argv if argument not in ASKING | FIELDS], lambda: None)
    # With jax: the fields take it, help alone does not.
    from pdjax.configuration import leaves

    try:
        for leaf in leaves(experiment):
            notes = leaf.kind if leaf.determines_results else f"{leaf.kind}; determines no result"
            print(f"--{leaf.path}={leaf.value!r}  ({notes}){': ' if leaf.documentation else ''}{leaf.documentation}")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter may flush the rest


def parse_flags(argv: Sequence[str], before_loading: Callable[[], None]) -> "Experiment":
    """Returns the experiment that the flags ask for; turns every complaint about them into a ``UserError``.

    Args:
      argv: the command line.
      before_loading: called when the flags are known and the configuration is not: loading it may use a device.
    """
    overrides, others = _split(argv[1:])
    _check_names(others)
    try:
        rest = flags.FLAGS([argv[0], *others])
    except flags.Error as error:
        raise UserError("flags that exist, with values of theirs", _essence(error), "see --help") from error
    require(len(rest) == 1, "only flags", f"the arguments {rest[1:]}", "write --flag=value")
    require(_CONFIG.value is not None, "--config", "none", "try --config=configs/pcfg.py")
    require(not _PRINT.value, "--print_config without a value", "one", "write --print_config")
    before_loading()
    from pdjax.configuration import experiment_of  # with jax: who mistyped a flag need not wait

    # Flags of their own: among absl's, --config is the name of the file.
    config, values, arguments = _load(str(_CONFIG.value)), flags.FlagValues(), [argv[0], *map(_quoted, overrides)]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    # config_flags reports a bad override as any of these, depending on where it notices.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("overrides of fields that exist", _essence(error), "see --print_config") from error
    return experiment_of(config)


def configuration_file() -> Path:
    """Returns the file that ``--config`` names, without a variant."""
    return Path(str(_CONFIG.value).partition(":")[0])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the overrides of the configuration, with values that follow them, and all other arguments."""
    overrides, others = [], []
    waiting = iter(arguments)
    for argument in waiting:
        # Fields of the configuration are known when it is loaded, all other flags before.
        chosen = overrides if re.match(r"--?config\.", argument) else others
        chosen.append(argument)
        if chosen is overrides and "=" not in argument:
            following = next(waiting, None)
            # A flag is no value: the override goes without one, and is complained about where it is read.
            if following is not None:
                (overrides if not following.startswith("-") else others).append(following)
    return overrides, others


def _quoted(argument: str) -> str:
    """Returns an override as ml_collections reads it: as Python, where no name is ``100`` or a keyword."""
    path, equals, value = argument.partition("=")
    # With a bracket it is quoted already; what is no override is the value of one.
    if not path.lstrip("-").startswith("config.") or "[" in path:
        return argument
    first, *names = path.split(".")
    right = (name.isidentifier() and not keyword.iskeyword(name) for name in names)
    quoted = (f".{name}" if fits else f"[{name!r}]" for name, fits in zip(names, right, strict=True))
    return first + "".join(quoted) + equals + value


def _load(asked: str) -> ConfigDict:
    """Returns what the configuration in a file gives for the variant behind a colon."""
    import pydantic

    from pdjax.configuration import configured, only
    from pdjax.io.source import load
    from pdjax.settings import complaint

    name, colon, variant = asked.partition(":")
    try:
        module = load(Path(name))
        require(hasattr(module, "get_config"), f"a function get_config in {name}", "none", "write one: see configs/")
        # A get_config takes the variant alone: configure(experiment), which it ends with, looks up the strategies.
        with only(_STRATEGIES.value):
            return configured(module.get_config(variant) if colon else module.get_config())
    except UserError:  # says what to do already
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file does
        # The last line of the user's own file says more than where in a library it ended.
        calls = traceback.extract_tb(error.__traceback__)
        places = [
            f"{call.filename}, line {call.lineno}" for call in calls if Path(call.filename).name == Path(name).name
        ]
        place = places[-1] if places else asked
        if isinstance(error, pydantic.ValidationError):
            raise complaint(error, error.title).within(place) from error
        expected = f"a configuration that can be loaded from {asked}"
        raise UserError(expected, f"{type(error).__name__}: {_essence(error)} ({place})", "correct it") from error


def _check_names(arguments: Sequence[str]) -> None:
    """Refuses flags that no command has, before anything is loaded."""
    for argument in arguments:
        # As absl reads flags: with one dash or two, and a boolean one also as --noflag.
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name and name not in flags.FLAGS and name.removeprefix("no") not in flags.FLAGS:
            near = difflib.get_close_matches(name, list(flags.FLAGS), n=1)
            remedy = f"write --{near[0]}, or see --help" if near else "see --help"
            raise UserError("flags that exist", f"--{name}", remedy)


def _essence(error: BaseException) -> str:
    """Returns a complaint on one line."""
    return " ".join(str(error).split())


def help_text(command: str, purpose: str, names: Sequence[str], directory: Path) -> str:
    """Returns the help of a command.

    Args:
      command: how it is called, with an example of its flags.
      purpose: what it does.
      names: of its flags, in the order in which they are listed.
      directory: of the configuration files.
    """
    override = "  --config.FIELD=VALUE: replaces one field of the configuration"
    parts = (
        flags.text_wrap(purpose, _WIDTH),
        f"Example: {command}",
        "\n".join(["Flags:", *map(_flag, names), override]),
        "\n".join(["Configurations:", *configurations(directory)]),
        _CONFIGURATIONS,
    )
    return "\n\n".join(parts)


def configurations(directory: Path) -> Iterator[str]:
    """Yields a line for each configuration file of a directory: its name, and the first line of its docstring."""
    for path in sorted(directory.glob("*.py")):
        # Parsed, not imported: that would take jax, for help as well.
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        yield flags.text_wrap(docstring.partition("\n")[0], _WIDTH, "      ", f"  {path}: ")


def _flag(name: str) -> str:
    flag = flags.FLAGS[name]
    default = "" if flag.default is None else f" (default: {flag.default})"
    return flags.text_wrap(f"{flag.help}{default}", _WIDTH, "      ", f"  --{name}: ")
