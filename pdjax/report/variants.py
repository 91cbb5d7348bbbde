"""The variants of an ablation beside each other, the experiment itself among them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pdjax.experiment import Ablation
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.settings import plain


class Variant(NamedTuple):
    """One variant of an ablation."""

    name: str
    fields: Mapping[str, Any]  # of the configuration that it replaces; none in the experiment itself
    results: Results | None  # None: not begun

    @property
    def is_base(self) -> bool:
        """Whether it is the experiment itself."""
        return not self.fields

    @property
    def replaced(self) -> str:
        """The replaced fields in one line."""
        return ", ".join(f"{path} = {json.dumps(value)}" for path, value in _leaves(self.fields, ""))


def variants_of(results: Results, ablation: str) -> list[Variant]:
    """Returns an ablation's variants, ordered by the numbers in their names, and the experiment if it has a name.

    It stands at its place where its name has a number too (30% between 15% and 50%), otherwise first.
    """
    asked = results.asked_ablations[ablation]
    variants = [Variant(v.name, plain(v.changes), results.variants.get((ablation, v.name))) for v in asked.variants]
    variants.sort(key=lambda variant: _natural(variant.name))
    if asked.base is not None:
        variants.insert(0, Variant(asked.base, {}, results))
        if re.search(r"\d", asked.base):
            variants.sort(key=lambda variant: _natural(variant.name))
    return variants


def group_in(
    results: Results, variant: Variant, strategy: str, learning_rate: float | None, budget: int
) -> Group | None:
    """Returns a finished group of a variant; where both have one learning rate alone, they need not be the same."""
    if variant.results is None:
        return None
    rates = variant.results.learning_rates
    rate = rates[0] if len(rates) == len(results.learning_rates) == 1 else learning_rate
    return variant.results.finished(strategy, rate, budget)


def strategies_by_kind(results: Results, keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Returns the progressive and the one-shot strategies among some, without those of parts of checkpoints."""
    strategies = results.strategies
    progressive = [key for key in keys if strategies[key].is_progressive and not strategies[key].is_partial]
    return progressive, [key for key in keys if strategies[key].is_one_shot]


def relative_gap(results: Results, groups: Mapping[str, Group | None], strategy: str) -> float | None:
    """Returns how much more accurate a progressive strategy is than the best one-shot strategy, relative to that.

    None of another strategy, or where none of one-shot is finished.
    """
    progressive, one_shot = strategies_by_kind(results, tuple(groups))
    finished = [group for key in one_shot if (group := groups[key]) is not None]
    students = groups[strategy]
    if strategy not in progressive or students is None or not finished:
        return None
    best = max(float(group.final().mean()) for group in finished)
    return float(students.final().mean()) / best - 1


def varies_alone(ablation: Ablation, section: str, field: str) -> bool:
    """Whether the variants of an ablation differ in one field of a section alone."""
    rests = []
    for fields in (variant.changes for variant in ablation.variants):
        part = fields.get(section, {})
        if field not in part:
            return False
        rests.append({**fields, section: {key: value for key, value in part.items() if key != field}})
    return all(rest == rests[0] for rest in rests)


def changes_nothing_else(ablation: Ablation, section: str, field: str) -> bool:
    """Whether its variants differ from the experiment itself in one field of a section alone."""
    changes = [variant.changes for variant in ablation.variants]
    return all(set(fields) == {section} and set(fields[section]) == {field} for fields in changes)


def _leaves(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields every value of nested mappings, and before it its keys with dots between."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _natural(name: str) -> list[tuple[str, float]]:
    """Returns what names are ordered by: the text between their numbers as text, their numbers as numbers."""
    parts = [*re.split(r"(\d+(?:\.\d+)?)", name), "0"]
    return [(text, float(number)) for text, number in zip(parts[::2], parts[1::2], strict=True)]
