"""Configurations: experiments in plain Python, and the ConfigDict of their fields that flags act on.

A configuration file ends with ``return configure(experiment)``. The ConfigDict holds the same fields under the names of
``--config.FIELD=VALUE``, each in a place of its own; ``experiment_of`` makes the experiment again along the typed one,
which also gives the order. What has a name, such as a strategy, stands under it; which class a choice is stands under
``kind``, or under the field's own name where the choice's fields stand beside it::

    --config.student.num_heads=2                  --config.strategies.two_shot.duration=500
    --config.student_training.optimizer.kind=Sgd  --config.strategies.two_shot.schedule="TeacherSplit(kappa=0.5)"
"""

import ast
import contextlib
import contextvars
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from pdjax.errors import UserError, require
from pdjax.experiment import Experiment
from pdjax.settings import (
    Aside,
    Beside,
    ByName,
    Choice,
    check_written,
    class_name,
    find_class,
    is_settings,
    make,
    named,
)

NAME = "name"
"""The field by which settings stand in a ConfigDict, if they have one and are several."""

KIND = "kind"
"""The key of a choice's class; ``class`` is no name in an override."""

_asked: contextvars.ContextVar[str | None] = contextvars.ContextVar("strategies", default=None)


class Configuration(ConfigDict):
    """The fields of an experiment, with the typed experiment that they were made of."""

    def __init__(self, experiment: Experiment):
        super().__init__(_tree(experiment))
        # Past ConfigDict, which would make it one of the fields.
        object.__setattr__(self, "experiment", experiment)


@contextlib.contextmanager
def only(strategies: str | None) -> Iterator[None]:
    """Makes ``configure`` keep some strategies, or copy them: see ``with_strategies``."""
    token = _asked.set(strategies)
    try:
        yield
    finally:
        _asked.reset(token)


def configure(experiment: Experiment) -> ConfigDict:
    """Returns the locked ConfigDict of an experiment: what a configuration's ``get_config`` returns.

    Raises:
      UserError: something of it could not be written down and found again, as its class is within another.
    """
    check_written(experiment, "config")
    # Set around a get_config, which takes the variant alone.
    asked = _asked.get()
    # Locked: an override of a field that does not exist is refused.
    return Configuration(experiment if asked is None else with_strategies(experiment, asked)).lock()


def with_strategies(experiment: Experiment, text: str) -> Experiment:
    """Returns an experiment with some of its strategies: ``labels,two_shot`` keeps two, ``long=two_shot`` copies one.

    Comparisons, ablations and probes keep what they have of them; those that are left with none go.

    Raises:
      UserError: a strategy is not there, or none is asked for.
    """
    known, chosen = named(experiment.strategies), []
    for part in filter(None, text.split(",")):
        name, _, source = part.partition("=")
        if (source or name) not in known:
            raise UserError(
                f"strategies among {', '.join(known)}", repr(source or name), "write --strategies=labels,new=labels"
            )
        chosen.append(dataclasses.replace(known[source or name], name=name))
    if not chosen:
        raise UserError("at least one strategy in --strategies", repr(text), "name some")
    kept = {strategy.name for strategy in chosen}

    def of_kept(parts: tuple[Any, ...]) -> tuple[Any, ...]:
        some = (
            dataclasses.replace(p, strategies=tuple(s for s in p.strategies if s in kept))
            for p in parts
            if kept & {*p.strategies}
        )
        return tuple(some)

    return dataclasses.replace(
        experiment,
        strategies=tuple(chosen),
        comparisons=of_kept(experiment.comparisons),
        ablations=of_kept(experiment.ablations),
        probes=dataclasses.replace(
            experiment.probes, students=tuple(s for s in experiment.probes.students if s in kept)
        ),
    )


def experiment_of(config: ConfigDict) -> Experiment:
    """Makes the experiment of a ConfigDict, as flags may have changed it.

    Raises:
      UserError: a value, or a combination of them, is wrong.
    """
    return _again(configured(config).experiment, config, "config")


def configured(value: Any) -> Configuration:
    """Returns what a ``get_config`` gave, or raises a ``UserError`` where that is not what ``configure`` returns."""
    if not isinstance(value, Configuration):
        raise UserError(
            "a configuration that ends with configure(experiment)", type(value).__name__, "see configs/ for some"
        )
    return value


class Leaf(NamedTuple):
    """A field of a configuration that a flag can set."""

    path: str
    kind: str
    value: Any
    documentation: str
    determines_results: bool = True


def leaves(experiment: Experiment) -> Iterator[Leaf]:
    """Yields all fields that flags can set, in the order in which they are written."""
    yield from _leaves(experiment, "config")


def _fields(value: Any) -> Iterator[tuple[str, Any, set[type], Any]]:
    """Yields name, value, marks and pydantic's description of the fields of settings."""
    for name, field in type(value).__pydantic_fields__.items():
        part, marks = getattr(value, name), {type(mark) for mark in field.metadata}
        # Without names of its own there is nothing that could stand beside the field.
        yield name, part, marks - {Beside} if isinstance(part, tuple) and ByName not in marks else marks, field


def _short(value: Choice, base: Any) -> str:
    """Returns the name of a choice's class as a flag may write it: alone, where it is of the base's own folder."""
    full = class_name(type(value))
    home = ".".join(base.__module__.split(".")[:2])
    return full.removeprefix(f"{home}:")


def _base(field: Any) -> Any:
    """Returns the type of a field without None."""
    arguments = [part for part in typing.get_args(field.annotation) if part is not type(None)]
    union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
    kind = arguments[0] if union and arguments else field.annotation
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _tree(value: Any, field: Any = None) -> Any:
    """Returns what a ConfigDict holds of a value: nested dicts, scalars, tuples of scalars, and typed None."""
    if is_settings(value):
        if not isinstance(value, Choice):
            return _parts(value)
        return {KIND: class_name(type(value)) if field is None else _short(value, _base(field))} | _parts(value)
    if isinstance(value, Mapping):
        return {key: _tree(part) for key, part in value.items()}
    if value is None and field is not None:
        base = _base(field)
        kind = typing.get_origin(base) or base
        # Its type says how a flag reads a value for it.
        return config_dict.placeholder(kind if kind in (int, float, str, bool, tuple) else dict)
    return value


def _tree_of_named(part: Any) -> dict[str, Any]:
    tag = {KIND: class_name(type(part))} if isinstance(part, Choice) else {}
    return tag | {key: value for key, value in _parts(part).items() if key != NAME}


def _parts(value: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name, part, marks, field in _fields(value):
        if ByName in marks and part:
            trees = {key: _tree_of_named(one) for key, one in named(part).items()}
            new = trees if Beside in marks else {name: trees}
        elif Beside not in marks:
            new = {name: _tree(part, field)}
        elif ByName in marks:
            new = {}
        else:
            new = {name: _short(part, _base(field))} | _parts(part)
        # One would hide the other without a word.
        if twice := sorted(set(parts) & set(new)):
            raise UserError(
                f"fields of {type(value).__name__} with names of their own beside each other", str(twice), "rename them"
            )
        parts |= new
    return parts


def _again(original: Any, tree: Any, path: str) -> Any:
    """Returns settings made along the original of what a ConfigDict holds now."""
    # All checks again: an override may contradict what was right before.
    return make(type(original), _fields_again(original, tree, path), path)


def _fields_again(original: Any, tree: Any, path: str) -> dict[str, Any]:
    fields = {}
    for name, part, marks, field in _fields(original):
        where = f"{path}.{name}"
        if name == NAME and NAME not in tree:
            fields[name] = part
        elif ByName in marks and part:
            trees, inner = (tree, path) if Beside in marks else (tree[name], where)
            fields[name] = tuple(_rebuilt(one, trees[one.name], f"{inner}.{one.name}") for one in part)
        elif ByName in marks and Beside in marks:
            fields[name] = part
        elif Beside in marks:
            fields[name] = _choice(part, tree, tree[name], where, _base(field))
        else:
            fields[name] = _rebuilt(part, tree[name], where, _base(field))
    return fields


def _rebuilt(original: Any, tree: Any, path: str, base: Any = None) -> Any:
    """Returns a value made along the original of what a ConfigDict holds now."""
    if isinstance(original, Choice):
        return _choice(original, tree, tree.get(KIND), path, base)
    if is_settings(original):
        return _again(original, tree, path)
    if isinstance(original, Mapping):
        return {key: _rebuilt(part, tree[key], f"{path}.{key}") for key, part in original.items()}
    return _plain(tree)


def _choice(original: Any, tree: Any, asked: str | None, path: str, base: Any = None) -> Any:
    """Returns settings of the class that is asked for, with the fields that it shares with the original.

    Raises:
      UserError: there is no such class, or an override would have no effect: of a field that it lacks, or gets besides.
    """
    if asked is None or asked in (class_name(type(original)), None if base is None else _short(original, base)):
        return _again(original, tree, path)
    name, opening, arguments = asked.partition("(")
    try:
        call = ast.parse(f"_({arguments}" if opening else "_()", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        # Literals alone: no code of a flag is run.
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        name, given = asked, {}
    try:
        cls = find_class(name, base or type(original).__mro__[1])
    except UserError as error:
        raise error.within(path) from None
    fields = _fields_again(original, tree, path)
    shared = {key: value for key, value in fields.items() if key in cls.__pydantic_fields__}
    # What has its old value nobody may have asked for: it goes with the old class.
    for key in (key for key, value in fields.items() if value != getattr(original, key)):
        place, value = f"{path}.{key}", repr(fields[key])
        require(
            key in shared,
            f"a field of {cls.__name__} for {place}",
            value,
            "remove the override, or choose a class that has the field",
        )
        require(
            key not in given,
            f"{place} once",
            f"{value}, and {given.get(key)!r} beside {cls.__name__}",
            "remove one of them",
        )
    return make(cls, shared | given, path)


def _plain(value: Any) -> Any:
    """Returns a ConfigDict as nested dicts in the order in which it was written; its own methods sort the keys."""
    if not isinstance(value, ConfigDict):
        return value
    return {key: _plain(value[key]) for key in vars(value)["_fields"]}


def _leaves(value: Any, path: str) -> Iterator[Leaf]:
    for name, part, marks, field in _fields(value):
        for leaf in _leaves_of_field(name, part, marks, field, path):
            yield leaf._replace(determines_results=False) if Aside in marks else leaf


def _leaves_of_field(name: str, part: Any, marks: set[type], field: Any, path: str) -> Iterator[Leaf]:
    documentation = " ".join((field.description or "").split())
    if ByName in marks and (part or Beside in marks):
        for one in part:
            yield from _leaves_of_named(one, path if Beside in marks else f"{path}.{name}")
    elif is_settings(part):
        inner = path if Beside in marks else f"{path}.{name}"
        if isinstance(part, Choice):
            tag = f"{path}.{name}" if Beside in marks else f"{path}.{name}.{KIND}"
            summary = (type(part).__doc__ or "").partition("\n")[0]
            yield Leaf(tag, _with_article(_base(field)), _short(part, _base(field)), documentation or summary)
        yield from _leaves(part, inner)
    elif isinstance(part, Mapping):
        yield from _leaves_of_mapping(part, f"{path}.{name}", documentation)
    else:
        yield Leaf(f"{path}.{name}", _kind(field.annotation), part, documentation)


def _leaves_of_mapping(mapping: Mapping[str, Any], path: str, documentation: str) -> Iterator[Leaf]:
    for key, part in mapping.items():
        if is_settings(part):
            yield from _leaves_of_choice(part, f"{path}.{key}")
        elif isinstance(part, Mapping):
            yield from _leaves_of_mapping(part, f"{path}.{key}", documentation)
        else:
            yield Leaf(f"{path}.{key}", type(part).__name__, part, documentation)


def _leaves_of_named(value: Any, path: str) -> Iterator[Leaf]:
    """Yields the fields of settings that stand under their name, which no flag can set."""
    here = f"{path}.{getattr(value, NAME)}"
    yield from (leaf for leaf in _leaves_of_choice(value, here) if leaf.path != f"{here}.{NAME}")


def _leaves_of_choice(value: Any, path: str) -> Iterator[Leaf]:
    if isinstance(value, Choice):
        summary = (type(value).__doc__ or "").partition("\n")[0]
        yield Leaf(f"{path}.{KIND}", _with_article(type(value).__mro__[1]), class_name(type(value)), summary)
    yield from _leaves(value, path)


def _with_article(base: type) -> str:
    return f"{'an' if base.__name__[0] in 'AEIO' else 'a'} {base.__name__}"


def _kind(annotation: Any) -> str:
    """Returns a type as a reader writes it."""
    if typing.get_origin(annotation) is Annotated:
        return _kind(typing.get_args(annotation)[0])
    if annotation is types.NoneType:
        return "None"
    arguments = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case typing.Literal:
            return " | ".join(map(repr, arguments))
        case typing.Union | types.UnionType:
            return " | ".join(map(_kind, arguments))
        case None:
            return getattr(annotation, "__name__", str(annotation))
        case origin:
            inner = ", ".join("..." if a is Ellipsis else _kind(a) for a in arguments)
            return f"{origin.__name__}[{inner}]"
