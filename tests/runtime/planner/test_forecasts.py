"""Forecasts: none sees the future, the better one is used, the peak guard against plain arithmetic."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tidegate.runtime.planner import forecasts
from tidegate.runtime.planner.forecasts import SIMPLE, Forecaster, Ridge, choice_text, filled, pinball, rank_correlation
from tidegate.runtime.planner.local_calendar import LocalCalendar
from tidegate.runtime.planner.peak_guard import energy_needed, guard, lowest_limits
from tidegate.runtime.planner.plan_inputs import PlanError, Storage

DATA = Path(__file__).parents[2] / "data/planner"


def series(days, seed=1, day=24):
    rng = np.random.default_rng(seed)
    t = np.arange(days * day)
    return 30 + 8 * np.sin(2 * np.pi * t / day) + 3 * ((t // day) % 7 >= 5) + rng.normal(0, 1, len(t))


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("day", [24, 96])
def test_no_forecast_sees_what_comes(name, day):
    past = series(20, day=day)
    origin = 15 * day
    other = past.copy()
    other[origin:] = 1e6
    one, two = (SIMPLE[name](values, origin, 30, day) for values in (past, other))
    assert one.shape == (30,) and np.isfinite(one).all() and (one == two).all()


def test_the_ridge_and_the_choice_see_nothing_that_comes():
    past = series(40)
    origin = 30 * 24
    other = past.copy()
    other[origin:] = -1e6
    made = [Forecaster(24, 24).expect(values[:origin], origin) for values in (past, other)]
    assert made[0].name == made[1].name and (made[0].middle == made[1].middle).all()
    ridges = []
    for values in (past, other):
        ridge = Ridge(24, 24)
        assert ridge.fit(values[:origin], origin)
        ridges.append(ridge.predict(values[:origin], origin))
    assert (ridges[0] == ridges[1]).all()


def test_a_weekend_is_the_local_one_wherever_the_series_begins():
    """A room that rests at the weekend of its own zone. The ridge with its calendar beats the one without."""
    zone = ZoneInfo("Australia/Sydney")
    begin = datetime(2025, 1, 1, tzinfo=UTC)  # a Wednesday; in Sydney each weekend begins on Friday 13:00 UTC
    days = 70 * 24
    local = [datetime.fromtimestamp(begin.timestamp() + 3600 * k, zone) for k in range(days)]
    calendar = LocalCalendar(begin, 3600, zone)
    flags = calendar.weekend(np.arange(days))
    assert flags.tolist() == [float(at.weekday() >= 5) for at in local]
    assert flags[2 * 24 + 12 : 2 * 24 + 14].tolist() == [0.0, 1.0]
    values = 40 - 15 * flags + np.random.default_rng(5).normal(0, 1, days)
    missed = []
    for one in (calendar, None):
        ridge = Ridge(24, 24, one)
        origins = range(60 * 24, 68 * 24, 3)
        assert ridge.fit(values, 60 * 24)
        missed.append(np.mean([np.abs(ridge.predict(values, at) - values[at : at + 24]).mean() for at in origins]))
    assert missed[0] < 0.8 * missed[1]


def test_the_better_forecast_is_used_and_all_errors_are_kept():
    daily = Forecaster(24, 24).expect(series(40), 40 * 24 - 24)
    assert daily.name in ("ridge", "ridge and blend", "blend", "day and week")
    assert daily.loss[daily.name] <= 1.02 * min(daily.loss.values())
    assert set(SIMPLE) <= set(daily.loss)
    level = np.cumsum(np.random.default_rng(2).normal(0, 1, 40 * 24)) + 100  # a level process: the last value is best
    found = Forecaster(24, 24).expect(level, 39 * 24)
    assert found.loss["persistence"] < found.loss["yesterday"] and found.loss[found.name] <= found.loss["persistence"]


def test_the_band_covers_about_four_fifths():
    past = series(90, seed=4)
    inside = []
    forecaster = Forecaster(24, 24)
    for origin in range(60 * 24, 88 * 24, 24):
        made = forecaster.expect(past[:origin], origin)
        actual = past[origin : origin + 24]
        inside.append(((actual >= made.low) & (actual <= made.high)).mean())
    assert 0.7 <= np.mean(inside) <= 0.9


@pytest.mark.parametrize(("file", "column"), [
    ("gpu_room_2024-11_2025-10.csv", "load_kw"), ("de_lu_gpu_room_2025H1.csv", "pv_kw"),
    ("de_lu_gpu_room_2025H1.csv", "price_eur_per_kwh"), ("carbon_de_2025H1.csv", "g_per_kwh"),
    ("carbon_ciso_2022.csv", "g_per_kwh")])  # fmt: skip
def test_on_every_shipped_series_the_forecast_that_is_used_is_the_one_that_the_shown_errors_say(file, column):
    with (DATA / file).open() as opened:
        values = filled(np.array([float(row[column] or "nan") for row in csv.DictReader(opened)]))
    forecaster, used = Forecaster(24, 24), set()
    for origin in range(80 * 24, 120 * 24, 24 * 5 + 7):
        found = forecaster.expect(values[:origin], origin)
        # Anybody can work the shown error out from the kept ones: pinball of q10, the middle, q90 of its own errors.
        edges = [np.quantile(found.paths, 0.1, axis=0), np.zeros(24), np.quantile(found.paths, 0.9, axis=0)]
        mine = np.mean([pinball(path, np.array(edges)) for path in found.paths])
        assert found.worth[found.name] == pytest.approx(mine) and set(SIMPLE) <= set(found.worth)
        assert found.worth[found.name] == min(found.worth.values())
        text = choice_text(found)
        assert text.startswith(f"{found.name}: pinball {mine:.4g}")
        assert all(f"{name} {worth:.4g}" in text for name, worth in found.worth.items() if name != found.name)
        used.add(found.name)
    assert used & {"ridge", "ridge and blend", "blend", "yesterday"}


def test_a_short_history_still_gives_a_forecast():
    found = Forecaster(24, 24).expect(np.full(30, 5.0), 30)
    assert found.middle == pytest.approx(5.0) and found.paths.shape == (0, 24)


def test_gaps_are_bridged_and_nothing_is_refused():
    assert filled(np.array([np.nan, 2.0, np.nan, 3.0])).tolist() == [2.0, 2.0, 2.0, 3.0]
    with pytest.raises(PlanError, match="without a single value"):
        filled(np.full(3, np.nan))


def test_measures_of_a_forecast():
    actual = np.array([1.0, 2.0, 3.0])
    assert pinball(actual, np.array([actual] * 3)) == 0.0
    assert pinball(actual, np.array([actual - 1, actual, actual + 1])) == pytest.approx((0.1 + 0 + 0.1) / 3)
    assert rank_correlation(actual, actual * 5) == 1.0 and rank_correlation(actual, -actual) == -1.0
    assert rank_correlation(actual, np.ones(3)) == 0.0


STORAGE = Storage(60, 30, 30, 0.9, 0.9, 0.05, 0.95)


def holds(path, limit, stored):
    """Whether the battery holds a limit on a path, step by step."""
    for load in path:
        if load > limit:
            if load - limit > 30 + 1e-9:
                return False
            stored -= (load - limit) / 0.9
            if stored < STORAGE.least_kwh - 1e-9:
                return False
        else:
            stored = min(STORAGE.most_kwh, stored + min(limit - load, 30) * 0.9)
    return True


@pytest.mark.parametrize("seed", range(20))
def test_the_lowest_limit_is_the_lowest_that_the_battery_holds(seed):
    rng = np.random.default_rng(seed)
    paths = np.abs(rng.normal(40, 20, (5, 24)))
    stored = rng.uniform(3, 57)
    limits = lowest_limits(paths, STORAGE, stored, 1.0)
    for path, limit in zip(paths, limits, strict=True):
        assert holds(path, limit + 1e-3, stored) and not holds(path, limit - 1e-2, stored)


def test_the_energy_that_a_peak_needs_is_there_before_it_and_not_after():
    paths = np.array([[20.0, 20.0, 50.0, 20.0]])
    need = energy_needed(paths, np.array([30.0]), STORAGE, 1.0)
    assert need[0].tolist() == pytest.approx([20 / 0.9 - 2 * 10 * 0.9, 20 / 0.9 - 10 * 0.9, 20 / 0.9, 0.0, 0.0])
    found = guard(paths[0], np.zeros((0, 4)), STORAGE, 57.0, 1.0, 35.0)
    assert found.limit_kw == 35.0, "what is on the bill already is not bought a second time"
    assert found.reserve_kwh[-1] == STORAGE.least_kwh


def test_with_a_demand_charge_the_guard_asks_for_more_than_the_likely_need_at_what_the_paths_say_it_is_worth():
    rng = np.random.default_rng(3)
    errors = np.where(rng.random((200, 1)) < 0.2, rng.uniform(5, 30, (200, 24)), 0.0)  # one day in five is high
    found = guard(np.full(24, 18.0), errors, STORAGE, 20.0, 1.0, 25.0, 8.0)
    kwh = [level.max() for level, _ in found.cushions]
    assert found.reserve_kwh.max() == pytest.approx(STORAGE.least_kwh)  # most days need nothing
    assert kwh == sorted(kwh) and kwh[-1] > 50.0 and all(eur > 0 for _, eur in found.cushions)
    # Together they cost what the share of the paths beyond the reserve bears: 35 % at most, and less of a longer need.
    assert sum(eur for _, eur in found.cushions) <= 0.35 * 8.0 / 24 + 1e-9
    assert guard(np.full(24, 18.0), errors, STORAGE, 20.0, 1.0, 25.0).cushions == ()


def test_the_forecast_with_the_better_band_is_used_not_the_one_with_the_smaller_mean_error(monkeypatch):
    """One is nearer on average and sometimes far off: its band is worth less, and a plan stands on the band."""
    truth = np.arange(24.0 * 70)
    errors = {"narrow": lambda rng: rng.normal(0, 1.0, 24), "wide": lambda rng: rng.standard_t(2, 24) * 0.5}

    def made(name):
        return lambda values, origin, leads, day: truth[origin : origin + leads] - errors[name](
            np.random.default_rng(origin))  # fmt: skip

    monkeypatch.setattr(forecasts, "SIMPLE", {name: made(name) for name in errors})
    found = Forecaster(24, 24, names=("narrow", "wide")).expect(truth, 24 * 68)
    assert found.loss["wide"] < found.loss["narrow"] and found.name == "narrow"
    inside = np.mean((found.paths >= found.low - found.middle) & (found.paths <= found.high - found.middle))
    assert inside == pytest.approx(0.8, abs=0.02)
