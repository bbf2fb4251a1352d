"""Energy per quarter hour: registers are the truth, whatever is lost, stepped, swapped or exchanged."""

import json
import os
import random

import pytest

from tidegate.runtime.carbon.engine.booking import Booker, Flow
from tidegate.runtime.carbon.engine.bulk import book

HOUR = 1_700_000_000 // 3600 * 3600 + 3600 * 24 * 200  # an hour in 2024
BOOT = "a" * 32
GRID = Flow("grid.import", "grid", "import", "grid.import_wh", "site.grid_in_ws", "site.grid_covered_s", 100_000.0)
ESS = Flow("battery.charge", "battery", "charge", None, "site.ess_charged_ws", "site.ess_covered_s", 100_000.0)


class Plant:
    """A meter and a core that tell the truth, until told otherwise."""

    def __init__(self, utc_s=HOUR, seed=1, resolution_wh=0.001):
        self.utc_ns = utc_s * 10**9
        self.t_ns = 5_000_000_000
        self.wh = 1000.0
        self.ws = 0.0
        self.ess_ws = 0.0
        self.covered = 0.0
        self.seq = 0
        self.boot = BOOT
        self.sync = "S"
        self.resolution = resolution_wh
        self.rng = random.Random(seed)

    def step(self, watts, seconds=1.0, ess=0.0):
        self.t_ns += int(seconds * 1e9)
        self.utc_ns += int(seconds * 1e9)
        self.wh += watts * seconds / 3600
        self.ws += watts * seconds
        self.ess_ws += ess * seconds
        self.covered += seconds

    def record(self, **points):
        register = int(self.wh / self.resolution) * self.resolution
        shown = {
            "grid.import_wh": [register, 1],
            "site.grid_in_ws": [self.ws, 1],
            "site.grid_covered_s": [self.covered, 1],
            "site.ess_charged_ws": [self.ess_ws, 1],
            "site.ess_covered_s": [self.covered, 1],
            "bms1.soc": [0.5, 1],
        }
        shown.update(points)
        self.seq += 1
        return {
            "v": 1, "kind": "meter", "site": "s", "boot": self.boot, "seq": self.seq - 1, "cycle": self.seq * 1000,
            "t_ns": self.t_ns, "utc_ns": self.utc_ns, "utc_sync": self.sync, "program": "0" * 64, "points": shown,
        }  # fmt: skip

    def run(self, seconds, watts=36_000.0, ess=0.0, **points):
        for _ in range(seconds):
            self.step(watts, 1.0, ess)
            yield self.record(**points)


def fed(booker, records):
    return [period for record in records for period in booker.feed(record)]


def test_a_steady_load_gives_the_same_energy_in_every_quarter():
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(3700)])
    assert [p.start_utc_s for p in periods] == [HOUR + 900 * i for i in range(4)]
    assert all(abs(p.flows["grid.import"].energy_milliwh - 9_000_000) <= 2 for p in periods)
    assert [p.flows["grid.import"].quality for p in periods] == ["good"] * 4
    assert periods[0].flags == ["PARTIAL"]
    assert periods[1].flags == []
    assert periods[1].soc_ppm == 500_000


@pytest.mark.parametrize("lost", [1, 7, 300, 899, 900, 2000, 40_000])
def test_lost_records_change_the_shape_and_never_the_energy(lost):
    whole, holed = Plant(seed=4), Plant(seed=4)
    a, b = Booker([GRID]), Booker([GRID])
    total = 1000 + lost + 5000
    booked = [], []
    for second in range(total):
        watts = 20_000 + 30_000 * (second // 40 % 2)
        for plant, booker, out in zip((whole, holed), (a, b), booked, strict=True):
            plant.step(watts)
            record = plant.record()
            if booker is b and 1000 <= second < 1000 + lost:
                continue
            out.extend(booker.feed(record))
    sums = [sum(p.flows["grid.import"].energy_milliwh for p in out) for out in booked]
    # What is still in the open period may differ by the shape; the registers at its end do not.
    for booker, out in zip((a, b), booked, strict=True):
        out.append(booker.finish())
    sums = [sum(p.flows["grid.import"].energy_milliwh for p in out) for out in booked]
    assert sums[0] == sums[1]
    assert [p.start_utc_s for p in booked[0]] == [p.start_utc_s for p in booked[1]]
    marked = [p for p in booked[1] if p.flows["grid.import"].quality == "estimated"]
    assert bool(marked) is (lost >= 7)
    assert sum(p.lost for p in booked[1]) == lost


def test_a_gap_is_split_at_the_boundary_by_time():
    plant = Plant()
    booker = Booker([GRID])
    fed(booker, [plant.record(), *plant.run(600)])
    plant.step(36_000, 600)
    (period,) = booker.feed(plant.record())
    flow = period.flows["grid.import"]
    assert abs(flow.energy_milliwh - 9_000_000) <= 2
    assert (flow.quality, flow.method, flow.flags) == ("estimated", "register over linear shape", ["GAP"])


def test_a_short_gap_is_linear_in_power_from_the_last_known_one():
    plant = Plant()
    booker = Booker([GRID])
    fed(booker, [plant.record(), *plant.run(600, 10_000)])
    plant.step(30_000, 600)  # so the power must have risen from 10 to 50 kW
    (period,) = booker.feed(plant.record())
    # 10 min at 10 kW, then 5 min from 10 to 30 kW
    assert abs(period.flows["grid.import"].energy_milliwh - (1_666_667 + 1_666_667)) <= 2


def test_a_dead_meter_is_estimated_like_another_day_and_set_off_when_it_is_back():
    plant = Plant(HOUR // 86400 * 86400)
    booker = Booker([GRID, ESS])

    def minutes(count, **points):
        for _ in range(count):
            plant.step(20_000, 60, 1000.0)
            yield plant.record(**points)

    dead = {"grid.import_wh": [None, 0], "site.grid_in_ws": [None, 0]}
    periods = fed(booker, [plant.record(), *minutes(1500), *minutes(240, **dead), *minutes(120)])
    silent = [p.flows["grid.import"] for p in periods[96:] if "SILENT" in p.flows["grid.import"].flags]
    assert len(silent) >= 14
    assert {(f.quality, f.method) for f in silent} == {("substituted", "like day")}
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 5_000_000 * len(periods)) < 1000


@pytest.mark.parametrize(("kind", "method", "milliwh"), [("import", "conservative bound, high", 9_000_000),
                                                     ("generation", "conservative bound, low", 0)])  # fmt: skip
def test_a_dead_meter_without_a_like_day_errs_to_the_dirtier_side(kind, method, milliwh):
    flow = Flow(f"n.{kind}", "n", kind, "grid.import_wh", None, None, 100_000.0)
    plant = Plant()
    booker = Booker([flow, ESS])
    periods = fed(booker, [plant.record(), *plant.run(3600)])
    periods += fed(booker, plant.run(3 * 3600, **{"grid.import_wh": [None, 0]}))
    last = periods[-1].flows[flow.name]
    assert (last.quality, last.method, last.flags) == ("substituted", method, ["SILENT"])
    assert abs(last.energy_milliwh - milliwh) <= 2


def test_a_register_that_stood_still_and_never_counted_keeps_the_integral():
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(900)])
    stood = plant.wh
    for _ in range(3600):
        plant.step(36_000)
        plant.wh = stood
        periods += booker.feed(plant.record())
    periods += fed(booker, plant.run(3601))
    assert any("NEVER_COUNTED" in p.flows["grid.import"].flags for p in periods)
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 9_000_000 * len(periods)) <= 40_000


def test_a_long_gap_takes_the_shape_of_a_like_day():
    plant = Plant(HOUR // 86400 * 86400)
    booker = Booker([GRID])

    def day(skip=()):
        for quarter in range(96):
            watts = 10_000 if quarter < 48 else 30_000
            for _ in range(15):
                plant.step(watts, 60)
                if quarter not in skip:
                    yield plant.record()

    fed(booker, [plant.record(), *day()])
    gap = range(40, 56)  # 10:00 to 14:00, half of it on the high side
    periods = fed(booker, [*day(gap)])
    inside = [p for p in periods if p.start_utc_s % 86400 // 900 in gap]
    low, high = (sum(p.flows["grid.import"].energy_milliwh for p in part) for part in (inside[:8], inside[8:]))
    assert abs(high / low - 3) < 0.1
    assert inside[3].flows["grid.import"].method == "register over like day"


def test_a_repeated_record_changes_nothing():
    plant, again = Plant(), Plant()
    once, twice = Booker([GRID]), Booker([GRID])
    a = fed(once, plant.run(2000))
    records = list(again.run(2000))
    b = fed(twice, records[:1500]) + fed(twice, records[700:])
    assert a == b


def test_a_stored_state_goes_on_where_it_stood():
    whole, cut = Booker([GRID, ESS]), Booker([GRID, ESS])
    a = fed(whole, Plant(seed=2).run(4000, ess=500.0))
    b = []
    for number, record in enumerate(Plant(seed=2).run(4000, ess=500.0)):
        if number % 333 == 0:
            cut = Booker([GRID, ESS], state=json.loads(json.dumps(cut.state())))
        b += cut.feed(record)
    assert a == b


def test_energy_without_a_register_comes_from_the_integral():
    plant = Plant()
    booker = Booker([ESS])
    periods = fed(booker, [plant.record(), *plant.run(1900, ess=1234.5)])
    assert abs(periods[1].flows["battery.charge"].energy_milliwh - 308_625) <= 1
    assert periods[1].flows["battery.charge"].method == "integral"


def test_a_restarted_core_loses_no_register_energy_and_holds_the_power_of_the_rest():
    plant = Plant()
    booker = Booker([GRID, ESS])
    periods = fed(booker, [plant.record(), *plant.run(450, ess=1000.0)])
    plant.step(36_000, 20, 1000.0)  # 20 s without a core
    plant.boot, plant.seq, plant.ws, plant.ess_ws, plant.covered, plant.t_ns = "b" * 32, 0, 0.0, 0.0, 0.0, 0
    periods += fed(booker, plant.run(1000, ess=1000.0))
    grid, ess = periods[0].flows["grid.import"], periods[0].flows["battery.charge"]
    assert abs(grid.energy_milliwh - 9_000_000) <= 40
    assert abs(ess.energy_milliwh - 250_000) <= 600
    assert ess.quality == "estimated"


# ---- readings that are not believed ----


def test_one_wild_reading_adds_nothing():
    plant = Plant()
    booker = Booker([GRID])
    records = [plant.record(), *plant.run(300), plant.record(**{"grid.import_wh": [1e9, 1]}), *plant.run(700)]
    (period,) = fed(booker, records)
    assert abs(period.flows["grid.import"].energy_milliwh - 9_000_000) <= 20_000
    assert "IMPLAUSIBLE" in period.flows["grid.import"].flags


def test_a_backward_step_adds_nothing():
    plant = Plant()
    booker = Booker([GRID])
    records = [plant.record(), *plant.run(300), plant.record(**{"grid.import_wh": [900.0, 1]}), *plant.run(700)]
    (period,) = fed(booker, records)
    assert abs(period.flows["grid.import"].energy_milliwh - 9_000_000) <= 20_000
    assert "BACKWARD" in period.flows["grid.import"].flags


@pytest.mark.parametrize("opening", [0.0, 5_000_000.0])
def test_an_exchanged_meter_is_named_and_its_energy_bridged(opening):
    plant = Plant()
    booker = Booker([GRID])
    records = [plant.record(), *plant.run(300)]
    plant.wh = opening
    (period,) = fed(booker, [*records, *plant.run(700)])
    flow = period.flows["grid.import"]
    assert abs(flow.energy_milliwh - 9_000_000) <= 20_000
    assert flow.quality == "substituted"
    assert any(flag.startswith("METER_EXCHANGED") for flag in flow.flags)


def test_swapped_words_never_make_energy():
    plant = Plant()
    booker = Booker([GRID])
    records = [plant.record(), *plant.run(100)]
    for _ in range(900):
        plant.step(36_000)
        raw = int(plant.wh)
        records.append(plant.record(**{"grid.import_wh": [float((raw & 0xFFFF) << 16 | raw >> 16), 1]}))
    (period,) = fed(booker, records)
    flow = period.flows["grid.import"]
    assert abs(flow.energy_milliwh - 9_000_000) <= 30_000
    assert flow.quality == "substituted" and "IMPLAUSIBLE" in flow.flags


def test_a_stuck_register_is_bridged_and_set_off_when_it_moves_again():
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(900)])
    stuck = plant.wh
    periods += fed(booker, plant.run(1000, **{"grid.import_wh": [stuck, 1]}))
    assert periods[1].flows["grid.import"].flags == ["STUCK"]
    assert abs(periods[1].flows["grid.import"].energy_milliwh - 9_000_000) <= 20_000
    periods += fed(booker, plant.run(1700))
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 9_000_000 * len(periods)) <= 40_000


def test_a_silent_register_is_bridged_and_set_off_when_it_speaks_again():
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(800), *plant.run(1000, **{"grid.import_wh": [None, 3]})])
    assert periods[0].flows["grid.import"].quality == "substituted"
    periods += fed(booker, plant.run(1900))
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 9_000_000 * len(periods)) <= 40_000


def test_a_register_that_the_fast_power_contradicts_is_flagged():
    plant = Plant()
    booker = Booker([GRID])
    records = [plant.record()]
    for _ in range(1000):
        plant.step(36_000)
        plant.ws -= 3_600  # the fast power reads 10 % low
        records.append(plant.record())
    (period,) = fed(booker, records)
    assert "DISAGREE" in period.flows["grid.import"].flags
    assert abs(period.flows["grid.import"].energy_milliwh - 9_000_000) <= 2


def test_a_register_that_rolls_over_goes_on():
    flow = Flow("grid.import", "grid", "import", "grid.import_wh", None, None, 100_000.0, rollover_milliwh=1_005_000)
    plant = Plant()
    booker = Booker([flow])
    records = [plant.record()]
    for _ in range(1000):
        plant.step(36_000)
        plant.wh -= 1005.0 if plant.wh >= 1005.0 else 0.0
        records.append(plant.record())
    (period,) = fed(booker, records)
    assert abs(period.flows["grid.import"].energy_milliwh - 9_000_000) <= 2
    assert "ROLLOVER" in period.flows["grid.import"].flags


# ---- clocks ----


@pytest.mark.parametrize("step_s", [3600, -3600, 2, -2])
def test_a_clock_step_is_flagged_and_loses_no_energy(step_s):
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(1000)])
    plant.utc_ns += step_s * 10**9
    periods += fed(booker, plant.run(6000))
    periods.append(booker.finish())
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 70_000_000) <= 2
    assert any(f"CLOCK_STEP {step_s}" in p.flags for p in periods)
    starts = [p.start_utc_s for p in periods]
    assert starts == sorted(set(starts))


def restarted(plant, outage_s):
    """The record after an outage in which the load went on drawing."""
    plant.step(36_000, outage_s)
    plant.boot, plant.seq, plant.t_ns, plant.ws, plant.covered = f"{len(plant.boot)}{plant.boot[1:]}x", 0, 0, 0.0, 0.0
    return plant.record()


def exchanged(periods):
    flags = (flag for period in periods for flag in period.flows["grid.import"].flags)
    return [flag for flag in flags if flag.startswith("METER_EXCHANGED")]


@pytest.mark.parametrize("set_back_s", [0, 30, 241, 3000])
@pytest.mark.parametrize("outage_s", [20, 120, 900])
@pytest.mark.parametrize("runs_s", [1, 60])
def test_an_outage_before_a_clock_that_was_set_back_has_caught_up_loses_no_energy(set_back_s, outage_s, runs_s):
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(300)])
    plant.utc_ns -= set_back_s * 10**9
    periods += fed(booker, plant.run(runs_s))
    periods += fed(booker, [restarted(plant, outage_s), *plant.run(5000)])
    periods.append(booker.finish())
    assert not [
        flag for one in periods for flag in one.flows["grid.import"].flags if flag.startswith("METER_EXCHANGED")
    ]
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - (5300 + runs_s + outage_s) * 10_000) <= 4


@pytest.mark.parametrize(("sync", "shift_s", "flagged"), [("S", -500, True), ("U", -119, True), ("S", 0, False)])
def test_an_outage_whose_length_no_clock_knows_is_named_and_its_energy_kept(sync, shift_s, flagged):
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(300)])
    plant.sync = sync
    plant.utc_ns += shift_s * 10**9
    periods += fed(booker, [restarted(plant, 120), *plant.run(3000)])
    periods.append(booker.finish())
    flags = {flag for one in periods for flag in one.flows["grid.import"].flags}
    assert ("OUTAGE_LENGTH_UNKNOWN" in flags) is flagged
    assert not exchanged(periods)
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 3420 * 10_000) <= 4


def test_another_meter_is_found_after_a_clock_was_set_back_too():
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *plant.run(300)])
    plant.utc_ns -= 60 * 10**9
    periods += fed(booker, plant.run(10))
    plant.wh += 1e6
    periods += fed(booker, plant.run(2000))
    periods.append(booker.finish())
    assert exchanged(periods)
    assert abs(sum(p.flows["grid.import"].energy_milliwh for p in periods) - 2310 * 10_000) <= 40_000


def test_a_forward_step_puts_no_energy_into_the_hour_that_never_was():
    plant = Plant()
    booker = Booker([GRID])
    fed(booker, [plant.record(), *plant.run(1000)])
    plant.utc_ns += 3600 * 10**9
    skipped = fed(booker, plant.run(1))[1:]
    assert len(skipped) == 3
    assert [p.flows["grid.import"].energy_milliwh for p in skipped] == [0, 0, 0]


def test_records_of_a_clock_at_1970_wait_until_the_time_is_proven():
    plant = Plant()
    booker = Booker([GRID])
    shift = plant.utc_ns - 86_400 * 10**9
    plant.utc_ns -= shift
    plant.sync = "U"
    assert fed(booker, [plant.record(), *plant.run(1200)]) == []
    plant.utc_ns += shift
    plant.sync = "S"
    periods = fed(booker, plant.run(700))
    assert [p.start_utc_s for p in periods] == [HOUR, HOUR + 900]
    assert all(abs(p.flows["grid.import"].energy_milliwh - 9_000_000) <= 2 for p in periods)
    assert "PLACED_BY_MONOTONIC_TIME" in periods[0].flags + periods[1].flags


@pytest.mark.parametrize(("zone_quarters", "length_s"), [(92, 23 * 3600), (96, 24 * 3600), (100, 25 * 3600)])
def test_a_local_day_of_any_length_is_whole_quarters(zone_quarters, length_s):
    plant = Plant()
    booker = Booker([GRID])
    periods = fed(booker, [plant.record(), *(r for _ in range(length_s // 60 + 1) for r in _minute(plant))])
    assert len([p for p in periods if HOUR <= p.start_utc_s < HOUR + length_s]) == zone_quarters


def _minute(plant):
    plant.step(36_000, 60)
    yield plant.record()


def test_a_finer_period_gives_the_same_sum():
    a, b = Booker([GRID]), Booker([GRID], 300)
    one = fed(a, Plant().run(3601))
    two = fed(b, Plant().run(3601))
    assert (
        abs(
            sum(p.flows["grid.import"].energy_milliwh for p in one)
            - sum(p.flows["grid.import"].energy_milliwh for p in two)
        )
        <= 1
    )
    assert len(two) == 3 * len(one)


def test_a_period_that_does_not_divide_the_hour_is_refused():
    with pytest.raises(ValueError, match="must divide an hour"):
        Booker([GRID], 700)


# ---- many records at once ----


def rough(seed, count=4000):
    """Records of a bad day: losses, restarts, steps of the clock, wild readings, silences, coarse registers."""
    rng = random.Random(seed)
    plant = Plant(seed=seed, resolution_wh=rng.choice([0.001, 1.0, 10.0]))
    records = [plant.record()]
    trouble = rng.choice([0.0, 0.001, 0.01, 0.1])
    stuck = None
    for _ in range(count):
        plant.step(rng.uniform(0, 60_000), rng.choice([1.0, 1.0, 1.0, 1.002]), rng.uniform(0, 20_000))
        points = {}
        if rng.random() < trouble:
            what = rng.randrange(9)
            if what == 0:
                plant.step(20_000, rng.choice([2, 6, 70, 1000, 9000]))
                plant.seq += rng.randint(0, 3)
            elif what == 1:
                plant.utc_ns += rng.choice([-3600, -2, 2, 3600]) * 10**9
            elif what == 2:
                points["grid.import_wh"] = [rng.choice([None, 0.0, 1e9, float("nan")]), 1]
            elif what == 3:
                plant.boot, plant.seq, plant.ws, plant.ess_ws, plant.covered = (
                    f"{rng.getrandbits(128):032x}",
                    0,
                    0.0,
                    0.0,
                    0.0,
                )
                plant.t_ns = 0
            elif what == 4:
                plant.wh = rng.choice([0.0, 5e6])
            elif what == 5:
                points["site.ess_charged_ws"] = [None, 0]
            elif what == 6:
                plant.sync = rng.choice("SIU")
            elif what == 7:
                stuck = plant.wh if stuck is None else None
            else:
                points["bms1.soc"] = [rng.choice([None, 0.7]), 1]
        if stuck is not None:
            points.setdefault("grid.import_wh", [stuck, 1])
        records.append(plant.record(**points))
    return records


@pytest.mark.parametrize("seed", range(int(os.environ.get("CARBON_ROUGH", "12"))))
def test_many_records_at_once_give_what_they_give_one_by_one(seed):
    records = rough(seed)
    one, many = Booker([GRID, ESS]), Booker([GRID, ESS])
    a, b = fed(one, records), []
    rng, at = random.Random(seed), 0
    while at < len(records):
        size = rng.choice([1, 7, 100, 512, 1000])
        b += book(many, records[at : at + size])
        at += size
    assert a == b
    assert one.state() == many.state()


@pytest.mark.parametrize("bulk", [False, True])
def test_the_state_of_charge_of_several_batteries_is_that_of_their_energy(bulk):
    """100 kWh at 20 % and 300 kWh at 80 % hold 65 %; the first alone would say 20."""
    weights = {"bms1.soc": 100_000.0, "bank.soc": 300_000.0, "spare.soc": 0.0}
    booker = Booker([GRID], soc_weights=weights)
    records = list(Plant().run(1000, **{"bms1.soc": [0.2, 1], "bank.soc": [0.8, 1], "spare.soc": [None, 0]}))
    periods = list(book(booker, records)) if bulk else fed(booker, records)
    assert periods[0].soc_ppm == 650_000


def test_a_battery_that_is_silent_leaves_the_last_state_of_charge_of_all():
    booker = Booker([GRID], soc_weights={"bms1.soc": 1.0, "bms2.soc": 1.0})
    plant = Plant()
    fed(booker, plant.run(300, **{"bms1.soc": [0.2, 1], "bms2.soc": [0.8, 1]}))
    (period, *_) = fed(booker, plant.run(700, **{"bms1.soc": [0.2, 1], "bms2.soc": [None, 3]}))
    assert period.soc_ppm == 500_000
