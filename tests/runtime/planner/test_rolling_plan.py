"""Real days lived through again: what was known when, the rules beside it, and a slice of the real half year."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.forecasts import filled
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.plan_inputs import Connection, PlanError, Storage

DATA = Path(__file__).parents[2] / "data/planner/de_lu_gpu_room_2025H1.csv"
BERLIN = ZoneInfo("Europe/Berlin")
STORAGE = Storage(60, 30, 30)
OPEN = Connection(200, 200)


def real(days, warm=14, first=0):
    table = read_hours(DATA)
    part = slice(24 * first, 24 * (first + warm + days))
    load, pv, price = (filled(one)[part] for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
    begin = datetime.fromtimestamp(table.begin_utc.timestamp() + 86_400 * first, UTC)
    return rolling_plan.Past(begin, load, pv, price, 0.13, BERLIN, 24 * warm)


@pytest.mark.parametrize(
    ("utc", "known_h"),
    [
        (datetime(2025, 1, 10, 11, tzinfo=UTC), 12),  # 12:00 in Berlin: to the end of today
        (datetime(2025, 1, 10, 12, tzinfo=UTC), 35),  # 13:00: to the end of tomorrow
        (datetime(2025, 3, 29, 12, tzinfo=UTC), 34),  # tomorrow has 23 hours
        (datetime(2025, 3, 30, 5, tzinfo=UTC), 17),
    ],
)
def test_only_what_was_published_is_known(utc, known_h):
    past = real(120)
    hour = int((utc - past.begin_utc).total_seconds() // 3600)
    assert rolling_plan.RollingPlanner(past, STORAGE, OPEN).known_to(hour) == hour + known_h


def test_the_planner_sees_nothing_that_comes():
    """The same decision whatever the load, the sun and unpublished prices will be."""
    past = real(2)
    hour = 24 * 14 + 6
    turned = [one.copy() for one in (past.load_kw, past.pv_kw, past.price_eur_per_kwh)]
    known = rolling_plan.RollingPlanner(past, STORAGE, OPEN).known_to(hour)
    turned[0][hour + 1 :] += 500
    turned[1][hour + 1 :] = 0
    turned[2][known:] = -3
    other = rolling_plan.Past(past.begin_utc, *turned, 0.13, BERLIN, past.warm)
    asked = [rolling_plan.RollingPlanner(one, STORAGE, OPEN).decide(hour, 30.0) for one in (past, other)]
    assert asked[0] == asked[1]


def test_a_plan_beats_the_rules_and_no_plan_beats_foresight():
    past = real(6, first=40)
    made = {
        name: rolling_plan.operate(past, STORAGE, OPEN, name, rule, 30.0)
        for name, rule in (
            ("none", rolling_plan.no_battery),
            ("clock", rolling_plan.clock_rule(past, STORAGE)),
            ("rule", rolling_plan.price_rule(past, STORAGE)),
            ("plan", rolling_plan.RollingPlanner(past, STORAGE, OPEN).decide),
        )
    }
    best = rolling_plan.foresight(past, STORAGE, OPEN, 30.0)
    share = {name: rolling_plan.share_of_foresight(made["none"], one, best) for name, one in made.items()}
    assert share["none"] == 0 and share["clock"] < share["rule"] < share["plan"] <= 1 + 1e-9
    assert share["plan"] > 0.9


def test_asking_for_more_than_there_is_is_cut():
    past = real(1)
    gone = rolling_plan.operate(past, STORAGE, OPEN, "all", lambda *_: 1e6, 57.0)
    assert gone.stored_kwh.min() >= STORAGE.least_kwh - 1e-9 and gone.battery_kw.max() <= 30
    full = rolling_plan.operate(past, STORAGE, OPEN, "all", lambda *_: -1e6, 3.0)
    assert full.stored_kwh.max() <= STORAGE.most_kwh + 1e-9 and full.battery_kw.min() >= -30


def test_a_demand_charge_counts_each_local_month():
    past = real(60)
    out = rolling_plan.operate(
        past, STORAGE, Connection(200, 200, demand_eur_per_kw=8), "none", rolling_plan.no_battery, 30.0
    )
    peaks = [out.import_kw[part].max() for part in rolling_plan.months(past)]
    assert len(peaks) == 3 and out.demand_eur == pytest.approx(8 * sum(peaks))


def test_announced_load_makes_a_peak_smaller():
    """A job of two hours at twice the load, known twelve hours before or in its own hour only."""
    load = np.full(24 * 20, 20.0)
    load[24 * 15 + 18 : 24 * 15 + 20] = 60.0
    past = rolling_plan.Past(
        datetime(2025, 1, 1, tzinfo=UTC), load, np.zeros(480), np.full(480, 0.2), 0.1, BERLIN, 24 * 15
    )
    demand = Connection(200, 200, demand_eur_per_kw=8)
    known, blind = (
        rolling_plan.operate(past, STORAGE, demand, "plan", planner.decide, 10.0)
        for planner in (rolling_plan.RollingPlanner(past, STORAGE, demand, load_known_h=hours) for hours in (12, 1))
    )
    assert known.demand_eur < blind.demand_eur < 8 * 60 + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_no_month_has_a_higher_peak_than_without_a_battery(seed):
    rng = np.random.default_rng(seed)
    hours = 24 * 20
    load = np.abs(rng.normal(30, 12, hours)) + 20 * (rng.random(hours) < 0.05)
    past = rolling_plan.Past(
        datetime(2025, 1, 10, tzinfo=UTC), load, np.zeros(hours), rng.normal(0.2, 0.1, hours), 0.1, BERLIN, 24 * 14
    )
    demand = Connection(200, 200, demand_eur_per_kw=8)
    planner = rolling_plan.RollingPlanner(past, STORAGE, demand, every=1)
    made = rolling_plan.operate(past, STORAGE, demand, "plan", planner.decide, 10.0)
    for part in rolling_plan.months(past):
        assert made.import_kw[part].max() <= load[past.warm :][part].max() + 1e-3


def test_days_with_holes_are_refused():
    with pytest.raises(PlanError, match="price_eur_per_kwh: 1 hours are missing"):
        rolling_plan.Past(datetime(2025, 1, 1, tzinfo=UTC), np.ones(2), np.ones(2), np.array([1, np.nan]), 0.0, BERLIN)
