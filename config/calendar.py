"""The calendar: time slots of the site file as spans of UTC, and billing periods. Daylight saving included.

A slot is a stretch of the wall clock on the days that it names: weekdays, months, public holidays. An hour that the
clocks leave out in spring gives a slot that begins when they jump; of an hour that comes twice in autumn the first
counts. Both ends follow the same rule, so that slots which touch on the wall clock touch in time as well: never a gap,
never an overlap.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from tidegate.hal.description import SiteHead, Slot

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN
SLOTS_MAX = 64
FIELDS = (
    "setpoint_w", "until_soc", "target_grid_w", "import_w_max", "export_w_max", "peak_w_max", "demand_w_max",
    "charge_w_max", "discharge_w_max",
)  # fmt: skip
LIMITS = FIELDS[3:]
MONTHS = tuple(range(1, 13))
HOLIDAYS = ("as-weekday", "never", "also", "only")  # what a public holiday is to a slot
MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

IsHoliday = Callable[[date], bool]


def no_holiday(day: date) -> bool:
    """The calendar of a site that names no country."""
    return False


def public_holidays(country: str, subdivision: str | None = None) -> IsHoliday:
    """Which days are public holidays there, by the `holidays` library.

    country : ISO 3166-1 alpha-2.
    subdivision : as ISO 3166-2 has it behind the hyphen, such as BY; None = those of the whole country.
    Raises ImportError without the extra `tariff`, ValueError for a place that the library does not know.
    """
    import holidays  # only for sites that need it

    try:
        known = holidays.country_holidays(country, subdiv=subdivision)
    except NotImplementedError as why:
        raise ValueError(str(why)) from None
    return functools.cache(known.__contains__)


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


def moment(zone: tzinfo, day: date, minute: int) -> int:
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


def holidays_of(slots: Iterable[Slot], site: SiteHead) -> IsHoliday:
    """The public holidays that these slots need to know."""
    if all(slot.holidays == HOLIDAYS[0] for slot in slots):
        return no_holiday
    if site.country is None:
        raise ValueError("a slot asks for public holidays, and the site names no country")
    return public_holidays(site.country, site.subdivision)


def holds(slot: Slot, month: int, weekday: int, holiday: bool) -> bool:
    """Whether the slot begins on a day of this kind. month: 1 to 12; weekday: 0 = Monday."""
    if month not in (slot.months or MONTHS):
        return False
    rule = slot.holidays
    if rule == "only":
        return holiday
    if holiday and rule != "as-weekday":
        return rule == "also"
    return DAYS[weekday] in slot.days


def spans(
    slots: Iterable[Slot],
    zone: tzinfo,
    from_utc_s: int,
    to_utc_s: int,
    is_holiday: IsHoliday = no_holiday,
) -> list[Span]:
    """Occurrences of the slots that touch [from, to), by their start."""
    found = []
    first = datetime.fromtimestamp(from_utc_s, zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(to_utc_s, zone).date()
    for index, slot in enumerate(slots):
        begin, end = minutes(slot.begin), minutes(slot.end)
        day = first
        while day <= last:
            if holds(slot, day.month, day.weekday(), is_holiday(day)):
                start_s = moment(zone, day, begin)
                end_s = moment(zone, day, begin + length_min(begin, end))
                if start_s < end_s and end_s > from_utc_s and start_s < to_utc_s:
                    found.append(Span(start_s, end_s, index, day.toordinal() * SLOTS_MAX + index + 1))
            day += timedelta(days=1)
    return sorted(found, key=lambda span: span.start_utc_s)


def clock_ahead(zone: tzinfo, utc_s: int, to_utc_s: int) -> tuple[int, int, int]:
    """(offset of the zone from UTC now, UTC second of its next change before to_utc_s or 0, the offset then), s."""

    def offset_s(at_utc_s: int) -> int:
        offset = datetime.fromtimestamp(at_utc_s, zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    now_s, low = offset_s(utc_s), utc_s
    while low < to_utc_s:
        high = min(low + 3600, to_utc_s)
        if offset_s(high) != now_s:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_s(middle) == now_s else (low, middle)
            return now_s, high, offset_s(high)
        low = high
    return now_s, 0, 0


@dataclass(frozen=True)
class When:
    """A minute of some day of the year. month: 0 where any month will do; holiday: the day is a public holiday."""

    weekday: int
    minute: int
    month: int = 0
    holiday: bool = False

    def __str__(self) -> str:
        day = f"{DAYS[self.weekday]} {self.minute // 60:02}:{self.minute % 60:02}"
        month = f" in {MONTH_NAMES[self.month - 1]}" if self.month else ""
        return f"{day}{month}{' on a public holiday' if self.holiday else ''}"


def _kinds_of_day(slots: Sequence[Slot]) -> Iterator[tuple[tuple[int, int, bool], tuple[int, int, bool]]]:
    """(day before, day) for every two days that may follow each other, as (month, weekday, holiday).

    Months that no slot tells apart from January, and holidays where no slot knows any, are left out.
    """
    by_month = {month: frozenset(i for i, s in enumerate(slots) if month in (s.months or MONTHS)) for month in MONTHS}
    known = any(slot.holidays != HOLIDAYS[0] for slot in slots)
    seen = set()
    for month in MONTHS:
        for before in (month, (month - 2) % 12 + 1):
            kind = (by_month[before], by_month[month])
            if kind in seen:
                continue
            seen.add(kind)
            for weekday in range(7):
                for holiday in (False, True)[: 1 + known]:
                    for eve in (False, True)[: 1 + known]:
                        yield (before, (weekday - 1) % 7, eve), (month, weekday, holiday)


def _held(
    slots: Sequence[Slot], before: tuple[int, int, bool], day: tuple[int, int, bool]
) -> list[tuple[int, int, int]]:
    """(begin, end, slot) in minutes of the day, by begin: what holds on it, from the day before on too."""
    found = []
    for index, slot in enumerate(slots):
        begin = minutes(slot.begin)
        end = begin + length_min(begin, minutes(slot.end))
        if holds(slot, *day):
            found.append((begin, min(end, DAY_MIN), index))
        if end > DAY_MIN and holds(slot, *before):
            found.append((0, end - DAY_MIN, index))
    return sorted(found)


def _when(slots: Sequence[Slot], day: tuple[int, int, bool], minute: int) -> When:
    """The place in the year, with no more said than is needed to find it."""
    return When(day[1], minute, day[0] if any(slot.months for slot in slots) else 0, day[2])


def overlaps(slots: Sequence[Slot]) -> list[tuple[int, int, When]]:
    """(slot, slot, first moment) of every two slots of which both hold at some moment of the year."""
    found: dict[tuple[int, int], When] = {}
    for before, day in _kinds_of_day(slots):
        rows = _held(slots, before, day)
        for i, (begin, end, slot) in enumerate(rows):
            for other_begin, _, other in rows[i + 1 :]:
                if other_begin >= end:
                    break
                if slot != other:
                    found.setdefault((min(slot, other), max(slot, other)), _when(slots, day, max(begin, other_begin)))
    return [(a, b, when) for (a, b), when in found.items()]


def gaps(slots: Sequence[Slot]) -> list[tuple[When, When]]:
    """(begin, end) of every stretch of a day that no slot holds; of equal ones on several days the first."""
    found: dict[tuple[int, int, int], tuple[When, When]] = {}
    for before, day in _kinds_of_day(slots):
        reached = 0
        for begin, end, _ in [*_held(slots, before, day), (DAY_MIN, DAY_MIN, -1)]:
            if begin > reached:
                stretch = (_when(slots, day, reached), _when(slots, day, begin))
                found.setdefault((day[1], reached, begin), stretch)
            reached = max(reached, end)
    return list(found.values())


def billing_period(kind: str, zone: tzinfo, utc_s: int) -> tuple[int, int, int]:
    """(number, start, end) of the day, month or year of the site's clock that holds this second; all in UTC s."""
    here = datetime.fromtimestamp(utc_s, zone)
    if kind == "day":
        day = here.date()
        return day.toordinal(), moment(zone, day, 0), moment(zone, day + timedelta(days=1), 0)
    if kind == "year":
        return here.year, moment(zone, date(here.year, 1, 1), 0), moment(zone, date(here.year + 1, 1, 1), 0)
    following = date(here.year + here.month // 12, here.month % 12 + 1, 1)
    return here.year * 100 + here.month, moment(zone, date(here.year, here.month, 1), 0), moment(zone, following, 0)
