"""What registers that came by file counted in a span, over replaced meters and the end of their range.

They are read from the ledger's entries by the same rules as registers on the bus. What cannot be known is said, with
its place and the remedy, and is never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tidegate.runtime.carbon.engine.booking import BookedPeriod, Booker
from tidegate.runtime.carbon.engine.counter import Flow
from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.ledger.bodies import ReadingBody, ReadingSource
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.changes import Changes
from tidegate.runtime.carbon.readings.readings import ENERGY, QUANTITIES

W_MAX = 1e9  # where neither the site file nor the connection says what a meter can show
WATER_MAX = 1e7  # L/h


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
    """All readings of a ledger, by meter and quantity; a later entry supersedes an earlier one of the same time.

    w_max : mean power above which a register of energy is not believed.
    """

    def __init__(self, w_max: float = W_MAX) -> None:
        self.w_max = w_max
        self.changes = Changes()
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
        mine = {meter: self.joined(meter, quantity) for meter, what in sorted(self.rows) if what == quantity}
        if not mine:
            return Amount(None, unit, "no readings")
        found = Amount(0, unit, meters=list(mine))
        flags: set[str] = set()
        for meter, rows in mine.items():
            times = sorted(at for at, row in rows.items() if row[2] in BELIEVED)
            if not times or times[0] > start_utc_s or times[-1] < end_utc_s:
                reach = f"read from {iso(times[0])} to {iso(times[-1])}" if times else "never read well"
                return Amount(None, unit, f"{meter}: {reach}, not over the whole span", list(mine))
            believed = {at: rows[at] for at in times}
            why = self.problem(meter, quantity, believed, start_utc_s, end_utc_s)
            if why is not None:
                return Amount(None, unit, why, list(mine))
            for period in booked(meter, believed, period_s, self.limit(quantity)):
                if start_utc_s <= period.start_utc_s < end_utc_s:
                    flow = period.flows[meter]
                    found.total = (found.total or 0) + flow.energy_milliwh
                    found.quality[flow.quality] = found.quality.get(flow.quality, 0) + flow.energy_milliwh
                    flags.update(f"{meter}: {flag}" for flag in flow.flags if flag.split()[0] != "GAP")
        found.flags = sorted(flags)
        return found

    def limit(self, quantity: str) -> float:
        """What a register may gain: watts, or, of water, litres an hour."""
        return self.w_max if QUANTITIES[quantity][0] is ENERGY else WATER_MAX

    def joined(self, meter: str, quantity: str) -> dict[int, tuple[int, str, str]]:
        """The rows as if one register had gone on: over replaced meters and over the end of its range."""
        return self.changes.joined(meter, quantity, self.rows[meter, quantity])

    def problem(
        self, meter: str, quantity: str, rows: Mapping[int, tuple[int, str, str]], start_utc_s: int, end_utc_s: int
    ) -> str | None:
        """Why what a register counted in a span is not known: it fell, or ran faster than it can. None if it is."""
        small = QUANTITIES[quantity][1]
        for (t0, (v0, _, _)), (t1, (v1, _, _)) in pairwise(sorted(rows.items())):
            if t1 <= start_utc_s or t0 >= end_utc_s:
                continue
            where = f"{meter} from {iso(t0)} to {iso(t1)}"
            if v1 < v0:
                return (
                    f"{where}: the register fell from {v0} to {v1} {small}; say what happened "
                    "(tidegate carbon meter exchange) or where it begins again (tidegate carbon meter range)"
                )
            mean = (v1 - v0) * 3.6 / (t1 - t0)
            if mean > self.limit(quantity):
                unit = "W" if small == "mWh" else "L/h"
                return (
                    f"{where}: a mean of {mean:.0f} {unit}, above the {self.limit(quantity):.0f} that are believed; "
                    "correct the reading, or raise [carbon] meter_w_max"
                )
        return None


def registers_of(ledger: Ledger, until_seq: int | None = None) -> Registers:
    """The registers that came by file, with the limits of the method in force, as the ledger stood at an entry."""
    found = Registers()
    for method in ledger.entries("method"):
        if until_seq is None or method.seq <= until_seq:
            found.w_max = (method.body.get("meter_milliw_max") or 0) / 1000 or W_MAX
    for entry in ledger.entries("reading"):
        if until_seq is None or entry.seq <= until_seq:
            found.add(entry.body)
    for change in ledger.entries("meter"):
        if until_seq is None or change.seq <= until_seq:
            found.changes.add(change.body)
    return found


def readings_record(
    registers: Registers, ledger: Ledger, start_utc_s: int, end_utc_s: int, until_seq: int | None = None
) -> list[dict[str, Any]]:
    """What each register that came by file says of [start, end), and what was booked for the flow that it shares."""
    found = []
    for meter, quantity in sorted(registers.rows):
        joined = registers.joined(meter, quantity)
        good = {at: row for at, row in joined.items() if row[2] in BELIEVED}
        limit = registers.limit(quantity)
        why = registers.problem(meter, quantity, good, start_utc_s, end_utc_s)
        sources = registers.sources[(meter, quantity)]
        flow = next((one["flow"] for one in reversed(sources.values()) if one.get("flow")), None)
        if flow is None:
            periods = booked(meter, good, 900, limit)
        else:
            step = next((e.body["length_s"] for e in ledger.in_force("period", start_utc_s, end_utc_s, until_seq)), 900)
            periods = booked(meter, good, step, limit)
        # The first period began before the first reading, unless that was on its very start.
        first = min(good, default=0)
        mine = {p.start_utc_s: p.flows[meter] for p in periods
                if start_utc_s <= p.start_utc_s < end_utc_s and p.start_utc_s >= first}  # fmt: skip
        row: dict[str, Any] = {
            "meter": meter, "quantity": quantity, "unit": QUANTITIES[quantity][1], "flow": flow,
            "periods": len(mine), "from_utc_s": min(mine, default=None), "last_utc_s": max(mine, default=None),
            "total": None if why else sum(one.energy_milliwh for one in mine.values()), "why": why,
            "not_believed": len(joined) - len(good),
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
            row["booked_milliwh"] = known
            row["difference_milliwh"] = None if why else row["total"] - known
        found.append(row)
    return found


BELIEVED = ("G", "S")  # states of a reading that may be used: good, and a substitute value of the meter's own


def booked(
    meter: str, rows: Mapping[int, tuple[int, str, str]], period_s: int = 900, limit: float = W_MAX
) -> list[BookedPeriod]:
    """Closed periods between the first and the last reading, by the rules of a meter on the bus."""
    booker = Booker([Flow(meter, meter, "load", register="r", w_max=limit)], period_s)
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
