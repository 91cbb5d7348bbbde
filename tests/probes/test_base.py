"""How the records of probes become rows of the table of results."""

import pytest

from pdjax.probes.base import spread


def test_every_number_has_its_places():
    rows = spread("distance", [[1, 2, 3], [4, 5, 6]], n=(2, 4), percentile=(5, 50, 95))
    assert {(row["n"], row["percentile"]): row["value"] for row in rows} == {
        (2, 5): 1.0,
        (2, 50): 2.0,
        (2, 95): 3.0,
        (4, 5): 4.0,
        (4, 50): 5.0,
        (4, 95): 6.0,
    }


def test_a_single_number_is_one_row():
    assert list(spread("agreement", 0.5)) == [{"measure": "agreement", "value": 0.5}]


@pytest.mark.parametrize("axes", [{}, {"n": (2, 4), "level": (0, 1)}])
def test_numbers_without_names_for_their_places_are_refused(axes):
    with pytest.raises(ValueError, match="argument"):
        list(spread("distance", [1, 2], **axes))
