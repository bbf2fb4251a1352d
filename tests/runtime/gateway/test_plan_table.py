"""What lies in the core's plan: calendar and client by one clock, renewed, left behind; what a period has paid for."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tidegate.ext.abi.shared import PLAN_ROWS_MAX, Shared
from tidegate.hal.description import Slot
from tidegate.runtime.gateway.orders_held import Planned
from tidegate.runtime.gateway.plan_table import CALENDAR, CLIENT, Billing, Planner

S = 10**9
NOON = 1_795_348_800  # 2026-11-22T12:00:00Z, a Sunday
BERLIN = ZoneInfo("Europe/Berlin")
EVENING = Slot(name="evening", begin="17:00", end="20:00", peak_w_max=40e3)


def planner(*schedule, billing=None):
    memory, _ = Shared.memfd()
    return memory, Planner(memory, list(schedule), BERLIN, billing)


def test_a_slot_comes_into_the_plan_in_monotonic_time():
    memory, plans = planner(EVENING)
    plans.put([], 500 * S, NOON * S)
    row = memory.plan().rows[0]
    # 17:00 in Berlin in November is 16:00 UTC: four hours from now.
    assert (row.start_t_ns, row.end_t_ns) == ((500 + 4 * 3600) * S, (500 + 7 * 3600) * S)
    assert (row.source, row.forced, row.values) == (CALENDAR, False, {"peak_w_max": 40e3})
    assert plans.names[row.number] == "evening"
    assert len(memory.plan().rows) == 7


def test_the_plan_is_put_anew_only_when_it_changes_or_the_clock_is_corrected():
    memory, plans = planner(EVENING)
    first = plans.put([], 1 * S, NOON * S)
    plans.step([], None, 3 * S, (NOON + 2) * S)
    assert memory.plan().rows and plans.memory.plan().rows[0].start_t_ns == (1 + 4 * 3600) * S
    assert plans.put.__self__ is plans and plans._put is not None
    again = memory.put_plan(memory.plan().rows)  # a seq to compare with
    assert again == first + 2, "nothing was put in between"
    plans.step([], None, 6 * S, (NOON + 5 + 30) * S)  # the wall clock was set forward by 30 s
    assert memory.plan().rows[0].start_t_ns == (1 + 4 * 3600 - 30) * S


def test_client_and_calendar_share_the_table_and_what_is_over_goes():
    memory, plans = planner(EVENING)
    steps = [Planned(NOON + 60 * i, NOON + 60 * i + 60, False, {"setpoint_w": float(i)}) for i in range(100)]
    plans.put(steps, 1 * S, NOON * S)
    rows = memory.plan().rows
    assert len(rows) <= PLAN_ROWS_MAX and {row.source for row in rows} == {CALENDAR, CLIENT}
    assert len({row.number for row in rows}) == len(rows)
    plans.step(steps, None, 121 * S, (NOON + 120) * S)
    client = [row for row in memory.plan().rows if row.source == CLIENT]
    assert client[0].values == {"setpoint_w": 2.0} and len(client) == PLAN_ROWS_MAX // 2


def test_a_new_gateway_takes_the_clients_plan_over_from_the_core():
    memory, plans = planner()
    steps = [Planned(NOON - 50, NOON + 60, True, {"setpoint_w": -5e3, "until_soc": 0.9})]
    plans.put(steps, 1000 * S, NOON * S)
    fresh = Planner(memory, [], BERLIN)
    assert fresh.take_over(1010 * S, (NOON + 10) * S) == steps
    assert fresh.take_over(1060 * S, (NOON + 60) * S) == []


def test_what_a_billing_period_has_paid_for_outlives_a_restart(tmp_path):
    path = tmp_path / "billing.json"
    billing = Billing(path, "month", BERLIN, 30e3)
    billing.turn(NOON)
    assert (billing.number, billing.paid_w) == (202611, 30e3)
    billing.paid(41e3)
    billing.paid(38e3)
    again = Billing(path, "month", BERLIN, 30e3)
    again.turn(NOON + 3600)
    assert again.paid_w == 41e3


def test_the_next_period_begins_with_nothing_paid(tmp_path):
    path = tmp_path / "billing.json"
    billing = Billing(path, "month", BERLIN, 30e3)
    billing.turn(NOON)
    billing.paid(41e3)
    billing.turn(billing.end_utc_s - 1)
    assert billing.paid_w == 41e3
    billing.turn(billing.end_utc_s)
    assert (billing.number, billing.paid_w) == (202612, 0.0)
    again = Billing(path, "month", BERLIN, 30e3)
    again.turn(NOON + 30 * 86_400)
    assert again.paid_w == 0.0, "what the site file knows belongs to the period of the first start"
    yearly = Billing(path, "year", BERLIN, 30e3)
    yearly.turn(NOON)
    assert (yearly.number, yearly.paid_w) == (2026, 30e3), "another period than the file's"


def test_a_damaged_billing_file_counts_as_nothing_paid_and_is_named(tmp_path):
    path = tmp_path / "billing.json"
    path.write_text('{"kind": "month", "paid_w": "many"')
    billing = Billing(path, "month", BERLIN, 0.0)
    billing.turn(NOON)
    assert billing.paid_w == 0.0 and str(path) in billing.problem


@pytest.mark.parametrize("paid", ["1e300", "-1", "NaN", "Infinity", "1e999", '"1e3"[', "[]", "1e10"])
def test_a_peak_that_nobody_can_have_paid_for_counts_as_nothing_and_is_named(tmp_path, paid):
    """Believed, it would never be shaved below."""
    path = tmp_path / "billing.json"
    path.write_text(f'{{"kind": "month", "number": 202611, "paid_w": {paid}}}')
    billing = Billing(path, "month", BERLIN, 0.0)
    billing.turn(NOON)
    assert billing.paid_w == 0.0 and str(path) in billing.problem


def test_the_core_is_told_the_period_and_the_highest_window_is_kept(tmp_path):
    billing = Billing(tmp_path / "billing.json", "month", BERLIN, 0.0)
    memory, plans = planner(billing=billing)
    plans.put([], 5 * S, NOON * S)
    end_ns = (billing.end_utc_s - NOON + 5) * S
    assert (memory.plan().billing_end_t_ns, memory.plan().billing_number) == (end_ns, 202611)
    plans.step([], 39e3, 7 * S, (NOON + 2) * S)
    assert memory.plan().paid_w == 39e3
    assert Billing(tmp_path / "billing.json", "month", BERLIN, 0.0)._kept["paid_w"] == 39e3


def day(text):
    return int(datetime.fromisoformat(text).timestamp())


def after(path, peaks_kw, *, count, of="day", kind="month", first="2026-11-01T12:00+01:00", step_days=1):
    """A billing that has seen one peak a day (or month), asked on the day behind the last."""
    billing = Billing(path, kind, BERLIN, 0.0, peaks=count, of=of)
    at = datetime.fromisoformat(first)
    for peak_kw in peaks_kw:
        billing.turn(int(at.timestamp()))
        billing.paid(peak_kw * 1e3)
        at += timedelta(days=step_days)
    billing.turn(int(at.timestamp()))
    return billing


@pytest.mark.parametrize(
    ("peaks_kw", "count", "free_kw", "billed_kw"),
    [
        ((40, 50, 30), 3, 30, 40),  # today may reach the third highest for nothing
        ((40, 50), 3, 0, 30),  # a third day with any peak at all raises the mean
        ((40, 50, 30, 45, 20), 3, 40, 45),
        ((40, 50), 1, 50, 50),
    ],
)
def test_a_mean_of_the_highest_days_leaves_what_costs_nothing_unshaved(tmp_path, peaks_kw, count, free_kw, billed_kw):
    billing = after(tmp_path / "billing.json", peaks_kw, count=count)
    assert billing.paid_w == free_kw * 1e3
    assert billing.billed_w == pytest.approx(billed_kw * 1e3)


def test_shaving_to_what_is_paid_never_raises_the_bill_and_a_watt_less_would_be_for_nothing(tmp_path):
    """Against the definition: the mean of the n highest of all days, for random months."""
    random = np.random.default_rng(5)
    for trial in range(200):
        count = int(random.integers(1, 6))
        days_kw = random.integers(10, 90, int(random.integers(0, 20))).astype(float)
        billing = after(tmp_path / f"{trial}.json", days_kw, count=count)

        def bill(today_kw, days_kw=days_kw, count=count):
            highest = np.sort([*days_kw, today_kw])[::-1][:count]
            return highest.sum() / count  # missing days count nothing

        free_kw = billing.paid_w / 1e3
        assert bill(free_kw) == pytest.approx(bill(0.0))
        assert bill(free_kw + 1.0) > bill(0.0)


def test_peaks_of_days_survive_a_restart_and_end_with_their_month(tmp_path):
    path = tmp_path / "billing.json"
    after(path, (40, 50, 30, 20), count=3)
    again = Billing(path, "month", BERLIN, 0.0, peaks=3, of="day")
    again.turn(day("2026-11-05T12:00+01:00"))
    assert again.paid_w == 30e3
    again.turn(day("2026-12-01T00:00+01:00"))
    assert again.paid_w == 0.0 and again.billed_w == 0.0


def test_the_mean_of_twelve_months_takes_each_month_for_itself(tmp_path):
    billing = after(
        tmp_path / "billing.json",
        (40, 50),
        count=12,
        of="month",
        kind="year",
        first="2026-01-15T12:00+01:00",
        step_days=31,
    )
    assert billing.paid_w == 0.0 and billing.number == 202603
    billing.paid(20e3)
    assert billing.paid_w == 20e3


def test_a_file_of_another_tariff_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "billing.json"
    after(path, (40, 50, 30), count=3)
    monthly = Billing(path, "month", BERLIN, 0.0)
    monthly.turn(day("2026-11-04T12:00+01:00"))
    assert monthly.paid_w == 0.0


def test_a_file_of_the_release_before_is_read(tmp_path):
    path = tmp_path / "billing.json"
    path.write_text('{"kind": "month", "number": 202611, "paid_w": 41000.0}')
    billing = Billing(path, "month", BERLIN, 0.0)
    billing.turn(day("2026-11-04T12:00+01:00"))
    assert billing.paid_w == 41e3


@pytest.mark.parametrize(
    ("zone", "utc", "offset_s"),
    [("Asia/Kolkata", NOON, 19_800), ("Asia/Kathmandu", NOON, 20_700), ("Australia/Lord_Howe", NOON, 39_600),
     ("Europe/Berlin", NOON, 3_600), ("UTC", NOON, 0)],
)  # fmt: skip
def test_the_core_is_told_the_wall_clock_of_the_zone(zone, utc, offset_s):
    memory, _ = Shared.memfd()
    plans = Planner(memory, [], ZoneInfo(zone))
    plans.put([], 500 * S, utc * S)
    assert memory.plan().clock == ((utc - 500 + offset_s) * S, 0, 0)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca"])
@pytest.mark.parametrize("year", [2026, 2027])
def test_the_core_knows_each_change_of_the_clocks_before_it_comes_and_to_the_second(zone, year):
    memory, _ = Shared.memfd()
    plans = Planner(memory, [], ZoneInfo(zone))
    start_s = int(datetime(year, 1, 1, tzinfo=ZoneInfo("UTC")).timestamp())
    changes = set()
    for day in range(366):
        utc_s = start_s + day * 86_400 + 4711
        plans.step([], None, (10 + day * 86_400) * S, utc_s * S)
        offset_ns, next_ns, next_offset_ns = memory.plan().clock
        at = datetime.fromtimestamp(utc_s, ZoneInfo(zone))
        assert offset_ns == (utc_s - (10 + day * 86_400) + at.utcoffset().total_seconds()) * S
        if next_ns:
            change_s = next_ns // S + utc_s - (10 + day * 86_400)
            before, after = (datetime.fromtimestamp(change_s + d, ZoneInfo(zone)).utcoffset() for d in (-1, 0))
            assert before != after and next_offset_ns - offset_ns == (after - before).total_seconds() * S
            changes.add(change_s)
    assert len(changes) >= 2, "each change of the year was known a week ahead"


def test_a_clock_that_is_set_reaches_the_core_within_a_second_and_one_that_drifts_does_not_flood_it():
    memory, plans = planner()
    plans.put([], 1 * S, NOON * S)
    first = memory.plan().clock
    plans.step([], None, 3 * S, (NOON + 2) * S + 30_000_000)
    assert memory.plan().clock == first
    plans.step([], None, 5 * S, (NOON + 4 - 20) * S)
    assert memory.plan().clock[0] == first[0] - 20 * S
