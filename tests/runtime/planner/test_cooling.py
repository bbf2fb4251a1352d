"""Cooling: the room's model, the day's plan, and the set-point: over simulated rooms, and against pymodbus's server."""

import json
import math
import os
import struct
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from tests.runtime.planner import foreign_process
from tests.runtime.planner.cooled_room import BEGIN, FAULTS, RoomUnit, advise, day_price, lived, owners_file
from tests.runtime.planner.foreign_process import free_port, running
from tests.runtime.planner.simulated_room import SimulatedRoom
from tests.runtime.rtu_peer import Slaves, Wire
from tidegate.runtime.planner.cooling_plan import InletBand, check_band, plan_cooling
from tidegate.runtime.planner.cooling_setpoint import (
    CoolingAllowed,
    CoolingSetpoint,
    advice_line,
    learning,
    only_one,
    setpoint_back,
)
from tidegate.runtime.planner.cooling_unit import CoolingError, ModbusCooling, Reading, read_cooling_file
from tidegate.runtime.planner.expected_cooling import expected_cooling
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.room_thermal import OUTDOOR_MIDDLE_C, Samples, fit_room

SEEDS = int(os.environ.get("TIDEGATE_COOLING_SEEDS", "0"))  # of the long run; about half a minute each


# ---- the model ----


def plain_room(days=8, noise=0.0, seed=0):
    """A room of exactly the law that is fitted: (samples, its numbers)."""
    rng = np.random.default_rng(seed)
    n = days * 96
    inlet = 22 + np.repeat(rng.choice([-1.0, 0.0, 1.0], n // 8), 8)
    inlet = np.convolve(inlet, np.ones(4) / 4, mode="same")
    inlet[:2], inlet[-2:] = 22, 22
    it = 50 + np.repeat(rng.uniform(-20, 20, n // 16), 16)
    outdoor = 12 + 6 * np.sin(np.arange(n) * 2 * np.pi / 96)
    mass = np.full(n, 22.0)
    for k in range(1, n):
        mass[k] = mass[k - 1] + (1 - math.exp(-0.25 / 6)) * ((inlet[k] + inlet[k - 1]) / 2 - mass[k - 1])
    change = np.gradient(inlet, 0.25)
    power = 3 + 0.2 * it + 0.1 * (outdoor - OUTDOOR_MIDDLE_C) - 0.4 * (inlet - 22) + 0.8 * (mass - inlet) - 0.9 * change
    return Samples(inlet + rng.normal(0, noise, n), power * (1 + rng.normal(0, noise, n)), it, outdoor)


def test_a_room_of_the_law_that_is_fitted_is_found_with_its_numbers():
    model = fit_room(plain_room())
    assert model.why_not == "" and model.mass_h == 6.0
    assert model.warmer_kw_per_c == pytest.approx(0.4, abs=0.05)
    assert model.mass_kw_per_c == pytest.approx(0.8, abs=0.1)
    assert model.air_kwh_per_c == pytest.approx(0.9, abs=0.05)
    assert model.power_error < 0.02 and model.inlet_error_c < 0.5 * model.still_error_c


def test_a_room_whose_inlet_never_moves_is_not_planned_with_and_says_so():
    samples = plain_room(noise=0.02)
    still = Samples(np.full(len(samples.it_kw), 22.0) + np.random.default_rng(1).normal(0, 0.02, len(samples.it_kw)),
                    3 + 0.2 * samples.it_kw, samples.it_kw, samples.outdoor_c)  # fmt: skip
    assert "the inlet moved too little" in fit_room(still).why_not


def test_a_cooling_power_that_is_another_one_s_is_not_planned_with():
    samples = plain_room()
    other = np.abs(np.random.default_rng(2).normal(10, 8, len(samples.it_kw)))
    assert fit_room(Samples(samples.inlet_c, other, samples.it_kw, samples.outdoor_c)).why_not


def test_gaps_are_left_out_and_too_few_samples_give_no_model():
    samples = plain_room()
    for series in (samples.inlet_c, samples.cooling_kw, samples.it_kw, samples.outdoor_c):
        series[100:140] = np.nan
    assert fit_room(samples).air_kwh_per_c == pytest.approx(0.9, abs=0.1)
    short = [series[:200] for series in (samples.inlet_c, samples.cooling_kw, samples.it_kw, samples.outdoor_c)]
    assert fit_room(Samples(*short)) is None
    assert fit_room(Samples(*(np.zeros(0) for _ in range(4)))) is None


# ---- the plan ----


def planned(price, band=None, own_c=22.0):
    model = fit_room(plain_room())
    held = model.held_kw(np.full(96, 50.0), np.full(96, 12.0))
    return plan_cooling(model, band or InletBand(20.0, 24.0, 2.0), own_c, (22.0, 22.0), held, price, 0.25)


def test_cold_is_stored_before_the_dear_hours_and_the_band_and_the_rate_hold():
    price = np.where(np.arange(96) // 4 == 12, 2.0, 0.1)
    made = planned(price)
    assert made.power_kw[48:52].mean() < 0.75 * made.power_kw[:40].mean(), "cold was stored, and is used"
    assert made.inlet_c[40] < made.inlet_c[52] - 2
    assert made.inlet_c.min() >= 20 - 1e-6 and made.inlet_c.max() <= 24 + 1e-6
    assert np.abs(np.diff(made.inlet_c)).max() <= 0.5 + 1e-6
    assert made.saves_eur > 0 and made.outside_c < 1e-6
    assert (planned(price).inlet_c == made.inlet_c).all(), "equal inputs, equal plan"


def test_an_inlet_outside_the_band_is_brought_back_as_fast_as_allowed_and_said():
    made = planned(np.full(96, 0.1), InletBand(18.0, 20.0, 2.0))
    assert made.inlet_c[4] == pytest.approx(20.0, abs=1e-6) and made.outside_c == pytest.approx(2.0 - 0.5)


def test_a_price_that_is_no_number_is_no_plan():
    with pytest.raises(PlanError, match="no number"):
        planned(np.full(96, np.nan))


@pytest.mark.parametrize(("kind", "least", "most", "text"), [
    ("A1", 18, 27, ""), ("A2", 16, 30, "ASHRAE recommends"), ("H1", 18, 22, ""), ("H1", 18, 24, "recommends"),
])  # fmt: skip
def test_a_band_beyond_what_is_recommended_is_said(kind, least, most, text):
    assert text in check_band(kind, least, most) and bool(text) == bool(check_band(kind, least, most))


@pytest.mark.parametrize(("kind", "least", "most"), [("A1", 14, 27), ("A1", 18, 33), ("H1", 18, 26), ("B", 18, 27)])
def test_a_band_beyond_what_is_allowable_is_refused(kind, least, most):
    with pytest.raises(PlanError):
        check_band(kind, least, most)


# ---- the set-point, in virtual time ----


class Hall:
    """One room, rounds by hand, and a room that is known already."""

    def __init__(self, folder, *, fault="none", known=True, **changed):
        self.folder, self.room = folder, SimulatedRoom(3)
        self.unit = RoomUnit(self.room, fault, 1e9)
        self.file = owners_file(self.room, **changed)
        self.now = BEGIN
        self.start(known)

    def start(self, known=True, **allowed):
        model = fit_room(plain_room()) if known else None
        self.adapter = CoolingSetpoint(self.unit, self.file, self.folder, CoolingAllowed(**allowed),
                                       fit=lambda samples: model)  # fmt: skip
        if known:
            for k in range(1, 97):
                self.adapter._rows[BEGIN - 900 * k] = (22.0, 12.0, 50.0, 12.0)

    def pass_time(self, hours, price=None, *, plan=True, **round_):
        for _ in range(round(hours * 12)):
            if plan:
                advise(self.folder, self.now, day_price(3) if price is None else price)
            self.room.step(300)
            self.adapter.round(self.now, **round_)
            self.now += 300

    def audit(self):
        path = self.folder / "cooling-audit-crac1.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


DEAR_LATER = np.where(np.arange(96) < 48, 0.05, 0.6)  # cold is worth storing for half a day


@pytest.fixture
def hall(tmp_path):
    one = Hall(tmp_path)
    one.pass_time(6, DEAR_LATER)
    assert one.room.setpoint_c < one.room.own_c - 0.9, one.adapter.advice
    return one


def test_the_set_point_goes_where_the_plan_has_it_by_steps_and_all_is_audited(hall):
    claim = json.loads((hall.folder / "cooling-claim-crac1.json").read_text())
    assert claim["before_c"] == hall.room.own_c and claim["set_c"] == hall.room.setpoint_c
    moves = np.diff([hall.room.own_c, *(setpoint for _, setpoint in hall.unit.writes)])
    assert np.abs(moves).max() <= 0.5 + 1e-9
    rows = [row for row in hall.audit() if row["became"] == "asked"]
    assert [row["setpoint_c"] for row in rows] == [setpoint for _, setpoint in hall.unit.writes]
    advice = json.loads((hall.folder / "cooling-advice-crac1.json").read_text())
    assert advice["saves_eur"] > 0 and "misses an hour's cooling power by" in advice["line"]


def test_what_the_room_s_plan_moves_is_told_to_the_battery_s_plan_while_it_may_be_written(hall):
    """More is drawn while a kWh is cheap, less after; nothing is told of what is not in force, or is old."""
    moves, odd = expected_cooling(hall.folder, hall.now)
    assert odd == [] and len(moves) >= 24 and all(at % 900 == 0 for at in moves)
    began = hall.now // 900 * 900
    later = [kw for at, kw in moves.items() if (at - BEGIN) % 86_400 >= 43_200]
    sooner = [kw for at, kw in moves.items() if began <= at and (at - BEGIN) % 86_400 < 43_200]
    assert np.mean(sooner) > 0.1 and np.mean(later[:8]) < -0.1
    assert expected_cooling(hall.folder, hall.now + 1200) == ({}, [])
    (hall.folder / "planner.json").unlink()
    hall.pass_time(1 / 12, plan=False)
    assert expected_cooling(hall.folder, hall.now) == ({}, []), "the owner's own set-point is back: nothing moves"


def test_rooms_of_one_folder_have_files_of_their_own_and_the_battery_s_plan_counts_all(hall):
    """The second room's claim, memory and orders are its own; what both move comes together."""
    one = json.loads((hall.folder / "cooling-claim-crac1.json").read_text())
    other = Hall(hall.folder, name="crac2")
    other.now = hall.now - 6 * 3600
    other.room.own_c = other.room.setpoint_c = hall.room.own_c - 0.5
    alone, _ = expected_cooling(hall.folder, hall.now)
    other.pass_time(6, DEAR_LATER)
    assert json.loads((hall.folder / "cooling-claim-crac1.json").read_text()) == one
    assert json.loads((hall.folder / "cooling-claim-crac2.json").read_text())["before_c"] == other.room.own_c
    both, odd = expected_cooling(hall.folder, hall.now)
    second = json.loads((hall.folder / "cooling-advice-crac2.json").read_text())["moved_kw"]
    moves = {second["begin_utc_s"] + 900 * k: kw for k, kw in enumerate(second["kw"])}
    assert odd == [] and both == pytest.approx({at: alone.get(at, 0) + moves.get(at, 0) for at in {*alone, *moves}})
    held = [only_one(hall.folder, name) for name in ("crac1", "crac2")]
    with pytest.raises(CoolingError, match="an adapter of the unit crac1 runs already"):
        only_one(hall.folder, "crac1")
    for lock in held:
        lock.close()
    only_one(hall.folder, "crac1").close()


@pytest.mark.parametrize(
    "kept",
    ["{", "[]", '{"utc_s": 1, "moved_kw": {"begin_utc_s": 0, "step_s": 900, "kw": [1e9]}}'],
    ids=["cut", "a list", "too much"],
)
def test_a_spoiled_advice_is_doubted_and_left_out(tmp_path, kept):
    (tmp_path / "cooling-advice-crac1.json").write_text(kept)
    moves, (odd,) = expected_cooling(tmp_path, 1.0)
    assert moves == {} and "leaves this unit's moves out" in odd


@pytest.mark.parametrize("gone", ["no status", "old", "spoiled", "let go", "no number", "silent", "scaled 0.1"])
def test_the_owner_s_own_comes_back_at_once_without_a_plan_or_a_reading(hall, gone):
    if gone == "no status":
        (hall.folder / "planner.json").unlink()
    elif gone == "spoiled":
        (hall.folder / "planner.json").write_text("{")
    elif gone in FAULTS:
        hall.unit.fault, hall.unit.since_h = gone, 0
    hall.now += 5000 if gone == "old" else 0
    hall.pass_time(1 / 12, plan=False, let_go=gone == "let go")
    assert hall.room.setpoint_c == hall.room.own_c and hall.adapter.claim is None
    assert json.loads((hall.folder / "cooling-claim-crac1.json").read_text()) == {}


def test_an_inlet_that_stands_still_while_the_set_point_moves_is_not_believed(tmp_path):
    hall = Hall(tmp_path)
    hall.pass_time(0.2, DEAR_LATER)
    hall.unit.fault, hall.unit.since_h = "frozen", 0
    hall.pass_time(5, DEAR_LATER)
    assert hall.room.setpoint_c == hall.room.own_c
    assert any("[[inlet]] 1" in text for text in hall.adapter.doubts) or "[[inlet]] 1" in hall.adapter.advice.text
    lowest = min(setpoint for _, setpoint in hall.unit.writes)
    assert lowest >= hall.room.own_c - 3.0, "it is noticed within an hour"


def test_a_set_point_that_somebody_else_changed_is_theirs(hall):
    hall.room.setpoint_c = 19.3
    hall.pass_time(1, DEAR_LATER)
    assert hall.room.setpoint_c == 19.3 and hall.adapter.claim is None
    assert [row for row in hall.audit() if row["became"] == "changed by somebody else"]
    assert "somebody else" in hall.adapter.advice.text
    hall.pass_time(0.1, let_go=True)
    assert hall.room.setpoint_c == 19.3


def test_a_write_that_never_came_leaves_the_owner_s_own_known(hall):
    ours = hall.room.setpoint_c
    hall.unit.deaf = True
    hall.pass_time(3, DEAR_LATER[::-1])
    assert hall.room.setpoint_c == ours and hall.adapter.claim.before_c == hall.room.own_c
    assert hall.adapter.doubts
    hall.unit.deaf = False
    hall.start()
    hall.pass_time(1 / 12, plan=False, let_go=True)
    assert hall.room.setpoint_c == hall.room.own_c


def test_a_dry_run_writes_down_and_orders_nothing(tmp_path):
    hall = Hall(tmp_path)
    hall.start(dry_run=True)
    hall.pass_time(3, DEAR_LATER)
    assert hall.unit.writes == [] and {row["became"] for row in hall.audit()} == {"dry run"}
    assert expected_cooling(tmp_path, hall.now) == ({}, [])


def test_a_dry_run_after_a_real_one_leaves_what_stands_and_names_it(hall):
    ours, claim, count = hall.room.setpoint_c, hall.adapter.claim, len(hall.unit.writes)
    hall.start(dry_run=True)
    (hall.folder / "planner.json").unlink()
    hall.pass_time(0.2, plan=False)
    hall.pass_time(1 / 12, plan=False, let_go=True)
    assert len(hall.unit.writes) == count and hall.room.setpoint_c == ours and hall.adapter.claim == claim
    assert any("a dry run does not put" in text for text in hall.adapter.doubts)
    assert setpoint_back(hall.folder, hall.folder / "nothing.toml", dry_run=True) == ""


def test_without_a_band_of_set_points_it_only_advises(tmp_path):
    hall = Hall(tmp_path, setpoint_band=None)
    hall.pass_time(2, DEAR_LATER)
    assert hall.unit.writes == [] and hall.audit() == []
    assert hall.adapter.advice.setpoint_c < hall.room.own_c
    assert expected_cooling(tmp_path, hall.now) == ({}, [])


def test_no_more_is_written_in_a_day_than_the_file_allows_and_the_way_back_is_free(tmp_path):
    hall = Hall(tmp_path, writes_per_day_max=2)
    hall.pass_time(6, DEAR_LATER)
    assert len(hall.unit.writes) == 3 and hall.unit.writes[-1][1] == hall.room.own_c


def test_a_band_that_leaves_out_the_owner_s_own_is_left_alone(tmp_path):
    hall = Hall(tmp_path, band=InletBand(25.0, 27.0, 2.0))
    hall.pass_time(2, DEAR_LATER)
    assert hall.unit.writes == [] and "outside" in hall.adapter.advice.text


def test_an_unknown_room_is_learned_by_cooler_hours_only_where_that_is_allowed(tmp_path):
    hall = Hall(tmp_path, known=False)
    hall.pass_time(2)
    assert hall.unit.writes == []
    hall.start(known=False, learn=True)
    hall.now = BEGIN + 86_400
    assert learning(hall.now)
    hall.pass_time(0.2)
    assert hall.room.setpoint_c == hall.room.own_c - 1.0
    while learning(hall.now):
        hall.pass_time(0.2)
    hall.pass_time(0.2)
    assert hall.room.setpoint_c == hall.room.own_c


def test_a_spoiled_memory_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "cooling-claim-crac1.json").write_text("{")
    with pytest.raises(CoolingError, match="set it by hand"):
        Hall(tmp_path)
    (tmp_path / "cooling-claim-crac1.json").unlink()
    (tmp_path / "cooling-history-crac1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CoolingError, match="learned again"):
        Hall(tmp_path)


def judged(tmp_path, seeds, days, faults):
    """Each seed with its fault; gives (seed, fault, C above the band beside the twin, saved) and the worst in words."""
    rows = []
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        fault = faults[seed % len(faults)]
        adapter, room, _, above, coldest, saved = lived(folder, seed, days, fault)
        adapter.round(BEGIN + round(days * 86_400), let_go=True)
        rows.append((seed, fault, above, saved, coldest, room.setpoint_c == room.own_c))
        print(f"seed {seed}, {fault}: {above:.2f} C above, coldest {coldest:.1f} C, saved {saved:.1%}, "
              f"{len(adapter.unit.writes)} writes", flush=True)  # fmt: skip
    worst = max(rows, key=lambda row: row[2])
    return rows, f"worst: seed {worst[0]} ({worst[1]}), {worst[2]:.2f} C above the band"


def test_rooms_of_three_nodes_stay_in_their_band_whatever_their_telemetry_does(tmp_path):
    rows, worst = judged(tmp_path, range(1, 2), 3.0, ("frozen", "all low"))
    assert max(row[2] for row in rows) <= 0.0, worst
    assert all(row[5] for row in rows), "the owner's own set-point at the end"
    assert min(row[4] for row in rows) >= 18.0


@pytest.mark.skipif(not SEEDS, reason="the long run: TIDEGATE_COOLING_SEEDS=100")
@pytest.mark.timeout(0)
def test_a_population_of_rooms_stays_in_its_band(tmp_path):
    rows, worst = judged(tmp_path, range(SEEDS), 5.0, FAULTS)
    honest = [row[3] for row in rows if row[1] == "none"]
    print(f"{worst}; saved where telemetry is honest: {np.mean(honest):.1%} of the cooling's cost in the mean, "
          f"{min(honest):.1%} at least; coldest {min(row[4] for row in rows):.1f} C")  # fmt: skip
    assert max(row[2] for row in rows) <= 0.0, worst
    assert all(row[5] for row in rows)
    assert np.mean(honest) > 0


# ---- the file ----

FILE = """[unit]
name = "crac1"
host = "127.0.0.1"
port = {port}
class = "A2"
inlet_min_c = 18
inlet_max_c = 27
setpoint_min_c = 16
setpoint_max_c = 26
[setpoint]
register = 10
scale = 0.1
[[inlet]]
register = 20
kind = "input"
scale = 0.1
offset_c = 1.0
[cooling]
register = 22
kind = "input"
type = "float32"
[it]
register = 24
kind = "input"
type = "float32"
words = "little"
[outdoor]
register = 26
kind = "input"
scale = 0.1
"""


@pytest.mark.parametrize(("old", "new", "text"), [
    ("[unit]", "[unix]", r"no \[unit\]"), ('class = "A2"', 'class = "Z"', "write one of A1"),
    ("inlet_max_c = 27", "inlet_max_c = 40", "A2 allows 10 to 35"), ("inlet_min_c = 18\n", "", "inlet_min_c = None"),
    ("setpoint_min_c = 16\n", "", "or neither"), ("offset_c = 1.0\n", "", "measured there by hand"),
    ("register = 10", "register = 70000", "whole number"), ('type = "float32"', 'type = "bcd"', "write int16"),
    ("scale = 0.1\n[[inlet]]", "scale = 0\n[[inlet]]", "write a number"), ("[it]", "[its]", "is no table"),
    ("[outdoor]\n", "[outdoor]\nspeed = 1\n", "speed is no key"), ('name = "crac1"', "pump = 1", "pump is no key"),
    ('host = "127.0.0.1"\n', "", "no host and no serial"),
    ('host = "127.0.0.1"\n', 'host = "127.0.0.1"\nserial = "/dev/ttyUSB0"\n', "one of both"),
    ("scale = 0.1\n[[inlet]]", "scale = 1\n[[inlet]]", "is less than the 1 C"),
    ("register = 10\n", 'register = 10\nkind = "input"\n', "cannot be written"), ("[unit]", "[unit", "crac.toml"),
    ('name = "crac1"', 'name = "../crac"', "its files have that name"),
])  # fmt: skip
def test_a_file_of_a_unit_that_is_wrong_is_refused(tmp_path, old, new, text):
    path = tmp_path / "crac.toml"
    assert old in FILE
    path.write_text(FILE.format(port=502).replace(old, new, 1))
    with pytest.raises(CoolingError, match=text):
        read_cooling_file(path)


def test_a_file_without_a_band_of_set_points_allows_no_write(tmp_path):
    path = tmp_path / "crac.toml"
    path.write_text(FILE.format(port=502).replace("setpoint_min_c = 16\nsetpoint_max_c = 26\n", ""))
    assert read_cooling_file(path).setpoint_band is None


# ---- a foreign slave ----

SLAVE = """
import asyncio, struct, sys
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

def words(value, little=False):
    both = list(struct.unpack(">HH", struct.pack(">f", value)))
    return both[::-1] if little else both

async def main():
    holding = [SimData(10, values=[215], datatype=DataType.REGISTERS)]
    inputs = [SimData(20, values=[225, 0, *words(12.5), *words(48.25, True), 65486], datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    device = SimDevice(1, simdata=(bits, bits, holding, inputs))
    server = ModbusTcpServer(device, address=("127.0.0.1", int(sys.argv[1])))
    await server.serve_forever()

asyncio.run(main())
"""


until = partial(foreign_process.until, despite=(CoolingError,))


@pytest.fixture
def slave(tmp_path):
    port = free_port()
    (tmp_path / "crac.toml").write_text(FILE.format(port=port))
    (tmp_path / "slave.py").write_text(SLAVE)
    with running(sys.executable, str(tmp_path / "slave.py"), str(port), cwd=tmp_path):
        unit = ModbusCooling(read_cooling_file(tmp_path / "crac.toml"))
        until(lambda: unit.setpoint() > 0, f"the slave did not start: {(tmp_path / 'out').read_text()}")
        yield unit


def test_a_foreign_slave_is_read_in_each_type_and_its_set_point_written_and_read_back(tmp_path, slave):
    assert slave.read() == Reading(21.5, (22.5,), 12.5, 48.25, -5.0)
    slave.write(20.5)
    assert slave.setpoint() == pytest.approx(20.5)
    missing = FILE.format(port=slave.file.setpoint.port).replace("register = 20", "register = 200")
    (tmp_path / "other.toml").write_text(missing)
    with pytest.raises(CoolingError, match="input register 200"):
        ModbusCooling(read_cooling_file(tmp_path / "other.toml")).read()
    (tmp_path / "nobody.toml").write_text(FILE.format(port=free_port()))
    with pytest.raises(CoolingError, match="no connection"):
        ModbusCooling(read_cooling_file(tmp_path / "nobody.toml")).write(20.0)


def words_of(value):
    return list(struct.unpack(">HH", struct.pack(">f", value)))


def test_a_unit_on_a_serial_line_is_read_and_written_as_by_tcp(tmp_path):
    wire = Wire(units={4})
    holding = {10: 215}
    inputs = {20: 225, 21: 0, 26: 65486}
    for at, (first, second) in ((22, words_of(12.5)), (24, words_of(48.25)[::-1])):
        inputs |= {at: first, at + 1: second}
    slaves = Slaves(wire.server, {4: {3: holding, 4: inputs}}, baud=19200)
    line = f'serial = "{wire.client}"\nbaud = 19200\nparity = "N"\nunit = 4\n'
    path = tmp_path / "crac.toml"
    path.write_text(FILE.format(port=0).replace('host = "127.0.0.1"\nport = 0\n', line))
    try:
        unit = ModbusCooling(read_cooling_file(path))
        assert unit.read() == Reading(21.5, (22.5,), 12.5, 48.25, -5.0)
        unit.write(20.5)
        assert unit.setpoint() == pytest.approx(20.5)
        (tmp_path / "cooling-claim-crac1.json").write_text(json.dumps({"before_c": 21.5, "set_c": 20.5, "was_c": 21.5}))
        assert setpoint_back(tmp_path, path) == "" and unit.setpoint() == pytest.approx(21.5)
        missing = path.read_text().replace("register = 10", "register = 400")
        path.write_text(missing)
        with pytest.raises(CoolingError, match=f"{wire.client} unit 4 holding register 400"):
            ModbusCooling(read_cooling_file(path)).setpoint()
    finally:
        slaves.close()
        wire.close()


def test_the_command_moves_it_and_after_a_kill_the_guard_puts_the_owner_s_own_back(tmp_path, slave):
    now = int(time.time())
    first = now // 900 * 900
    told = {"planned_utc_s": now, "start_utc_s": first, "step_s": 900, "meter_eur_per_kwh": [0.1] * 48 + [0.5] * 48}
    told |= {"utc_s": now, "state": "planned", "text": "", "doubts": [], "forecast_errors": []}
    (tmp_path / "planner.json").write_text(json.dumps(told))
    here, unit = str(tmp_path), str(tmp_path / "crac.toml")
    words = ["planner", "cooling", "--endpoint", f"ipc://{here}/none", "--timeout", "0.2", "--folder", here]
    words += ["--unit", unit, "--every", "1"]
    status = [sys.executable, "-m", "tidegate.runtime.cli", "planner", "status", "--folder", here]
    samples = plain_room()
    rows = ["begin_utc_s,inlet_c,cooling_kw,it_kw,outdoor_c"]
    table = zip(samples.inlet_c, samples.cooling_kw, samples.it_kw, samples.outdoor_c, strict=True)
    begin = first - 900 * len(samples.inlet_c)
    rows += [f"{begin + 900 * k}," + ",".join(f"{one:.4f}" for one in row) for k, row in enumerate(table)]
    (tmp_path / "cooling-history-crac1.csv").write_text("\n".join(rows) + "\n")
    with running(sys.executable, "-m", "tidegate.runtime.cli", *words, cwd=tmp_path) as adapter:
        until(lambda: slave.setpoint() != pytest.approx(21.5), (tmp_path / "out").read_text())
        until(lambda: (tmp_path / "doubts-cooling-crac1.json").exists(), "the command does not speak")
        shown = subprocess.run(status, capture_output=True, text=True, check=True).stdout
        assert "crac1: set-point 21 C advised, 21.5 C its owner's" in shown
        adapter.kill()
        until(lambda: slave.setpoint() == pytest.approx(21.5), "the guard does not put it back")
        until(
            lambda: json.loads((tmp_path / "cooling-claim-crac1.json").read_text()) == {},
            "the guard does not look after it",
        )
    assert setpoint_back(tmp_path, tmp_path / "crac.toml") == ""


def test_the_guard_leaves_what_somebody_set_meanwhile(tmp_path, slave):
    (tmp_path / "cooling-claim-crac1.json").write_text(json.dumps({"before_c": 21.5, "set_c": 20.0, "was_c": 20.5}))
    slave.write(23.0)
    assert setpoint_back(tmp_path, tmp_path / "crac.toml") == "" and slave.setpoint() == pytest.approx(23.0)
    (tmp_path / "cooling-claim-crac1.json").write_text(json.dumps({"before_c": 21.5, "set_c": 20.0, "was_c": 23.0}))
    assert setpoint_back(tmp_path, tmp_path / "crac.toml") == "", "the write of before, whose next one never came"
    assert slave.setpoint() == pytest.approx(21.5)


def test_the_sentence_names_what_is_advised_and_how_wrong_the_model_may_be(hall):
    line = advice_line("crac1", hall.adapter.advice)
    assert line.startswith("crac1: set-point ") and "nine of ten hours" in line
