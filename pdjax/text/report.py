"""What a preparation has made of its sources, in a few lines."""

from collections.abc import Iterator, Mapping

from pdjax.text.corpus import Corpus, side_of

_COLUMNS = ("source", "side", "documents", "characters", "tokens", "[UNK]", "cut", "rows", "padding")


def report(corpus: Corpus) -> str:
    """Returns a table of counts, and what was left out."""
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for source in corpus.record["sources"]:
        for side in (side_of(False), side_of(True)):
            lines.append((source["name"], side, *_cells(source["counts"][side], corpus.length)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if column in ("source", "side") else cell.rjust(width)
            for column, cell, width in zip(_COLUMNS, line, widths, strict=True)
        )
        for line in lines
    ]
    return "\n".join([*table, *_left_out(corpus), _vocabulary(corpus), f"digest {corpus.digest}"])


def _cells(counts: Mapping[str, int], length: int) -> Iterator[str]:
    for name in _COLUMNS[2:]:
        match name:
            case "[UNK]":
                yield f"{100 * counts['unknown'] / counts['tokens']:.2f} %"
            case "padding":
                yield f"{100 * counts['padding'] / (counts['rows'] * length):.2f} %"
            case _:
                yield f"{counts[name]:,}"


def _left_out(corpus: Corpus) -> Iterator[str]:
    for source in corpus.record["sources"]:
        others, empty = source["others"], source["empty"]
        if others["count"]:
            names = ", ".join(others["names"][:5]) + (", ..." if others["count"] > 5 else "")
            yield f"{source['name']}: {others['count']:,} files of other kinds were not read: {names}"
        if empty:
            yield f"{source['name']}: {empty:,} documents without a token were left out"


def _vocabulary(corpus: Corpus) -> str:
    vocabulary = corpus.record["vocabulary"]
    how = "given" if vocabulary["asked"] == "file" else "learned from the training documents"
    unused = f", {vocabulary['unused']} of them [unused]: the text has no more" if vocabulary["unused"] else ""
    return f"vocabulary: {vocabulary['size']:,} tokens, {how}{unused}; rows of {corpus.length}"
