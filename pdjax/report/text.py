"""Numbers and names as the page writes them."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from pdjax.report.stats import Interval

_ACRONYMS = {"bert": "BERT", "gpt2": "GPT-2", "mlp": "MLP", "pcfg": "PCFG"}


def fraction(value: float | None) -> str:
    """Formats an accuracy or a loss with 3 decimals; nothing measured is a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """Formats a margin with its sign and 3 decimals."""
    return f"{value:+.3f}".replace("-", "−")


def interval_text(interval: Interval, sign: bool = False) -> str:
    """Formats the ends of an interval; a dash if one run alone cannot have any."""
    if math.isnan(interval.low):
        return "–"
    write = signed if sign else fraction
    return f"[{write(interval.low)}, {write(interval.high)}]"


def effect_text(interval: Interval) -> str:
    """Formats a margin with its interval."""
    return (
        signed(interval.mean)
        if math.isnan(interval.low)
        else f"{signed(interval.mean)} {interval_text(interval, True)}"
    )


def seconds_text(seconds: float | None) -> str:
    """Formats a duration in seconds, and in minutes where that is easier to read."""
    if seconds is None or math.isnan(seconds):
        return "–"
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.1f} min"


def count_text(count: int, noun: str) -> str:
    """Counts things: "1 seed", "3 seeds".

    >>> count_text(1, "seed"), count_text(2, "strategy")
    ('1 seed', '2 strategies')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def listed(words: Sequence[str]) -> str:
    """Joins words: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def kind_text(choice: Any) -> str:
    """Names the kind of a task or a model: ``HierarchicalTask`` is "hierarchical", ``Gpt2`` "GPT-2"."""
    name = type(choice).__name__.removesuffix("Task")
    words: list[str] = [part.lower() for part in re.findall(r"[A-Z][^A-Z]*", name) or [name]]
    return " ".join(_ACRONYMS.get(word, word) for word in words)


def settings_text(choice: Any, other: Any = None) -> str:
    """Says a task or a model with its numbers and names; if another is of its kind, with those that differ alone.

    Args:
      choice: the task or the model.
      other: the other.
    """
    alike = type(choice) is type(other)
    said = []
    for field in dataclasses.fields(choice):
        value = getattr(choice, field.name)
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        plain = isinstance(shown, int | float | str) and not isinstance(shown, bool) and "seed" not in field.name
        if plain and not (alike and value == getattr(other, field.name)):
            said.append(f"{field.name.replace('_', ' ').removeprefix('num ')} {shown}")
    name = kind_text(choice)
    return f"{name} ({', '.join(said)})" if said else name
