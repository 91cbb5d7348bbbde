"""What a table is."""

import csv
import io
import math
from typing import NamedTuple

Cell = str | int | float | None


class Table(NamedTuple):
    """A table; None and nan are empty cells."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def csv(self) -> str:
        """Returns the table as comma-separated values."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow("" if cell is None or _is_nan(cell) else cell for cell in row)
        return file.getvalue()


def _is_nan(cell: Cell) -> bool:
    return isinstance(cell, float) and math.isnan(cell)
