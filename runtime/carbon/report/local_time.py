"""Days and months of the place: where a site's clock differs from UTC, a report may follow it.

The ledger knows UTC only. A local day has 92 to 100 quarter hours; a zone is written by its name in the tz database.
"""

from datetime import datetime, tzinfo

from tidegate.config.zones import UTC_NAME, zone_of


def utc_s(year: int, month: int, day: int, zone: tzinfo) -> int:
    """The moment at which a local day begins; month 13 and day 32 are those of the next year and month."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return int(datetime(year, month, day, tzinfo=zone).timestamp())


def span_of(text: str, name: str = UTC_NAME) -> tuple[int, int]:
    """(start, end) in UTC seconds of a day, month or year there: 2026-03-14, 2026-03 or 2026. Raises ValueError."""
    zone = zone_of(name)
    for form in ("%Y-%m-%d", "%Y-%m", "%Y"):
        try:
            at = datetime.strptime(text, form)
        except ValueError:
            continue
        start = utc_s(at.year, at.month, at.day, zone)
        if form == "%Y-%m-%d":
            return start, next_day(start, zone)
        return start, utc_s(at.year, at.month + 1, 1, zone) if form == "%Y-%m" else utc_s(at.year + 1, 1, 1, zone)
    raise ValueError(f"{text!r}: expected a day, month or year, like 2026-03-14, 2026-03 or 2026")


def day_start(moment_s: int, zone: tzinfo) -> int:
    """The begin of the local day that a moment lies in."""
    at = datetime.fromtimestamp(moment_s, zone)
    return utc_s(at.year, at.month, at.day, zone)


def next_day(start_s: int, zone: tzinfo) -> int:
    """The begin of the local day behind the one that begins there; a day lasts 20 to 28 hours."""
    return day_start(day_start(start_s, zone) + 28 * 3600, zone)


def month_of(moment_s: int, zone: tzinfo) -> tuple[int, int]:
    """(start, end) of the local month that a moment lies in."""
    at = datetime.fromtimestamp(moment_s, zone)
    return utc_s(at.year, at.month, 1, zone), utc_s(at.year, at.month + 1, 1, zone)


def shown(moment_s: int, form: str, zone: tzinfo) -> str:
    """A moment as people there write it."""
    return datetime.fromtimestamp(moment_s, zone).strftime(form)
