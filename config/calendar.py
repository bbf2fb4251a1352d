"""The calendar: time slots of the site file as spans of UTC, and billing periods. Daylight saving included.

A slot is a stretch of the wall clock. An hour that the clocks leave out in spring gives a slot that begins when they
jump; of an hour that comes twice in autumn the first counts. Both ends follow the same rule, so that slots which touch
on the wall clock touch in time as well: never a gap, never an overlap.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN
SLOTS_MAX = 64
FIELDS = ("setpoint_w", "until_soc", "target_grid_w", "import_w_max", "export_w_max", "peak_w_max", "demand_w_max")
LIMITS = FIELDS[3:]


@dataclass(frozen=True)
class Span:
    """One occurrence of a slot. slot: index in the schedule; number: of this occurrence, never 0, below 2**30."""

    start_utc_s: int
    end_utc_s: int
    slot: int
    number: int


def minutes(text: str) -> int:
    """Minute of the day of HH:MM, 24:00 included. Raises ValueError."""
    hours, colon, rest = text.partition(":")
    if not (colon and len(hours) == 2 and len(rest) == 2 and (hours + rest).isdecimal()):
        raise ValueError(f"{text!r} is no time of day; expected HH:MM")
    found = int(hours) * 60 + int(rest)
    if int(rest) > 59 or found > DAY_MIN:
        raise ValueError(f"{text!r} is no time of day; expected 00:00 to 24:00")
    return found


def length_min(begin: int, end: int) -> int:
    """Minutes from begin to end on the wall clock; an end that is not behind its begin lies on the next day."""
    return end - begin if end > begin else end - begin + DAY_MIN


def moment(zone: ZoneInfo, day: date, minute: int) -> int:
    """UTC second at which the wall clock of the zone shows this minute of this day."""
    wall = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minute)
    before = wall.replace(tzinfo=zone, fold=0)
    utc = before.astimezone(UTC)
    if utc.astimezone(zone).replace(tzinfo=None) != wall:
        # A wall time that does not exist: the clocks jump over it, at the end of the hour that they leave out.
        after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
        low, high = (int(one.timestamp()) for one in sorted((utc, after)))
        offset = datetime.fromtimestamp(low, zone).utcoffset()
        while high - low > 1:
            middle = (low + high) // 2
            if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
                low = middle
            else:
                high = middle
        return high
    return int(utc.timestamp())


def spans(slots: Iterable[Mapping[str, Any]], zone: ZoneInfo, from_utc_s: int, to_utc_s: int) -> list[Span]:
    """Occurrences of the slots that touch [from, to), by their start.

    slots : maps with days, begin and end, as the site file has them.
    """
    found = []
    first = datetime.fromtimestamp(from_utc_s, zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(to_utc_s, zone).date()
    for index, slot in enumerate(slots):
        begin, end = minutes(slot["begin"]), minutes(slot["end"])
        day = first
        while day <= last:
            if DAYS[day.weekday()] in slot["days"]:
                start_s = moment(zone, day, begin)
                end_s = moment(zone, day, begin + length_min(begin, end))
                if start_s < end_s and end_s > from_utc_s and start_s < to_utc_s:
                    found.append(Span(start_s, end_s, index, day.toordinal() * SLOTS_MAX + index + 1))
            day += timedelta(days=1)
    return sorted(found, key=lambda span: span.start_utc_s)


def week(slots: Iterable[Mapping[str, Any]]) -> list[tuple[int, int, int]]:
    """(begin, end, slot) in minutes of the week, by begin; a slot over the week's end is cut in two."""
    found = []
    for index, slot in enumerate(slots):
        begin, end = minutes(slot["begin"]), minutes(slot["end"])
        for day in slot["days"]:
            start = DAYS.index(day) * DAY_MIN + begin
            stop = start + length_min(begin, end)
            found.append((start, min(stop, WEEK_MIN), index))
            if stop > WEEK_MIN:
                found.append((0, stop - WEEK_MIN, index))
    return sorted(found)


def overlaps(slots: list[Mapping[str, Any]]) -> list[tuple[int, int, int]]:
    """(slot, slot, minute of the week) of every two slots of which both hold at that minute."""
    rows = week(slots)
    found: dict[tuple[int, int], int] = {}
    for i, (begin, end, slot) in enumerate(rows):
        for other_begin, _, other in rows[i + 1 :]:
            if other_begin >= end:
                break
            found.setdefault((min(slot, other), max(slot, other)), max(begin, other_begin))
    return [(a, b, minute) for (a, b), minute in found.items()]


def gaps(slots: list[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(begin, end) in minutes of the week of every stretch that no slot holds."""
    found, reached = [], 0
    for begin, end, _ in week(slots):
        if begin > reached:
            found.append((reached, begin))
        reached = max(reached, end)
    if reached < WEEK_MIN:
        found.append((reached, WEEK_MIN))
    return found


def shown(minute: int) -> str:
    """A minute of the week for people, such as "tue 07:30"."""
    day, rest = divmod(minute % WEEK_MIN, DAY_MIN)
    return f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}"


def billing_period(kind: str, zone: ZoneInfo, utc_s: int) -> tuple[int, int, int]:
    """(number, start, end) of the month or year of the site's clock that holds this UTC second; start, end: UTC s."""
    here = datetime.fromtimestamp(utc_s, zone)
    if kind == "year":
        return here.year, moment(zone, date(here.year, 1, 1), 0), moment(zone, date(here.year + 1, 1, 1), 0)
    following = date(here.year + here.month // 12, here.month % 12 + 1, 1)
    return here.year * 100 + here.month, moment(zone, date(here.year, here.month, 1), 0), moment(zone, following, 0)
