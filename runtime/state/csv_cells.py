"""Rows for CSV files that a spreadsheet may open: text that it would take for a formula stays text."""

import re
from collections.abc import Iterable

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def cell(value: object) -> object:
    """A value as it may stand in a cell: what begins as a formula gets an apostrophe before it, a number does not."""
    if isinstance(value, str) and value[:1] in "=+-@\t\r\n|" and value and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def cells(row: Iterable[object]) -> list[object]:
    """One row."""
    return [cell(value) if type(value) is str else value for value in row]


def rows_of_cells(rows: Iterable[Iterable[object]]) -> Iterable[list[object]]:
    """Rows, one after the other."""
    return map(cells, rows)
