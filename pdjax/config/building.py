"""What config files are written with: parts of a ConfigDict whose optional fields are there, at None.

A field that may be None is a placeholder: command-line overrides of it still obey its type.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict


def optional(kind: type, value: object = None) -> Any:
    """Returns a value, or a typed placeholder for None."""
    return config_dict.placeholder(kind) if value is None else value


def locked(fields: Mapping[str, Any]) -> ConfigDict:
    """Returns an experiment's fields for overrides to act on.

    A ConfigDict keeps what stands in two places as one thing, and an override of one place would change the other:
    here every place has its own.
    """
    return ConfigDict(_copied(fields)).lock()


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, config_dict.FieldReference):
        return config_dict.placeholder(value.get_type())
    return value


def as_written(value: Any) -> Any:
    """Returns a ConfigDict as nested dicts in the order in which it was written.

    Its own methods sort the keys; ``sort_keys=False`` is not passed on to what is nested in it.
    """
    if not isinstance(value, ConfigDict):
        return value
    return {key: as_written(value[key]) for key in vars(value)["_fields"]}


def leaves(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields the value of every field of nested mappings, and before it the prefix and its keys with dots between."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def adam(*, clip_norm: float | None = None, beta2: float = 0.999) -> dict[str, Any]:
    """Returns the fields of an ``OptimizerConfig``: Adam with 6 % warm-up and half a cosine to 0 (section D.6)."""
    return dict(
        kind="adam",
        schedule="cosine",
        warmup_fraction=0.06,
        clip_norm=optional(float, clip_norm),
        beta1=0.9,
        beta2=beta2,
        epsilon=1e-8,
    )


def selection(
    kind: str,
    *,
    count: int | None = None,
    steps: Sequence[int] | None = None,
    points: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns the fields of a ``SelectionConfig``."""
    return dict(
        kind=kind,
        count=optional(int, count),
        steps=optional(tuple, steps),
        points=optional(tuple, points),
        levels=optional(tuple, levels),
    )


def strategy(
    schedule: str,
    label: str,
    chosen: Mapping[str, Any],
    *,
    duration: int | None = None,
    kappa: float | None = None,
    saturation: Mapping[str, Any] | None = None,
    crossing: Mapping[str, Any] | None = None,
    temperature: float = 1e-4,
    budgets: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns the fields of a ``StrategyConfig`` that learns from a teacher alone, or from the labels alone."""
    return dict(
        schedule=schedule,
        label=label,
        selection=chosen,
        duration=optional(int, duration),
        kappa=optional(float, kappa),
        saturation=optional(dict, saturation),
        crossing=optional(dict, crossing),
        temperature=temperature,
        label_weight=1.0 if schedule == "labels" else 0.0,
        budgets=optional(tuple, budgets),
    )


def search(firsts: Sequence[int], durations: Sequence[int], budget: int) -> dict[str, dict[str, Any]]:
    """Returns the strategies of an exhaustive search over (2, T): every first checkpoint with every T."""
    return {
        f"first_{first}_{duration}": strategy(
            "fixed_duration",
            f"(2, {duration}), step {first}",
            selection("steps", steps=(first,)),
            duration=duration,
            budgets=(budget,),
        )
        for duration in durations
        for first in firsts
    }


def placement(
    *,
    replica: int = -1,
    data: int = 1,
    model: int = 1,
    teacher: str = "replicated",
    student: str = "replicated",
    residency: str = "auto",
) -> dict[str, Any]:
    """Returns the fields of a ``PlacementConfig``: replicas spread over all devices, models whole, unless told."""
    mesh = dict(replica=replica, data=data, model=model)
    return dict(mesh=mesh, teacher=teacher, student=student, residency=residency)


def comparison(title: str, figure: str, *strategies: str, kind: str = "training") -> dict[str, Any]:
    """Returns the fields of a ``ComparisonConfig``."""
    return dict(kind=kind, title=title, figure=figure, strategies=strategies)


def ablation(
    title: str,
    figure: str,
    variants: Mapping[str, Mapping[str, Any]],
    strategies: Sequence[str],
    budgets: Sequence[int],
    *,
    base: str | None = None,
    sizes: bool = False,
) -> dict[str, Any]:
    """Returns the fields of an ``AblationConfig``."""
    return dict(
        title=title,
        figure=figure,
        base=optional(str, base),
        variants=variants,
        strategies=tuple(strategies),
        budgets=tuple(budgets),
        sizes=sizes,
    )


def probes(
    *,
    monomials: Mapping[str, Any] | None = None,
    attention: Mapping[str, Any] | None = None,
    ngrams: Mapping[str, Any] | None = None,
    nonterminals: Mapping[str, Any] | None = None,
    agreement: Mapping[str, Any] | None = None,
    students: Sequence[str] = (),
    longest_alone: bool = False,
) -> dict[str, Any]:
    """Returns the fields of a ``ProbesConfig``."""
    fields = dict(
        monomials=monomials, attention=attention, ngrams=ngrams, nonterminals=nonterminals, agreement=agreement
    )
    asked = dict(students=tuple(students), longest_alone=longest_alone)
    return dict(seed=0, **asked, **{name: optional(dict, value) for name, value in fields.items()})


def temperature_name(temperature: float) -> str:
    """Returns a strategy's key for a temperature: 0.01 is ``temperature_0p01``, 1e-05 ``temperature_1em05``."""
    return "temperature_" + f"{temperature:g}".replace(".", "p").replace("-", "m")
