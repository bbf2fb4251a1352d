"""What stands behind the numbers of a report: the account by quarter hour, day or month, and how each flow was made.

A page links every number to a row here, and a row to the ledger's entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.columns import COLUMNS, Values, figures_of, values_of
from tidegate.runtime.carbon.report.local_time import day_start, month_of, next_day

QUARTERS_MAX = 200  # a day has 92 to 100; above, the rows are days
DAYS_MAX = 400


@dataclass(slots=True)
class Row:
    """A stretch of the account; `marked` names the flows that were not plainly measured."""

    start_utc_s: int
    end_utc_s: int = 0
    periods: int = 0
    first_seq: int = 0
    last_seq: int = 0
    values: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)] * len(COLUMNS))  # by column
    statuses: set[str] = field(default_factory=set)
    marked: set[str] = field(default_factory=set)


class Rows:
    """Takes the periods of a span in the order of time, `count` in all, and keeps a row for each stretch.

    zone : whose days and months the rows are.
    """

    def __init__(self, count: int, length_s: int, zone: tzinfo = UTC) -> None:
        self.zone = zone
        self.kind = "quarter" if count <= QUARTERS_MAX else "day" if length_s <= DAYS_MAX * 86_400 else "month"
        self.rows: list[Row] = []
        self.made: dict[tuple[str, str, str], list[int]] = {}  # flow, quality, method -> periods, mWh
        self._ends_s = -1
        self._open = Row(0)

    def add(self, body: PeriodBody, seq: int, values: Values | None = None) -> None:
        """Take a period in. values : what it adds to each column, where the caller has them already."""
        start = body["start_utc_s"]
        if start >= self._ends_s:
            self._begin(start, start + body["length_s"], seq)
        row = self._open
        row.end_utc_s = start + body["length_s"]
        row.periods += 1
        if seq < row.first_seq:
            row.first_seq = seq
        if seq > row.last_seq:
            row.last_seq = seq
        made = self.made
        for name, flow in body["flows"].items():
            milliwh, quality = flow["energy_milliwh"], flow["quality"]
            if quality != "good":
                row.marked.add(name)
            key = (name, quality, flow["method"])
            known = made.get(key)
            if known is None:
                made[key] = [1, milliwh]
            else:
                known[0] += 1
                known[1] += milliwh
        if values is None:
            values = values_of(figures_of(body))
        row.values = [(a + c, b + d) for (a, b), (c, d) in zip(row.values, values, strict=True)]
        grid = body["factors"].get("grid")
        if grid is not None:
            row.statuses.add(grid["status"])

    def _begin(self, start: int, end: int, seq: int) -> None:
        first = start
        if self.kind == "quarter":
            self._ends_s = end
        elif self.kind == "day":
            first = day_start(start, self.zone)
            self._ends_s = next_day(first, self.zone)
        else:
            first, self._ends_s = month_of(start, self.zone)
        self._open = Row(first, first_seq=seq, last_seq=seq)
        self.rows.append(self._open)

    def row_at(self, utc_s: int) -> int | None:
        """The start of the row that a moment lies in; None if nothing is booked there."""
        held = None
        for row in self.rows:
            if row.start_utc_s > utc_s:
                break
            held = row
        return held.start_utc_s if held is not None and utc_s < held.end_utc_s else None

    def of_flow(self, name: str) -> list[tuple[str, str, int, int]]:
        """(quality, method, periods, mWh) of a flow."""
        return [(key[1], key[2], *row) for key, row in sorted(self.made.items()) if key[0] == name]  # type: ignore[misc]

    @property
    def flows(self) -> Sequence[str]:
        return sorted({key[0] for key in self.made})
