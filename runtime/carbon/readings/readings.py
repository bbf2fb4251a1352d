"""Register readings that come by file: water, reused heat, and energy of meters that are on no bus.

They go into the ledger as they were read, with their source; what they mean for a quarter hour is worked out when it
is asked for, by the same rules as for a meter on the bus (validation, estimation, editing).
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.engine.booking import BookedPeriod, Booker
from tidegate.runtime.carbon.engine.counter import Flow
from tidegate.runtime.carbon.factors.series import FactorError, iso, parse_time
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.ledger.bodies import ReadingBody, ReadingSource
from tidegate.runtime.carbon.ledger.ledger import Ledger

ENERGY = {"Wh": 1000, "kWh": 1_000_000, "MWh": 1_000_000_000}  # mWh
VOLUME = {"L": 1000, "m3": 1_000_000}  # mL
# quantity -> scale of its units, name of the small unit
QUANTITIES: Mapping[str, tuple[Mapping[str, int], str]] = {
    "water": (VOLUME, "mL"),  # drawn in, all of it
    "water-potable": (VOLUME, "mL"),  # the part of it that is drinking water
    "heat-reused": (ENERGY, "mWh"),  # handed over at the boundary
    "energy-backup": (ENERGY, "mWh"),  # electricity of backup generators
    "energy-import": (ENERGY, "mWh"),  # a meter's own signed readings, beside those of the bus
    "energy-export": (ENERGY, "mWh"),
}
COLUMNS = ("time_utc", "meter", "quantity", "reading", "unit")


@dataclass(slots=True)
class Readings:
    """What one document says of one register. rows : (utc_s, reading, sync, state, the number as it was written)."""

    meter: str
    quantity: str
    rows: list[tuple[int, int, str, str, str]]
    source: ReadingSource

    def body(self) -> ReadingBody:
        """The body of the ledger entry."""
        return {
            "v": 1, "meter": self.meter, "quantity": self.quantity, "unit": QUANTITIES[self.quantity][1],
            "rows": list(self.rows), "source": self.source,
        }  # fmt: skip


def scaled(text: str, quantity: str, unit: str, where: str) -> int:
    """A reading in small units. Raises FactorError for a unit that the quantity does not have, text, a negative."""
    units = QUANTITIES[quantity][0]
    if unit not in units:
        raise FactorError(f"{where}: unit {unit!r} of {quantity}; use one of {', '.join(units)}")
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise FactorError(f"{where}: {text!r} is not a number") from None
    if not value.is_finite() or value < 0:
        raise FactorError(f"{where}: a register cannot read {text}")
    return to_whole(value, units[unit])


def read_readings(path: Path) -> list[Readings]:
    """The readings of a CSV file, or of every CSV file of a folder. Raises FactorError by line."""
    if path.is_dir():
        return [one for file in sorted(path.glob("*.csv")) for one in read_readings(file)]
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FactorError(f"{path}: {error.strerror}") from None
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise FactorError(f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise FactorError(f"{path.name}, line 1: column {', '.join(missing)} is missing; expected {', '.join(COLUMNS)}")
    found: dict[tuple[str, str], Readings] = {}
    source: ReadingSource = {"kind": "csv", "name": path.name, "sha256": hashlib.sha256(raw).hexdigest()}
    for row in reader:
        where = f"{path.name}, line {reader.line_num}"
        if any(row[column] is None for column in COLUMNS):
            raise FactorError(f"{where}: fewer fields than the {len(COLUMNS)} columns")
        meter, quantity = row["meter"].strip(), row["quantity"].strip()
        if quantity not in QUANTITIES:
            raise FactorError(f"{where}: quantity {quantity!r}, expected one of {', '.join(QUANTITIES)}")
        if not meter:
            raise FactorError(f"{where}: no meter is named")
        utc_s = parse_time(row["time_utc"], where)
        own = found.setdefault((meter, quantity), Readings(meter, quantity, [], source))
        if own.rows and utc_s <= own.rows[-1][0]:
            raise FactorError(f"{where}: {meter} was read at {iso(own.rows[-1][0])} before; times must rise")
        value = scaled(row["reading"], quantity, row["unit"].strip(), where)
        own.rows.append((utc_s, value, "I", "G", row["reading"].strip()))
    return list(found.values())


def take_in(ledger: Ledger, found: Iterable[Readings]) -> int:
    """Append what the ledger does not have yet; a reading that says something else for its time supersedes. -> rows."""
    known = Registers()
    for entry in ledger.entries("reading"):
        known.add(entry.body)
    entries, count = [], 0
    for one in found:
        own = known.rows.get((one.meter, one.quantity), {})
        new = [row for row in one.rows if row[0] not in own or own[row[0]] != row[1:4]]
        if new:
            count += len(new)
            part = Readings(one.meter, one.quantity, new, one.source)
            known.add(part.body())
            entries.append(("reading", new[0][0], part.body()))
    if entries:
        ledger.append(entries)
    return count


@dataclass(slots=True)
class Amount:
    """What a quantity came to in a span, in small units, by all of its meters; why not, where it is not known."""

    total: int | None
    unit: str
    why: str = ""
    meters: list[str] = field(default_factory=list)
    quality: dict[str, int] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return {"total": self.total, "unit": self.unit, "why": self.why, "meters": self.meters,
                "quality": dict(sorted(self.quality.items())), "flags": self.flags}  # fmt: skip


class Registers:
    """All readings of a ledger, by meter and quantity; a later entry supersedes an earlier one of the same time."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[int, tuple[int, str, str]]] = {}
        self.sources: dict[tuple[str, str], dict[str, ReadingSource]] = {}  # by digest, without the documents

    def add(self, body: ReadingBody) -> None:
        source = body["source"]
        kept: ReadingSource = {"kind": source["kind"], "name": source["name"], "sha256": source["sha256"]}
        for name in ("key", "page", "flow"):
            if name in source:
                kept[name] = source[name]
        self.sources.setdefault((body["meter"], body["quantity"]), {})[source["sha256"]] = kept
        own = self.rows.setdefault((body["meter"], body["quantity"]), {})
        for utc_s, value, sync, state, _ in body["rows"]:
            own[utc_s] = (value, sync, state)

    def amount(self, quantity: str, start_utc_s: int, end_utc_s: int, period_s: int = 900) -> Amount:
        """What all meters of a quantity counted in [start, end); the readings must reach from end to end."""
        unit = QUANTITIES[quantity][1]
        mine = {meter: rows for (meter, what), rows in sorted(self.rows.items()) if what == quantity}
        if not mine:
            return Amount(None, unit, "no readings")
        found = Amount(0, unit, meters=list(mine))
        flags: set[str] = set()
        for meter, rows in mine.items():
            times = sorted(at for at, row in rows.items() if row[2] in BELIEVED)
            if not times or times[0] > start_utc_s or times[-1] < end_utc_s:
                reach = f"read from {iso(times[0])} to {iso(times[-1])}" if times else "never read well"
                return Amount(None, unit, f"{meter}: {reach}, not over the whole span", list(mine))
            for period in booked(meter, {at: rows[at] for at in times}, period_s):
                if start_utc_s <= period.start_utc_s < end_utc_s:
                    flow = period.flows[meter]
                    found.total = (found.total or 0) + flow.energy_milliwh
                    found.quality[flow.quality] = found.quality.get(flow.quality, 0) + flow.energy_milliwh
                    flags.update(f"{meter}: {flag}" for flag in flow.flags if flag.split()[0] != "GAP")
        found.flags = sorted(flags)
        return found


def readings_record(
    registers: Registers, ledger: Ledger, start_utc_s: int, end_utc_s: int, until_seq: int | None = None
) -> list[dict[str, Any]]:
    """What each register that came by file says of [start, end), and what was booked for the flow that it shares."""
    found = []
    for (meter, quantity), rows in sorted(registers.rows.items()):
        good = {at: row for at, row in rows.items() if row[2] in BELIEVED}
        sources = registers.sources[(meter, quantity)]
        flow = next((one["flow"] for one in reversed(sources.values()) if one.get("flow")), None)
        if flow is None:
            periods = booked(meter, good)
        else:
            step = next((e.body["length_s"] for e in ledger.in_force("period", start_utc_s, end_utc_s, until_seq)), 900)
            periods = booked(meter, good, step)
        # The first period began before the first reading, unless that was on its very start.
        first = min(good, default=0)
        mine = {p.start_utc_s: p.flows[meter] for p in periods
                if start_utc_s <= p.start_utc_s < end_utc_s and p.start_utc_s >= first}  # fmt: skip
        row: dict[str, Any] = {
            "meter": meter, "quantity": quantity, "unit": QUANTITIES[quantity][1], "flow": flow,
            "periods": len(mine), "from_utc_s": min(mine, default=None), "last_utc_s": max(mine, default=None),
            "total": sum(one.energy_milliwh for one in mine.values()), "not_believed": len(rows) - len(good),
            "flags": sorted({flag for one in mine.values() for flag in one.flags}),
            "sources": [sources[digest] for digest in sorted(sources)],
            "booked_milliwh": None, "difference_milliwh": None,
        }  # fmt: skip
        if flow is not None and mine:
            known = sum(
                entry.body["flows"][flow]["energy_milliwh"]
                for entry in ledger.in_force("period", min(mine), max(mine) + 1, until_seq)
                if entry.start_utc_s in mine and flow in entry.body["flows"]
            )
            row["booked_milliwh"], row["difference_milliwh"] = known, row["total"] - known
        found.append(row)
    return found


BELIEVED = ("G", "S")  # states of a reading that may be used: good, and a substitute value of the meter's own


def booked(meter: str, rows: Mapping[int, tuple[int, str, str]], period_s: int = 900) -> list[BookedPeriod]:
    """Closed periods between the first and the last reading, by the rules of a meter on the bus."""
    booker = Booker([Flow(meter, meter, "load", register="r")], period_s)
    return [
        period
        for seq, (utc_s, (value, sync, _)) in enumerate(sorted(rows.items()))
        for period in booker.feed(
            {
                "boot": meter,
                "seq": seq,
                "t_ns": utc_s * 10**9,
                "utc_ns": utc_s * 10**9,
                "utc_sync": sync,
                "points": {"r": (value / 1000.0, 1)},
            }
        )
    ]
