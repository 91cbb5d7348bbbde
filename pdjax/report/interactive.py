"""What the page adds to a figure: the values of its points to hover over, and which curves belong to a legend's entry.

``page.js`` does the rest. The files to download have none of it.
"""

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter

_NAMED = re.compile(r' id="series-(\d+)-\d+"')
_RADIUS = 5  # points, as far from a point as the pointer may be


class Series(NamedTuple):
    """An entry of the legend."""

    label: str
    color: str
    marker: Any


def name_series(figure: Figure) -> tuple[Series, ...]:
    """Returns the legend's entries that something is drawn of, and names what is drawn of each for ``opened``."""
    entries = [
        Series(text.get_text().strip(), color, _marker(handle))
        for legend in figure.legends
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
        if isinstance(handle, Artist) and (color := _color(handle)) is not None
    ]
    artists = [(artist, _entry(artist, entries)) for artist in _artists(figure)]
    found = tuple(entry for entry in entries if any(entry == other for _, other in artists))
    for count, (artist, entry) in enumerate(artists):
        artist.set_gid(None if entry is None else f"series-{found.index(entry)}-{count}")
    return found


def _artists(figure: Figure) -> Iterator[Artist]:
    for axes in figure.axes:
        yield from (*axes.lines, *axes.collections, *axes.patches)


def _entry(artist: Artist, entries: Sequence[Series]) -> Series | None:
    """Returns the entry that names an artist: that of its colour, and of its marker where several have the colour."""
    alike = [entry for entry in entries if entry.color == _color(artist)]
    marked = [entry for entry in alike if entry.marker == _marker(artist)]
    chosen = alike if len(alike) == 1 else marked
    return chosen[0] if len(chosen) == 1 else None


def _color(artist: Artist) -> str | None:
    """Returns the one colour of an artist; None if it has several, or none."""
    if isinstance(artist, Line2D):
        return to_hex(artist.get_color())
    if isinstance(artist, Collection):
        filled, edges = np.atleast_2d(artist.get_facecolor()), np.atleast_2d(artist.get_edgecolor())
        colors = {to_hex(color) for color in (filled if filled.size else edges) if len(color)}
        return colors.pop() if len(colors) == 1 else None
    return to_hex(artist.get_facecolor()) if isinstance(artist, Rectangle) else None


def _marker(artist: Artist) -> Any:
    return artist.get_marker() if isinstance(artist, Line2D) else None


def plain(svg: bytes) -> bytes:
    """Returns a drawn figure without the names."""
    return _NAMED.sub("", svg.decode()).encode()


def opened(name: str, title: str, svg: bytes, figure: Figure, series: Sequence[Series]) -> str:
    """Returns a drawn figure as an element with points to hover over; no other of the page has its identifiers.

    Args:
      name: of the figure.
      title: what those hear who do not see it.
      svg: the figure, drawn after ``name_series``.
      figure: the same.
      series: the legend's entries.
    """
    text = _NAMED.sub(r' data-series="\1"', svg.decode())
    text = text[text.index("<svg") :]
    text = re.sub(r' id="', f' id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"|(<svg [^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
    return text.replace("</svg>", "".join(_points(figure, series)) + "</svg>")


def _points(figure: Figure, series: Sequence[Series]) -> Iterator[str]:
    """Yields an invisible circle with its values for every point of the lines, and every bar, that a legend names."""
    scale = 72 / figure.dpi  # an SVG's unit is a point
    height = figure.bbox.height
    for axes in figure.axes:
        for artist in (*axes.lines, *axes.patches):
            gid = artist.get_gid()
            if gid is None:
                continue
            index = int(gid.split("-")[1])
            yield f'<g class="points" data-series="{index}">'
            for x, y in _values(artist):
                left, top = axes.transData.transform((x, y))
                if axes.bbox.contains(left, top):
                    said = html.escape(f"{series[index].label}, {_said(axes, x)}: {y:.4g}")
                    at = f'cx="{left * scale:.1f}" cy="{(height - top) * scale:.1f}" r="{_RADIUS}"'
                    yield f"<circle {at}><title>{said}</title></circle>"
            yield "</g>"


def _values(artist: Artist) -> list[tuple[float, float]]:
    if isinstance(artist, Line2D):
        x, y = artist.get_xdata(orig=False), artist.get_ydata(orig=False)
    else:
        assert isinstance(artist, Rectangle)
        x, y = [artist.get_x() + artist.get_width() / 2], [artist.get_y() + artist.get_height()]
    points = np.column_stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    return [(float(a), float(b)) for a, b in points[np.isfinite(points).all(axis=1)]]


def _said(axes: Axes, x: float) -> str:
    """Names a place on the x axis: its category, or its number with what the axis measures."""
    formatter = axes.xaxis.get_major_formatter()
    if isinstance(formatter, FixedFormatter | StrCategoryFormatter):
        return str(formatter(round(x), round(x)))
    number = f"{x:,.0f}" if abs(x) >= 1 else f"{x:.3g}"
    return f"step {number}" if "step" in axes.get_xlabel() else number
