"""Numbers as the page writes them."""

import math

from pdjax.report.stats import Interval


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


def seconds_text(seconds: float) -> str:
    """Formats a duration in seconds, and in minutes where that is easier to read."""
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds:,.0f} s ({seconds / 60:,.1f} min)"
