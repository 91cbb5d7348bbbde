"""Packing: every token of every document is in the rows once, in its order."""

import numpy as np
import pytest

from pdjax.text.packing import OPEN_ROWS, Packer

PAD, UNKNOWN, CLS, SEP = range(4)
FIRST = 10  # of the ids that are tokens


def pack(documents, length):
    packer = Packer(length, (PAD, UNKNOWN, CLS, SEP), np.dtype(np.uint32))
    rows = [rows for document in documents for rows in packer.add(np.array(document))]
    rows += packer.flush()
    tokens, segments = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return tokens, segments, packer.counts


def pieces(tokens, segments):
    """Returns the tokens of all pieces, and checks how they stand in their rows."""
    found = []
    for row, of in zip(tokens, segments, strict=True):
        end = np.count_nonzero(of)
        assert (np.diff(of[:end]) >= 0).all()  # documents in their order
        assert (of[end:] == 0).all()
        assert (row[end:] == PAD).all()
        for segment in range(1, int(of.max()) + 1):
            piece = row[of == segment]
            assert piece[0] == CLS
            assert piece[-1] == SEP
            found.append(piece[1:-1].tolist())
    return found


@pytest.mark.parametrize("length", [8, 16, 300])
def test_the_pieces_of_every_document_are_the_document(length):
    sizes = [1, 2, length - 3, length - 2, length - 1, length, 5 * length, 7 * (length - 2), 1, 1]
    sizes += np.random.default_rng(0).integers(1, 3 * length, 200).tolist()
    documents, at = [], FIRST
    for size in sizes:  # every token is another one
        documents.append(list(range(at, at + size)))
        at += size
    found = sorted(pieces(*pack(documents, length)[:2]))
    assert [token for piece in found for token in piece] == list(range(FIRST, at))
    starts = {document[0] for document in documents}
    # A piece begins where a document begins, or a whole row behind.
    begun = [piece[0] for piece in found]
    assert starts <= {*begun}
    expected = sorted(start for d in documents for start in d[:: length - 2])
    assert begun == expected


def test_counts_are_those_of_the_rows():
    documents = [[UNKNOWN, 11, 12], [13] * 20, [14], [15] * 6, [UNKNOWN] * 2]
    tokens, segments, counts = pack(documents, 8)
    assert (counts.documents, counts.cut, counts.pieces) == (5, 1, 8)
    assert (counts.tokens, counts.unknown) == (32, 3)
    assert counts.rows == len(tokens)
    assert counts.padding == np.count_nonzero(segments == 0)
    assert sorted(map(len, pieces(tokens, segments))) == sorted([3, 6, 6, 6, 2, 1, 6, 2])


def test_short_documents_share_rows_where_they_fit_best():
    tokens, segments, _ = pack([[11] * 5, [12] * 3, [13], [14] * 3], 10)
    # 7 places, then 5; 3 more fit into the first exactly, and 5 more into the second.
    assert tokens.tolist() == [[CLS, *[11] * 5, SEP, CLS, 13, SEP], [CLS, *[12] * 3, SEP, CLS, *[14] * 3, SEP]]
    assert segments.tolist() == [[1] * 7 + [2] * 3, [1] * 5 + [2] * 5]


def test_no_row_has_more_documents_than_a_byte_can_number():
    tokens, segments, _ = pack([[11]] * 700, 1000)
    assert segments.max() == 255
    assert len(pieces(tokens, segments)) == 700


def test_rows_do_not_wait_without_bound():
    packer = Packer(10, (PAD, UNKNOWN, CLS, SEP), np.dtype(np.uint32))
    left = sum(len(rows[0]) for _ in range(3 * OPEN_ROWS) for rows in packer.add(np.full(5, 11)))
    assert left == 2 * OPEN_ROWS
    assert sum(1 for _ in packer.flush()) == OPEN_ROWS
