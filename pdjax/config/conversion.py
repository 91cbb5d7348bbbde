"""From plain nested data to frozen dataclasses, strictly: nothing unknown, missing or of another type passes."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pdjax.errors import UserError, require


def build(kind: Any, value: Any, path: str) -> Any:
    """Builds a value of an annotated type from plain data: dataclasses, tuples, mappings, literals, scalars.

    Args:
      kind: the type, as an annotation gives it.
      value: nested dicts, sequences and scalars.
      path: where the value stands, for errors.

    Raises:
      UserError: an unknown or missing key, a wrong type, or what a dataclass refuses; it names the path.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return build(_choose(arguments, value, path), value, path)
    if origin is Literal:
        require(value in arguments, f"{path} among {', '.join(map(repr, arguments))}", repr(value), "choose one")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{path} to be a tuple", repr(value), "write (a, b) or (a,)")
        return tuple(build(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        require(isinstance(value, Mapping), f"{path} to map names to values", repr(value), "see configs/")
        return {str(k): build(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # an integer literal is an exact float
    assert isinstance(kind, type)
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    require(right, f"{path} of type {kind.__name__}", f"{value!r} ({type(value).__name__})", "fix the config")
    return value


def _choose(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    """Returns the member of a union that a value is meant for; of several dataclasses, the one of its ``kind``."""
    members = [a for a in arguments if a is not type(None)]
    if len(members) == 1:
        return members[0]
    by_kind = {typing.get_args(typing.get_type_hints(member)["kind"])[0]: member for member in members}
    require(isinstance(value, Mapping), f"{path} to hold fields, 'kind' among them", repr(value), "see configs/")
    require("kind" in value, f"{path}.kind", "no such key", f"choose one of {sorted(by_kind)}")
    kind = value["kind"]
    require(kind in by_kind, f"{path}.kind among {', '.join(map(repr, by_kind))}", repr(kind), "choose one")
    return by_kind[kind]


def _build_dataclass(kind: type, value: Any, path: str) -> Any:
    require(isinstance(value, Mapping), f"{path} to hold the fields of {kind.__name__}", repr(value), "see configs/")
    hints = typing.get_type_hints(kind)
    unknown, missing = sorted(set(value) - set(hints)), sorted(set(hints) - set(value))
    require(not unknown, f"{path} with the keys {sorted(hints)}", f"unknown {unknown}", "remove or rename them")
    require(not missing, f"{path} with the keys {sorted(hints)}", f"{missing} missing", "add them")
    fields = {name: build(hint, value[name], f"{path}.{name}") for name, hint in hints.items()}
    try:
        return kind(**fields)
    except UserError as error:
        raise error.within(path) from None
