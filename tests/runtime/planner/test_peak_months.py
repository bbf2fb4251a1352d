"""No month with a battery has a higher peak than the same one without: what is known, what is sent, hostile months."""

import json
import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tests.runtime.planner import hostile_months
from tidegate.runtime.planner.peak_guard import highest_window_kw, last_of_window
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Storage
from tidegate.runtime.planner.plan_solver import Plan, solve
from tidegate.runtime.planner.plan_steps import steps_of
from tidegate.runtime.planner.site_history import Quarter, SiteHistory, read_history, write_history

BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
STORAGE = Storage(60, 30, 30)
BEGIN = int(datetime(2025, 3, 1, tzinfo=BERLIN).timestamp())


def plan_of(battery_kw, begin_utc_s=BEGIN, counts=None, recharges=None):
    n, zero = len(battery_kw), np.zeros(len(battery_kw))
    counts = np.ones(n, dtype=bool) if counts is None else counts
    more = {} if recharges is None else {"recharges": recharges}
    at = Horizon(begin_utc_s, 900, zero, zero, zero, zero, counts, **more)
    power, stored = np.array(battery_kw, dtype=float), np.linspace(10, 50, n)
    return Plan(at, np.maximum(-power, 0), np.maximum(power, 0), zero, zero, zero, stored, np.zeros((0, n)), 0, 0, 0,
                zero, zero)  # fmt: skip


def test_of_hostile_months_none_has_a_higher_peak_than_without_a_battery():
    """The full ten thousand: python tests/bench/bench_foresight.py --only hostile."""
    made = [hostile_months.lived(seed, compiled=seed < 10) for seed in range(30)]
    assert {one.seed: one.above_kw() for one in made if max(one.above_kw()) > hostile_months.SAME_KW} == {}
    assert {one.window_s for one in made} == {900, 1800, 3600} and sum(one.charged_kwh > 100 for one in made) > 15


LEAPT = (136, 174, 224, 261, 384)  # above by 1.4 to 19 kW when charging left no room, or less, for leaps


def test_nor_where_the_load_leaps_by_the_minute():
    """Through the compiled control. bench_foresight.py --only hostile --hostile 300 --compiled --parts 15."""
    made = [hostile_months.lived(seed, 15) for seed in LEAPT]
    assert {one.seed: one.above_kw() for one in made if max(one.above_kw()) > hostile_months.SAME_KW} == {}
    # Where there is room it is charged all the same.
    assert all(one.charged_kwh > 200 for one in made) and sum(one.charged_kwh for one in made) > 5 * 2000


def test_a_day_on_which_clocks_change_has_windows_too():
    """The 9th of March in New York: its highest one is the month's. One that the change cuts is no bill's."""
    zone = ZoneInfo("America/New_York")
    begin = int(datetime(2025, 3, 9, tzinfo=zone).timestamp())
    alone = np.full(23 * 4, 20.0)
    grid = alone.copy()
    grid[40] = 31.0
    one = hostile_months.Lived(0, 900, begin, 900, grid, alone, [slice(0, len(alone))], zone, 0.0)
    assert one.above_kw() == [pytest.approx(11.0)]
    howe = ZoneInfo("Australia/Lord_Howe")
    begin = int(datetime(2025, 4, 6, tzinfo=howe).timestamp())  # at 2:00 back to 1:30: 1:30 to 2:00 is there twice
    grid = np.full(98, 20.0)
    grid[8] = 31.0
    cut = hostile_months.Lived(0, 3600, begin, 900, grid, np.full(98, 20.0), [slice(0, 98)], howe, 0.0)
    assert cut.above_kw() == [0.0]


def test_hostile_months_are_hostile(monkeypatch):
    """Without the bound the same plans make new peaks: the months would show it."""
    real = hostile_months.highest_window_kw
    monkeypatch.setattr(hostile_months, "highest_window_kw", lambda *words: max(1e4, real(*words)))
    made = [hostile_months.lived(seed) for seed in range(4)]
    monkeypatch.undo()
    assert all(max(one.above_kw()) > 1 for one in made)


@pytest.mark.parametrize("window_s", [300, 900, 1800, 3600])
@pytest.mark.parametrize("zone", [BERLIN, KOLKATA], ids=str)
def test_the_highest_window_is_that_of_plain_arithmetic(zone, window_s):
    rng = np.random.default_rng(window_s)
    begin = int(datetime(2025, 3, 29, 21, 15, tzinfo=UTC).timestamp())
    net = np.where(rng.random(200) < 0.1, np.nan, rng.normal(20, 30, 200))
    found, parts = [0.0], max(1, window_s // 900)
    for k in range(200 - parts + 1):
        at = datetime.fromtimestamp(begin + 900 * k, zone)
        midnight = [datetime.fromtimestamp((begin + 900 * k) // 86_400 * 86_400 + day, zone) for day in (0, 86_400)]
        changes = len({one.utcoffset() for one in midnight}) > 1
        if (at.minute * 60) % max(window_s, 900) == 0 and not (changes and parts > 1):
            found.append(net[k : k + parts].mean())
    known = [one for one in found if math.isfinite(one)]
    assert highest_window_kw(begin, 900, net, window_s, zone) == pytest.approx(max(known))


def test_of_a_long_window_only_the_last_step_charges_from_the_grid():
    """In Kolkata an hour ends at half past by UTC."""
    begin = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp())
    assert np.flatnonzero(last_of_window(begin, 900, 8, 3600, KOLKATA)).tolist() == [1, 5]
    assert last_of_window(begin, 900, 4, 900, KOLKATA).all() and last_of_window(begin, 3600, 4, 900, BERLIN).all()
    ends = last_of_window(begin, 900, 16, 3600, BERLIN)
    load, price = np.full(16, 20.0), np.where(np.arange(16) < 8, 0.05, 0.4)
    at = Horizon(begin, 900, load, 0 * load, price, 0 * price, np.ones(16, dtype=bool), recharges=ends)
    plan = solve(STORAGE, Connection(200, 200, 8.0, 45.0, recharge_kw_max=45.0), at, 5.0)
    assert plan.charge_kw[ends][:2] == pytest.approx([25, 25], abs=0.01) and plan.charge_kw[~ends].max() < 1e-6


def test_a_charging_step_carries_the_bound_and_the_month_after_is_not_charged_in():
    counts = np.arange(12) < 6
    bound = Connection(200, 200, demand_eur_per_kw=8, recharge_kw_max=45.0006)
    steps, _ = steps_of(plan_of([-10] * 2 + [5] * 2 + [-10] * 8, counts=counts), STORAGE, bound)
    assert [(step["setpoint_w"], step.get("import_w_max"), step.get("demand_w_max")) for step in steps] == [
        (-10_000, 45_000, 45_000), (5_000, None, None), (-10_000, 45_000, 45_000), (0, None, None)]  # fmt: skip
    # Where no demand is billed nothing has a bound and nothing is cut.
    free, _ = steps_of(plan_of([-10] * 12, counts=counts), STORAGE, Connection(200, 200))
    assert [set(step) for step in free] == [{"start_utc_s", "setpoint_w", "until_soc"}]
    # A window that slides goes on after the charging.
    sliding = Connection(200, 200, demand_eur_per_kw=8, recharge_kw_max=45.0, window_rest_s=1800)
    steps, _ = steps_of(plan_of([-10, 0, 0, 0, 0]), STORAGE, sliding)
    bounded = [step["start_utc_s"] for step in steps if "demand_w_max" in step]
    assert bounded == [BEGIN, BEGIN + 900] and steps[-1]["start_utc_s"] == BEGIN + 2700


def test_a_day_that_charges_another_way_in_each_step_fits_into_a_message():
    plan = plan_of([-1 - 0.1 * k for k in range(96)])
    steps, end = steps_of(plan, STORAGE, Connection(200, 200, demand_eur_per_kw=8, recharge_kw_max=45.0))
    assert len(json.dumps(steps)) < 8192 - 200 and 64 < len(steps) < 96
    assert end == steps[-1]["start_utc_s"] + 900


def test_only_what_is_sure_raises_the_bound(tmp_path):
    """What was half covered, of another clock or of meters that differ counts for nothing or for less."""
    assert Quarter(100.0, 0.0, 100.0).alone_kw == 100.0
    assert Quarter(100.0, 10.0, 60.0).alone_kw == pytest.approx(90 - 0.02 * 30)  # the battery gave 30
    assert Quarter(100.0, 0.0, 130.0).alone_kw == pytest.approx(100 - 0.02 * 30)
    for odd in (Quarter(100.0, 0.0, 100.0, 0.6), Quarter(None, 0.0, 100.0), Quarter(100.0, 0.0, None)):
        assert math.isnan(odd.alone_kw)
    quarters = {BEGIN: Quarter(50.0, 0.0, 50.0, 0.995), BEGIN + 900: Quarter(80.0, 0.0, 80.0, 0.7)}
    history = SiteHistory(False, quarters)
    assert history.alone_peak_kw(BEGIN, BEGIN + 9000, 900, BERLIN) == pytest.approx(50 * 0.995)
    assert history.alone_peak_kw(BEGIN, BEGIN + 9000, 3600, BERLIN) == 0.0
    write_history(tmp_path / "kept.csv", history)
    assert read_history(tmp_path / "kept.csv", False).quarters == quarters
    old = (tmp_path / "kept.csv").read_text().replace(",counted", "").replace(",0.9950", "").replace(",0.7000", "")
    (tmp_path / "old.csv").write_text(old)
    assert read_history(tmp_path / "old.csv", False).quarters[BEGIN] == Quarter(50.0, 0.0, 50.0)
