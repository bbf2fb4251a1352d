"""What a plan is made from, as a table: load, PV and price by UTC, past and to come, blank where nothing is known."""

import csv
import itertools
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.plan_inputs import Floats, PlanError

COLUMNS = ("time_utc", "load_kw", "pv_kw", "price_eur_per_kwh")
CARBON = "g_per_kwh"  # may be there
STEPS_S = (900, 1800, 3600)
ZEROS_ODD_H = 12  # a price of 0 is legal; so many hours of it in a row are a feed that broke


@dataclass(frozen=True)
class HoursTable:
    """A table of equal steps. Arrays of one value a step, NaN where the file is blank."""

    begin_utc: datetime
    step_s: int
    load_kw: Floats
    pv_kw: Floats
    price_eur_per_kwh: Floats
    doubts: tuple[str, ...]
    g_per_kwh: Floats = field(default_factory=lambda: np.zeros(0))  # of one named signal; empty where none is given

    @property
    def day(self) -> int:
        """Steps of 24 hours."""
        return 86_400 // self.step_s

    def step_at(self, when: datetime) -> int:
        """The step in which a moment lies; may be outside the table."""
        return int((when - self.begin_utc).total_seconds() // self.step_s)

    def known(self, values: Floats) -> int:
        """Steps before the first blank that is followed by blanks only."""
        there = np.flatnonzero(np.isfinite(values))
        return int(there[-1]) + 1 if len(there) else 0


def number_in(text: str | None, where: str) -> float:
    if text is None or not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise PlanError(f"{where}: {text!r} is no number; write 12.5 or leave it blank") from None
    if not math.isfinite(value) or abs(value) > 1e7:
        raise PlanError(f"{where}: {text!r} cannot be; leave it blank where nothing is known")
    return value


def time_in(text: str | None, where: str) -> datetime:
    try:
        found = datetime.fromisoformat((text or "").strip())
    except ValueError:
        raise PlanError(f"{where}: {text!r} is no time; write 2026-11-28T17:00Z") from None
    if found.tzinfo is None:
        raise PlanError(f"{where}: {text!r} has no offset; write 2026-11-28T17:00Z, or +01:00 for local time")
    return found.astimezone(UTC)


def read_hours(path: Path) -> HoursTable:
    """Read a CSV with the columns of COLUMNS (pv_kw may be absent). Raises PlanError with file, row, field, remedy."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PlanError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except OSError as why:
        raise PlanError(f"{path}: {why.strerror}") from None
    rows = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name != "pv_kw" and name not in (rows.fieldnames or ())]
    if missing:
        raise PlanError(f"{path}: row 1 has no column {missing[0]}; wanted: {', '.join(COLUMNS)}")
    times: list[datetime] = []
    values: list[list[float]] = []
    for number, row in enumerate(rows, 2):
        where = f"{path}: row {number}"
        times.append(time_in(row["time_utc"], f"{where}, time_utc"))
        values.append([number_in(row.get(name), f"{where}, {name}") for name in (*COLUMNS[1:], CARBON)])
    if len(times) < 2:
        raise PlanError(f"{path}: has {len(times)} rows; a plan wants a week of the past and the hours to come")
    steps_s = [int((other - one).total_seconds()) for one, other in itertools.pairwise(times)]
    for number, apart_s in enumerate(steps_s, 3):
        if apart_s not in STEPS_S:
            raise PlanError(f"{path}: row {number} comes {apart_s} s after the one before; steps are 900, 1800 or "
                            "3600 s: write every step once, in UTC, blank where nothing is known")  # fmt: skip
    step_s, counts = min(steps_s), [one // min(steps_s) for one in (*steps_s, steps_s[-1])]
    table = np.repeat(np.array(values), counts, axis=0)
    doubts = []
    if max(counts) > 1:
        coarse = sum(one > 1 for one in counts)
        doubts.append(
            f"{path}: {coarse} of {len(counts)} rows are longer than {step_s} s: each stands for its whole time"
        )
    load, pv, price = table[:, 0], table[:, 1], table[:, 2]
    if "pv_kw" not in (rows.fieldnames or ()):
        pv = np.zeros(len(table))
    elif not np.isfinite(pv).any():
        doubts.append(
            f"{path}: pv_kw is blank in every row: planned without sun; leave the column out if there is none"
        )
        pv = np.zeros(len(table))
    carbon = table[:, 3] if CARBON in (rows.fieldnames or ()) else np.zeros(0)
    series = (("load_kw", load), ("pv_kw", pv), ("price_eur_per_kwh", price), (CARBON, carbon))
    doubts += [text for name, one in series
               if (text := gap_text(path, name, one, step_s))]  # fmt: skip
    return HoursTable(times[0], step_s, load, pv, price, (*doubts, *_doubts(path, price, step_s)), carbon)


def gap_text(path: Path, name: str, values: Floats, step_s: int) -> str:
    """Blanks that values follow, in words; "" where there are none. What is still to come is no gap."""
    there = np.flatnonzero(np.isfinite(values))
    if len(there) == 0:
        return ""
    blank = int((~np.isfinite(values[: there[-1]])).sum())
    longest_h = int(np.diff(there, prepend=-1).max() - 1) * step_s / 3600
    return (
        f"{path}: {name}: {blank} blank steps stand as the value before them, at most {longest_h:g} h on end"
        if blank
        else ""
    )


def _doubts(path: Path, price: Floats, step_s: int) -> list[str]:
    """Prices that may be a broken feed."""
    run = longest = at = 0
    for k, value in enumerate(price):
        run = run + 1 if value == 0 else 0
        if run > longest:
            longest, at = run, k - run + 1
    if longest * step_s >= ZEROS_ODD_H * 3600:
        return [
            f"{path}: price_eur_per_kwh is 0 for {longest} rows from row {at + 2} on: a feed that broke? "
            "They are planned with"
        ]
    return []
