"""A span beside the one before it and the same one of a year before, from one ledger."""

from datetime import datetime
from typing import TypedDict

from tidegate.config.zones import zone_of
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.demand_windows import Demand
from tidegate.runtime.carbon.report.local_time import day_start, next_day, utc_s

BOOKED_LEAST = 0.9  # of a span; with less it is not compared


class SpanFigures(TypedDict):
    """What is compared of a span. booked_s : how much of it the account knows."""

    from_utc_s: int
    to_utc_s: int
    booked_s: int
    used_milliwh: int
    import_milliwh: int
    location_based_ug: int
    peak_w: int


class Compared(TypedDict):
    """kind : day, month, year or span. None where too little of a span is booked; `booked_s` says how much."""

    kind: str
    before: SpanFigures | None
    year_before: SpanFigures | None
    booked_s: dict[str, int]


def spans_before(start: int, end: int, zone: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """(kind, the span before, the same a year before) of a span, by the calendar of a zone."""
    place = zone_of(zone)
    first, last = datetime.fromtimestamp(start, place), datetime.fromtimestamp(end, place)

    def earlier(when: datetime, months: int) -> int:
        """The same local time so many months before; the 29th of February becomes the 1st of March."""
        month = when.year * 12 + when.month - 1 - months
        try:
            return int(when.replace(year=month // 12, month=month % 12 + 1).timestamp())
        except ValueError:
            return utc_s(month // 12, month % 12 + 2, 1, place)

    midnight = all((m.hour, m.minute, m.second) == (0, 0, 0) for m in (first, last))
    if midnight and first.day == last.day == 1:
        months = (last.year - first.year) * 12 + last.month - first.month
        if months in (1, 12):
            kind = "month" if months == 1 else "year"
            return kind, (earlier(first, months), start), (earlier(first, 12), earlier(last, 12))
    year = earlier(first, 12)
    if midnight and 82_800 <= end - start <= 90_000:
        return "day", (day_start(start - 1, place), start), (year, next_day(year, place))
    return "span", (start - (end - start), start), (year, year + end - start)


def figures(ledger: Ledger, start: int, end: int, zone: str, window_s: int, until_seq: int | None) -> SpanFigures:
    """The figures of a span, in one pass; what leaves the site is not used there."""
    demand = Demand(window_s, zone_of(zone))
    booked_s = used = imported = ug = 0
    for entry in ledger.in_force("period", start, end, until_seq):
        body = entry.body
        booked_s += body["length_s"]
        used += sum(out["energy_milliwh"] for out in body["outflows"] if out["kind"] in ("load", "residual"))
        imported += sum(f["energy_milliwh"] for name, f in body["flows"].items() if name.endswith(".import"))
        ug += body["inflow_ug"].get("grid", 0)
        demand.add(body)
    demand.close()
    peak_w = max((month.peak[0] for month in demand.months), default=0)
    return {"from_utc_s": start, "to_utc_s": end, "booked_s": booked_s, "used_milliwh": used,
            "import_milliwh": imported, "location_based_ug": ug, "peak_w": peak_w}  # fmt: skip


def compared(ledger: Ledger, start: int, end: int, zone: str, window_s: int, until_seq: int | None) -> Compared:
    """The spans that a report is compared with."""
    kind, before, year = spans_before(start, end, zone)
    found: dict[str, SpanFigures | None] = {}
    booked_s: dict[str, int] = {}
    for name, span in (("before", before), ("year_before", year)):
        if name == "year_before" and span == before:
            found[name], booked_s[name] = found["before"], booked_s["before"]
            continue
        got = figures(ledger, *span, zone, window_s, until_seq)
        booked_s[name] = got["booked_s"]
        found[name] = got if got["booked_s"] >= BOOKED_LEAST * (span[1] - span[0]) else None
    return {"kind": kind, "before": found["before"], "year_before": found["year_before"], "booked_s": booked_s}
