"""Factors finer than a period: weighted by what the meter counted in each; and a true-up spoils no quarter hour."""

import random

import pytest

from tests.runtime.carbon.engine.test_account import DESCRIBE, G, booked
from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant, shape_of
from tidegate.runtime.carbon.engine.booking import Booker
from tidegate.runtime.carbon.engine.bulk import book
from tidegate.runtime.carbon.engine.corrections import _Recorded, booked_from
from tidegate.runtime.carbon.engine.counter import Flow
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors, Series, Step, weights_of
from tidegate.runtime.carbon.report.totals import add_up, indicators

MONDAY = 1_709_510_400
FINE = [Step(MONDAY + 300 * i, MONDAY + 300 * i + 300, value * G) for i, value in enumerate((100, 700, 700))]
FLOWS = [Flow("grid.import", "grid", "import", "wh", "ws", "s", 1e6)]


def records(watts, step_s=1, seconds=1800, start=MONDAY):
    """Meter records of a power that is a function of the second."""
    wh = ws = 0.0
    for number in range(seconds // step_s + 1):
        t = number * step_s
        yield {"boot": "b", "seq": number, "t_ns": t * 10**9, "utc_ns": (start + t) * 10**9, "utc_sync": "S",
               "points": {"wh": [round(wh, 3), 0], "ws": [ws, 0], "s": [float(t), 0]}}  # fmt: skip
        wh, ws = wh + watts(t) * step_s / 3600, ws + watts(t) * step_s


def periods(rows, bulk):
    booker = Booker(FLOWS)
    return list(book(booker, list(rows))) if bulk else [one for row in rows for one in booker.feed(row)]


@pytest.mark.parametrize("bulk", [False, True])
def test_the_energy_of_each_minute_and_the_highest_second_are_kept(bulk):
    """60 kW in the second minute, 6 kW else, with one second of 90 kW."""
    first, second = periods(records(lambda t: 90_000 if t == 700 else 60_000 if 60 <= t < 120 else 6_000), bulk)
    flow = first.flows["grid.import"]
    assert flow.shape_milliwh[1] == 1_000_000 and flow.shape_milliwh[0] == 100_000
    assert flow.w_max == 90_000 and len(flow.shape_milliwh) == 15
    assert sum(flow.shape_milliwh) == flow.integral_milliwh
    assert second.flows["grid.import"].w_max == 6_000 and set(second.flows["grid.import"].shape_milliwh) == {100_000}


@pytest.mark.parametrize("seed", range(6))
def test_many_records_at_once_keep_the_same_shape(seed):
    rng = random.Random(seed)
    watts = [rng.uniform(0, 50_000) for _ in range(3600)]
    rows = list(records(lambda t: watts[t % 3600], rng.choice([1, 2, 5]), 3600))
    for row in rng.sample(rows[2:], seed):
        rows.remove(row)
    assert periods(rows, True) == periods(rows, False)


def test_a_gap_leaves_no_shape_and_the_time_counts():
    rows = [row for row in records(lambda t: 60_000) if not 100 < row["t_ns"] / 1e9 < 400]
    first, second = periods(rows, False)
    assert first.flows["grid.import"].shape_milliwh is None and first.flows["grid.import"].w_max is None
    assert second.flows["grid.import"].shape_milliwh is not None


def test_weights_by_hand():
    assert weights_of([300, 600], None) == ([300, 600], "time")
    assert weights_of([300, 600], [0] * 15) == ([300, 600], "time")
    assert weights_of([90, 810], [10, 20, *[0] * 13]) == ([10 * 60 + 20 * 30, 20 * 30], "energy")


def accountant():
    series = Series("X", "average", "t", steps=list(FINE)).finish()
    return Accountant("s", nodes_of(described(DESCRIBE)), Factors(series, 500 * G, "fallback"))


def quarter(shape):
    one = booked(MONDAY, grid_import=240_000_000, it_load=240_000_000)
    one.flows["grid.import"].shape_milliwh = shape
    return one


def test_five_minute_factors_are_weighted_by_the_energy_of_each():
    """240 kWh at 100, 700 and 700 g: 120 kg where they are even; 38.4 kg where nine tenths came first."""
    even = accountant().book(quarter([16_000_000] * 15))
    assert even["inflow_ug"]["grid"] == 120 * 10**9 and "weighted by energy" in even["factors"]["grid"]["version"]
    early = accountant().book(quarter([43_200_000] * 5 + [2_400_000] * 10))
    assert early["inflow_ug"]["grid"] == (216 * 100 + 24 * 700) * 10**6
    unknown = accountant().book(quarter(None))
    assert unknown["inflow_ug"]["grid"] == 120 * 10**9 and "weighted by time" in unknown["factors"]["grid"]["version"]
    assert early["flows"]["grid.import"]["shape_milliwh"][0] == 43_200_000


def test_a_price_finer_than_the_period_is_weighted_alike():
    one = accountant()
    steps = [Step(step.start_utc_s, step.end_utc_s, step.ug_per_kwh) for step in FINE]
    one.factors.prices = Series("X", "price", "p", steps=steps).finish()
    body = one.book(quarter([43_200_000] * 5 + [2_400_000] * 10))
    assert body["price_u_per_kwh"] == 160 * G


def test_a_correction_keeps_the_shape():
    body = accountant().book(quarter([43_200_000] * 5 + [2_400_000] * 10))
    again = booked_from(body, {})
    assert shape_of(again, "import") == body["flows"]["grid.import"]["shape_milliwh"]
    assert accountant().book(again, factors=_Recorded(body, {"pv": "pv"})) == body


def day(soc_at_midnight):
    """Two quarters around midnight in which nothing is stored, and a book that is wrong by what the battery says."""
    one = Accountant("s", nodes_of(described(DESCRIBE)), Factors(None, 200 * G, "constant"))
    flows = {"grid_import": 10_000_000, "it_load": 9_000_000, "cooling_load": 1_000_000}
    last, soc = MONDAY + 86_400 - 900, 500_000
    return [one.book(booked(start, soc_at_midnight if start == last else soc, **flows)) for start in
            range(MONDAY, MONDAY + 86_400, 900)]  # fmt: skip


def test_a_true_up_belongs_to_the_day_and_not_to_the_quarter_hour_in_which_it_is_booked():
    bodies = day(400_000)  # 6 kWh less than the book has
    assert any(flag.startswith("TRUE_UP") for flag in bodies[-1]["flags"])
    whole, last = add_up(bodies), add_up(bodies[-1:])
    assert whole.site_milliwh == 96 * 10_000_000 + 6_000_000, "the day has all of it"
    assert last.site_milliwh == 10_000_000 + 62_500, "a quarter hour a ninety-sixth"
    assert add_up(bodies[-1:], true_up_by_time=False).site_milliwh == 16_000_000, "as reports of before had it"
    assert indicators(last, {"it": "it"}).pue == pytest.approx(10_062_500 / 9_000_000)
    assert add_up(bodies[:-1]).site_milliwh == 95 * 10_000_000


def test_a_true_up_upwards_never_makes_a_quarter_use_less_than_nothing():
    bodies = day(600_000)
    assert add_up(bodies[-1:]).site_milliwh == 10_000_000 - 62_500
    halves = add_up(bodies[48:]).site_milliwh
    assert halves == 48 * 10_000_000 - 3_000_000
