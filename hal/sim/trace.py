"""Load and PV traces from CSV files: two columns of numbers, checked row by row."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Trace = tuple[NDArray[np.float64], NDArray[np.float64]]


class TraceError(ValueError):
    """A trace that cannot be replayed; says file, line, column and what to do."""


def read_trace(
    path: str | Path,
    column: str,
    *,
    time_column: str = "t_s",
    start_s: float = 0.0,
    length_s: float | None = None,
    least_w: float = -math.inf,
) -> Trace:
    """(t_s, power_w) of a CSV file with a header row; times start at 0 with the row that holds at start_s.

    column      : power in W; may not have gaps (a blank or text is an error, it is not filled).
    time_column : seconds, rising.
    start_s, length_s: the part to take.
    least_w     : the least power that can be right; a load does not give, so it is 0 for one.
    Raises TraceError naming file, line, column and remedy.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}; give the path of a CSV file") from None
    if len(rows) < 2:
        raise TraceError(f"{path}: has {len(rows)} rows; expected a header row and at least one of numbers")
    header = rows[0]
    for wanted in (time_column, column):
        if wanted not in header:
            marks = [mark for mark in ";\t|" if len(header) == 1 and mark in header[0]]
            remedy = f"; its fields stand between {marks[0]!r}, commas are read" if marks else ""
            raise TraceError(f"{path}: no column {wanted!r}; it has: {', '.join(header)}{remedy}")
    at_t, at_w = header.index(time_column), header.index(column)
    t_s, power_w = np.empty(len(rows) - 1), np.empty(len(rows) - 1)
    for number, row in enumerate(rows[1:]):
        place = f"{path}: line {number + 2}"
        if len(row) != len(header):
            raise TraceError(f"{place}: {len(row)} fields, the header has {len(header)}; repair the row")
        for at, out in ((at_t, t_s), (at_w, power_w)):
            text = row[at].strip()
            if not text:
                raise TraceError(f"{place}, {header[at]}: is blank; fill the gap or choose a column without gaps")
            try:
                out[number] = float(text)
            except ValueError:
                raise TraceError(f"{place}, {header[at]}: {text!r} is not a number; correct it") from None
            if not math.isfinite(out[number]):
                raise TraceError(f"{place}, {header[at]}: {text!r} is not a finite number; correct it")
        if power_w[number] < least_w:
            raise TraceError(
                f"{place}, {header[at_w]}: {power_w[number]:g} W is below {least_w:g} W: "
                "a load takes power; correct the sign, and give PV its own trace"
            )
        if number and t_s[number] <= t_s[number - 1]:
            raise TraceError(f"{place}, {header[at_t]}: {t_s[number]:g} does not rise; sort the rows, drop repeats")
    first = max(int(np.searchsorted(t_s, start_s + t_s[0], side="right")) - 1, 0)
    if start_s > t_s[-1] - t_s[0]:
        raise TraceError(f"{path}: start at {start_s:g} s, the trace is {t_s[-1] - t_s[0]:g} s long")
    t_s, power_w = t_s[first:] - (t_s[0] + start_s), power_w[first:]
    t_s[0] = 0.0
    if length_s is not None:
        keep = t_s < length_s
        t_s, power_w = t_s[keep], power_w[keep]
    return t_s, power_w
