"""Settings: frozen dataclasses that hold a choice, check it, and say what is wrong with it in one line.

Whatever one can choose is one class with its fields, their documentation and defaults, and what it does. A field that
is *open*, such as a task, takes an instance of any subclass of its type, a stranger's too. As plain data such an
instance is a mapping with ``class``, the name that it is found by::

    {"class": "pdjax.tasks:ParityTask", "dimension": 50, "degree": 5}

Classes of this package are named by their folder, whatever file of it they are in: moving one changes no identity.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, dataclass_transform

import numpy as np
import pydantic
import pydantic.dataclasses
from pydantic import AfterValidator, Field
from pydantic_core import core_schema

from pdjax.errors import UserError, require

T = TypeVar("T")

PACKAGE = "pdjax"

# Not strict, pydantic takes True and '8' for integers. Defaults are checked as any other values are.
CONFIG = pydantic.ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
)


def in_float32(value: float) -> float:
    """Returns a number that devices, which have 32 bits for it, neither make infinite nor 0.

    Raises:
      UserError: it is another one.
    """
    size = abs(value)
    held = size == 0 or SMALLEST <= size <= LARGEST
    require(held, "0 or a number that float32 holds (1.2e-38 to 3.4e38)", value, "change it")
    return value


_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff"  # but for ends of lines and tabs
_SURROGATES = r"\ud800-\udfff"  # bytes of a command that are no UTF-8, in which everything is written


def _file_name(value: str) -> str:
    expected = "a name of files: 1 to 100 characters, 150 bytes at most, none of them / or \\ or a control character, "
    free = value == value.strip() and not value.startswith((".", "~")) and len(value.encode(errors="replace")) <= 150
    shown = free and re.fullmatch(rf"[^/\\{_CONTROLS}\n\r\t{_SURROGATES}]{{1,100}}", value)
    require(bool(shown), expected + "and no dot, ~ or space in front", repr(value), "rename it")
    return value


def _file_names(value: str) -> str:
    for part in value.split("/"):
        _file_name(part)
    return value


def _text(value: str) -> str:
    shown = not re.search(f"[{_CONTROLS}{_SURROGATES}]", value)
    require(shown, "text in UTF-8 without control characters", repr(value[:300]), "change it")
    return value


def _place(value: str) -> str:
    written = not re.search(f"[\\0{_SURROGATES}]", value)
    fits = written and all(len(part.encode()) <= 255 for part in value.split("/"))
    require(fits, "a path whose parts are at most 255 bytes long", repr(value[:300]), "change it")
    return value


SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
Real = Annotated[float, AfterValidator(in_float32)]
Positive = Annotated[float, Field(gt=0), AfterValidator(in_float32)]
Share = Annotated[float, Field(ge=0, lt=1), AfterValidator(in_float32)]
Weight = Annotated[float, Field(ge=0, le=1), AfterValidator(in_float32)]
# They live on devices as 32-bit integers.
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, AfterValidator(_file_name)]
Names = Annotated[str, AfterValidator(_file_names)]  # below each other
Place = Annotated[str, AfterValidator(_place)]
Text = Annotated[str, AfterValidator(_text)]  # that pages and figures show


class Beside:
    """Marks a field whose own fields stand beside it in overrides: ``strategies.x.duration`` of x's schedule.

    Of a tuple that is ``ByName`` the names do.
    """


class ByName:
    """Marks a tuple of settings with distinct names that is used by them: its order determines no result."""


class Aside:
    """Marks a field that determines no result: where arrays live, what is drawn, what is said of it."""


class Grows:
    """Marks a field that may get more in a working directory that has begun: what is there keeps its results."""


SOURCE = "__pdjax_source__"
"""The attribute of a user's module with the SHA-256 of its files."""

CLASS = "class"
"""The key of a mapping that names the class whose fields it holds."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose fields are checked when it is made: names, types, limits."""
    # A subclass of a choice inherits its open schema; a field of that very class is closed.
    if "__get_pydantic_core_schema__" not in vars(cls):
        cls.__get_pydantic_core_schema__ = classmethod(_schema)  # pyright: ignore
    return pydantic.dataclasses.dataclass(cls, frozen=True, config=CONFIG)  # pyright: ignore


def _schema(cls: type, source: Any, handler: Any) -> core_schema.CoreSchema:
    """Returns how pydantic checks a field of settings: an instance, or a mapping of what makes one."""

    def made(value: Any) -> Any:
        return make(cls, _without_class(value)) if isinstance(value, Mapping) else value

    return core_schema.no_info_before_validator_function(made, handler(source))


def _without_class(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != CLASS}


class Choice:
    """A base whose subclasses may be anybody's; a field of its type takes an instance of any of them."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Returns how pydantic checks a field of this type, which is open: see ``opened``."""
        return core_schema.no_info_plain_validator_function(functools.partial(opened, cls))


def opened(base: type[T], value: Any) -> T:
    """Returns an instance of a subclass of ``base``: the value itself, or one made of a mapping with its class."""
    if isinstance(value, base):
        name = type(value).__name__
        require(is_settings(value), f"@settings above class {name}", f"{class_name(type(value))} without it", "add it")
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get(CLASS), str):
        expected = f"an instance of {base.__name__}, or a mapping with {CLASS!r} and its fields"
        raise UserError(expected, repr(value), f"name a subclass of {base.__name__}")
    return make(find_class(value[CLASS], base), _without_class(value))


def make(cls: type[T], fields: Mapping[str, Any], path: str = "") -> T:
    """Makes settings of their fields as plain data, in which lists are tuples.

    Raises:
      UserError: a name, a type, a value or a combination is wrong: the first of them, with its path.
    """
    try:
        return cls(**{name: _tuples(value) for name, value in fields.items()})
    except pydantic.ValidationError as error:
        raise complaint(error, path) from None


def plain(value: Any) -> Any:
    """Returns settings as nested dicts, lists and scalars, as JSON holds them: all fields of whatever class it is."""
    # Records of runs too, which are no settings.
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tag = {CLASS: class_name(type(value))} if isinstance(value, Choice) else {}
        return tag | {name: plain(getattr(value, name)) for name in _field_names(value)}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


def determining(value: Any, defaults: bool = False) -> Any:
    """Returns settings as plain data without what determines no result, and with the content of users' files.

    Some fields determine none, nor does the order of what is used by name: of a field that says so, or of a tuple of
    settings with names that is given itself. Fields that have their default are left out, so that another field of it
    changes nobody's identity; with ``defaults`` they are there.
    """
    by_name = isinstance(value, tuple) and all(is_settings(part) and hasattr(part, "name") for part in value)
    return _determining(value, defaults, by_name)


def _determining(value: Any, defaults: bool, by_name: bool = False) -> Any:
    if by_name and value:
        # A digest sorts keys, and the order is gone.
        return {name: _determining(part, defaults) for name, part in named(value).items()}
    if isinstance(value, Mapping):
        # Through plain data: what has been written and read again is the same.
        data = plain(value)
        choice = _choice_in(data)
        return (
            {key: _determining(part, defaults) for key, part in data.items()}
            if choice is None
            else _determining(choice, defaults)
        )
    if not is_settings(value):
        return [_determining(part, defaults) for part in value] if isinstance(value, tuple | list) else value
    tag = {CLASS: class_name(type(value)), **_source_of(type(value))} if isinstance(value, Choice) else {}
    parts: dict[str, Any] = {}
    for name, marks in marked(type(value)):
        part = getattr(value, name)
        if Aside not in marks and (defaults or part != _default(type(value), name)):
            parts[name] = _determining(part, defaults, ByName in marks)
    return tag | parts


def _default(cls: type, name: str) -> Any:
    return cls.__pydantic_fields__[name].get_default(call_default_factory=True)  # pyright: ignore


def _choice_in(fields: Mapping[str, Any]) -> Choice | None:
    """Returns the choice that plain data is of; None where it is of none, or names the class without its module."""
    name = fields.get(CLASS)
    if not isinstance(name, str) or ":" not in name:
        return None
    try:
        return make(find_class(name, Choice), _without_class(fields))
    except UserError:  # a mapping of a user's may have such a key as well
        return None


def _source_of(cls: type) -> dict[str, str]:
    """Returns the digest of a user's module: of its files together, where it was loaded with those beside it."""
    if cls.__module__.startswith(f"{PACKAGE}."):
        return {}
    module = importlib.import_module(cls.__module__)
    digest = getattr(module, SOURCE, None) or hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    return {"source": digest}


def is_settings(value: Any) -> bool:
    """Whether a value is an instance of a settings class."""
    return hasattr(type(value), "__pydantic_fields__") and dataclasses.is_dataclass(value)


def check_written(value: Any, path: str = "") -> None:
    """Raises a ``UserError`` where settings could not be written as JSON, or not be made again of it elsewhere."""
    if is_settings(value):
        cls = type(value)
        # Classes of this package are where their names say.
        if isinstance(value, Choice) and not cls.__module__.startswith(f"{PACKAGE}."):
            require(
                "." not in cls.__qualname__,
                f"a class{f' of {path}' if path else ''} that {cls.__module__} has under its name",
                class_name(cls),
                "define it outside of other classes and functions",
            )
        value = {name: getattr(value, name) for name, _ in marked(cls)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, part in value.items():
            check_written(part, f"{path}.{key}" if path else key)
    elif isinstance(value, tuple | list):
        for place, part in enumerate(value):
            # Users know what has a name by that.
            inner = part.name if is_settings(part) and hasattr(part, "name") else place
            check_written(part, f"{path}.{inner}")
    else:
        expected = "text, a number, true, false, None, settings, or a tuple or mapping by text of these"
        require(
            value is None or isinstance(value, str | int | float),
            f"{path} to be {expected}",
            repr(value),
            "change its type",
        )


def choices(value: Any, determining_results: bool = False) -> Iterator[type]:
    """Yields the classes of all choices that settings hold, with repetitions; of those alone that determine results.

    Those too that mappings hold as plain data.
    """
    if isinstance(value, Mapping):
        value = _choice_in(value) or tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from choices(part, determining_results)
    elif is_settings(value):
        if isinstance(value, Choice):
            yield type(value)
        for name, marks in marked(type(value)):
            if not (determining_results and Aside in marks):
                yield from choices(getattr(value, name), determining_results)


def _field_names(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]


def marked(cls: type) -> Iterator[tuple[str, set[type]]]:
    """Yields the names of the fields of a settings class, with the kinds of their marks."""
    for name, field in cls.__pydantic_fields__.items():  # pyright: ignore
        yield name, {type(mark) for mark in field.metadata}


def named(parts: Sequence[T]) -> dict[str, T]:
    """Returns settings by their ``name``.

    Raises:
      UserError: two of them have one name.
    """
    names: list[str] = [part.name for part in parts]  # pyright: ignore
    require(len({*names}) == len(names), "distinct names", names, "remove or rename the repeated ones")
    return dict(zip(names, parts, strict=True))


def class_name(cls: type) -> str:
    """Returns the name that a class is found by: ``package.folder:Class`` for this package's, else ``module:Class``."""
    module = cls.__module__
    if module.startswith(f"{PACKAGE}."):
        module = ".".join(module.split(".")[:2])
    return f"{module}:{cls.__qualname__}"


def find_class(name: str, base: type[T]) -> type[T]:
    """Returns the subclass of ``base`` of a name; of one without a module, among those of the base's own folder.

    Raises:
      UserError: there is no such class, or it is no subclass.
    """
    module, _, attribute = name.rpartition(":")
    alone = not module  # as a flag may write it: ``fixed_duration`` too
    module = module or ".".join(base.__module__.split(".")[:2])
    # Nothing is registered: modules are imported one after the other until one has the class.
    for source in _modules(module, name):
        for known, cls in vars(source).items():
            right = known == attribute or (alone and _folded(known) == _folded(attribute))
            if right and isinstance(cls, type) and issubclass(cls, base) and dataclasses.is_dataclass(cls):
                return cls
    known = sorted({class_name(cls) for cls in subclasses(base)})
    raise UserError(f"a subclass of {base.__name__}", repr(name), f"choose one of {', '.join(known)}, or your own")


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def subclasses(base: type[T]) -> Iterator[type[T]]:
    """Yields the settings among the subclasses of a base that have been imported."""
    for cls in base.__subclasses__():
        if dataclasses.is_dataclass(cls):
            yield cls
        yield from subclasses(cls)


def _modules(name: str, asked: str) -> Iterator[types.ModuleType]:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            "a class in a module that can be imported", f"{asked!r} ({error})", "correct its name"
        ) from None
    yield module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield importlib.import_module(f"{name}.{inner.name}")


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list | tuple) else value


def complaint(error: pydantic.ValidationError, path: str) -> UserError:
    """Returns the first of pydantic's complaints in our words, with the path of the field."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in (path, *first["loc"]) if part != "")
    context, value = first.get("ctx", {}), first["input"]
    inner = context.get("error")
    # Of one of our own checks: pydantic carries along a ValueError, as which it is raised.
    if isinstance(inner, UserError):
        return inner.within(where) if where else inner
    limits = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    bounds = [f"{words} {context[name]}" for name, words in limits.items() if name in context]
    match first["type"]:
        case "unexpected_keyword_argument":
            return UserError(f"no field {where}", repr(value), "remove or rename it")
        case "missing" | "missing_argument":
            return UserError(f"{where}", "nothing", "add it")
        case "literal_error":
            return UserError(f"{where} among {context['expected']}", repr(value), "choose one")
        case "too_short":
            return UserError(f"at least {context['min_length']} in {where}", repr(value), "add one")
        case "finite_number":
            return UserError(f"{where} to be finite", repr(value), "change it")
        case kind if kind.endswith("_type"):
            expected = kind.removesuffix("_type")
            return UserError(f"{where} of type {expected}", f"{value!r} ({type(value).__name__})", "change it")
    expected = " and ".join(bounds) or first["msg"]
    return UserError(f"{where} of {expected}" if bounds else f"{where}: {expected}", repr(value), "change it")
