"""Packing: documents of any length become rows of one length.

A piece is ``[CLS]``, tokens, ``[SEP]``. A document that is longer than a row is cut into pieces that fill rows; its
rest and short documents share rows, each in the row with the least room that holds it, of a bounded number of rows
that are open. Nothing is dropped, and the rows are a function of the documents and their order.
"""

import bisect
import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8

OPEN_ROWS = 256
"""Rows that wait for more; more of them leave less padding, and take documents farther from their neighbours."""

_MOST_SEGMENTS = 255  # their numbers are bytes
_SMALLEST_PIECE = 3  # one token

Rows = tuple[Int[np.ndarray, "N L"], UInt8[np.ndarray, "N L"]]
"""Tokens, and segments: 0 is padding, 1, 2, ... the documents of a row in their order."""


@dataclasses.dataclass
class Counts:
    """What became of the documents that were packed."""

    documents: int = 0
    tokens: int = 0  # without [CLS] and [SEP]
    unknown: int = 0  # of the tokens, [UNK]
    cut: int = 0  # documents that are several pieces
    pieces: int = 0
    rows: int = 0
    padding: int = 0  # places of rows without a token


class Packer:
    """Packs the documents of a split.

    Args:
      length: places of a row.
      special: the ids of [PAD], [UNK], [CLS] and [SEP].
      dtype: of tokens.
    """

    def __init__(self, length: int, special: tuple[int, int, int, int], dtype: np.dtype):
        self.counts = Counts()
        self._length, self._dtype = length, dtype
        self._pad, self._unknown, self._cls, self._sep = special
        self._opened = 0
        self._open: list[tuple[int, int, list[np.ndarray]]] = []  # room, number, pieces; by room, then by age

    def add(self, tokens: Int[np.ndarray, "T"]) -> Iterator[Rows]:
        """Takes a document of at least one token; yields the rows that are full."""
        inner = self._length - 2
        full = len(tokens) // inner
        rest = tokens[full * inner :]
        pieces = full + (len(rest) > 0)
        self.counts.documents += 1
        self.counts.tokens += len(tokens)
        self.counts.unknown += int(np.count_nonzero(tokens == self._unknown))
        self.counts.cut += pieces > 1
        self.counts.pieces += pieces
        if full:
            rows = np.full((full, self._length), self._cls, self._dtype)
            rows[:, 1:-1] = tokens[: full * inner].reshape(full, inner)
            rows[:, -1] = self._sep
            self.counts.rows += full
            yield rows, np.ones((full, self._length), np.uint8)
        if len(rest):
            yield from self._place(rest)

    def flush(self) -> Iterator[Rows]:
        """Yields the rows that are open, in the order of their age."""
        for _, _, pieces in sorted(self._open, key=lambda row: row[1]):
            yield self._close(pieces)
        self._open = []

    def _place(self, tokens: np.ndarray) -> Iterator[Rows]:
        need = len(tokens) + 2
        found = bisect.bisect_left(self._open, need, key=lambda row: row[0])
        if found < len(self._open):
            room, number, pieces = self._open.pop(found)
        else:
            room, number, pieces = self._length, self._opened, []
            self._opened += 1
        pieces.append(tokens)
        room -= need
        if room < _SMALLEST_PIECE or len(pieces) == _MOST_SEGMENTS:
            yield self._close(pieces)
            return
        bisect.insort(self._open, (room, number, pieces), key=lambda row: row[:2])
        if len(self._open) > OPEN_ROWS:
            yield self._close(self._open.pop(0)[2])

    def _close(self, pieces: list[np.ndarray]) -> Rows:
        row = np.full((1, self._length), self._pad, self._dtype)
        segments = np.zeros((1, self._length), np.uint8)
        at = 0
        for number, tokens in enumerate(pieces, 1):
            end = at + len(tokens) + 2
            row[0, at], row[0, at + 1 : end - 1], row[0, end - 1] = self._cls, tokens, self._sep
            segments[0, at:end] = number
            at = end
        self.counts.rows += 1
        self.counts.padding += self._length - at
        return row, segments
