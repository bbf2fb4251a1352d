"""What a register says first is no energy; what nobody measured has a bound from the nameplate."""

import pytest

from tidegate.runtime.carbon.engine.booking import Booker
from tidegate.runtime.carbon.engine.counter import Flow

DAY = 1_717_200_000 // 86_400 * 86_400


def record(seq, at, points):
    return {
        "boot": "a",
        "seq": seq,
        "t_ns": at * 10**9,
        "utc_ns": (DAY + at) * 10**9,
        "utc_sync": "S",
        "points": points,
    }


def booked(readings, integral=None, **more):
    """Periods of one flow; readings in kWh by second."""
    points = ("r", "ws", "s") if integral else ("r", None, None)
    booker = Booker([Flow("grid.import", "grid", "import", *points, **more)])
    found = []
    for seq, (at, kwh) in enumerate(readings):
        shown = {"r": (kwh * 1000.0, 1)}
        if integral:
            shown |= {"ws": (integral(at), 1), "s": (float(at), 1)}
        found += booker.feed(record(seq, at, shown))
    return found


def total(periods):
    return sum(period.flows["grid.import"].energy_milliwh for period in periods) / 1e6


def flags(periods):
    return {flag.split()[0] for period in periods for flag in period.flows["grid.import"].flags}


HALF = 12 * 3600


def ramp(at):
    """0.0 for twelve hours, then the register itself: 397.11 to 413.50 kWh in four hours."""
    return 0.0 if at < HALF else 397.11 + 16.39 * (at - HALF) / (4 * 3600)


def test_a_register_that_stood_at_0_and_then_speaks_gave_no_energy_by_that():
    periods = booked([(at, ramp(at)) for at in range(0, HALF + 4 * 3600 + 5, 5)], w_max=300_000.0)
    assert total(periods) == pytest.approx(16.39, abs=0.02) and flags(periods) >= {"REGISTER_BEGAN"}
    began = [p for p in periods if any(f.startswith("REGISTER_BEGAN 397110000") for f in p.flows["grid.import"].flags)]
    assert len(began) == 1 and began[0].flows["grid.import"].quality == "substituted"


def test_where_the_fast_power_is_known_it_bridges_the_time_before():
    watts = 5000.0
    periods = booked(
        [(at, ramp(at)) for at in range(0, HALF + 4 * 3600 + 5, 5)], lambda at: watts * at, w_max=300_000.0
    )
    assert total(periods) == pytest.approx(5.0 * 12 + 16.39, abs=0.1)


@pytest.mark.parametrize("unit", [0.1, 1.0, 10.0])
def test_a_new_meter_with_a_coarse_register_loses_nothing(unit):
    readings = [(at, unit * (at // 3600)) for at in range(0, 10 * 3600 + 905, 5)]
    assert total(booked(readings, w_max=300_000.0)) == pytest.approx(10 * unit)


def test_a_register_that_truly_begins_at_0_counts_from_0():
    assert total(booked([(at, 30.0 * at / 3600) for at in range(0, 3605, 5)], w_max=300_000.0)) == pytest.approx(30.0)


def test_an_import_without_any_measurement_takes_the_nameplate_and_says_so():
    flow = Flow("grid.import", "grid", "import", None, "ws", "s", 300_000.0, nameplate_w=100_000.0)
    booker = Booker([flow])
    found = []
    for seq, at in enumerate([0, *range(480, 1200)]):
        covered = max(0, at - 480)
        found += booker.feed(record(seq, at, {"ws": (20_000.0 * covered, 1), "s": (float(covered), 1)}))
    row = found[0].flows["grid.import"]
    assert row.method == "nameplate of the connection, high"
    assert row.energy_milliwh / 1e6 == pytest.approx(100 * 480 / 3600 + 20 * 420 / 3600, abs=0.1)
    bare = Booker([Flow("grid.import", "grid", "import", None, "ws", "s", 300_000.0)])
    for seq, at in enumerate([0, *range(480, 1200)]):
        closed = bare.feed(record(seq, at, {"ws": (0.0, 1), "s": (float(max(0, at - 480)), 1)}))
        if closed:
            assert closed[0].flows["grid.import"].method.endswith("no nameplate, low")  # never called a high bound
            break
    else:
        pytest.fail("no period closed")
