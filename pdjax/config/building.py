"""What config files are written with: parts of a ConfigDict whose optional fields are there, at None.

A field that may be None is a placeholder: command-line overrides of it still obey its type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict


def optional(kind: type, value: object = None) -> Any:
    """Returns a value, or a typed placeholder for None."""
    return config_dict.placeholder(kind) if value is None else value


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
    temperature: float = 1e-4,
) -> dict[str, Any]:
    """Returns the fields of a ``StrategyConfig`` that learns from a teacher alone, or from the labels alone."""
    return dict(
        schedule=schedule,
        label=label,
        selection=chosen,
        duration=optional(int, duration),
        kappa=optional(float, kappa),
        saturation=optional(dict, saturation),
        temperature=temperature,
        label_weight=1.0 if schedule == "labels" else 0.0,
    )


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


def comparison(title: str, figure: str, *strategies: str) -> dict[str, Any]:
    """Returns the fields of a ``ComparisonConfig``."""
    return dict(title=title, figure=figure, strategies=strategies)


def temperature_name(temperature: float) -> str:
    """Returns a strategy's key for a temperature: 0.01 is ``temperature_0p01``, 1e-05 ``temperature_1em05``."""
    return "temperature_" + f"{temperature:g}".replace(".", "p").replace("-", "m")
