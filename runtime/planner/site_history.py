"""What load and sun were in each quarter hour, from the site's own journal; kept beside, as the journal forgets.

A meter record comes each second and its integrals never fall, so one record at each quarter hour's edge says it all.
"""

import math
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Protocol

import numpy as np

from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.planner.peak_guard import highest_window_kw
from tidegate.runtime.planner.plan_inputs import Floats, PlanError
from tidegate.runtime.state import atomic_file

QUARTER_S = 900
QUESTIONS_MAX = 1000  # of one step: ten days; what is older comes with the steps after
NEAR_S = 30  # of the edge: a record further away belongs to a clock that was set
SURE_SHARE = 0.99  # of a quarter hour, for what must not be guessed
METERS_DIFFER = 0.02  # of the battery's power: what its meter and the grid's may differ by
COVERED_LEAST = 0.5  # of the quarter hour, else what it was is not known
# What adds to the load, and what is taken off: grid + import, sun + generation, battery + discharge.
PARTS = {"grid": ("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s"),
         "pv": ("site.pv_in_ws", "site.pv_out_ws", "site.pv_covered_s"),
         "battery": ("site.ess_discharged_ws", "site.ess_charged_ws", "site.ess_covered_s")}  # fmt: skip


class Journal(Protocol):
    """The one thing of a client that is needed."""

    def replay(
        self, stream: str, boot: str | None = None, seq: int = -1, count: int = 256
    ) -> tuple[list[Message], bool]: ...


@dataclass(frozen=True)
class Reading:
    """One meter record: where it stands, when it was, its integrals."""

    boot: str
    seq: int
    utc_s: float
    integrals: dict[str, float | None]

    @classmethod
    def of(cls, record: Message) -> "Reading":
        points = record["points"]
        names = [name for part in PARTS.values() for name in part]
        values = {name: points[name][0] if name in points else None for name in names}
        return cls(str(record["boot"]), int(record["seq"]), float(record["utc_ns"]) / 1e9, values)

    @property
    def near_edge(self) -> bool:
        """Whether it was taken where a quarter hour begins."""
        return abs(self.utc_s - round(self.utc_s / QUARTER_S) * QUARTER_S) <= NEAR_S


@dataclass(frozen=True)
class Quarter:
    """Mean powers of a quarter hour, kW; None where nobody measured it."""

    load_kw: float | None
    pv_kw: float | None
    grid_kw: float | None
    counted: float | None = 1.0  # share of the quarter hour, by the clock, in which grid and battery were measured

    @property
    def cells(self) -> tuple[float | None, ...]:
        """As they stand in a row of the file."""
        return self.load_kw, self.pv_kw, self.grid_kw, self.counted

    @property
    def alone_kw(self) -> float:
        """The import that there would have been without a battery, rather too low than too high; NaN where not sure."""
        if self.load_kw is None or self.pv_kw is None or self.grid_kw is None or not (self.counted or 0) >= SURE_SHARE:
            return math.nan
        net_kw = self.load_kw - self.pv_kw
        uncertain_kw = METERS_DIFFER * abs(net_kw - self.grid_kw)
        return net_kw * float(self.counted or 0) - uncertain_kw if net_kw > 0 else net_kw - uncertain_kw


def mean_kw(first: Reading, last: Reading, part: str) -> float | None:
    """Mean power between two readings, of the seconds that were covered; None where those are too few."""
    plus, minus, covered = PARTS[part]
    moved = []
    for name in (plus, minus, covered):
        begin, end = first.integrals[name], last.integrals[name]
        if begin is None or end is None:
            return None
        moved.append(end - begin)
    up_ws, down_ws, seconds = moved
    if seconds < COVERED_LEAST * (last.utc_s - first.utc_s) or seconds <= 0:
        return None
    return (up_ws - down_ws) / seconds / 1e3


def covered_s(first: Reading, last: Reading, part: str) -> float:
    """Seconds between two readings in which a part was measured; 0 where nobody knows."""
    begin, end = first.integrals[PARTS[part][2]], last.integrals[PARTS[part][2]]
    return 0.0 if begin is None or end is None else end - begin


class SiteHistory:
    """Quarter hours by the UTC second of their begin. has_pv: the site measures its sun; else there is none."""

    def __init__(self, has_pv: bool, quarters: dict[int, Quarter] | None = None,
                 at: tuple[str, int] | None = None) -> None:  # fmt: skip
        self.has_pv = has_pv
        self.quarters: dict[int, Quarter] = quarters or {}
        self._resume = at  # record to go on from
        self._at: Reading | None = None
        self.cut = 0  # quarter hours that a restart or a set clock made unknown

    @property
    def at(self) -> tuple[str, int] | None:
        """(boot, seq) of the record that was read last."""
        return self._resume if self._at is None else (self._at.boot, self._at.seq)

    def catch_up(self, journal: Journal, most: int = QUESTIONS_MAX) -> int:
        """Read on to the newest whole quarter hour, with at most so many questions; gives how many were asked.

        Raises ClientError when the site does not answer. What was read stays.
        """
        for asked in range(most):
            before = self._at
            boot, seq = (None, -1) if before is None else (before.boot, before.seq + self._ahead(before) - 1)
            if before is None and self._resume is not None:
                boot, seq = self._resume[0], self._resume[1] - 1
            try:
                records, _ = journal.replay("meter", boot, seq, 1)
            except ClientError as why:
                if why.code != "gone" or boot is None:
                    raise
                self._at = self._resume = None  # the journal has forgotten it: on with the oldest that it holds
                continue
            if not records:
                return asked + 1
            self._at = reading = Reading.of(records[0])
            if before is not None and self._whole(before, reading):
                begin = round(before.utc_s / QUARTER_S) * QUARTER_S
                self.quarters[begin] = self._quarter(before, reading)
            elif before is not None and before.near_edge:
                self.cut += 1
        return most

    @staticmethod
    def _ahead(reading: Reading) -> int:
        """Records to the next edge: one comes each second."""
        edge = (int((reading.utc_s + NEAR_S) // QUARTER_S) + 1) * QUARTER_S
        return max(1, round(edge - reading.utc_s))

    @staticmethod
    def _whole(before: Reading, after: Reading) -> bool:
        same = before.boot == after.boot and before.near_edge and after.near_edge
        return same and abs(after.utc_s - before.utc_s - QUARTER_S) <= 2 * NEAR_S

    def _quarter(self, before: Reading, after: Reading) -> Quarter:
        grid, battery = mean_kw(before, after, "grid"), mean_kw(before, after, "battery")
        pv = mean_kw(before, after, "pv") if self.has_pv else 0.0
        if grid is None or battery is None or pv is None:
            return Quarter(None, pv, grid)
        off_s = sum(abs(one.utc_s - round(one.utc_s / QUARTER_S) * QUARTER_S) for one in (before, after))
        seen_s = min(covered_s(before, after, part) for part in ("grid", "battery"))
        return Quarter(grid + pv + battery, pv, grid, min(1.0, max(0.0, seen_s - off_s) / QUARTER_S))

    def forget(self, before_utc_s: int) -> None:
        """Leave out what is older."""
        for at in [at for at in self.quarters if at < before_utc_s]:
            del self.quarters[at]

    def series(self, begin_utc_s: int, steps: int) -> tuple[Floats, Floats]:
        """(load, sun) kW of the quarter hours from `begin_utc_s` on, NaN where nothing is known."""
        load, pv = np.full(steps, np.nan), np.full(steps, np.nan)
        for k in range(steps):
            one = self.quarters.get(begin_utc_s + k * QUARTER_S)
            if one is not None:
                load[k] = np.nan if one.load_kw is None else one.load_kw
                pv[k] = np.nan if one.pv_kw is None else one.pv_kw
        return load, pv

    def peak_kw(self, begin_utc_s: int, end_utc_s: int) -> float:
        """Highest mean import of a quarter hour between two moments; 0 where none is known."""
        known = [one.grid_kw for at, one in self.quarters.items() if begin_utc_s <= at < end_utc_s]
        return max((one for one in known if one is not None), default=0.0)

    def alone_peak_kw(self, begin_utc_s: int, end_utc_s: int, window_s: int, zone: tzinfo) -> float:
        """Highest mean of a billed window without a battery, of what is sure; 0 where nothing is."""
        steps = range(begin_utc_s, end_utc_s - QUARTER_S + 1, QUARTER_S)
        found = [self.quarters[at].alone_kw if at in self.quarters else math.nan for at in steps]
        return highest_window_kw(begin_utc_s, QUARTER_S, np.array(found), window_s, zone)


def read_history(path: Path, has_pv: bool) -> SiteHistory:
    """What was kept of the past; nothing where there is no file. Raises PlanError where it is none of ours."""
    try:
        head, _, *lines = path.read_text().splitlines()
        boot, seq = head.removeprefix("# ").split(",")
        rows = [line.split(",") for line in lines]
        quarters = {int(at): Quarter(*(float(one) if one else None for one in cells)) for at, *cells in rows}
        return SiteHistory(has_pv, quarters, (boot, int(seq)) if boot else None)
    except FileNotFoundError:
        return SiteHistory(has_pv)
    except (OSError, ValueError, TypeError) as why:
        raise PlanError(f"{path}: {why}; move it away: the journal is read again") from None


def write_history(path: Path, history: SiteHistory) -> None:
    """Keep all quarter hours, and which record was read last. Raises OSError."""
    boot, seq = history.at or ("", 0)
    lines = [f"# {boot},{seq}", "begin_utc_s,load_kw,pv_kw,grid_kw,counted"]
    for at, one in sorted(history.quarters.items()):
        cells = ["" if value is None else f"{value:.4f}" for value in one.cells]
        lines.append(",".join([str(at), *cells]))
    atomic_file.replace(path, ("\n".join(lines) + "\n").encode())
