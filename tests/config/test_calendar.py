"""Slots of the wall clock as spans of UTC: the days on which the clocks change are where it goes wrong."""

import itertools
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.config import calendar
from tidegate.hal.description import Slot

BERLIN, LONDON, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/London"), ZoneInfo("UTC")
HOUR = 3600


def at(text):
    return int(datetime.fromisoformat(text).timestamp())


def slot(begin, end, days=calendar.DAYS):
    return Slot(name="slot", begin=begin, end=end, days=tuple(days))


def test_a_slot_follows_the_wall_clock_over_both_changes_of_the_year():
    evening = [slot("17:00", "20:00")]
    winter, summer = (calendar.spans(evening, BERLIN, at(day), at(day) + 86_400)[0] for day in (
        "2026-03-28T00:00+01:00", "2026-03-29T00:00+01:00"))  # fmt: skip
    assert datetime.fromtimestamp(winter.start_utc_s, UTC).hour == 16
    assert datetime.fromtimestamp(summer.start_utc_s, UTC).hour == 15
    assert winter.end_utc_s - winter.start_utc_s == summer.end_utc_s - summer.start_utc_s == 3 * HOUR


def test_the_hour_that_the_clocks_leave_out_makes_a_slot_begin_when_they_jump():
    jump = at("2026-03-29T03:00+02:00")
    assert calendar.moment(BERLIN, date(2026, 3, 29), 2 * 60 + 30) == jump
    early, late = calendar.spans([slot("01:00", "02:30"), slot("02:30", "06:00")], BERLIN, jump - 2 * HOUR, jump + HOUR)
    assert early.end_utc_s == late.start_utc_s == jump
    assert late.end_utc_s - late.start_utc_s == 3 * HOUR
    # A slot that lies wholly in that hour does not take place.
    assert calendar.spans([slot("02:10", "02:50")], BERLIN, jump - 2 * HOUR, jump + HOUR) == []


def test_the_hour_that_comes_twice_belongs_to_one_slot_only():
    early, late = calendar.spans(
        [slot("00:00", "02:30"), slot("02:30", "04:00")],
        BERLIN,
        at("2026-10-25T00:00+02:00"),
        at("2026-10-25T04:00+01:00"),
    )
    assert early.end_utc_s == late.start_utc_s == at("2026-10-25T02:30+02:00")
    assert late.end_utc_s == at("2026-10-25T04:00+01:00")


def test_a_slot_over_midnight_belongs_to_the_day_on_which_it_begins():
    night = [slot("22:00", "06:00", ("fri",))]
    found = calendar.spans(night, LONDON, at("2026-11-20T00:00+00:00"), at("2026-11-27T00:00+00:00"))
    assert [(one.start_utc_s, one.end_utc_s) for one in found] == [
        (at("2026-11-20T22:00+00:00"), at("2026-11-21T06:00+00:00"))
    ]


def test_each_occurrence_has_a_number_of_its_own_that_does_not_change():
    rows = [slot("00:00", "12:00"), slot("12:00", "24:00")]
    year = calendar.spans(rows, BERLIN, at("2026-01-01T00:00+01:00"), at("2027-01-01T00:00+01:00"))
    assert len({one.number for one in year}) == len(year) == 730
    assert all(0 < one.number < 2**30 for one in year)
    again = calendar.spans(rows, BERLIN, at("2026-07-01T09:00+02:00"), at("2026-07-02T00:00+02:00"))
    assert {one.number for one in again} < {one.number for one in year}


borders = st.lists(st.integers(0, 24 * 60 - 1), min_size=2, max_size=6, unique=True).map(sorted)
text_of = lambda minute: f"{minute // 60:02}:{minute % 60:02}"  # noqa: E731


@settings(max_examples=60, deadline=None)
@given(
    borders,
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Tehran"]),
)
def test_slots_that_touch_on_the_wall_clock_touch_in_time_all_year(cut, zone):
    rows = [slot(text_of(a), text_of(b)) for a, b in zip(cut, [*cut[1:], cut[0]], strict=True)]
    assert calendar.overlaps(rows) == [] and calendar.gaps(rows) == []
    found = calendar.spans(rows, ZoneInfo(zone), at("2026-01-01T00:00+00:00"), at("2027-01-01T00:00+00:00"))
    for before, after in itertools.pairwise(found):
        assert before.end_utc_s == after.start_utc_s


def test_overlaps_and_gaps_are_found_over_the_weeks_end():
    rows = [slot("22:00", "06:00", ("sun",)), slot("05:00", "07:00", ("mon",))]
    assert calendar.overlaps(rows) == [(0, 1, calendar.When(0, 5 * 60))]
    whole_monday = (calendar.When(0, 0), calendar.When(0, 24 * 60))
    assert calendar.gaps([slot("00:00", "24:00", calendar.DAYS[1:])]) == [whole_monday]
    assert str(calendar.When(1, 450)) == "tue 07:30"
    assert str(calendar.When(6, 0, 12, True)) == "sun 00:00 in Dec on a public holiday"


def season(begin, end, months, holidays="as-weekday", days=calendar.DAYS):
    return Slot(name="slot", begin=begin, end=end, days=tuple(days), months=tuple(months), holidays=holidays)


def test_a_slot_holds_in_its_months_only_and_a_night_belongs_to_the_month_in_which_it_begins():
    winter = [season("22:00", "06:00", (11, 12, 1, 2))]
    year = calendar.spans(winter, BERLIN, at("2026-01-01T12:00+01:00"), at("2027-01-01T00:00+01:00"))
    assert {datetime.fromtimestamp(one.start_utc_s, BERLIN).month for one in year} == {1, 2, 11, 12}
    last = max(one.end_utc_s for one in year if datetime.fromtimestamp(one.start_utc_s, BERLIN).month == 2)
    assert last == at("2026-03-01T06:00+01:00")


@pytest.mark.parametrize(
    ("rule", "held"),
    [("as-weekday", ["05-14"]), ("never", []), ("also", ["05-14", "05-25"]), ("only", ["05-14", "05-25"])],
)
def test_a_public_holiday_is_to_a_slot_what_it_says(rule, held):
    """Ascension Day, a Thursday, and Whit Monday of 2026; the slot names Thursdays."""
    pytest.importorskip("holidays")
    rows = [season("08:00", "20:00", (5,), rule, ("thu",))]
    found = calendar.spans(
        rows,
        BERLIN,
        at("2026-05-13T00:00+02:00"),
        at("2026-05-27T00:00+02:00"),
        calendar.public_holidays("DE"),
    )
    days = [f"{datetime.fromtimestamp(one.start_utc_s, BERLIN):%m-%d}" for one in found]
    ordinary = [] if rule == "only" else ["05-21"]
    assert sorted(days) == sorted([*held, *ordinary])


def test_holidays_of_a_region_are_its_own_and_an_unknown_place_is_refused():
    pytest.importorskip("holidays")
    epiphany = date(2026, 1, 6)
    assert calendar.public_holidays("DE", "BY")(epiphany) and not calendar.public_holidays("DE", "HH")(epiphany)
    with pytest.raises(ValueError, match="QQ"):
        calendar.public_holidays("QQ")


def test_slots_of_other_months_do_not_overlap_and_a_month_that_nobody_holds_is_a_gap():
    summer, winter = season("00:00", "24:00", (4, 5, 6, 7, 8, 9)), season("00:00", "24:00", (10, 11, 12, 1, 2))
    assert calendar.overlaps([summer, winter]) == []
    assert {begin.month for begin, _ in calendar.gaps([summer, winter])} == {3}
    night = season("20:00", "04:00", (3,))
    ((_, _, when),) = calendar.overlaps([summer, night])
    assert (when.month, when.minute) == (4, 0)  # the last night of March reaches into April


def test_a_holiday_slot_overlaps_one_that_takes_holidays_for_weekdays():
    work, rest = slot("08:00", "20:00"), season("10:00", "12:00", calendar.MONTHS, "only")
    ((_, _, when),) = calendar.overlaps([work, rest])
    assert when.holiday and when.minute == 600
    assert calendar.overlaps([season("08:00", "20:00", (), "never"), rest]) == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_the_check_says_of_overlaps_is_what_the_calendar_does(data):
    """A year of spans laid over each other, against the check by kinds of day."""
    minute = st.integers(0, 47).map(lambda half: 30 * half)
    rows = []
    for _ in range(data.draw(st.integers(2, 4))):
        begin, end = data.draw(minute), data.draw(minute)
        months = data.draw(st.sets(st.integers(1, 12), max_size=4))
        days = data.draw(st.sets(st.sampled_from(calendar.DAYS), min_size=1))
        rule = data.draw(st.sampled_from(calendar.HOLIDAYS))
        if begin != end:
            rows.append(season(text_of(begin), text_of(end), tuple(months), rule, tuple(days)))
    # Over fifteen years every kind of day that the check thinks of has come, with one day in three a holiday.
    is_holiday = lambda day: day.toordinal() * 7 % 3 == 0  # noqa: E731
    found = calendar.spans(rows, UTC_ZONE, at("2026-01-01T00:00+00:00"), at("2041-01-01T00:00+00:00"), is_holiday)
    met, open_spans = set(), []
    for span in found:
        open_spans = [one for one in open_spans if one.end_utc_s > span.start_utc_s]
        met |= {tuple(sorted((one.slot, span.slot))) for one in open_spans if one.slot != span.slot}
        open_spans.append(span)
    assert met <= {(a, b) for a, b, _ in calendar.overlaps(rows)}


@pytest.mark.parametrize("text", ["7:00", "24:01", "12:60", "noon", "12-30", ""])
def test_what_is_no_time_of_day_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        calendar.minutes(text)


def test_a_billing_period_begins_and_ends_by_the_sites_clock():
    number, start, end = calendar.billing_period("month", BERLIN, at("2026-03-15T12:00+01:00"))
    assert (number, start, end) == (202603, at("2026-03-01T00:00+01:00"), at("2026-04-01T00:00+02:00"))
    assert calendar.billing_period("month", BERLIN, at("2026-12-31T23:30+00:00"))[0] == 202701
    assert calendar.billing_period("month", UTC_ZONE, at("2026-12-31T23:30+00:00"))[0] == 202612
    assert calendar.billing_period("year", BERLIN, end) == (
        2026,
        at("2026-01-01T00:00+01:00"),
        at("2027-01-01T00:00+01:00"),
    )
