"""Slots of the wall clock as spans of UTC: the days on which the clocks change are where it goes wrong."""

import itertools
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.config import calendar

BERLIN, LONDON, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/London"), ZoneInfo("UTC")
HOUR = 3600


def at(text):
    return int(datetime.fromisoformat(text).timestamp())


def slot(begin, end, days=calendar.DAYS):
    return {"begin": begin, "end": end, "days": days}


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
    assert calendar.overlaps(rows) == [(0, 1, 5 * 60)]
    assert calendar.gaps([slot("00:00", "24:00", calendar.DAYS[1:])]) == [(0, 24 * 60)]
    assert calendar.shown(24 * 60 + 450) == "tue 07:30"


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
